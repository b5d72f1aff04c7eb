"""Whether a result is still the same person: the framing each embedder wants, and who is told when it is not."""

import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import unfade.recipes.adapt
import unfade.recipes.restore
import unfade.recipes.sources
from adapt_settings import small
from command import Run
from marked import Place, save, scene, squares
from recorded import fill_module, picture
from tiny_models import write_faces
from unfade.errors import BadCheckpoint, BadInput, UnknownModel
from unfade.evaluation.evaluate import load_sface_angle
from unfade.faces.align import TEMPLATE
from unfade.faces.identity import (
    DLIB_LIMIT,
    SEEN,
    SEEN_TEMPLATE,
    UNIT_LIMIT,
    Likeness,
    identity_distance,
    likeness,
    load_embedder,
    load_judge,
    seen_by_sface,
    to_sface,
)
from unfade.images.files import read_image
from unfade.images.finding import list_images
from unfade.nets.arcface import ArcFace, ArcFaceConfig, grey
from unfade.recipes.adapt import adapt
from unfade.recipes.adapt_settings import SAMPLES
from unfade.recipes.restore import RestoreSettings, restore
from unfade.recipes.sources import FindSettings, likeness_for
from unfade.stages.restore_photos import Parts, PhotoSettings
from unfade.store.checkpoints import save_weights
from unfade.zoo.load import Loaded

ONNX = find_spec("onnx") is not None
needs_onnx = pytest.mark.skipif(not ONNX, reason="the extra `onnx` is not installed: pip install unfade[onnx]")
TINY = ArcFaceConfig(size=32, width=4, blocks=(1, 1, 1, 1), embedding=8)


@dataclass(frozen=True)
class Toy:
    """An embedder that needs no weights."""

    embed: Callable[[Tensor], Tensor]  # of one face
    limit: float = 0.6

    def __call__(self, faces: Tensor) -> Tensor:
        return torch.stack([self.embed(face) for face in faces])


# The number


def test_the_distance_is_that_of_the_embeddings() -> None:
    corners = Toy(lambda face: face[:, 0, 0])
    faces = torch.zeros(2, 3, 4, 4)
    others = torch.tensor([(0.0, 0.0, 0.0), (0.3, 0.0, 0.4)])[:, :, None, None].expand(-1, -1, 4, 4)
    torch.testing.assert_close(identity_distance(corners, faces, others), torch.tensor([0.0, 0.5]))
    assert likeness(corners).distance(faces[1], others[1]) == pytest.approx(0.5)
    with pytest.raises(BadInput, match="are square, not 4 x 3 pixels"):
        identity_distance(corners, faces[..., :3, :], others[..., :3, :])


def test_what_is_no_longer_the_same() -> None:
    alike = likeness(Toy(lambda face: face.flatten(), limit=0.6))
    face = torch.zeros(3, 4, 4)
    assert [alike.tells_apart(face, value) for value in (0.0, 0.6, 0.601, 2.0, float("nan"))] == [
        False, False, True, True, True,
    ]  # fmt: skip
    assert (DLIB_LIMIT, UNIT_LIMIT) == (0.6, 1.128), "as published"
    assert pytest.approx(2 - 2 * 0.363, abs=2e-3) == UNIT_LIMIT**2, "SFace's smallest cosine"


def test_a_ruined_face_is_no_witness() -> None:
    """The sample faces are clean; the photos of them that come with the package are not."""
    judges = load_judge()
    clean = [judges(read_image(path)) for path in list_images(SAMPLES / "truth")]
    ruined = [judges(read_image(path)) for path in list_images(SAMPLES / "photos")]
    assert sum(clean) >= 0.9 * len(clean)
    assert not any(ruined)
    face = read_image(list_images(SAMPLES / "truth")[0])
    alike = likeness(Toy(lambda face: face.flatten(1), limit=0.6), judges)
    assert alike.tells_apart(face, 0.7)
    assert not alike.tells_apart(face + 0.5 * torch.randn(face.shape, generator=torch.Generator().manual_seed(0)), 0.7)


# SFace


@pytest.mark.parametrize("size", [128, 256, 512])
def test_the_template_meets_sfaces(size: int) -> None:
    matrix = to_sface(size)
    assert matrix[0, 0] == matrix[1, 1]
    assert matrix[0, 1] == -matrix[1, 0]
    landed = TEMPLATE * (size / 512) @ matrix[:, :2].T + matrix[:, 2]
    error = landed - SEEN_TEMPLATE
    np.testing.assert_allclose(error.mean(0), 0, atol=1e-9)
    assert np.abs(error).max() <= 2.5, "FFHQ's mean face has another shape than ArcFace's"
    rng = np.random.default_rng(0)
    least = (error**2).sum()
    for _ in range(20):  # no other similarity nearby is better
        turn, shift = rng.normal(0, 0.02, 2) * matrix[0, 0], rng.normal(0, 0.3, 2)
        other = matrix + np.array([(turn[0], -turn[1], shift[0]), (turn[1], turn[0], shift[1])])
        landed = TEMPLATE * (size / 512) @ other[:, :2].T + other[:, 2]
        assert ((landed - SEEN_TEMPLATE) ** 2).sum() > least


@pytest.mark.parametrize("size", [96, 128, 512])
def test_what_sface_sees(size: int) -> None:
    """Landmarks drawn on a face arrive where the matrix says, in BGR, at 0..255, whatever the face's size."""
    y, x = np.mgrid[:size, :size]
    radius, points = size / 80, TEMPLATE * (size / 512)
    drawn = np.zeros((3, size, size), np.float32)
    for px, py in points:
        drawn[0] += np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2))
    seen = seen_by_sface(torch.from_numpy(drawn) * 2 - 1)
    assert (seen.shape, seen.dtype) == ((SEEN, SEEN, 3), np.uint8)
    assert seen[..., 2].max() > 200
    assert seen[..., :2].max() == 0
    expected = points @ to_sface(size)[:, :2].T + to_sface(size)[:, 2]
    for ex, ey in expected:
        left, top = int(ex) - 5, int(ey) - 5
        spot = seen[top : top + 12, left : left + 12, 2].astype(float)
        v, u = np.mgrid[:12, :12]
        centre = left + (u * spot).sum() / spot.sum(), top + (v * spot).sum() / spot.sum()
        np.testing.assert_allclose(centre, (ex, ey), atol=0.2)


def test_what_sface_sees_is_antialiased() -> None:
    fine = torch.from_numpy(np.indices((512, 512)).sum(0) % 2 * 2.0 - 1).float().expand(3, -1, -1)
    assert np.ptp(seen_by_sface(fine)[2:-2, 2:-2].astype(int)) <= 2


@pytest.fixture
def sface(tmp_path: Path) -> Path:
    """A tiny network of SFace's shape: each channel's mean and mean square, from 0..255, RGB."""
    from onnx import TensorProto, helper, save

    image = helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, SEEN, SEEN])
    vector = helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 4])
    weights = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -1, 0)], np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["data"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["fc1"], transB=1),
    ]
    tensor = helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel().tolist())
    graph = helper.make_graph(nodes, "sface", [image], [vector], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    path = tmp_path / "weights" / "sface.onnx"
    path.parent.mkdir()
    save(model, path)
    return path


@needs_onnx
def test_opencv_is_given_what_it_expects(sface: Path) -> None:
    face = torch.tensor([0.5, 0.0, -0.5])[:, None, None].expand(3, 128, 128)
    vectors = load_embedder(sface)(torch.stack([face, -face]))
    assert (vectors.shape, vectors.dtype) == ((2, 4), torch.float32)
    red, green, blue = 191.0, 128.0, 64.0
    expected = torch.tensor([(red, green, blue, red - green), (blue, green, red, blue - green)])
    torch.testing.assert_close(vectors, F.normalize(expected), atol=0.01, rtol=0)


@needs_onnx
def test_the_limit_is_the_embedders(sface: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(sface.parent))
    limits = {name: found and found.limit for name in (None, "sface", "none") for found in [likeness_for(name)]}
    assert limits == {None: DLIB_LIMIT, "sface": UNIT_LIMIT, "none": None}


@needs_onnx
def test_it_is_a_metric(sface: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(sface.parent))
    red, green = (torch.tensor(c)[:, None, None].expand(3, 128, 128) for c in ((1.0, -1.0, -1.0), (-1.0, 1.0, -1.0)))
    angles = load_sface_angle("cpu")(torch.stack([red, red]), torch.stack([red, green]))
    torch.testing.assert_close(angles, torch.tensor([0.0, 120.0], dtype=torch.float64), atol=0.01, rtol=0)


def test_files_other_than_sface_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sface.onnx").write_bytes(b"no network")
    with pytest.raises(BadCheckpoint, match=r"sface\.onnx is no SFace that OpenCV can run"):
        load_embedder(tmp_path / "sface.onnx")


def test_one_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    for name in ("sface", "arcface-18"):
        with pytest.raises(UnknownModel, match=f"unfade models pull {name}"):
            likeness_for(name)


# ArcFace


@torch.no_grad()
def test_arcface_behind_the_same_function(tmp_path: Path) -> None:
    net = fill_module(ArcFace(TINY)).eval()
    save_weights(tmp_path / "a.safetensors", net, architecture="arcface", config=asdict(TINY), dtype=torch.float32)
    faces = picture(64, 64, 3, count=2)
    vectors = load_embedder(tmp_path / "a.safetensors")(faces)
    torch.testing.assert_close(vectors, F.normalize(net(grey(faces, 32))))
    save_weights(tmp_path / "b.safetensors", net, architecture="unet", config={}, dtype=torch.float32)
    with pytest.raises(BadCheckpoint, match=r"holds a prior \(unet\), not an embedder"):
        load_embedder(tmp_path / "b.safetensors")
    save_weights(tmp_path / "c.safetensors", net, architecture="arcface", config={"x": 1}, dtype=torch.float32)
    with pytest.raises(BadCheckpoint, match="cannot be built"):
        load_embedder(tmp_path / "c.safetensors")


# In runs


def test_notes_and_sidecars_tell(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.save("a.png", (5, 5, 20), (40, 20, 24))
    place.save("b.png", (5, 5, 20))

    def measure(face: Tensor, restored: Tensor) -> float:
        return 0.81 if face.shape == restored.shape and restored.max() < face.max() else 0.1

    entries = place.run(parts=Parts(likeness=Likeness(measure, 0.6)), sidecar=True)
    warned = [note for note in entries[0].notes if "same person" in note]
    assert warned == [f"face {i} may no longer show the same person (identity distance 0.81)" for i in (0, 1)]
    told = json.loads((place.out / "a.png.json").read_text())
    assert [face["identity_distance"] for face in told["faces"]] == [0.81, 0.81]
    lenient = Parts(likeness=Likeness(measure, 0.9))
    (place.folder / "journal.jsonl").unlink()
    for path in place.out.iterdir():
        path.unlink()
    assert not [note for entry in place.run(parts=lenient) for note in entry.notes if "same person" in note]


class Turns(threading.local):
    """In each thread that writes photos, the embedding of a face and then that of its result."""

    def __init__(self) -> None:
        self.next = itertools.cycle(torch.tensor([(1.0, 0.0), (0.2, 1.0)])).__next__


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos, a file that stands for the detector of marks, and embedders that need no weights."""
    for number in range(3):
        save(tmp_path / "photos" / f"{number}.png", scene((10, 10, 30), height=80, width=100, seed=number))
    (tmp_path / "marks.onnx").write_text("marks")
    marks = Loaded(squares, tmp_path / "marks.onnx", "marks", "unknown")
    monkeypatch.setattr(unfade.recipes.sources, "loaded_detector", lambda name, device: marks)
    turns = Turns()
    known = {"far": Toy(lambda face: turns.next()), "near": Toy(lambda face: torch.ones(2))}
    known["dlib-face"] = known["near"]
    monkeypatch.setattr(unfade.recipes.sources, "load_embedder", lambda spec, device: known[str(spec)])
    monkeypatch.setattr(unfade.recipes.sources, "load_judge", lambda device: lambda face: True)
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path


def test_restore_warns_by_the_embedder_that_is_named(marks: Path, models: tuple[Path, Path]) -> None:
    find, told = FindSettings(str(marks / "marks.onnx")), {}
    settings = PhotoSettings(sidecar=True)
    for name in (None, "far", "near", "none"):
        entries = restore(marks / "photos", marks / "out", models[0], RestoreSettings(find, settings, embedder=name))
        assert [entry.status for entry in entries] == ["done"] * 3
        sidecar = json.loads((marks / "out" / "0.png.json").read_text())
        notes = [note for note in entries[0].notes if "same person" in note]
        told[name] = notes, sidecar["faces"][0].get("identity_distance")
    assert told[None] == ([], 0), "the one that comes with the package"
    assert told["far"] == (
        ["face 0 may no longer show the same person (identity distance 1.28)"],
        pytest.approx(1.281, abs=1e-3),
    )
    assert told["near"] == ([], 0)
    assert told["none"] == ([], None)


def test_the_flag_arrives(marks: Path, models: tuple[Path, Path], run: Run) -> None:
    args = ("restore", marks / "photos", "--restorer", models[0], "--detector", marks / "marks.onnx", "--device", "cpu")
    result = run(*args, "--out", marks / "out", "--identity", "far", "--sidecar")
    assert result.code == 0, result.err
    assert "identity_distance" in (marks / "out" / "0.png.json").read_text()


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "aligned"])
def test_the_report_of_an_adaptation_warns(marks: Path, models: tuple[Path, Path], whole: bool) -> None:
    how: dict[str, Any] = {"find": FindSettings(str(marks / "marks.onnx"))} if whole else {"aligned": True}
    photos = marks / "photos"
    if not whole:
        photos = marks / "faces"
        write_faces(photos, 3)
    done = adapt(photos, marks / "run", small(*models), embedder="far", **how)
    (warning,) = [text for text in done.page.warnings if "same person" in text]
    assert warning.startswith("3 of 3 results may no longer show the same person (identity distance over 0.6): ")
    name = "0_00.png" if whole else "face00.png"
    assert f"{name} (1.28)" in warning
    assert warning in (marks / "run" / "report.html").read_text()
    again = adapt(photos, marks / "run", small(*models), embedder="near", **how)
    assert not [text for text in again.page.warnings if "same person" in text]
