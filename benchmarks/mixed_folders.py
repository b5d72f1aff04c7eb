"""Does adapting ever make a small folder worse?

    python benchmarks/mixed_folders.py FACES --out FOLDER [--folders 14] [--photos 20] [--scored 24]

FACES are clean, aligned faces that no built-in model has seen. Folders of photos of seven kinds are made of those that
`unfade rehearse` would adapt to, with draws of fixed seeds: one of the six cameras, the blind degradation (Eq. 9), no
damage at all, another degradation for every photo, photos of one person, grey photos, and three photos only. The
built-in restorer is adapted to each as `unfade adapt` does it, and scored before and after on other faces, damaged in
the same way. Prints a line for each folder: the differences on the same faces with their intervals of 95 %, and in bold
what is worse beyond its interval; at the end, how many folders are. Folders that are done already are kept, so a
stopped benchmark goes on.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from first_attempts import levels
from torch import Tensor

import unfade
from unfade.degradations.blind import blind_pair, draw_blind
from unfade.degradations.camera import camera
from unfade.evaluation.pairs import Score, built_in_distances
from unfade.images.files import read_picture, write_png
from unfade.images.filters import fit_square
from unfade.images.tone import grey_where
from unfade.metrics.bootstrap import bootstrap_interval
from unfade.metrics.reference import psnr
from unfade.paper.pieces import DEGRADATIONS
from unfade.recipes.rehearse import RehearseSettings, split
from unfade.restorers.base import Restorer
from unfade.store.seeds import seed_for
from unfade.training.batches import find_training_pictures

Damage = Callable[[Tensor, np.random.Generator], Tensor]  # of one face (3, H, W)
THREE = 3  # photos of the smallest folders
HIGHEST = 60.0  # dB, of pictures that are nearly equal
BETTER = {"PSNR": 1, "feature distance": -1, "identity distance": -1}  # the sign of what is better


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folders", type=int, default=14)
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--scored", type=int, default=24)
    parser.add_argument("--restorer", default="small-restorer")
    args = parser.parse_args()
    parts = split(find_training_pictures(args.faces, {})[0], RehearseSettings())
    print(f"| folder | photos | {' | '.join(BETTER)} |\n{'| --- ' * (len(BETTER) + 2)}|")
    harmed = 0
    for number in range(args.folders):
        kind = list(KINDS)[number % len(KINDS)]
        place = args.out / f"{number:03d}-{kind.replace(' ', '-')}"
        count = THREE if kind == "three photos" else args.photos
        found = one_folder(place, kind, number, parts, count, args.scored, args.restorer)
        cells = [cell(name, values) for name, values in found.items()]
        harmed += any("**" in cell for cell in cells)
        print(f"| {kind} | {count} | {' | '.join(cells)} |", flush=True)
    print(f"\n{harmed} of {args.folders} folders are worse in some column beyond its interval")


def one_folder(
    place: Path, kind: str, seed: int, parts: dict[str, list[Path]], count: int, scored: int, restorer: str
) -> dict[str, list[float]]:
    """Adapted - pre-trained for each scored face, by metric."""
    kept, settings = place / "scores.json", unfade.settings_for(restorer)
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    rng, size = np.random.default_rng(seed_for("mixed folders", seed)), unfade.load_restorer(restorer).size
    learn, score = (drawn(parts[part], n, size, rng) for part, n in (("learn", count), ("score", scored)))
    if kind == "one person":
        learn = learn[:1] * count
    damage = KINDS[kind](rng)
    for i, face in enumerate(learn):
        write_png(place / "photos" / f"{i:02d}.png", damage(face, rng))
    seen = levels(torch.stack([damage(face, rng) for face in score]))
    done = unfade.adapt(place / "photos", place / "run", settings, aligned=True)
    distances = {
        "PSNR": lambda restored, truth: psnr(restored, truth).clamp(max=HIGHEST),
        **built_in_distances(unfade.load_prior(settings.prior)),
    }
    truth = grey_where(seen, torch.stack(score))  # a grey photo stays grey
    before, after = (
        scores_of(unfade.load_restorer(spec), seen, truth, distances) for spec in (restorer, done.restorer)
    )
    values = {name: (after[i] - before[i]).tolist() for i, name in enumerate(BETTER)}
    kept.write_text(json.dumps(values))
    return values


@torch.no_grad()
def scores_of(restorer: Restorer, seen: Tensor, truth: Tensor, distances: dict[str, Score]) -> list[Tensor]:
    """By metric, a value for each face."""
    restored = levels(grey_where(seen, torch.cat([restorer(face[None]) for face in seen])))
    return [distance(restored, truth).double().cpu() for distance in distances.values()]


def drawn(paths: Sequence[Path], count: int, size: int, rng: np.random.Generator) -> list[Tensor]:
    chosen = [paths[i] for i in rng.permutation(len(paths))[:count]]
    return [fit_square(read_picture(path).pixels, size, path) for path in chosen]


def by_camera(name: str) -> Damage:
    def damage(face: Tensor, rng: np.random.Generator) -> Tensor:
        height, width = face.shape[-2:]
        return camera(face, DEGRADATIONS[name].draw(rng, height=height, width=width))

    return damage


def by_blind(face: Tensor, rng: np.random.Generator) -> Tensor:
    return blind_pair(face, draw_blind(rng, size=face.shape[-1]))[0]


def not_at_all(face: Tensor, rng: np.random.Generator) -> Tensor:
    return face


def some_camera(rng: np.random.Generator) -> Damage:
    return by_camera(str(rng.choice(list(DEGRADATIONS))))


def all_kinds(_: np.random.Generator) -> Damage:
    every = [by_blind, not_at_all, *map(by_camera, DEGRADATIONS)]
    return lambda face, rng: every[rng.integers(len(every))](face, rng)


def grey(rng: np.random.Generator) -> Damage:
    damage = some_camera(rng)
    return lambda face, rng: damage(face, rng).mean(0, keepdim=True).expand(3, -1, -1)


KINDS: dict[str, Callable[[np.random.Generator], Damage]] = {  # one damage for a whole folder
    "a camera": some_camera,
    "blind": lambda rng: by_blind,
    "not damaged": lambda rng: not_at_all,
    "all kinds": all_kinds,
    "one person": some_camera,
    "grey": grey,
    "three photos": some_camera,
}


def cell(name: str, values: Sequence[float]) -> str:
    """The mean difference with its interval; bold if it is worse."""
    known = [value for value in values if not np.isnan(value)]  # without those in which no face was embedded
    if not known:
        return "-"
    low, high = bootstrap_interval(known, rng=np.random.default_rng(0))
    text = f"{np.mean(known):+.3g} ({low:+.3g} to {high:+.3g})"
    worst = high if BETTER[name] > 0 else -low
    return f"**{text}**" if worst < 0 else text


if __name__ == "__main__":
    main()
