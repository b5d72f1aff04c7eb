"""What does a restorer do to faces that are not damaged? It should leave them alone.

    python benchmarks/no_harm.py FACES [--restorer RESTORER ...] [--faces 40]

FACES are clean, aligned faces. Each is set into a plain photo at 128, 256 and 512 px, and the photo is restored as
`unfade restore` does it. Printed for each size: how many faces came back bit for bit, the lowest and the median PSNR of
the face's square against what it was, and the largest and the median identity distance.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import unfade
from unfade.faces.identity import load_embedder
from unfade.images.files import read_image, write_png
from unfade.metrics.reference import psnr
from unfade.recipes.restore import BUILT_IN
from unfade.training.batches import find_training_pictures

SIZES = (128, 256, 512)  # px, side of the face's square in its photo
MARGIN = 0.5  # of that side, around it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--restorer", nargs="+", default=BUILT_IN, help="default: the built-in ones, by size")
    parser.add_argument("--faces", dest="count", type=int, default=40, help="drawn with a fixed seed")
    args = parser.parse_args()
    paths, _ = find_training_pictures(args.faces, {})
    drawn = [read_image(paths[i]) for i in np.random.default_rng(0).permutation(len(paths))[: args.count]]
    print("| size | bit for bit | PSNR, lowest | median | identity distance, largest | median |\n" + "| --- " * 6 + "|")
    for size in SIZES:
        print(row(size, [at_size(face, size) for face in drawn], args.restorer))


def row(size: int, faces: list[Tensor], restorer: Sequence[str]) -> str:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for i, face in enumerate(faces):
            write_png(place / "photos" / f"{i:03d}.png", in_photo(face))
        unfade.restore(place / "photos", place / "out", restorer, device="cpu")
        made = {int(path.stem): read_image(path) for path in (place / "out").glob("*.png")}
        before = {i: read_image(place / "photos" / f"{i:03d}.png") for i in made}
    square = slice(round(MARGIN * size), round(MARGIN * size) + size)
    pairs = [(before[i][:, square, square][None], made[i][:, square, square][None]) for i in made]
    same = sum(torch.equal(*pair) for pair in pairs)
    values = np.array([min(99.0, float(psnr(*pair))) for pair in pairs])
    embed = load_embedder("dlib-face", device="cpu")
    apart = np.array([float(torch.linalg.vector_norm(embed(one) - embed(other))) for one, other in pairs])
    numbers = f"{values.min():.1f} | {np.median(values):.1f} | {apart.max():.3f} | {np.median(apart):.3f}"
    return f"| {size} | {same} of {len(pairs)} found | {numbers} |"


def at_size(face: Tensor, size: int) -> Tensor:
    return F.interpolate(face[None], size=(size, size), mode="bicubic", antialias=True)[0].clamp(-1, 1)


def in_photo(face: Tensor) -> Tensor:
    """With the borders repeated around it."""
    margin = round(MARGIN * face.shape[-1])
    return F.pad(face[None], (margin,) * 4, "replicate")[0]


if __name__ == "__main__":
    main()
