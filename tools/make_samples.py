"""Make the sample set: faces of nobody, drawn with the prior, and what a small camera in poor light makes of them.

Each truth begins as a clean face of the folder given, is mirrored, noised to step `--start` and denoised by the prior
without any constraint: what is left of the original is its pose, its colours and its coarse features. Then the camera
degradation of Eq. 10 is applied, which the built-in restorer was never trained with.

    python tools/make_samples.py FACES --out src/unfade/samples

For the package FACES are generated ones under a stated licence (jcpeterson/omi): a real person's face stays with them.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.camera import CAMERA_PRESETS, camera, draw_camera
from unfade.diffusion.guidance import DifFace
from unfade.diffusion.load import load_prior
from unfade.diffusion.sampler import ImageNoise, sample
from unfade.images.files import read_image, write_png
from unfade.images.filters import fit_square
from unfade.precision import autocast
from unfade.store.seeds import seed_for
from unfade.training.batches import find_training_pictures


def main() -> None:
    args = arguments()
    prior = load_prior(args.prior, device="cpu")
    paths, _ = find_training_pictures(args.faces, {})
    chosen = sorted(paths, key=lambda path: seed_for("sample set", args.seed, path.name))[: args.photos + args.held_out]
    settings = replace(CAMERA_PRESETS["severe"], iso=args.iso, scale=args.scale)
    draws = []
    for number, truth in enumerate(variations(prior, chosen, args.start, args.batch)):
        held_out = "" if number < args.photos else "held_out_"
        name = f"{number:03d}.png"
        draw = draw_camera(np.random.default_rng(seed_for("camera", args.seed, number)), size=128, settings=settings)
        write_png(args.out / f"{held_out}truth" / name, truth)
        write_png(args.out / f"{held_out}photos" / name, camera(truth, draw))
        draws.append({"name": name, **asdict(draw)})
        print(name, flush=True)
    about = {"made_by": "tools/make_samples.py", "start": args.start, "seed": args.seed, "degradation": draws}
    (args.out / "draws.json").write_text(json.dumps(about, indent=1) + "\n")


def variations(prior: torch.nn.Module, paths: list[Path], start: int, batch: int) -> Iterator[Tensor]:
    """(3, 128, 128) faces, one for each path."""
    for first in range(0, len(paths), batch):
        group = paths[first : first + batch]
        faces = torch.stack([fit_square(read_image(path), prior.size, path).flip(-1) for path in group])
        noise = ImageNoise([seed_for("variation", path.name) for path in group])
        with autocast(torch.device("cpu"), bf16=True):
            made = sample(prior, DifFace(faces, start), noise, faces)
        yield from made.clamp(-1, 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path, help="folder of clean, aligned faces to vary")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", default="small-prior")
    parser.add_argument("--photos", type=int, default=40, help="to adapt to")
    parser.add_argument("--held-out", type=int, default=20, help="to score on")
    parser.add_argument("--start", type=int, default=75, help="noise level of the variation, of 250")
    parser.add_argument("--iso", type=float, default=3000)
    parser.add_argument("--scale", type=int, default=2, help="downsampling before the sensor")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
