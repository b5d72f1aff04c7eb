"""Does the prior draw the faces it has learned from?

    python benchmarks/copies.py LEARNED --held-out FACES [--prior NAME] [--count 16]

Prints how alike each face drawn from pure noise is to the nearest picture of LEARNED (the folder the prior was trained
on), and the same for held-out faces, which cannot be copies of any: a prior that has learned by heart draws faces that
are nearer. Alike is the correlation of two faces in grey at 32 px, mirrored or not: 1 for a copy, whatever its colours.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.diffusion.guidance import Guidance
from unfade.diffusion.load import load_prior
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.sampler import ImageNoise, sample
from unfade.precision import autocast
from unfade.store.seeds import seed_for
from unfade.training.batches import Pictures, find_training_pictures

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("learned", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--prior", default="small-prior")
    parser.add_argument("--count", type=int, default=16, help="faces to draw")
    args = parser.parse_args()
    prior = load_prior(args.prior, device="cpu")
    learned = torch.cat([coarse(batch) for batch in pictures(args.learned, prior.size)])
    learned = torch.cat([learned, learned.flip(-1)])
    drawn = nearest(faces_from_noise(prior, args.count), learned)
    held_out = torch.cat([nearest(batch, learned) for batch in pictures(args.held_out, prior.size)])
    print("| faces | lowest | median | highest |\n| --- | --- | --- | --- |")
    for name, alike in {"drawn": drawn, "held out": held_out}.items():
        print(f"| {name} ({len(alike)}) | {alike.min():.2f} | {np.median(alike):.2f} | {alike.max():.2f} |")


def pictures(folder: Path, size: int) -> Iterator[Tensor]:
    """Batches (B, 3, size, size) of all that is below a folder."""
    paths, _ = find_training_pictures(folder, {})
    every = Pictures(paths, size)
    for start in range(0, len(every), BATCH):
        yield torch.stack([every[i] for i in range(start, min(start + BATCH, len(every)))])


@torch.no_grad()
def faces_from_noise(prior: DiffusionPrior, count: int) -> Tensor:
    """As the picture of the prior's card: 100 steps, no guidance."""
    prior = prior.respaced("100")
    like = torch.zeros(count, 3, prior.size, prior.size)
    with autocast(torch.device("cpu"), bf16=True):
        return sample(prior, Guidance(), ImageNoise([seed_for("card", i) for i in range(count)]), like).clamp(-1, 1)


def coarse(faces: Tensor) -> Tensor:
    """(B, 32, 32) in grey, of mean 0 and norm 1."""
    grey = F.interpolate(faces.mean(1, keepdim=True), size=(32, 32), mode="area")[:, 0]
    centred = grey - grey.mean((1, 2), keepdim=True)
    return centred / centred.norm(dim=(1, 2), keepdim=True)


def nearest(faces: Tensor, learned: Tensor) -> Tensor:
    """The highest correlation of each face with any of those learned from, (B,)."""
    return (coarse(faces).flatten(1) @ learned.flatten(1).T).amax(1)


if __name__ == "__main__":
    main()
