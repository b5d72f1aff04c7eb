"""How often is the true picture within the bounds of a trust map, on cameras that it was not calibrated on?

    python benchmarks/trust.py FACES [--restorer small-restorer] [--most 162] [--write]

FACES are clean, aligned faces that no built-in model has seen, split as for evidence.py: the larger part, under generic
damage, the blind degradation and the cameras, calibrates; the others are scored. Every camera is scored by a
calibration without it, by one without all cameras of its scale, and by one without any camera. A star marks coverage
that is off by more than 2 %. --write calibrates on all of them and puts that into the restorer's card, which is how the
built-in restorers got theirs.
"""

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.blind import BLIND_PRESETS, blind_pair, draw_blind
from unfade.degradations.camera import camera, draw_camera
from unfade.degradations.generic import generic
from unfade.faces.trust import LEVEL, Calibration, Seen, calibrated, errors, evidence
from unfade.images.files import from_bytes, to_bytes
from unfade.metrics.bootstrap import bootstrap_interval
from unfade.nets.damage import DamageNet
from unfade.paper.pieces import DEGRADATIONS as CAMERAS
from unfade.recipes.rehearse import RehearseSettings, split
from unfade.recipes.trust import calibration_begun, put_in_card
from unfade.restorers.base import Restorer
from unfade.restorers.load import loaded_restorer
from unfade.stages.restore import restore_batch
from unfade.training.batches import Pictures, find_training_pictures
from unfade.zoo.load import load_network

GENERIC = 3  # rounds of generic damage, of which three in ten faces get the blind degradation instead
PRESETS = ("swinir", "gfpgan", "codeformer-stage3-small")
Damaged = Callable[[Tensor, np.random.Generator], tuple[Tensor, Tensor]]  # a clean face to photo and truth


def main() -> None:
    args = arguments()
    loaded = loaded_restorer(args.restorer, device="cpu")
    parts = split(find_training_pictures(args.faces, {})[0], RehearseSettings())
    damage: DamageNet = load_network("damage", "damage").network
    learned, scored = {}, {}
    for name, damaged in kinds().items():
        learned[name] = seen(parts["learn"][: args.most], name, damaged, loaded.network, damage)
        if name in (*CAMERAS, "generic 0"):
            scored[name] = seen(parts["score"], name, damaged, loaded.network, damage)
        print(name, file=sys.stderr, flush=True)
    about = calibration_begun(loaded, "generic damage, the blind degradation, and the six cameras")
    print(f"{len(parts['learn'][: args.most])} faces calibrate, {len(parts['score'])} are scored\n")
    print("| | calibrated without | coverage | mean bound | constant bound | mean error | rank correlation |")
    print("|" + " --- |" * 7)
    for name in CAMERAS:
        for what, left_out in without(name).items():
            print(row(name, what, calibration(learned, about, left_out), scored[name]), flush=True)
    print(row("generic and blind", "", calibration(learned, about), scored["generic 0"]))
    if args.write:
        put_in_card(loaded.path, calibration(learned, about))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--restorer", default="small-restorer")
    parser.add_argument("--most", type=int, default=162, help="faces that calibrate")
    parser.add_argument("--write", action="store_true", help="put the calibration into the restorer's card")
    return parser.parse_args()


def kinds() -> dict[str, Damaged]:
    """Every kind of damage by its name."""

    return {**{f"generic {i}": generic_or_blind for i in range(GENERIC)}, **{name: by_camera(name) for name in CAMERAS}}


def by_camera(name: str) -> Damaged:
    settings = CAMERAS[name].settings
    return lambda face, rng: (camera(face, draw_camera(rng, size=face.shape[-1], settings=settings)), face)


def generic_or_blind(face: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    if rng.random() >= 0.3:
        return generic(face, rng), face
    preset = BLIND_PRESETS[PRESETS[rng.integers(len(PRESETS))]]
    return blind_pair(face, draw_blind(rng, size=face.shape[-1], settings=preset))


def seen(paths: Sequence[Path], name: str, damaged: Damaged, restorer: Restorer, damage: DamageNet) -> Seen:
    """Evidence and errors of the faces of some files, under one kind of damage."""
    found, wanted = [], []
    pictures = Pictures(paths, restorer.size)
    for i, path in enumerate(paths):
        face, truth = damaged(pictures[i], np.random.default_rng([*name.encode(), *path.stem.encode()]))
        face = from_bytes(to_bytes(face))[None]
        result = restore_batch(face, restorer)
        found.append(evidence(face, result, damage))
        wanted.append(errors(result, truth[None]))
    return torch.cat(found), torch.cat(wanted)


def without(camera: str) -> dict[str, set[str]]:
    """Which cameras a calibration leaves out, by the words for it."""
    return {
        "it": {camera},
        "its scale": {name for name in CAMERAS if name[0] == camera[0]},
        "any camera": {*CAMERAS},
    }


def calibration(learned: Mapping[str, Seen], about: Calibration, left_out: Collection[str] = ()) -> Calibration:
    parts = [part for name, part in learned.items() if name not in left_out]
    return calibrated(
        (torch.cat([found for found, _ in parts], 1), torch.cat([wanted for _, wanted in parts], 1)), about
    )


def row(name: str, what: str, made: Calibration, seen: Seen) -> str:
    """One line of the table; the constant bound has the same coverage."""
    found, wanted = seen
    bounds = made.bounds(found)
    covered = (wanted <= bounds).float()
    shares = covered.mean(1).double().numpy()
    low, high = bootstrap_interval(shares, rng=np.random.default_rng(0))
    constant = float(np.quantile(wanted.numpy(), shares.mean()))
    share = f"{shares.mean():.1%} ({low:.1%} to {high:.1%})"
    inside = "" if abs(shares.mean() - LEVEL) <= 0.02 else " *"
    numbers = f"{bounds.mean():.1f} | {constant:.1f} | {wanted.mean():.1f} | {rank_correlation(bounds, wanted):.2f}"
    return f"| {name} | {what} | {share}{inside} | {numbers} |"


def rank_correlation(a: Tensor, b: Tensor) -> float:
    ranks = [x.flatten().argsort().argsort().float() for x in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


if __name__ == "__main__":
    main()
