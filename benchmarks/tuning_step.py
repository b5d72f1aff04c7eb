"""Where the time of a fine-tuning step goes: the restorer, the perceptual and the texture term.

    python benchmarks/tuning_step.py [--faces 8] [--precision bfloat16]

The features of the target could be kept from step to step only if the shift of the pictures were not drawn anew, so
their share is an upper bound of what keeping them may win. The lengths of the features and their differences are what
is left when the networks are taken away.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from unfade.diffusion.features import PriorFeatures
from unfade.diffusion.features import _unit_length as unit_length
from unfade.diffusion.load import load_prior
from unfade.precision import autocast
from unfade.restorers.load import load_restorer
from unfade.training.texture import texture_distance

CPU = torch.device("cpu")


def main() -> None:
    """Print CPU seconds of the parts, medians, and their shares of a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=8, help="per micro-batch")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    restorer, distance = load_restorer(device="cpu").train(), PriorFeatures(load_prior(device="cpu").unet)
    restorer.requires_grad_(False)
    for parameter in restorer.trainable():
        parameter.requires_grad_(True)
    torch.manual_seed(0)
    face, target = torch.rand(2, args.faces, 3, restorer.size, restorer.size) * 2 - 1
    parts: dict[str, Callable[[], Tensor | None]] = {
        "restorer and L1": lambda: (restorer(face) - target).abs().mean(),
        "perceptual term": lambda: distance(face.clone().requires_grad_(), target).mean(),
        "texture term": lambda: texture_distance(face.clone().requires_grad_(), target).mean(),
        "features of the target": lambda: features_of(distance, target),
        "lengths and differences": lambda: lengths(levels),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    with autocast(CPU, bf16=args.precision == "bfloat16"):
        levels = [(a.detach().clone().requires_grad_(), b) for a, b in zip(*maps(distance, face, target), strict=True)]
        for _ in range(args.repeat + 1):
            for name, part in parts.items():
                begin = time.process_time()
                loss = part()
                if loss is not None:
                    loss.backward()
                times[name].append(time.process_time() - begin)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first warms up
    whole = sum(medians[name] for name in ("restorer and L1", "perceptual term", "texture term"))
    for name, seconds in medians.items():
        print(f"{name:36} {seconds:.3f} CPU s, {seconds / whole:.1%} of a step")


def features_of(distance: PriorFeatures, target: Tensor) -> None:
    """What is the same in each step where nothing is shifted."""
    with torch.no_grad():
        distance._features(target)


def maps(distance: PriorFeatures, *images: Tensor) -> list[list[Tensor]]:
    """What the prior's encoder leaves at the end of each resolution, for each batch."""
    unet = distance.unet
    with torch.no_grad():
        found = [unet.encode(image, unet.embed(torch.full((len(image),), distance.t_model))) for image in images]
    return [[outputs[i] for i in unet.config.level_ends] for outputs in found]


def lengths(levels: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The part of the perceptual term after the network: both scaled to unit length, and their squared distance."""
    parts = []
    for restored, target in levels:
        with torch.no_grad():
            wanted = unit_length(target)
        parts.append((unit_length(restored) - wanted).square().sum(1).mean())
    return torch.stack(parts).mean()


if __name__ == "__main__":
    main()
