"""Do the landmarks of faces that lean, lean as the faces do?

    python benchmarks/leaning.py FACES [--faces 16]

FACES are clean faces, aligned to FFHQ's template, so that their landmarks are known. Each is pasted into a plain photo,
in four sizes and leans, as it is, blurred, and with noise. Prints the mean distance of YuNet's landmarks to the known
ones in percent of the width of the face, and the mean and largest error of the lean in degrees: as first detected, and
as `unfade.faces.detect.straightened` leaves them; and the CPU time of that for each face.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from unfade.faces.align import TEMPLATE, TEMPLATE_SIZE, Matrix
from unfade.faces.detect import find_faces, straightened
from unfade.faces.detectors import Face, load_detector
from unfade.images.files import read_image, to_bytes
from unfade.images.photo import Photo
from unfade.training.batches import find_training_pictures

SIDE = 700  # px, of the photo
LARGER = 1.6  # side of an aligned face, in widths of the face
WIDTHS, LEANS = (50, 100, 200, 400), (0, 10, -20, 30)  # px, and degrees counterclockwise
Pixels = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--faces", dest="count", type=int, default=16)
    args = parser.parse_args()
    detector, (paths, _) = load_detector(), find_training_pictures(args.faces, {})
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(args.count, len(paths))).round().astype(int)]
    print(
        "| | width, px | lean | found | landmarks, % | straightened | lean off by | straightened | CPU ms |\n"
        + "| --- " * 9
        + "|"
    )
    for kind, damage in KINDS.items():
        for width in WIDTHS:
            for lean in LEANS:
                first, after, seconds = [], [], []
                for path in chosen:
                    photo, truth = pasted(to_bytes(read_image(path)), width, lean, damage)
                    found = find_faces(photo, detector)
                    if found:
                        face = max(found, key=lambda one: one.score)
                        begin = time.process_time()
                        straight = straightened(face, photo, detector)
                        seconds.append(time.process_time() - begin)
                        first.append(errors(face, truth, width, lean))
                        after.append(errors(straight, truth, width, lean))
                columns = [cell(part, place) for place in (0, 1) for part in (first, after)]
                spent = f"{1e3 * np.mean(seconds):.0f}" if seconds else "-"
                print(f"| {kind} | {width} | {lean} | {len(first)} | {' | '.join(columns)} | {spent} |", flush=True)


def pasted(face: Pixels, width: int, lean: float, damage: Callable[[Pixels, int], Pixels]) -> tuple[Photo, Matrix]:
    """A photo of one face, and the landmarks of that, (5, 2)."""
    side, middle = face.shape[0], (face.shape[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), lean, LARGER * width / side)
    matrix[:, 2] += (SIDE - 1) / 2 - middle
    ground = np.full((SIDE, SIDE, 3), 110, np.uint8)
    cv2.warpAffine(face, matrix, (SIDE, SIDE), ground, cv2.INTER_AREA, cv2.BORDER_TRANSPARENT)
    return Photo(damage(ground, width)), np.c_[TEMPLATE * (side / TEMPLATE_SIZE), np.ones(5)] @ matrix.T


def errors(face: Face, truth: Matrix, width: int, lean: float) -> tuple[float, float]:
    """The distance of the landmarks in percent of the width, and the error of the lean in degrees."""
    up = face.points[:2].mean(0) - face.points[3:].mean(0)
    off = float(np.degrees(np.arctan2(up[0], -up[1]))) + lean
    distance = np.linalg.norm(face.points - truth, axis=1).mean()
    return float(100 * distance / width), abs((off + 180) % 360 - 180)


def cell(found: list[tuple[float, float]], place: int) -> str:
    """The mean, and of the lean the largest too."""
    values = [one[place] for one in found]
    if not values:
        return "-"
    return f"{np.mean(values):.1f}" + (f" (at most {max(values):.0f})" if place else "")


def noisy(photo: Pixels, _: int) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 30, photo.shape)
    return np.rint(photo + noise).clip(0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[Pixels, int], Pixels]] = {
    "clean": lambda photo, width: photo,
    "blurred": lambda photo, width: np.asarray(cv2.GaussianBlur(photo, (0, 0), width / 14), np.uint8),
    "noisy": noisy,
}


if __name__ == "__main__":
    main()
