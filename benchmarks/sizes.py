"""At the size of a larger restorer: is it better adapted than a smaller one whose results are enlarged?

    python benchmarks/sizes.py EVIDENCE --retinaface FILE.pth --yunet FILE.onnx [--smaller small-restorer]

EVIDENCE is what `benchmarks/evidence.py --restorer small-restorer-256` has made. In each of its rehearsals, the smaller
restorer is adapted to the same photos, reduced to its size, and the same faces are scored at the larger one. Prints
Markdown: both rows, and their difference on the same faces with its interval.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from detector_spaces import retinaface_space, yunet_space
from few_steps import scored

import unfade
from unfade.diffusion.prior import DiffusionPrior
from unfade.evaluation.gap import Row, Space, estimates, features_of, gains
from unfade.images.files import read_image, write_png
from unfade.images.filters import resize
from unfade.images.finding import list_images
from unfade.jobs.runs import open_run
from unfade.paper.pieces import DEGRADATIONS as CAMERAS
from unfade.restorers.base import Restorer

PLACE = "enlarged"  # folder in a rehearsal's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evidence", type=Path)
    parser.add_argument("--retinaface", type=Path, required=True)
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--smaller", default="small-restorer")
    parser.add_argument("--prior", default="small-prior-256", help="whose features the feature distance compares")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    spaces = {"RetinaFace": retinaface_space(args.retinaface), "YuNet": yunet_space(args.yunet)}
    prior = unfade.load_prior(args.prior, device="cpu")
    header = ["PSNR", "SSIM", "feature distance", "identity distance", *(f"Fréchet, {name}" for name in spaces)]
    print(f"| | | {' | '.join(header)} |\n{'| --- ' * (len(header) + 2)}|", flush=True)
    for camera in CAMERAS:
        folder = args.evidence / camera.replace(" ", "-")
        if (folder / "evidence.json").exists():
            enlarge(folder, args.smaller)
            print(table(camera, folder, prior, spaces), flush=True)


def enlarge(folder: Path, smaller: str) -> None:
    """Adapt the smaller restorer in a rehearsal's folder, and write its results at the size of the truth."""
    photos, place = folder / "photos", folder / PLACE
    with torch.enable_grad():
        done = unfade.adapt(photos / "learn", place / "run", unfade.settings_for(smaller), aligned=True, device="cpu")
    restorer = unfade.load_restorer(done.restorer, device="cpu")
    scored = list_images(photos / "score")
    with open_run(place / "results", {"restorer": smaller}):
        for path in scored:
            write_png(place / "results" / path.name, through(restorer, read_image(path)))


def through(restorer: Restorer, face: torch.Tensor) -> torch.Tensor:
    """A face reduced to the restorer's size, restored, and enlarged again: (3, S, S)."""
    side, size = face.shape[-1], restorer.size
    return resize(restorer(resize(face[None], size, size)), side, side)[0]


def table(camera: str, folder: Path, prior: DiffusionPrior, spaces: Mapping[str, Space]) -> str:
    """Three lines: the smaller one enlarged, the larger one, their difference."""
    truth = folder / "truth" / "score"
    # The names of rows that `gains` knows: its difference is that of the second to the first.
    places = {"pre-trained": folder / PLACE / "results", "adapted": folder / "results" / "adapted"}
    rows = {name: scored(place, truth, prior, spaces) for name, place in places.items()}
    names = sorted(rows["adapted"].files)
    rows["truth"] = Row({name: {} for name in names}, features_of(truth, names, spaces))
    lines = []
    for name, shown in {"pre-trained": "the smaller one, enlarged", "adapted": "the larger one"}.items():
        found = estimates(rows[name], rows["truth"], seed=0)
        lines.append([camera, shown, *(f"{estimate.value:.4g}" for estimate in found.values())])
    difference = gains(rows, seed=0).values()
    lines.append([camera, "**difference**", *(f"{d.value:+.3g} ({d.low:+.3g} to {d.high:+.3g})" for d in difference)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
