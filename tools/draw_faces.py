"""Draw the faces of nobody that adaptation damages as photos are: by the built-in prior, of pure noise.

    python tools/draw_faces.py FACES --raw FOLDER [--count 128] [--out FOLDER] [--large FOLDER]

What the prior draws has its faces right and its light wrong: whole pictures are orange or blue. So the channels are
balanced as a camera would: each gets the gain that brings its mean over the middle of the face to a value drawn from a
normal distribution fitted to those of FACES. Faces that would need a large gain, and what no detector takes for a face,
are left out. Their fine detail is fainter than that of FACES, and a restorer that learns from them would be as soft; so
it is raised until its share of the power is that of FACES, of which nothing else is used. `--raw` keeps what was drawn,
so that a stopped run goes on.

At 256 px they are the same faces, enlarged. The restorer of that size gives them their finest octave, of which the
prior of that size draws little.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unfade.degradations.rings import by_ring, filtered, power, spectrum
from unfade.diffusion.guidance import Guidance
from unfade.diffusion.load import load_prior
from unfade.diffusion.sampler import ImageNoise, sample
from unfade.faces.detectors import load_detector
from unfade.images.files import read_image, to_bytes, write_png
from unfade.images.filters import resize
from unfade.precision import autocast
from unfade.recipes.adapt_settings import DRAWN
from unfade.restorers.load import load_restorer
from unfade.restorers.one_step import OneStepRestorer
from unfade.store.seeds import seed_for
from unfade.training.batches import Pictures, find_training_pictures

BATCH = 8
STEPS = "50"  # of the respaced prior, DDPM
MOST_GAIN = 1.8
LEAST_SCORE = 0.85  # of the detector
MIDDLE = slice(3, 8)  # rings of the spectrum: features of a face, which are drawn as they should be
ENLARGED = 80  # step of 1000 whose noise hides about as much as enlarging does


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--out", type=Path, default=DRAWN[128])
    parser.add_argument("--large", type=Path, default=DRAWN[256])
    args = parser.parse_args()
    draw(args.raw, args.count)
    faces = some_of(args.faces)
    mean, covariance = light_of(faces)
    detector, kept = load_detector(), []
    for i in range(args.count):
        face = read_image(args.raw / f"{i:03d}.png")
        wanted = np.random.default_rng(seed_for("light", i)).multivariate_normal(mean, covariance)
        gains = np.exp(wanted - light(face))
        face = balanced(face, gains)
        sure = max((found.score for found in detector(face)), default=0.0)
        if gains.max() <= MOST_GAIN and gains.min() >= 1 / MOST_GAIN and sure >= LEAST_SCORE:
            kept.append(face)
    print(f"{len(kept)} of {args.count} kept")
    for i, face in enumerate(with_detail_of(faces, torch.stack(kept))):
        write_png(args.out / f"{i:03d}.png", face)
    finish(args.out, args.large)


@torch.no_grad()
def draw(out: Path, count: int) -> None:
    """Write the faces that are not there yet."""
    prior = load_prior("small-prior", device="cpu").respaced(STEPS)
    for first in range(0, count, BATCH):
        paths = [out / f"{i:03d}.png" for i in range(first, min(first + BATCH, count))]
        if all(path.exists() for path in paths):
            continue
        noise = ImageNoise([seed_for("drawn", first + i) for i in range(len(paths))])
        like = torch.zeros(len(paths), 3, prior.size, prior.size)
        with autocast(torch.device("cpu"), bf16=True):
            faces = sample(prior, Guidance(), noise, like).clamp(-1, 1)
        for path, face in zip(paths, faces, strict=True):
            write_png(path, face)
        print(f"{first + len(paths)} of {count} faces", flush=True)


@torch.no_grad()
def finish(faces: Path, out: Path) -> None:
    """Write the faces at 256 px."""
    restorer = load_restorer("small-restorer-256", device="cpu")
    assert isinstance(restorer, OneStepRestorer)
    restorer.settings = replace(restorer.settings, fixed=ENLARGED)
    paths = sorted(faces.glob("*.png"))
    for part in (paths[first : first + BATCH] for first in range(0, len(paths), BATCH)):
        enlarged = torch.stack([resize(read_image(path)[None], restorer.size, restorer.size)[0] for path in part])
        for path, face in zip(part, restorer(enlarged), strict=True):
            Image.fromarray(to_bytes(face)).save(out / f"{path.stem}.jpg", quality=95, subsampling=0)


def light_of(faces: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (3,) and covariance (3, 3) of `light` over (N, 3, H, W)."""
    found = np.stack([light(face) for face in faces])
    return found.mean(0), np.cov(found.T)


def some_of(folder: Path) -> Tensor:
    """(N, 3, 128, 128): every fifth of a folder's pictures."""
    paths, _ = find_training_pictures(folder, {})
    pictures = Pictures(paths[::5], 128)
    return torch.stack([pictures[i] for i in range(len(pictures))])


def with_detail_of(faces: Tensor, drawn: Tensor) -> Tensor:
    """Drawn faces whose power above MIDDLE's frequencies has the ratio to that at MIDDLE that it has in `faces`.

    Both are (N, 3, S, S); each face keeps its mean colour.
    """
    wanted, found = (by_ring(sum(power(spectrum(part)) * len(part) for part in x.split(64))) for x in (faces, drawn))
    gains = ((wanted / len(faces)) / (found / len(drawn))).mean(0).sqrt()
    gains = gains / gains[MIDDLE].mean()
    gains[: MIDDLE.stop] = 1
    gains[-1] = gains[-2]  # the corners of the spectrum, where JPEG leaves nothing of the faces
    colour = drawn.mean((2, 3), keepdim=True)
    return (filtered(drawn - colour, gains.float().expand(3, -1)) + colour).clamp(-1, 1)


def light(face: Tensor) -> NDArray[np.float64]:
    """(3, H, W) to (3,): the logarithms of the means of its channels over the middle of the face, values in [0, 1]."""
    size = face.shape[-1]
    middle = face[:, size // 3 : size * 7 // 8, size // 3 : size * 2 // 3]
    return middle.add(1).div(2).mean((1, 2)).log().double().numpy()


def balanced(face: Tensor, gains: NDArray[np.float64]) -> Tensor:
    """A face whose channels, in [0, 1], are multiplied by these gains; highlights are compressed, not cut."""
    light = face.add(1).div(2) * torch.from_numpy(gains).float()[:, None, None]
    knee = 0.8
    over = (light - knee).clamp_min(0)
    return (light.clamp(max=knee) + (1 - knee) * (1 - (-over / (1 - knee)).exp())) * 2 - 1


if __name__ == "__main__":
    main()
