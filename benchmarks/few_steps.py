"""How few steps of the prior do targets need, and with which update?

    python benchmarks/few_steps.py FACES --retinaface FILE.pth --yunet FILE.onnx --out FOLDER [--faces 48]

FACES are clean, aligned faces that no built-in model has seen; those that `unfade rehearse` would score are left out.
They are degraded at 128 px, with their truth at that size. Prints for each camera and each way of making targets the
scores with their bootstrap intervals of 95 %, in bold where the interval of the difference to the default on the same
faces does not contain 0, and the CPU time per target. Targets that are there already are kept, so a stopped benchmark
goes on.
"""

import argparse
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from detector_spaces import retinaface_space, yunet_space

from unfade.diffusion.load import load_prior
from unfade.diffusion.prior import DiffusionPrior
from unfade.evaluation.gap import Estimate, Row, Space, estimates, features_of, gains
from unfade.evaluation.pairs import METRICS, built_in_distances, score_folder
from unfade.images.finding import list_images
from unfade.jobs.runs import open_run
from unfade.paper.pieces import DEGRADATIONS as CAMERAS
from unfade.recipes.adapt_settings import SHORT_TARGETS, SMALL_ADAPT
from unfade.recipes.rehearse import RehearseSettings, prepare, split
from unfade.restorers.load import load_restorer
from unfade.stages.targets import TargetSettings, make_targets
from unfade.training.batches import find_training_pictures

DEFAULT = "DDIM, 6: the default"


def few(update: str, steps: int) -> TargetSettings:
    """At most so many steps from K = 300 of 1000, free in the later half; less for less damage, like the default."""
    spacing = str(round(steps / 0.3))
    return replace(SMALL_ADAPT.targets, spacing=spacing, start=steps, free_from=steps // 2, update=update)


SHORT = SHORT_TARGETS.for_size(128)  # K = 600 and L = 360 of 1000 for every face, as published, in 30 steps
WAYS = {
    DEFAULT: SMALL_ADAPT.targets,
    "DDIM, 10": few("ddim", 10),
    "DDIM, 3": few("ddim", 3),
    "DPM++, 10": few("dpm++", 10),
    "DPM++, 6": few("dpm++", 6),
    "DPM++, 4": few("dpm++", 4),
    "DDPM, 10": few("ddpm", 10),
    "DDPM, 10, K = 600": replace(SHORT, spacing="17", start=10, free_from=6),
    "DDPM, 30, K = 600": SHORT,
    "DDPM, 150, K = 600": replace(SHORT, spacing="250", start=150, free_from=90),
}


def main() -> None:
    """Print a table for each camera."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FACES")
    parser.add_argument("--retinaface", type=Path, required=True)
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=48)
    parser.add_argument("--cameras", nargs="+", choices=CAMERAS, default=["4x moderate", "8x moderate"])
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="besides the default")
    args = parser.parse_args()
    spaces = {"retinaface": retinaface_space(args.retinaface), "yunet": yunet_space(args.yunet)}
    learn = split(find_training_pictures(args.folder, {})[0], RehearseSettings(most=args.faces))["learn"]
    for camera in args.cameras:
        rows, seconds = targets_of(args.out / camera.replace(" ", "-"), camera, learn, [DEFAULT, *args.only], spaces)
        print_camera(camera, rows, seconds)


def targets_of(
    out: Path, camera: str, faces: list[Path], ways: list[str], spaces: Mapping[str, Space]
) -> tuple[dict[str, Row], dict[str, float]]:
    """Scores and features of the targets made in each way, with those of the truth; and CPU s for each target."""
    prior, restorer = load_prior(device="cpu"), load_restorer(device="cpu")
    rows, seconds, truth = {}, {}, out / "truth" / "learn"
    with open_run(out, {"few steps": camera, "faces": len(faces)}) as run:
        prepare(run, {"learn": faces}, CAMERAS[camera], size=prior.size, seed=0)
        photos = list_images(out / "photos" / "learn")
        for way in dict.fromkeys(ways):
            targets = run.within(re.sub(r"\W+", "-", way))
            place, begin = targets.folder, time.process_time()
            make_targets(photos, targets, restorer, prior, settings=WAYS[way], stage=way)
            seconds[way] = kept(out / f"{place.name}.json", (time.process_time() - begin) / len(photos))
            rows[way] = scored(place, truth, prior, spaces)
    names = sorted(rows[DEFAULT].files)
    return {**rows, "truth": Row({name: {} for name in names}, features_of(truth, names, spaces))}, seconds


def kept(file: Path, seconds: float) -> float:
    """What the file says; the seconds are written to it if it is not there yet."""
    if not file.exists():
        file.write_text(json.dumps(seconds))
    return float(json.loads(file.read_text()))


def scored(folder: Path, truth: Path, prior: DiffusionPrior, spaces: Mapping[str, Space]) -> Row:
    """Scores and features of a folder of targets."""
    files = score_folder(folder, truth, metrics={**METRICS, **built_in_distances(prior)}).files
    return Row(files, features_of(folder, sorted(files), spaces))


def print_camera(camera: str, rows: Mapping[str, Row], seconds: Mapping[str, float]) -> None:
    """A table in Markdown."""
    truth = rows["truth"]
    scores = {way: estimates(row, truth, seed=0) for way, row in rows.items() if way != "truth"}
    metrics = [name for name in scores[DEFAULT] if name != "ssim"]
    print(
        f"\n| {camera}, {truth.count} faces | {' | '.join(metrics)} | CPU s | times |\n|{' --- |' * (len(metrics) + 3)}"
    )
    for way, found in scores.items():
        pair = {"pre-trained": rows[DEFAULT], "adapted": rows[way], "truth": truth}
        differences = gains(pair, seed=0) if way != DEFAULT else {}
        cells = [cell(found[name], differences.get(name)) for name in metrics]
        took = f"{seconds[way]:.2f} | {seconds[way] / seconds[DEFAULT]:.2f}"
        print(f"| {way} | {' | '.join(cells)} | {took} |", flush=True)


def cell(score: Estimate, difference: Estimate | None) -> str:
    """21.36 (20.9 to 21.8); bold if the difference to the default lies outside its interval."""
    sure = difference is not None and not difference.low <= 0 <= difference.high
    value = f"**{score.value:.4g}**" if sure else f"{score.value:.4g}"
    return f"{value} ({score.low:.3g} to {score.high:.3g})"


if __name__ == "__main__":
    main()
