"""Where the time of a fine-tuning step goes: the restorer, the perceptual term and what of it could be kept.

    python benchmarks/tuning_step.py [--faces 8] [--precision bfloat16]

`PriorFeatures` as it is beside its norm written out (square, sum, root, divide), alternately in one run; the losses of
both are compared. The features of the target could be kept from step to step only if the shift of the pictures were
not drawn anew, so their share is an upper bound of what keeping them may win.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from unfade.diffusion import features as module
from unfade.diffusion.features import PriorFeatures
from unfade.diffusion.load import load_prior
from unfade.precision import autocast
from unfade.restorers.load import load_restorer

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
        "perceptual term, norm written out": lambda: written_out(distance, face, target),
        "features of the target": lambda: features_of(distance, target),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    losses: dict[str, float] = {}
    with autocast(CPU, bf16=args.precision == "bfloat16"):
        for _ in range(args.repeat + 1):
            for name, part in parts.items():
                begin = time.process_time()
                loss = part()
                if loss is not None:
                    loss.backward()
                    losses[name] = float(loss)
                times[name].append(time.process_time() - begin)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first warms up
    whole = medians["restorer and L1"] + medians["perceptual term"]
    for name, seconds in medians.items():
        print(f"{name:36} {seconds:.3f} CPU s, {seconds / whole:.1%} of a step")
    difference = abs(losses["perceptual term"] - losses["perceptual term, norm written out"])
    print(f"the two losses differ by {difference:.1e}")


def features_of(distance: PriorFeatures, target: Tensor) -> None:
    """What is the same in each step where nothing is shifted."""
    with torch.no_grad():
        distance._features(target)


def written_out(distance: PriorFeatures, face: Tensor, target: Tensor) -> Tensor:
    """The same distance with a copy in float32, a square and a sum for each norm."""

    def unit_length(features: Tensor) -> Tensor:
        features = features.float()
        return features / features.square().sum(1, keepdim=True).add(1e-10).sqrt()

    ours, module._unit_length = module._unit_length, unit_length
    try:
        return distance(face.clone().requires_grad_(), target).mean()
    finally:
        module._unit_length = ours


if __name__ == "__main__":
    main()
