"""One step of the published 512 px prior on this machine: parameters, time and memory.

    python benchmarks/prior_512.py [--device cpu] [--steps 2]

The time is given as a ratio to a matrix product of as many operations (378 GFLOP) in the same run.
"""

import argparse
import resource

import torch

from networks import seconds
from unfade.diffusion.prior import DiffusionPrior
from unfade.nets.unet import UNet, UNetConfig

GFLOP = 378  # of one step at 512 px


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    unet = UNet(UNetConfig()).eval().requires_grad_(False).to(args.device)
    prior = DiffusionPrior(unet, 512)
    x = torch.zeros(1, 3, 512, 512, device=args.device)
    with torch.inference_mode():
        step = seconds(lambda: prior.denoise(x, 149), args.steps, args.device)
    if args.device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    else:
        peak = torch.cuda.max_memory_allocated() / (1 << 30)
    matrix = torch.ones(2048, 2048, device=args.device)
    product = seconds(lambda: matrix @ matrix, 3, args.device) * GFLOP * 1e9 / (2 * 2048**3)
    print(f"{sum(p.numel() for p in unet.parameters()):,} parameters")
    print(f"{step:.2f} s a step, {step / product:.2f} times a matrix product of as many operations")
    print(f"{peak:.2f} GiB at most")


if __name__ == "__main__":
    main()
