"""How many faces are found: of each size, in each turn, where there are none, and what searching in turns costs.

    python benchmarks/detection.py FACES [--detector FILE] [--only sizes turns none cost]

FACES is a folder of aligned faces. sizes: they are resized and put on noise in a photo of 24 megapixels, as many of one
width as there is room for, at most 48; the search for small faces is given as a multiple of the default's time on the
same photo. turns: six of one width in a photo of 1,200 x 900 px, which then is turned; half of the photos are blurred,
noisy and compressed. none: textures, and jumbles of parts of faces. cost: upright photos of several sizes.

A face counts as found where a nose lies in it, and in its turn where the line of its eyes is less than 30 degrees off.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from unfade.faces.align import centred
from unfade.faces.detect import DetectSettings, Search, find_faces
from unfade.faces.detectors import Detector, Face, load_detector
from unfade.images.files import read_image, to_bytes
from unfade.images.photo import Photo
from unfade.training.batches import find_training_pictures

HEIGHT, WIDTH = 4000, 6000  # px of the photo
FACE_IN_CROP = 0.55  # width of a face's box in an aligned picture of it
MOST = 48
SPACE = 1.15  # sides of a picture from one to the next
WIDTHS = (16, 24, 48, 75, 150, 500, 1500, 2150)  # px, of faces in the large photo
DEGREES = (0, 90, 180, 270, 30, 45, 60, 135, 225, 315)
TURNED_WIDTHS = (24, 40, 80, 180)  # px, of faces in photos that are turned
IN_GROUP = 6  # faces of such a photo
NEAR = 30.0  # degrees
NONE_EACH = 16  # pictures of a kind without faces
COST_WIDTHS = (400, 800, 1200, 3000, 6000)  # px, of upright photos

Levels = NDArray[np.uint8]
Points = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--detector", default="yunet", help="a name of the table or a file")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    args = parser.parse_args()
    detector = load_detector(args.detector)
    paths, _ = find_training_pictures(args.faces, {})
    pictures = [to_bytes(read_image(path)) for path in paths[:: max(1, len(paths) // MOST)]][:MOST]
    find_faces(scene(pictures, WIDTHS[0])[0], detector)  # the first search of a process is slower
    for name in args.only:
        PARTS[name](pictures, detector)


# --- faces of each size


def print_sizes(pictures: list[Levels], detector: Detector) -> None:
    print("| width of a face, px | found | found with --min-face | false | times as long |")
    print("| --- | --- | --- | --- | --- |")
    for width in WIDTHS:
        photo, places = scene(pictures, width)
        plain = looked(photo, detector, DetectSettings(), places)
        small = looked(photo, detector, DetectSettings(min_face=0.8 * width), places)
        print(
            f"| {width} | {plain[0]} of {len(places)} | {small[0]} of {len(places)} | {plain[1]} and {small[1]} "
            f"| {small[2] / plain[2]:.1f} |",
            flush=True,
        )


def scene(pictures: list[Levels], width: int) -> tuple[Photo, list[tuple[int, int, int]]]:
    """The photo, and left, top and side of each face's picture, px."""
    side = min(HEIGHT, round(width / FACE_IN_CROP))
    coarse = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    levels = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    step = max(1, round(SPACE * side))
    room = [(x, y, side) for y in range(0, HEIGHT - side + 1, step) for x in range(0, WIDTH - side + 1, step)]
    places = room[:: max(1, len(room) // MOST)][:MOST]
    for (x, y, _), picture in zip(places, np.resize(np.arange(len(pictures)), len(places)), strict=True):
        kernel = cv2.INTER_AREA if side < pictures[picture].shape[0] else cv2.INTER_CUBIC
        levels[y : y + side, x : x + side] = cv2.resize(pictures[picture], (side, side), interpolation=kernel)
    return Photo(levels), places


def looked(
    photo: Photo, detector: Detector, settings: DetectSettings, places: list[tuple[int, int, int]]
) -> tuple[int, int, float]:
    """Faces found, faces where there is none, and seconds."""
    begin = time.perf_counter()
    noses = [face.points[2] for face in find_faces(photo, detector, settings)]
    seconds = time.perf_counter() - begin
    within = [[x < nose[0] < x + side and y < nose[1] < y + side for x, y, side in places] for nose in noses]
    found = sum(any(row[k] for row in within) for k in range(len(places)))
    return found, sum(not any(row) for row in within), seconds


# --- faces in each turn


@dataclass
class Tally:
    """What became of the faces of some photos."""

    right: int = 0
    wrong: int = 0  # found in a turn that is not theirs
    missed: int = 0
    false: int = 0

    def add(self, faces: list[Face], middles: Points, degrees: float, width: int) -> None:
        """What was found of faces whose noses are near `middles`, (N, 2), and that are turned counterclockwise."""
        apart = [np.linalg.norm(middles - face.points[2], axis=1) for face in faces]
        self.false += sum(bool(one.min() > width / 2) for one in apart)
        for k in range(len(middles)):
            near = [face for face, one in zip(faces, apart, strict=True) if one[k] <= width / 2]
            off = min((abs(leaning(face) - degrees + 180) % 360 - 180 for face in near), key=abs, default=None)
            if off is None:
                self.missed += 1
            elif abs(off) < NEAR:
                self.right += 1
            else:
                self.wrong += 1


def leaning(face: Face) -> float:
    """Degrees by which a face is turned counterclockwise."""
    across, down = (face.points[1] - face.points[0]).tolist()
    return -math.degrees(math.atan2(down, across))


def as_it_is(photo: Photo, detector: Detector) -> list[Face]:
    """The faces of a photo that is not turned for them."""
    search = Search(photo, detector, DetectSettings())
    search.search([0])
    return [sight.face for sight in search.seen[0]]


def print_turns(pictures: list[Levels], detector: Detector) -> None:
    widths = ", ".join(map(str, TURNED_WIDTHS))
    print(f"| turned by, degrees | as it is: right, wrong | right | wrong | missed | false | right of {widths} px |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for degrees in DEGREES:
        before, after, right = Tally(), Tally(), []
        for width in TURNED_WIDTHS:
            already = after.right
            for first in range(0, len(pictures) - IN_GROUP + 1, IN_GROUP):
                photo, middles = turned(*group(pictures[first : first + IN_GROUP], width, seed=first), degrees)
                before.add(as_it_is(photo, detector), middles, degrees, width)
                after.add(find_faces(photo, detector), middles, degrees, width)
            right.append(after.right - already)
        counts = " | ".join(str(count) for count in (after.right, after.wrong, after.missed, after.false))
        print(f"| {degrees} | {before.right}, {before.wrong} | {counts} | {', '.join(map(str, right))} |", flush=True)


def group(pictures: list[Levels], width: int, seed: int) -> tuple[Levels, Points]:
    """A photo of some faces, and where their middles are, (N, 2) in px."""
    chance = np.random.default_rng(seed)
    levels, side = textures(chance)[seed % 2], round(width / FACE_IN_CROP)
    down, across = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    soft = np.clip((1 - np.hypot(across, down)) / 0.15, 0, 1)[..., None]
    middles = []
    for k, picture in enumerate(pictures):
        x, y = 400 * (k % 3) + (400 - side) // 2, 450 * (k // 3) + (450 - side) // 2
        kernel = cv2.INTER_AREA if side < picture.shape[0] else cv2.INTER_CUBIC
        face = cv2.resize(picture, (side, side), interpolation=kernel)
        part = levels[y : y + side, x : x + side]
        part[:] = np.rint(part + soft * (face.astype(float) - part))
        middles.append((x + side / 2 - 0.5, y + 0.6 * side))
    if seed // IN_GROUP % 2:
        levels = degraded(levels, width, chance)
    return levels, np.array(middles)


def degraded(levels: Levels, width: int, chance: np.random.Generator) -> Levels:
    noisy = cv2.GaussianBlur(levels, (0, 0), width / 24) + chance.normal(0, 10, levels.shape)
    packed = cv2.imencode(".jpg", noisy.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def turned(levels: Levels, middles: Points, degrees: int) -> tuple[Photo, Points]:
    """A photo turned counterclockwise, as large as it has to be then; grey where nothing was."""
    height, width = levels.shape[:2]
    if degrees == 0:
        return Photo(levels), middles
    size = (width, height) if degrees % 180 == 0 else (height, width) if degrees % 90 == 0 else (1500, 1500)
    matrix = centred(((width - 1) / 2, (height - 1) / 2), 1.0, degrees, 0)
    matrix[:, 2] += np.array(size) / 2
    photo = cv2.warpAffine(levels, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(120, 120, 120))
    return Photo(photo), np.c_[middles, np.ones(len(middles))] @ matrix.T


# --- nothing to find


def print_none(pictures: list[Levels], detector: Detector) -> None:
    print("| pictures without a face | found as they are | found upright | found in other turns |")
    print("| --- | --- | --- | --- |")
    kinds: dict[str, list[Levels]] = {"textures": [], "jumbles of parts of faces": []}
    for seed in range(NONE_EACH):
        chance = np.random.default_rng(seed)
        kinds["textures"] += textures(chance)
        kinds["jumbles of parts of faces"].append(jumble(pictures, chance))
    for name, photos in kinds.items():
        before = sum(len(as_it_is(Photo(levels), detector)) for levels in photos)
        faces = [face for levels in photos for face in find_faces(Photo(levels), detector)]
        upright = sum(face.is_upright for face in faces)
        print(f"| {len(photos)} {name} | {before} | {upright} | {len(faces) - upright} |", flush=True)


def textures(chance: np.random.Generator) -> list[Levels]:
    """Clouds, a lattice, lights in the dark, a weave and pebbles, (900, 1200, 3) each."""
    rows, columns = np.mgrid[:900, :1200]
    clouds = cv2.resize(chance.integers(60, 200, (30, 40, 3), np.uint8), (1200, 900), interpolation=cv2.INTER_CUBIC)
    waves = np.sin(rows / chance.uniform(3, 30)) * np.sin(columns / chance.uniform(3, 30))
    lattice = np.clip(120 + 100 * waves[..., None] * chance.uniform(0.3, 1, 3), 0, 255).astype(np.uint8)
    fine = cv2.resize(chance.integers(0, 256, (225, 300, 3), np.uint8), (1200, 900), interpolation=cv2.INTER_LINEAR)
    weave = np.where(((rows // 9 + columns // 9) % 2)[..., None] == 0, fine, clouds)
    lights, pebbles = np.full((900, 1200, 3), 20, np.uint8), clouds.copy()
    for _ in range(120):
        place, colour = (int(chance.integers(1200)), int(chance.integers(900))), chance.integers(60, 256, 3).tolist()
        cv2.circle(lights, place, int(chance.integers(4, 40)), colour, -1, cv2.LINE_AA)
        axes, skin = chance.integers(10, 80, 2).tolist(), (220, 170, 140)
        cv2.ellipse(pebbles, place, axes, int(chance.integers(180)), 0, 360, skin, -1, cv2.LINE_AA)
    return [clouds, lattice, cv2.GaussianBlur(lights, (0, 0), 3), weave, cv2.GaussianBlur(pebbles, (0, 0), 2)]


def jumble(pictures: list[Levels], chance: np.random.Generator) -> Levels:
    """Sixteenths of faces in any order and turn: eyes, mouths and hair, but no face."""
    levels = np.empty((900, 1200, 3), np.uint8)
    for y in range(0, 900, 60):
        for x in range(0, 1200, 60):
            picture = cv2.resize(pictures[chance.integers(len(pictures))], (240, 240), interpolation=cv2.INTER_AREA)
            top, left = (60 * chance.integers(4, size=2)).tolist()
            levels[y : y + 60, x : x + 60] = np.rot90(picture[top : top + 60, left : left + 60], chance.integers(4))
    return levels


# --- what it costs


def print_cost(pictures: list[Levels], detector: Detector) -> None:
    print("| upright photo, px | milliseconds as it is | times as long in turns |")
    print("| --- | --- | --- |")
    levels = group(pictures[:IN_GROUP], 150, seed=0)[0]
    for width in COST_WIDTHS:
        photo = Photo(cv2.resize(levels, (width, width * 3 // 4), interpolation=cv2.INTER_AREA))
        spent: dict[str, list[float]] = {"as it is": [], "in turns": []}
        for _ in range(7):
            for name, look in (("as it is", as_it_is), ("in turns", find_faces)):
                begin = time.process_time()
                look(photo, detector)
                spent[name].append(time.process_time() - begin)
        plain, all_turns = min(spent["as it is"]), min(spent["in turns"])
        print(f"| {width} x {width * 3 // 4} | {1000 * plain:.0f} | {all_turns / plain:.2f} |", flush=True)


PARTS: dict[str, Callable[[list[Levels], Detector], None]] = {
    "sizes": print_sizes,
    "turns": print_turns,
    "none": print_none,
    "cost": print_cost,
}

if __name__ == "__main__":
    main()
