"""Does the perceptual term earn its place? Adapt to the sample photos with each choice and score on the held-out ones.

    python benchmarks/perceptual.py [--seeds 3] [--out FOLDER]

Prints one row for each choice: mean over the seeds, and the share of the change of the plain L1 run.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from unfade.recipes.adapt import SMALL_ADAPT, AdaptSettings
from unfade.recipes.demo import demo

CHOICES = {"L1": 0.0, "L1 + 0.1 prior": 0.1, "L1 + 0.5 prior": 0.5, "L1 + 1.0 prior": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="where the runs are kept")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp())
    print(f"{'held-out faces':20} {'psnr':>8} {'ssim':>8} {'feature_distance':>17}")
    for name, weight in CHOICES.items():
        runs = [demo(out / f"{weight}-{seed}", settings(weight, seed)) for seed in range(args.seeds)]
        if name == "L1":
            show("pre-trained", [run.pretrained for run in runs])
        show(name, [run.adapted for run in runs])


def settings(weight: float, seed: int) -> AdaptSettings:
    """The demonstration's settings with another weight of the perceptual term; the targets stay the same."""
    finetune = replace(SMALL_ADAPT.finetune, loop=replace(SMALL_ADAPT.finetune.loop, seed=seed))
    return replace(SMALL_ADAPT, finetune=finetune, losses=replace(SMALL_ADAPT.losses, perceptual_weight=weight))


def show(name: str, scores: list) -> None:
    means = {key: np.mean([row[key] for row in scores]) for key in scores[0]}
    print(f"{name:20} {means['psnr']:8.2f} {means['ssim']:8.4f} {means['feature_distance']:17.4f}", flush=True)


if __name__ == "__main__":
    main()
