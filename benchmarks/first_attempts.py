"""What restorers make of faces that are not scored elsewhere, before and after a change to their training.

    python benchmarks/first_attempts.py FACES --retinaface FILE.pth --yunet FILE.onnx RESTORER [RESTORER ...]
        [--size 256]

FACES are clean, aligned faces that no built-in model has seen. The last 48 of those that `unfade rehearse` would adapt
to are degraded by two cameras and by the blind degradation (Eq. 9). RESTORER is a name, a file or a run folder. Photos
are brought to its size, and its results back to that of the truth, `--size`. Prints Markdown: means of PSNR, feature
and identity distance; the Fréchet distances; and of the high frequencies how much of the truth's power there is, in the
mean and at the strongest hundredth, where a regular pattern would be.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from detector_spaces import retinaface_space, yunet_space
from torch import Tensor

from unfade.degradations.blind import blind_pair, draw_blind
from unfade.degradations.camera import camera
from unfade.diffusion.load import load_prior
from unfade.evaluation.gap import Space
from unfade.evaluation.pairs import built_in_distances
from unfade.images.files import read_picture
from unfade.images.filters import fit_square, resize
from unfade.metrics.distribution import FeatureStatistics, frechet_distance, statistics
from unfade.metrics.reference import psnr
from unfade.paper.pieces import DEGRADATIONS
from unfade.recipes.rehearse import RehearseSettings, split
from unfade.restorers.load import load_restorer
from unfade.training.batches import find_training_pictures

FACES = 48
CAMERAS = ("4x moderate", "8x moderate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("restorers", nargs="+")
    parser.add_argument("--retinaface", type=Path, required=True)
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128, help="of the truth and of the photos, in px")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    spaces = {"RetinaFace": retinaface_space(args.retinaface), "YuNet": yunet_space(args.yunet)}
    truth = truths(args.faces, args.size)
    known = {name: space_of(truth, space) for name, space in spaces.items()}
    distances = built_in_distances(load_prior("small-prior", device="cpu"))
    columns = ["PSNR", *distances, *(f"Fréchet, {name}" for name in spaces), "power", "strongest"]
    print(f"| | | {' | '.join(columns)} |\n{'| --- ' * (len(columns) + 2)}|")
    for name, faces in degraded(truth):
        for restorer in args.restorers:
            network = load_restorer(restorer, device="cpu")
            seen = to_side(faces, network.size)
            restored = levels(to_side(torch.cat([network(part) for part in seen.split(8)]), args.size))
            values = [float(psnr(restored, truth).mean())]
            values += [float(distance(restored, truth).double().nanmean()) for distance in distances.values()]
            values += [frechet_distance(space_of(restored, spaces[s]), known[s]) for s in spaces]
            values += power(restored, truth)
            print(f"| {name} | {restorer} | {' | '.join(f'{value:.4g}' for value in values)} |", flush=True)


def truths(folder: Path, size: int) -> Tensor:
    """(FACES, 3, size, size) in [-1, 1]."""
    learn = split(find_training_pictures(folder, {})[0], RehearseSettings())["learn"][-FACES:]
    return torch.stack([fit_square(read_picture(path).pixels, size, path) for path in learn])


def degraded(truth: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The faces under each degradation, with draws of fixed seeds."""
    size = truth.shape[-1]
    seeds = [np.random.default_rng(1000 + i) for i in range(len(truth))]
    for name in CAMERAS:
        degradation = DEGRADATIONS[name]
        draws = [degradation.draw(seed, height=size, width=size) for seed in seeds]
        yield name, torch.stack([camera(face, draw) for face, draw in zip(truth, draws, strict=True)])
    pairs = [blind_pair(face, draw_blind(seed, size=size)) for face, seed in zip(truth, seeds, strict=True)]
    yield "blind", torch.stack([face for face, _ in pairs])


def to_side(images: Tensor, side: int) -> Tensor:
    """Squares at another size."""
    return images if images.shape[-1] == side else resize(images, side, side)


def levels(image: Tensor) -> Tensor:
    """An image in [-1, 1] as its file of 8 bits will hold it."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def space_of(images: Tensor, space: Space) -> FeatureStatistics:
    """The statistics of images in a detector's space, all places together."""
    features = np.concatenate([space(image[None]) for image in images])
    return statistics(features.reshape(-1, features.shape[-1]))


def power(restored: Tensor, truth: Tensor) -> list[float]:
    """The share of the truth's power at high frequencies: mean, and mean of the strongest hundredth of frequencies."""
    share = F.avg_pool2d((spectrum(restored) / spectrum(truth))[None, None], 3, 1).flatten()
    return [float(share.mean()), float(share.sort().values[-max(1, len(share) // 100) :].mean())]


def spectrum(images: Tensor) -> Tensor:
    """The mean power spectrum of the images' fine details in grey: (side, side / 2 + 1)."""
    grey = images.mean(1, keepdim=True)
    fine = (grey - F.avg_pool2d(grey, 5, 1, 2, count_include_pad=False))[:, 0]
    window = torch.hann_window(images.shape[-1])
    return torch.fft.rfft2(fine * window[:, None] * window).abs().square().mean(0)


if __name__ == "__main__":
    main()
