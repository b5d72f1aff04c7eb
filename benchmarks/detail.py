"""Do results have the fine detail of real faces?

    python benchmarks/detail.py EVIDENCE [--faces FACES]

EVIDENCE is the folder of `benchmarks/evidence.py`. Prints, for each camera and each row, the power of the results over
that of their truths, in bands of spatial frequency (cycles per face); 1 is the truth's. With FACES, a folder of clean,
aligned faces, also the power of the synthetic faces that adaptation learns from over that of these.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from unfade.degradations.rings import by_ring, power, rings_of, spectrum
from unfade.images.files import read_image
from unfade.images.finding import list_images
from unfade.recipes.adapt_settings import DRAWN
from unfade.recipes.rehearse import ROWS
from unfade.training.batches import Pictures, find_training_pictures

BANDS = ((2, 6), (6, 12), (12, 24), (24, 40), (40, 64))  # cycles per face
MOST = 500  # of FACES, spread over the folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evidence", type=Path)
    parser.add_argument("--faces", type=Path)
    args = parser.parse_args()
    print(f"| | | {' | '.join(f'{low} to {high}' for low, high in BANDS)} |\n{'| --- ' * (len(BANDS) + 2)}|")
    for camera in sorted(path.parent for path in args.evidence.glob("*/evidence.json")):
        truth = bands_of(pictures(camera / "truth" / "score"))
        for row in ROWS:
            show(camera.name.replace("-", " "), row, bands_of(pictures(camera / "results" / row)) / truth)
    if args.faces:
        show("faces to learn from", "synthetic", bands_of(pictures(DRAWN[128])) / bands_of(some_of(args.faces)))


def pictures(folder: Path) -> Iterator[Tensor]:
    return map(read_image, list_images(folder))


def some_of(folder: Path) -> Iterator[Tensor]:
    paths, _ = find_training_pictures(folder, {})
    faces = Pictures(paths[:: -(-len(paths) // MOST)], 128)
    return (faces[i] for i in range(len(faces)))


def bands_of(faces: Iterator[Tensor]) -> Tensor:
    """The mean power of the faces in each band, (bands,)."""
    found = torch.stack([by_ring(power(spectrum(face[None]))).mean(0) for face in faces]).mean(0)
    rings = torch.tensor(rings_of(128))
    return torch.stack([found[(rings > low) & (rings <= high)].mean() for low, high in BANDS])


def show(camera: str, row: str, ratio: Tensor) -> None:
    print(f"| {camera} | {row} | {' | '.join(f'{float(value):.2f}' for value in ratio)} |", flush=True)


if __name__ == "__main__":
    main()
