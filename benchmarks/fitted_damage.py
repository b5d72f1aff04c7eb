"""How near is the degradation that an adaptation fits to a folder to the true one?

    python benchmarks/fitted_damage.py FACES [--cameras "4x moderate" "8x mild"]

FACES are clean, aligned faces that no built-in model has seen. Of those that `unfade rehearse` would adapt to, 50 are
degraded by each camera, and a degradation is fitted to these photos and their pseudo targets: alone, and then corrected
by what the restorer makes of it (`unfade.degradations.matching`). 32 others are degraded by the camera, and in both of
these ways. Prints Markdown: the PSNR of these photos, what the pre-trained restorer makes of them (PSNR, feature
distance), and the mean factors by which the response and the power of the noise are wrong, over the spatial frequencies
that matter (2 to 17 cycles per face).
"""

import argparse
import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.fitted import FittedDegradation, fit
from unfade.degradations.matching import Curves, matched
from unfade.diffusion.load import load_prior
from unfade.evaluation.pairs import built_in_distances
from unfade.images.files import read_image, read_picture
from unfade.images.filters import fit_square
from unfade.images.finding import list_images
from unfade.jobs.runs import open_run
from unfade.metrics.reference import psnr
from unfade.paper.pieces import DEGRADATIONS
from unfade.recipes.adapt_settings import DRAWN, SMALL_ADAPT
from unfade.recipes.rehearse import RehearseSettings, prepare, split
from unfade.restorers.base import Restorer
from unfade.restorers.load import load_restorer
from unfade.stages.targets import make_targets
from unfade.training.batches import find_training_pictures

PHOTOS, OTHERS = 50, 32
MATTERING = slice(2, 13)  # rings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--cameras", nargs="+", choices=DEGRADATIONS, default=["4x moderate", "8x mild"])
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    prior, restorer = load_prior(device="cpu"), load_restorer(device="cpu")
    distance = built_in_distances(prior)["feature_distance"]
    learn = split(find_training_pictures(args.faces, {})[0], RehearseSettings())["learn"]
    print("| | photos' PSNR | restored: PSNR | feature distance | response | noise |\n" + "| --- " * 6 + "|")
    for camera in args.cameras:
        with tempfile.TemporaryDirectory() as name, open_run(Path(name), {"camera": camera}) as run:
            parts = {"learn": learn[:PHOTOS], "score": learn[PHOTOS : PHOTOS + OTHERS]}
            prepare(run, parts, DEGRADATIONS[camera], size=restorer.size, seed=0)
            place, paths = Path(name) / "targets", list_images(Path(name) / "photos" / "learn")
            make_targets(paths, run.within("targets"), restorer, prior, settings=SMALL_ADAPT.targets)
            photos, targets = pictures(paths[0].parent), pictures(place)
            truth, seen = pictures(Path(name) / "truth" / "score"), pictures(Path(name) / "photos" / "score")
        wanted = Curves.of(seen, truth)
        for way, made in {"true": seen, **dict(damaged(photos, targets, truth, restorer))}.items():
            restored = attempts(restorer, made)
            found = Curves.of(made, truth)
            values = [psnr(made, truth), psnr(restored, truth), distance(restored, truth)]
            wrong = [factor(found.response, wanted.response), factor(found.rest, wanted.rest)]
            cells = [f"{float(value.mean()):.4g}" for value in values] + [f"{value:.2f}" for value in wrong]
            print(f"| {camera}, {way} | {' | '.join(cells)} |", flush=True)


def damaged(photos: Tensor, targets: Tensor, truth: Tensor, restorer: Restorer) -> Iterator[tuple[str, Tensor]]:
    """The faces, degraded in both ways."""
    fitted = fit(photos, targets)
    clean = torch.stack([fit_square(read_picture(p).pixels, restorer.size, p) for p in sorted(DRAWN[128].glob("*.*"))])
    yield "fitted", by(fitted, truth)
    yield "fitted and corrected", by(matched(fitted, photos, clean[:PHOTOS], partial(attempts, restorer)), truth)


def by(degradation: FittedDegradation, truth: Tensor) -> Tensor:
    return torch.stack([degradation.damaged(face, np.random.default_rng(i)) for i, face in enumerate(truth)])


def attempts(restorer: Restorer, faces: Tensor) -> Tensor:
    return torch.cat([restorer(part) for part in faces.split(8)]).clamp(-1, 1)


def pictures(folder: Path) -> Tensor:
    return torch.stack([read_image(path) for path in list_images(folder)])


def factor(found: Tensor, wanted: Tensor) -> float:
    """The geometric mean of the ratio or its inverse, whichever is above 1, where the wanted is a twentieth or more."""
    found, wanted = found[:, MATTERING], wanted[:, MATTERING]
    there = wanted > wanted.max() / 20
    return math.exp(float((found[there] / wanted[there]).clamp(1e-3, 1e3).log().abs().mean()))


if __name__ == "__main__":
    main()
