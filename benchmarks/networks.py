"""One face through every published network: CodeFormer, SwinIR, GFPGAN, and one step of the 512 px prior.

    python benchmarks/networks.py [--device cpu] [--threads 2] [--repeat 2] [NAME ...]

Float32, random weights. Times are seconds, the operations that they come to, and ratios to a matrix product and to a
3x3 convolution of as many operations in the same run. `--reference 274` also scales the seconds to a machine whose
convolution runs at so many GFLOP/s.
"""

import argparse
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unfade.devices import clock
from unfade.diffusion.load import prior_of
from unfade.nets.codeformer import CodeFormer
from unfade.nets.gfpgan import GFPGAN
from unfade.nets.swinir import SwinIR
from unfade.nets.unet import UNet, UNetConfig

SIDE = 512  # px, of the face
MATRIX = 4096  # side of the matrices


class PriorStep(nn.Module):
    """A reverse step's pass through the network."""

    def __init__(self) -> None:
        super().__init__()
        self.prior = prior_of(UNet(UNetConfig()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.prior.denoise(x, 149).x0


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "codeformer": CodeFormer,
    "swinir": SwinIR,
    "gfpgan": GFPGAN,
    "prior": PriorStep,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NETWORKS)}; all of them by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--reference", type=float, metavar="GFLOP/S", help="of another machine's 3x3 convolution")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    matrix = torch.randn(MATRIX, MATRIX, device=args.device)
    rate = 2e-9 * MATRIX**3 / seconds(lambda: matrix @ matrix, args.repeat, args.device)
    print(f"matrix product of {MATRIX} x {MATRIX}: {rate:.0f} GFLOP/s")
    print(f"{'':12} {'seconds':>8} {'GFLOP':>6} {'GFLOP/s':>8} {'x matrix product':>17} {'x convolution':>14}")
    for name in args.names or NETWORKS:
        convolution = convolution_rate(args.repeat, args.device)  # beside each: machines that are shared change
        operations, took = measure(NETWORKS[name], args.repeat, args.device)
        ratios = f"{took * rate / operations:17.2f} {took * convolution / operations:14.2f}"
        scaled = f"   {took * convolution / args.reference:.2f} s there" if args.reference else ""
        print(f"{name:12} {took:8.2f} {operations:6.0f} {operations / took:8.0f} {ratios}{scaled}", flush=True)


def convolution_rate(repeat: int, device: str) -> float:
    """GFLOP/s of a 3x3 convolution from 256 to 256 channels at 256 x 256."""
    convolution = nn.Conv2d(256, 256, 3, padding=1, device=device).requires_grad_(False)
    image = torch.randn(1, 256, 256, 256, device=device)
    return 2e-9 * 256 * 256 * 9 * 256 * 256 / seconds(lambda: convolution(image), repeat, device)


def measure(build: Callable[[], nn.Module], repeat: int, device: str) -> tuple[float, float]:
    """GFLOP (two for each multiplication and addition) and seconds of one face."""
    network = build().eval().requires_grad_(False).to(device)
    face = torch.rand(1, 3, SIDE, SIDE, device=device) * 2 - 1
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            network(face)  # warms up as well
        took = seconds(lambda: network(face), repeat, device, warm=True)
    return counter.get_total_flops() / 1e9, took


def seconds(work: Callable[[], object], repeat: int, device: str, *, warm: bool = False) -> float:
    """The shortest of `repeat` times, after one to warm up."""
    times = []
    for _ in range(repeat if warm else repeat + 1):
        begin = clock(device)
        work()
        times.append(clock(device) - begin)
    return min(times if warm else times[1:])


if __name__ == "__main__":
    main()
