"""How much of what fine-tuning on the truth would give does adaptation recover, on faces nobody trained on?

    python benchmarks/evidence.py FACES --retinaface FILE.pth --yunet FILE.onnx --out FOLDER [--only NAME ...]

FACES are clean, aligned faces that no built-in model has seen. Every camera degradation is one rehearsal (`unfade
rehearse`), and so is every variant of the settings, on one of them. Runs that are there already are kept, so a stopped
evidence goes on. Prints a line as each is done, and at the end the tables in Markdown and the mean shares.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from detector_spaces import retinaface_space, yunet_space

from unfade.diffusion.load import load_prior
from unfade.evaluation.gap import Space
from unfade.images.files import read_image, write_png
from unfade.images.finding import list_images
from unfade.images.sheet import sheet
from unfade.jobs.runs import open_run
from unfade.paper.pieces import DEGRADATIONS as CAMERAS
from unfade.recipes.adapt_settings import SMALL_ADAPT, settings_for
from unfade.recipes.rehearse import ROWS, Rehearsal, RehearseSettings, rehearse
from unfade.restorers.load import load_restorer
from unfade.stages.degrade import CameraDegradation, degrade_faces
from unfade.stages.restore import restore_faces
from unfade.stages.targets import make_targets

SWINIR = "small-swinir"
BASE = "4x moderate"  # on which settings are varied
MAIN = RehearseSettings(SMALL_ADAPT)
MORE = ("photos 500", "photos 1000")  # of which --more has the other faces
FEW = replace(MAIN, most=50)  # what is varied: with fewer photos a variant takes a few minutes
SHOWN = 8  # faces on the sheet of each degradation, drawn at random


def varied(**targets: object) -> RehearseSettings:
    """Other targets for the few photos."""
    return replace(FEW, adapt=replace(FEW.adapt, targets=replace(FEW.adapt.targets, **targets)))


def trained(steps: int) -> RehearseSettings:
    """Another number of the optimiser's steps."""
    tuning = FEW.adapt.finetune
    return replace(FEW, adapt=replace(FEW.adapt, finetune=replace(tuning, loop=replace(tuning.loop, steps=steps))))


def seeded(seed: int) -> RehearseSettings:
    """Another draw of everything random in the adaptation, with the same photos."""
    tuning, targets = FEW.adapt.finetune, replace(FEW.adapt.targets, seed=seed)
    tuning = replace(tuning, loop=replace(tuning.loop, seed=seed))
    return replace(FEW, adapt=replace(FEW.adapt, finetune=tuning, targets=targets))


def weighed(texture: float) -> RehearseSettings:
    """Another weight of the texture term."""
    losses = replace(FEW.adapt.losses, texture_weight=texture)
    return replace(FEW, adapt=replace(FEW.adapt, losses=losses))


# Steps are respaced ones, 50 of 1000 each, unless the spacing says otherwise.
VARIANTS: dict[str, dict[str, RehearseSettings]] = {
    "photos": {str(n): MAIN if n == 162 else replace(MAIN, most=n) for n in (8, 20, 50, 100, 162, 500, 1000)},
    "L": {"0": varied(free_from=0), "100": varied(free_from=2), "150": FEW, "unconstrained": varied(free_from=6)},
    "N": {str(4 * factor): varied(factor=factor) for factor in (1, 2, 4, 8)},  # of 512 px
    "K": {"300": FEW, "600": varied(start=12, free_from=6), "900": varied(start=18, free_from=9)},
    "begin with": {name: varied(begin_with=name) for name in ("restored", "face")},
    "restorer": {"small-restorer": FEW, SWINIR: replace(FEW, adapt=settings_for(SWINIR))},
    "steps of the prior": {
        "6": FEW,
        "6, all alike": varied(by_damage=False),
        "15": varied(spacing="50", start=15, free_from=8),
        "30": varied(spacing="50", start=30, free_from=18, update="ddpm", by_damage=False),
    },
    "steps of the optimiser": {"40": trained(40), "80": FEW, "160": trained(160)},
    "seed": {"0": FEW, "1": seeded(1), "2": seeded(2)},
    "weight of the texture term": {"0": weighed(0.0), "0.4": FEW, "1": weighed(1.0), "2": weighed(2.0)},
    "rounds": {str(n): replace(MAIN, adapt=replace(MAIN.adapt, rounds=n)) for n in (1, 2, 3)},
}
HARD = {"rounds": "8x moderate"}  # what is varied on another degradation than BASE


def main() -> None:
    args = arguments()
    spaces = {"retinaface": retinaface_space(args.retinaface), "yunet": yunet_space(args.yunet)}
    results: dict[str, Rehearsal] = {}
    for name, camera, settings in plan():
        if (args.only and name not in args.only) or (name in MORE and not args.more):
            continue
        if args.restorer:
            settings = replace(settings, adapt=settings_for(args.restorer))
        if args.photos and name not in CAMERAS:
            continue
        if args.photos:
            settings = replace(settings, most=args.photos)
        begin = time.monotonic()
        more = args.more if name in MORE else None
        results[name] = one(args.faces, args.out, name, camera, settings, spaces, more, args.device)
        line = {metric: round(share.value, 3) for metric, share in results[name].share.items()}
        print(f"{name}: share of the gap {line}, {time.monotonic() - begin:.0f} s", flush=True)
        (args.out / name.replace(" ", "-") / "evidence.json").write_text(json.dumps(results[name].as_dict(), indent=1))
    cameras = {name: results[name] for name in CAMERAS if name in results}
    if cameras:
        print_cameras(cameras)
    if args.pictures:
        for name, camera in CAMERAS.items():
            if name in results:
                pictures(args.pictures, args.out, name, camera, args.restorer or MAIN.adapt.restorer)
    if args.photos:
        return  # a camera with fewer photos is no row of the variants
    for what, variants in VARIANTS.items():
        print_variants(what, {v: results[key_of(what, v)] for v in variants if key_of(what, v) in results})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--retinaface", type=Path, required=True)
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--more", type=Path, help="folder of other clean faces, for 500 and 1000 photos; left out without it"
    )
    parser.add_argument("--pictures", type=Path, help="folder of faces that may be shown: a sheet of each degradation")
    parser.add_argument(
        "--restorer",
        help="another one for all rehearsals, as it is adapted by default; they need a folder of their own",
    )
    parser.add_argument("--only", nargs="+", default=[], help="degradations or variants, by name")
    parser.add_argument("--photos", type=int, help="to adapt to, of each camera, and no variants; default: all")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def plan() -> list[tuple[str, CameraDegradation, RehearseSettings]]:
    """Every rehearsal once; a setting that several tables show is one rehearsal."""
    runs = {name: (name, camera, MAIN) for name, camera in CAMERAS.items()}
    for what, variants in VARIANTS.items():
        for variant, settings in variants.items():
            name = key_of(what, variant)
            runs.setdefault(name, (name, CAMERAS[HARD.get(what, BASE)], settings))
    return list(runs.values())


def key_of(what: str, variant: str) -> str:
    """The name of a variant's rehearsal."""
    settings = VARIANTS[what][variant]
    return HARD.get(what, BASE) if settings == MAIN else "photos 50" if settings == FEW else f"{what} {variant}"


def one(
    faces: Path, out: Path, name: str, camera: CameraDegradation, settings: RehearseSettings,
    spaces: Mapping[str, Space], more: Path | None, device: str,
) -> Rehearsal:  # fmt: skip
    """One rehearsal; variants of targets and rounds share the upper bound of the same photos."""
    folder = out / name.replace(" ", "-")
    same = {FEW.most: "photos 50", MAIN.most: next(other for other, seen in CAMERAS.items() if seen == camera)}
    shared = name not in CAMERAS and settings.most in same
    upper = out / same[settings.most].replace(" ", "-") if shared else None
    result = rehearse(faces, folder, camera, settings, more=more, spaces=spaces, supervised=upper, device=device)
    picture(folder)
    return result


def picture(folder: Path) -> None:
    """A sheet of faces drawn at random with a fixed seed: photo, every row, truth."""
    names = [path.name for path in list_images(folder / "photos" / "score")]
    drawn = sorted(np.random.default_rng(0).permutation(names)[:SHOWN])
    places = {"photo": folder / "photos" / "score", **{row: folder / "results" / row for row in ROWS}}
    places["truth"] = folder / "truth" / "score"
    write_png(folder / "sheet.png", sheet([(t, [read_image(p / n) for n in drawn]) for t, p in places.items()]))


def pictures(faces: Path, out: Path, name: str, camera: CameraDegradation, pretrained: str) -> None:
    """The same sheet of faces that may be shown to anyone: nothing was adapted to them, nor are they scored."""
    folder = out / name.replace(" ", "-")
    shown, paths = folder / "shown", list_images(faces)
    drawn = [paths[i] for i in sorted(np.random.default_rng(0).permutation(len(paths))[:SHOWN])]
    with open_run(shown, {"shown": name}) as run:
        degrade_faces(drawn, run.within("photo"), camera, seed=0)
        photos = list_images(shown / "photo")
        supervised, adapted = folder / "supervised.safetensors", folder / "adapted"
        for row, spec in {"pre-trained": pretrained, "adapted": adapted, "supervised": supervised}.items():
            restore_faces(photos, run.within(row), load_restorer(spec, device="cpu"), stage=row)
        adapt = settings_for(pretrained)
        restorer, prior = load_restorer(pretrained, device="cpu"), load_prior(adapt.prior, device="cpu")
        make_targets(photos, run.within("targets"), restorer, prior, settings=adapt.targets)
    columns = {row: [read_image(shown / row / f"{p.stem}.png") for p in drawn] for row in ("photo", *ROWS)}
    columns["truth"] = [read_image(path) for path in drawn]
    write_png(shown / "sheet.png", sheet(list(columns.items()), side=restorer.size))


def print_cameras(results: Mapping[str, Rehearsal]) -> None:
    """One row for each way of restoring, and the share of the gap with its interval."""
    metrics = list(next(iter(results.values())).share)
    print(f"\n| degradation | | {' | '.join(metrics)} |\n|{' --- |' * (len(metrics) + 2)}")
    for name, result in results.items():
        for row in ROWS:
            print(f"| {name} | {row} | {' | '.join(f'{result.scores[row][m].value:.4g}' for m in metrics)} |")
        print(f"| {name} | **gain** | {' | '.join(as_gain(result, m) for m in metrics)} |")
        print(f"| {name} | **share** | {' | '.join(as_share(result, m) for m in metrics)} |")
    means = [np.mean([r.share[m].value for r in results.values()]) for m in metrics]
    lows = [np.min([r.share[m].value for r in results.values()]) for m in metrics]
    print(f"| mean | **share** | {' | '.join(f'{mean:.0%}' for mean in means)} |")
    print(f"| lowest | **share** | {' | '.join(f'{low:.0%}' for low in lows)} |")
    some = next(iter(results.values()))
    print(f"\nadapted to {some.learned} photos, scored on {some.held_out} faces; Frechet distances to their truths")


def print_variants(what: str, results: Mapping[str, Rehearsal]) -> None:
    """Scores of targets and adapted restorer, and the share, for each variant."""
    if not results:
        return
    metrics = list(next(iter(results.values())).share)
    print(f"\n| {what} | | {' | '.join(metrics)} |\n|{' --- |' * (len(metrics) + 2)}")
    for variant, result in results.items():
        for row in ("targets", "adapted"):
            print(f"| {variant} | {row} | {' | '.join(f'{result.scores[row][m].value:.4g}' for m in metrics)} |")
        print(f"| {variant} | share | {' | '.join(as_share(result, m) for m in metrics)} |")


def as_gain(result: Rehearsal, metric: str) -> str:
    """+0.37 (+0.30 to +0.45)."""
    gain = result.gain[metric]
    return f"{gain.value:+.3g} ({gain.low:+.3g} to {gain.high:+.3g})"


def as_share(result: Rehearsal, metric: str) -> str:
    """37 % (30 to 45)."""
    share = result.share[metric]
    return "-" if math.isnan(share.value) else f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


if __name__ == "__main__":
    main()
