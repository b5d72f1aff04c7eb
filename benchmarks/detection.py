"""How many faces of each size are found in a photo of 24 megapixels, by default and when small ones are asked for.

    python benchmarks/detection.py FACES --detector FILE [--widths 16 24 48 75 150 500 1500 2150]

FACES is a folder of aligned faces; they are resized and put on noise, as many of one width as there is room for, at
most 48. A face counts as found where a nose lies in it. The search for small faces is given as a multiple of the
default's time on the same photo.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from unfade.faces.detect import Detector, DetectSettings, find_faces
from unfade.faces.detectors import load_detector
from unfade.images.files import read_image, to_bytes
from unfade.images.photo import Photo
from unfade.training.batches import find_training_pictures

HEIGHT, WIDTH = 4000, 6000  # px of the photo
FACE_IN_CROP = 0.55  # width of a face's box in an aligned picture of it
MOST = 48
SPACE = 1.15  # sides of a picture from one to the next


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--detector", default="yunet", help="a name of the table or a file")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 24, 48, 75, 150, 500, 1500, 2150])
    args = parser.parse_args()
    detector = load_detector(args.detector)
    paths, _ = find_training_pictures(args.faces, {})
    pictures = [to_bytes(read_image(path)) for path in paths[:: max(1, len(paths) // MOST)]]
    print("| width of a face, px | found | found with --min-face | false | times as long |")
    print("| --- | --- | --- | --- | --- |")
    find_faces(scene(pictures, args.widths[0])[0], detector)  # the first search of a process is slower
    for width in args.widths:
        photo, places = scene(pictures, width)
        plain = looked(photo, detector, DetectSettings(), places)
        small = looked(photo, detector, DetectSettings(min_face=0.8 * width), places)
        print(
            f"| {width} | {plain[0]} of {len(places)} | {small[0]} of {len(places)} | {plain[1]} and {small[1]} "
            f"| {small[2] / plain[2]:.1f} |",
            flush=True,
        )


def scene(pictures: list[np.ndarray], width: int) -> tuple[Photo, list[tuple[int, int, int]]]:
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


if __name__ == "__main__":
    main()
