"""Faces of any size in photos of any size: on drawn faces with a toy detector, and with the published networks."""

import os
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from recorded import arrays, fill_module, picture
from unfade.errors import BadCheckpoint, BadInput, UnknownModel
from unfade.faces.align import TEMPLATE
from unfade.faces.detect import DetectSettings, find_faces, is_plausible
from unfade.faces.detectors import Face, load_detector
from unfade.images.files import from_bytes, read_image, to_bytes
from unfade.images.photo import Photo
from unfade.nets import retinaface
from unfade.nets.retinaface import MOBILENET025, RESNET50, RetinaFace, RetinaFaceConfig, RetinaFaceSettings
from unfade.store.checkpoints import save_weights
from unfade.zoo.models import MODELS, path_of

SHARED = Path(os.environ.get("UNFADE_SHARED", Path(__file__).parents[2] / "shared"))
YUNET = path_of(MODELS["yunet"])
RETINAFACE = SHARED / "weights" / "retinaface_mobilenet0.25.pth"
needs_shared = pytest.mark.skipif(not RETINAFACE.exists(), reason="needs the shared folder beside the repository")
SHAPE = (TEMPLATE - 120) / 272  # the landmarks in a box from (0, 0) to (1, 1)


def face_in(left, top, width: int, score: float = 0.9, shape=SHAPE):
    return Face((left, top, left + width, top + width), np.array([left, top]) + shape * width, score)


def red_squares(photo: Photo):
    """A toy detector: bright red squares of 12 to 300 px are faces."""
    red = ((photo[0] > 0.2) & (photo[1] < -0.2)).numpy().astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(red)
    boxes = [row[:3].tolist() for row in stats[1:] if 12 <= row[2] <= 300]
    return [face_in(x - 0.5, y - 0.5, width) for x, y, width in boxes]  # from the edge of the first pixel


def photo_with(squares, height: int = 1000, width: int = 1500):
    pixels = np.full((height, width, 3), 90, np.uint8)
    for left, top, side in squares:
        pixels[max(top, 0) : top + side, max(left, 0) : left + side] = (255, 0, 0)
    return Photo(pixels)


def boxes(faces):
    return [face.box for face in faces]


def test_small_and_large_faces_are_found_from_left_to_right() -> None:
    squares = [(900, 50, 500), (40, 600, 20), (40, 300, 20), (200, 200, 100), (700, 700, 40)]
    faces = find_faces(photo_with(squares), red_squares)
    assert [face.width for face in faces] == pytest.approx([20, 20, 100, 40, 500], rel=0.02)
    assert [round(face.box[0]) for face in faces] == [40, 40, 200, 700, 900]
    assert faces[0].box[1] < faces[1].box[1]
    for face in faces:
        left, top, width = face.box[0], face.box[1], face.width
        np.testing.assert_allclose(face.points, np.array([left, top]) + SHAPE * width, atol=0.01 * width)


def test_positions_are_exact_in_every_version() -> None:
    for side in (30, 120, 800):
        (face,) = find_faces(photo_with([(300, 100, side)], 1200, 1200), red_squares)
        expected = 299.5, 99.5, 299.5 + side, 99.5 + side
        np.testing.assert_allclose(face.box, expected, atol=max(0.01, side / 100))


def test_smaller_faces_are_sought_in_tiles_when_asked_for() -> None:
    squares = [(x, y, 20) for x in (10, 1190, 1280, 2400, 3960) for y in (0, 1200, 1960)]
    photo = photo_with([*squares, (1500, 300, 850)], 2000, 4000)
    assert [face.width for face in find_faces(photo, red_squares)] == pytest.approx([850], rel=0.03)
    faces = find_faces(photo, red_squares, DetectSettings(min_face=18))
    small = [face for face in faces if face.width < 100]
    assert len(faces) == len(squares) + 1
    for face, (x, y, _) in zip(small, sorted(squares), strict=True):
        np.testing.assert_allclose(face.box[:2], (x - 0.5, y - 0.5), atol=1)


def test_a_small_photo_is_enlarged_for_tiny_faces() -> None:
    photo = photo_with([(50, 60, 8)], 120, 160)
    assert find_faces(photo, red_squares) == []
    (face,) = find_faces(photo, red_squares, DetectSettings(min_face=7))
    np.testing.assert_allclose(face.box, (49.5, 59.5, 57.5, 67.5), atol=1)


def test_tiles_are_bounded_and_cover_the_photo() -> None:
    seen = []

    def watch(photo: Photo):
        seen.append(tuple(photo.shape))
        return []

    find_faces(photo_with([], 3000, 5000), watch, DetectSettings(min_face=20))
    assert max(max(shape) for shape in seen) <= 1600
    assert sum(h * w for _, h, w in seen) > 3000 * 5000


def test_faces_that_are_too_small_or_too_large_are_left_out() -> None:
    photo = photo_with([(100, 100, 30), (300, 100, 100), (600, 100, 300)])
    for settings, widths in (
        (DetectSettings(min_face=50), [100, 300]),
        (DetectSettings(max_face=200), [30, 100]),
        (DetectSettings(min_face=50, max_face=200), [100]),
    ):
        assert [face.width for face in find_faces(photo, red_squares, settings)] == pytest.approx(widths, rel=0.02)


def test_improbable_doubled_and_partial_faces_are_left_out() -> None:
    whole = face_in(
        20, 20, 100, 0.85
    )  # no face is sure: closer looks, which this detector has no answer to, decide nothing
    found = [
        whole,
        face_in(22, 21, 101, 0.7),  # again
        face_in(40, 40, 30, 0.7),  # a part
        face_in(60, 60, 30, 0.88),  # more probable than the whole: somebody's own face
        face_in(150, 20, 40, 0.5),  # improbable
    ]
    photo = Photo(np.zeros((200, 200, 3), np.uint8))
    photo.levels[0, 0] = 255

    def upright(pixels):
        return found if pixels.shape[1:] == (200, 200) and pixels[0, 0, 0] > 0 else []

    kept = find_faces(photo, upright)
    assert [round(face.score, 2) for face in kept] == [0.85, 0.88]
    assert len(find_faces(photo, upright, DetectSettings(min_score=0.4))) == 3
    assert len(find_faces(photo, upright, DetectSettings(overlap=0.99))) == 3


def test_what_landmarks_can_be() -> None:
    assert is_plausible(face_in(0, 0, 50))
    turned = face_in(0, 0, 50, shape=SHAPE[:, ::-1] * (1, -1) + (0, 1))
    assert is_plausible(turned)
    together = SHAPE.copy()
    together[:] = 0.5
    nan = SHAPE * np.nan
    for shape in (together, SHAPE + 3, 0.01 * SHAPE + 0.5, nan):
        assert not is_plausible(face_in(0, 0, 50, shape=shape))
    assert not is_plausible(face_in(0, 0, 0))
    photo = Photo(np.zeros((100, 100, 3), np.uint8))
    assert find_faces(photo, lambda _: [face_in(10, 10, 50, shape=together), face_in(10, 10, 0)]) == []


@pytest.mark.parametrize(
    "wrong", [{"min_score": 0.1}, {"min_score": 1.2}, {"min_face": -1}, {"min_face": 9, "max_face": 5}]
)
def test_settings_that_cannot_be(wrong: dict[str, float] | dict[str, int]) -> None:
    with pytest.raises(BadInput):
        DetectSettings(**wrong)


def test_a_model_that_is_not_there_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    monkeypatch.delenv("UNFADE_OFFLINE", raising=False)
    for name in ("retinaface-mobilenet", "retinaface-resnet50"):
        with pytest.raises(UnknownModel, match=f"unfade models pull {name}"):
            load_detector(name)
    with pytest.raises(UnknownModel, match=r"no detector named small-prior.* yunet"):
        load_detector("small-prior")


@pytest.mark.parametrize("ending", ["onnx", "pth", "safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"broken.{ending}").write_bytes(b"\x08\x01nonsense" * 20)
    with pytest.raises(BadCheckpoint, match=f"broken.{ending}"):
        load_detector(tmp_path / f"broken.{ending}")


def test_files_of_other_networks_are_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(BadCheckpoint, match="published RetinaFaces"):
        load_detector(tmp_path / "other.pth")
    save_weights(tmp_path / "a.safetensors", torch.nn.Linear(2, 2), architecture="unet", config={}, dtype=torch.float32)
    with pytest.raises(BadCheckpoint, match=r"holds a prior \(unet\), not a detector"):
        load_detector(tmp_path / "a.safetensors")
    save_weights(
        tmp_path / "b.safetensors",
        RetinaFace(TINY),
        architecture="retinaface-resnet50",
        config={"a": 1},
        dtype=torch.float32,
    )
    with pytest.raises(BadCheckpoint, match="cannot be built"):
        load_detector(tmp_path / "b.safetensors")


TINY = RetinaFaceConfig(backbone="mobilenet", width=2, features=8)


@pytest.mark.parametrize("config", [TINY, MOBILENET025, RESNET50], ids=["tiny", "mobilenet", "resnet50"])
def test_retinaface_from_a_file(tmp_path: Path, config) -> None:
    net = fill_module(RetinaFace(config)).eval()
    if config is TINY:
        path = tmp_path / "own.safetensors"
        save_weights(path, net, architecture="retinaface-resnet50", config=asdict(config), dtype=torch.float32)
    else:
        path = tmp_path / "published.pth"
        torch.save({f"module.{key}": value for key, value in net.state_dict().items()}, path)
    photo = picture(64, 96, 3)[0]
    (expected,) = retinaface.detect(net, photo[None], settings=RetinaFaceSettings(min_score=0.3))
    faces = load_detector(path)(photo)
    assert len(faces) == len(expected.boxes) > 0
    for k, face in enumerate(faces):
        np.testing.assert_allclose(face.box, expected.boxes[k], atol=1e-3)
        np.testing.assert_allclose(face.points, expected.points[k], atol=1e-3)
        assert face.score == pytest.approx(float(expected.scores[k]))


def golden_of(name: str, number: int):
    golden = {key.removeprefix(f"{number}."): value for key, value in arrays(name).items()}
    with Image.open(SHARED / "photos" / "whole" / str(golden["pictures"][number])) as image:
        numbers = np.asarray(image.convert("RGB"))  # the file's own, whatever its colour profile: as recorded
    return from_bytes(numbers), golden


@pytest.mark.shared
@needs_shared
@pytest.mark.parametrize("number", range(3))
def test_yunet_finds_the_recorded_faces(number: int) -> None:
    photo, golden = golden_of("yunet_2023mar", number)
    faces = [face for face in load_detector(YUNET)(photo) if face.score >= 0.6]
    rows = np.array([[*face.box[:2], face.width, face.height, *face.points.ravel(), face.score] for face in faces])
    np.testing.assert_allclose(rows[:, :14], golden["faces"][:, :14], atol=2e-2)
    np.testing.assert_allclose(rows[:, 14], golden["faces"][:, 14], atol=1e-4)
    found = find_faces(Photo(to_bytes(photo)), load_detector(YUNET))
    for row in golden["faces"][golden["faces"][:, 2] >= 16]:
        nearest = min(found, key=lambda face: abs(face.box[0] - row[0]))
        np.testing.assert_allclose(nearest.points.ravel(), row[4:14], atol=0.1 * row[2])


@pytest.mark.shared
@needs_shared
def test_retinaface_finds_the_recorded_faces() -> None:
    photo, golden = golden_of("retinaface_mobilenet025", 2)
    faces = [face for face in load_detector(RETINAFACE)(photo) if face.score > 0.6]
    rows = np.array([[*face.box, face.score, *face.points.ravel()] for face in faces])
    np.testing.assert_allclose(rows, golden["dets_0.6"], atol=2e-2)


@pytest.mark.shared
@needs_shared
def test_yunet_is_silent_and_may_be_shared_by_threads(capfd: pytest.CaptureFixture[str]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    photos = [golden_of("yunet_2023mar", k)[0] for k in range(3)]
    detector = load_detector(YUNET)
    alone = [boxes(detector(photo)) for photo in photos]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda k: boxes(detector(photos[k % 3])), range(12)))
    assert together == alone * 4
    out, err = capfd.readouterr()
    assert not out
    assert not err


@pytest.mark.shared
@needs_shared
@pytest.mark.parametrize("width", [16, 24, 100, 500])
def test_faces_from_16_px_on_are_found(width: int) -> None:
    detector, pictures = load_detector(YUNET), sorted((SHARED / "faces" / "val" / "omi").iterdir())[:12]
    photo = Photo(np.full((1000, 1500, 3), 110, np.uint8))
    faces = [read_image(path) for path in pictures]
    side = round(width * 1.8)
    places = [(20 + 230 * (k % 6), 20 + 480 * (k // 6)) for k in range(12)] if width < 200 else [(100, 0)]
    side = min(side, 1000)
    for (x, y), face in zip(places, faces, strict=False):
        kernel = cv2.INTER_AREA if side < face.shape[-1] else cv2.INTER_CUBIC
        photo.levels[y : y + side, x : x + side] = cv2.resize(to_bytes(face), (side, side), interpolation=kernel)
    found = find_faces(photo, detector, DetectSettings(min_face=0.8 * width))
    hits = [any(x < f.points[2, 0] < x + side and y < f.points[2, 1] < y + side for f in found) for x, y in places]
    assert sum(hits) >= 0.9 * len(places)
    assert len(found) <= len(places)
