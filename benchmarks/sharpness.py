"""Are the faces of restored photos as sharp as they came?

    python benchmarks/sharpness.py PHOTOS [--restorer RESTORER ...]

PHOTOS are whole photos, restored here as `unfade restore` does it. Every face that was changed is cut out of the photo
before and after, at 96 px. Sharpness is the standard deviation of its Laplacian, and noise the median size of its
diagonal differences, by which a face is noisier only if its whole surface is. Prints a line for each face, and the
ratios of sharpness, after / before, over all changed faces and over those that were not noisier before than after.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor, tensor

import unfade
from unfade.faces.align import crop
from unfade.images.decoding import read_photo
from unfade.images.finding import find_photos
from unfade.recipes.restore import BUILT_IN

SIDE = 96  # px, of the crops
CHANGED = 1.0  # grey levels, mean of the face: less is a JPEG that was written again
LAPLACIAN = tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
DIAGONAL = tensor([[0.5, -0.5], [-0.5, 0.5]])
GAUSSIAN = 0.6745  # median size of normal noise, in its deviations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--restorer", nargs="+", default=BUILT_IN, help="default: the built-in ones, by size")
    args = parser.parse_args()
    ratios, counted, same = [], [], 0
    print("| photo | face | sharpness before | after | noise before | after |\n" + "| --- " * 6 + "|")
    for name, number, before, after in faces(args.photos, args.restorer):
        if float((after - before).abs().mean()) * 127.5 < CHANGED:
            same += 1
            continue
        sharp, noisy = [[measure(face) for face in (before, after)] for measure in (sharpness, noise)]
        ratios.append(sharp[1] / sharp[0])
        counted.append(noisy[0] <= noisy[1])
        print(f"| {name} | {number} | {' | '.join(f'{value:.2f}' for value in (*sharp, *noisy))} |")
    all_, quiet = np.array(ratios), np.array(ratios)[counted]
    print(f"\n{same} faces were left as they came; sharpness after / before, changed faces: {summary(all_)}")
    print(f"of these not noisier before: {summary(quiet)}")


def faces(photos: Path, restorer: Sequence[str]) -> Iterator[tuple[str, int, Tensor, Tensor]]:
    """The photo's name, the face's number, and the face before and after: (3, SIDE, SIDE)."""
    find = unfade.FindSettings().loaded(device="cpu").finder(SIDE)
    with tempfile.TemporaryDirectory() as folder:
        unfade.restore(photos, folder, restorer, device="cpu")
        for name in find_photos(photos).names:
            before, made = read_photo(photos / name), Path(folder) / name
            if not made.exists():
                continue
            after = read_photo(made)
            for found in find(name.as_posix(), before):
                yield name.as_posix(), found.index, crop(before, found.matrix, SIDE), crop(after, found.matrix, SIDE)


def sharpness(face: Tensor) -> float:
    """In grey levels."""
    return float(filtered(face, LAPLACIAN).std())


def noise(face: Tensor) -> float:
    """In grey levels."""
    return float(filtered(face, DIAGONAL).abs().median()) / GAUSSIAN


def filtered(face: Tensor, kernel: Tensor) -> Tensor:
    grey = face.mean(0)[None, None] * 127.5
    return F.conv2d(grey, kernel[None, None])


def summary(ratios: np.ndarray) -> str:
    return f"{len(ratios)} faces, mean {ratios.mean():.2f}, median {np.median(ratios):.2f}, lowest {ratios.min():.2f}"


if __name__ == "__main__":
    main()
