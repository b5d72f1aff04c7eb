"""Faces in every turn of a photo: YuNet on generated faces of the sample set, pasted and turned."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from unfade.faces.align import centred, crop, inverse, to_template
from unfade.faces.detect import DetectSettings, Search, find_faces, straightened
from unfade.faces.detectors import Detector, Face, certainty_of, load_detector
from unfade.faces.turns import Sight, judged, turned, turned_back
from unfade.images.files import read_image, to_bytes
from unfade.images.finding import list_images
from unfade.images.photo import Photo
from unfade.recipes.adapt_settings import SAMPLES
from unfade.stages.photos import Choice, Searching, for_films, in_frames

QUARTERS = (0, 1, 2, 3)
PATHS = list_images(SAMPLES / "truth")


@pytest.fixture(scope="module")
def yunet():
    return load_detector()


def face_of(k: int, side: int) -> np.ndarray:
    kernel = cv2.INTER_AREA if side < 128 else cv2.INTER_CUBIC
    return cv2.resize(to_bytes(read_image(PATHS[k])), (side, side), interpolation=kernel)


def scene(sides: tuple[int, ...], height: int = 480, width: int = 640, degrees: int = 0) -> Photo:
    """Faces beside each other on a soft ground, each turned counterclockwise by itself."""
    y, x = np.mgrid[:height, :width]
    ground = np.stack([110 + 40 * np.sin(x / 60), 120 + 30 * np.cos(y / 50), 130 + 20 * np.sin((x + y) / 80)], -1)
    for k, side in enumerate(sides):
        about = centred(np.full(2, (side - 1) / 2), 1.0, degrees, side)
        near = np.hypot(*(np.mgrid[:side, :side] / (side - 1) * 2 - 1))
        soft = np.clip((1 - near) / 0.15, 0, 1)[..., None]
        left, top = (2 * k + 1) * width // (2 * len(sides)) - side // 2, (height - side) // 2
        face = cv2.warpAffine(face_of(3 * k, side), about, (side, side), flags=cv2.INTER_LINEAR)
        part = ground[top : top + side, left : left + side]
        part += soft * (face - part)
    return Photo(np.rint(ground).clip(0, 255).astype(np.uint8))


def rotated(photo: Photo, quarters: int) -> Photo:
    return Photo(np.ascontiguousarray(np.rot90(photo.levels, quarters)))


def unrotated(face: Face, photo: Photo, quarters: int) -> Face:
    return turned_back(face, 2 * quarters, photo.height, photo.width)


def leaning(face: Face) -> float:
    across, down = (face.points[1] - face.points[0]).tolist()
    return -float(np.degrees(np.arctan2(down, across)))


def off(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


# The geometry


@pytest.mark.parametrize("quarters", QUARTERS)
def test_what_is_turned_and_turned_back_is_where_it_was(quarters: int) -> None:
    picture = torch.zeros(1, 5, 7)
    picture[0, 1, 2] = 1
    (y, x), (height, width) = (turned(picture, 2 * quarters)[0] == 1).nonzero()[0].tolist(), (5, 7)
    there = Face((x - 0.5, y - 0.5, x + 0.5, y + 0.5), np.full((5, 2), (x, y), float), 0.7)
    face = turned_back(there, 2 * quarters, height, width)
    assert (face.box, face.points[4].tolist(), face.score) == ((1.5, 0.5, 2.5, 1.5), [2, 1], 0.7)


def test_a_place_comes_to_the_middle_turned_counterclockwise() -> None:
    matrix = centred((10, 20), 2.0, 90, 65)
    assert matrix @ (10, 20, 1) == pytest.approx([32, 32])
    assert matrix @ (11, 20, 1) == pytest.approx([32, 30]), "what was at the right is above"
    assert inverse(matrix) @ (32, 30, 1) == pytest.approx([11, 20])


def test_the_width_of_a_face_turns_with_it() -> None:
    upright = Face((0, 0, 30, 40), np.array([(8, 12), (22, 13), (15, 20), (10, 30), (20, 30)], float), 0.9)
    for quarters in QUARTERS:
        face = turned_back(upright, 2 * quarters, 50, 60)
        assert (face.width, face.height, face.is_upright) == (30, 40, quarters == 0)
        assert face.is_lying == (quarters % 2 == 1)


# Whole photos


@pytest.mark.parametrize("sides", [(40,), (80, 60), (150, 128, 100), (400,)], ids=str)
def test_the_four_turns_of_a_photo_show_the_same_faces(yunet: Detector, sides: tuple[int, ...]) -> None:
    photo = scene(sides)
    upright = find_faces(photo, yunet)
    assert len(upright) == len(sides)
    for quarters in (1, 2, 3):
        sideways = rotated(photo, quarters)
        faces = [unrotated(face, photo, quarters) for face in find_faces(sideways, yunet)]
        faces.sort(key=lambda face: face.box)
        assert len(faces) == len(sides)
        for face, expected in zip(faces, upright, strict=True):
            np.testing.assert_allclose(face.points, expected.points, atol=0.03 * expected.width)
            np.testing.assert_allclose(face.box, expected.box, atol=0.05 * expected.width)


def test_a_crop_of_a_turned_photo_is_that_of_the_upright_one(yunet: Detector) -> None:
    photo = scene((128,))
    (upright,) = find_faces(photo, yunet)
    expected = crop(photo, to_template(upright.points, 128), 128)
    for quarters in (1, 2, 3):
        sideways = rotated(photo, quarters)
        (face,) = find_faces(sideways, yunet)
        assert off(leaning(face), 90 * quarters) < 10
        assert (crop(sideways, to_template(face.points, 128), 128) - expected).abs().mean() < 0.02


def test_upright_faces_are_found_as_without_turning(yunet: Detector) -> None:
    photo = scene((150, 80, 40))
    search = Search(photo, yunet, DetectSettings())
    search.search([0])
    alone = sorted(sight.face.box for sight in search.seen[0])
    assert [face.box for face in find_faces(photo, yunet)] == alone


@pytest.mark.parametrize("degrees", [45, 135, 225, 315])
def test_tilted_faces_are_aligned_too(yunet: Detector, degrees: int) -> None:
    for face in find_faces(scene((120, 90), degrees=degrees), yunet):
        assert off(leaning(face), degrees) < 25


def test_a_lying_face_beside_an_upright_one(yunet: Detector) -> None:
    photo, other = scene((128,), width=320), rotated(scene((128,), width=480, height=320), 1)
    both = Photo(np.concatenate([photo.levels, other.levels], 1))
    first, second = find_faces(both, yunet)
    assert off(leaning(first), 0) < 10
    assert off(leaning(second), 90) < 10


def test_sizes_are_limited_equally_in_every_turn(yunet: Detector) -> None:
    photo = scene((200, 60))
    for quarters in QUARTERS:
        sideways = rotated(photo, quarters)
        (small,) = find_faces(sideways, yunet, DetectSettings(max_face=70))
        (large,) = find_faces(sideways, yunet, DetectSettings(min_face=70))
        assert small.width < 70 < large.width


def test_nothing_is_found_where_there_is_nothing(yunet: Detector) -> None:
    chance = np.random.default_rng(0)
    for cells in (8, 40, 200):
        noise = chance.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        assert find_faces(Photo(cv2.resize(noise, (500, 400), interpolation=cv2.INTER_CUBIC)), yunet) == []


# What it costs


class Counting:
    """A detector, and how many px it was shown."""

    def __init__(self, detector):
        self.detector, self.px = detector, 0

    def __call__(self, pixels):
        self.px += pixels[0].numel()
        return self.detector(pixels)


def shown(photo: Photo, detector, **how) -> int:
    counting = Counting(detector)
    find_faces(photo, counting, **how)
    return counting.px


def test_an_upright_photo_costs_at_most_half_as_much_again(yunet: Detector) -> None:
    photo, counting = scene((150, 128), 960, 1280), Counting(yunet)
    Search(photo, counting, DetectSettings()).search([0])
    assert shown(photo, yunet) < 1.5 * counting.px


def test_only_thorough_searches_look_in_all_turns(yunet: Detector) -> None:
    bare = scene(())
    assert shown(bare, yunet) > 2.5 * shown(bare, yunet, thorough=False)


def test_frames_of_a_film_are_searched_thoroughly_now_and_then(yunet: Detector) -> None:
    bare, sideways = scene((), 240, 320), rotated(scene((60,), 240, 320), 1)
    counting = Counting(yunet)
    find = in_frames(Searching(counting, DetectSettings(), Choice(), 64))
    costs, found = [], []
    for k, frame in enumerate([bare] * 14 + [sideways] * 13):
        before = counting.px
        faces = find("film", frame)
        costs.append(counting.px - before)
        found += [(k, one.face.is_lying) for one in faces]
    assert [k for k in range(14) if costs[k] > 2 * min(costs)] == [0, 12]
    assert found == [(24, True), (25, True), (26, True)], "once it is known, in every frame"


def test_other_finders_see_frames_as_photos() -> None:
    def find(name: str, photo: Photo):
        return []

    assert in_frames(find) is find


# Who is right about a place


class Answers:
    """Stands for a closer look."""

    def __init__(self, sight: Sight | None = None):
        self.sight = sight
        self.asked: set[tuple[float, ...]] = set()  # boxes; a second look at one costs nothing

    def look(self, face: Face):
        self.asked.add(face.box)
        return self.sight

    def finely(self, face: Face, sight: Sight | None):
        return sight


def seen(score: float, turn: int, left: float = 0.0) -> Sight:
    points = np.add([(10, 15), (30, 15), (20, 25), (12, 35), (28, 35)], (left, 0.0))
    return Sight(Face((left, 0, left + 40, 50), points, score), turn)


@pytest.mark.parametrize(
    ("sights", "answer", "turns", "asked"),
    [
        ([seen(0.95, 0)], None, [0], 0),  # sure
        ([seen(0.95, 0), seen(0.7, 4)], None, [0], 0),
        ([seen(0.7, 0), seen(0.95, 4)], None, [4], 0),
        ([seen(0.94, 0), seen(0.93, 4)], seen(0.92, 4), [4], 1),  # too near to each other
        ([seen(0.7, 0)], seen(0.9, 4), [4], 1),  # upside down
        ([seen(0.7, 0)], seen(0.9, 0), [0], 1),
        ([seen(0.7, 0)], seen(0.65, 4), [0], 1),  # no face in any turn; as it was seen
        ([seen(0.7, 0)], None, [0], 1),
        ([seen(0.7, 2)], None, [], 1),  # not enough for a face of another turn
        ([seen(0.4, 0)], None, [], 1),  # nor for an improbable one
        ([seen(0.4, 0)], seen(0.9, 1), [1], 1),
        ([seen(0.88, 0)], seen(0.87, 1), [0], 1),  # leans a little
        ([seen(0.95, 0), seen(0.95, 0, left=100), seen(0.7, 0, left=200)], None, [0, 0], 1),  # a light among faces
        ([seen(0.95, 0), seen(0.7, 0, left=200)], seen(0.65, 7), [0, 0], 1),  # less clear than the other one
        ([seen(0.95, 0), seen(0.7, 0, left=200)], seen(0.65, 4), [0], 1),
        ([seen(0.8, 0), seen(0.7, 0, left=200)], None, [0, 0], 2),  # a photo of bad faces
    ],
)
def test_a_place_is_judged_by_the_turn_that_shows_most(yunet: Detector, sights, answer, turns, asked) -> None:
    answers = Answers(answer)
    for order in itertools.permutations(sights):
        answers.asked.clear()
        faces = judged(order, 0, 0.6, certainty_of(yunet), answers)
        assert ([sight.turn for sight in faces], len(answers.asked)) == (turns, asked)


def test_the_package_has_its_own_detector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("UNFADE_OFFLINE", "1")
    assert len(find_faces(scene((100,)), load_detector())) == 1


@pytest.mark.parametrize("degrees", [-20, 20])
def test_faces_that_lean_are_seen_to_lean(yunet: Detector, degrees: int) -> None:
    photo = scene((90, 150), degrees=degrees)
    find = Searching(yunet, DetectSettings(), Choice(), 128)
    seen, first = (
        np.array([leaning(one.face) for one in faces]) for faces in (find("a", photo), for_films(find)("a", photo))
    )
    assert len(seen) == 2
    assert np.abs(seen - degrees).max() < 9
    assert np.abs(first - degrees).min() > 9, "a first look takes them for more upright"
    assert [one.face.box for one in find("a", photo)] == [face.box for face in find_faces(photo, yunet)]


def test_a_blurred_face_is_not_looked_at_more_closely(yunet: Detector) -> None:
    photo = Photo(cv2.GaussianBlur(scene((150,), degrees=15).levels, (0, 0), 5))
    (face,) = find_faces(photo, yunet)
    assert straightened(face, photo, yunet) is face
