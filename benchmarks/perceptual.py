"""Does the perceptual term earn its place against L1 alone? Scores on the held-out sample photos for each weight.

    python benchmarks/perceptual.py [--seeds 3] [--out FOLDER]

All choices learn from the same pseudo targets; only the weight of the distance between the prior's features changes.
"""

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unfade.recipes.demo import DEMO, demo

CHOICES = {"L1": 0.0, "L1 + 0.1 prior": 0.1, "L1 + 0.5 prior": 0.5, "L1 + 1.0 prior": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="where the runs are kept")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp())
    print(f"{'held-out faces':20} {'psnr':>8} {'ssim':>8} {'feature_distance':>17} {'identity_distance':>18}")
    for name, weight in CHOICES.items():
        runs = [one(out, weight, seed) for seed in range(args.seeds)]
        if name == "L1":
            show("pre-trained", [run.pretrained for run in runs])
        show(name, [run.adapted for run in runs])


def one(out: Path, weight: float, seed: int):
    """The demonstration with another weight; its targets are copied from the first run, whose settings they share."""
    finetune = replace(DEMO.finetune, loop=replace(DEMO.finetune.loop, seed=seed))
    settings = replace(DEMO, finetune=finetune, losses=replace(DEMO.losses, perceptual_weight=weight))
    run, first = out / f"weight-{weight}-seed-{seed}", out / "weight-0.0-seed-0"
    if run != first and not run.exists():
        run.mkdir(parents=True)
        for name in ("faces", "pretrained", "targets"):
            shutil.copytree(first / name, run / name)
        shutil.copy(first / "journal.jsonl", run)
    return demo(run, settings)


def show(name: str, scores: Sequence[Mapping[str, float]]) -> None:
    """Print the means over the seeds."""
    means = {key: np.mean([row[key] for row in scores]) for key in scores[0]}
    told = f"{means['feature_distance']:17.4f} {means['identity_distance']:18.4f}"
    print(f"{name:20} {means['psnr']:8.2f} {means['ssim']:8.4f} {told}", flush=True)


if __name__ == "__main__":
    main()
