"""What a GPU makes of targets and restoration: one table, in ten minutes at most.

    python benchmarks/gpu.py [--minutes 10] [--batches 4 16] [--quick]

First the peak that this machine reaches: a product of large matrices in bfloat16. Then, as times and as shares of it:

    target 512 px     Algorithm 1 by the published prior's network (filled, not trained: speed is all that is told),
                      150 steps, batched, in bfloat16: as it is, compiled, and replayed from a CUDA graph
    restore 128, 512  the built-in restorer, and the published prior's network as a restorer of one step

A row is left out, and said to be, where the time is up. Loops are run with a warning for each wait of the host for the
device; their number is told. --quick walks through everything with tiny networks on any machine, the processor too.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unfade.devices import clock
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.sampler import ImageNoise
from unfade.nets.damage import DamageNet
from unfade.nets.unet import UNet, UNetConfig
from unfade.precision import autocast
from unfade.restorers.base import Restorer
from unfade.restorers.load import load_restorer
from unfade.restorers.one_step import OneStepRestorer, OneStepSettings
from unfade.stages.restore import restore_batch
from unfade.stages.targets import TargetSettings, pseudo_target

TINY = UNetConfig(size=32, channels=32, channel_mult=(1, 2), res_blocks=(1, 1), attention_sizes=(16,), head_channels=32)
PAPER = TargetSettings(bf16=True)  # 150 of 250 steps, bfloat16


@dataclass(frozen=True)
class Machine:
    """Where it runs, and how much of everything."""

    device: torch.device
    quick: bool
    until: float  # of time.monotonic()

    def clock(self) -> float:
        """Seconds, when the device has done all that it was told."""
        return clock(str(self.device))

    def seconds(self, work: Callable[[], object], *, warm: int = 1, repeat: int = 3) -> float:
        """The shortest of some times after a warm-up."""
        for _ in range(warm):
            work()
        times = []
        for _ in range(repeat):
            begin = self.clock()
            work()
            times.append(self.clock() - begin)
        return min(times)

    @property
    def time_is_up(self) -> bool:
        return time.monotonic() > self.until


class Graphed(nn.Module):
    """A network replayed from a CUDA graph, for inputs of one shape; the host starts one thing in place of hundreds."""

    def __init__(self, network: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.x, self.t = x.clone(), torch.zeros(len(x), dtype=torch.long, device=x.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), autocast(x.device, bf16=True), torch.no_grad():
            for _ in range(3):
                network(self.x, self.t)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph), autocast(x.device, bf16=True), torch.no_grad():
            self.out = network(self.x, self.t)
        self.weight = next(network.parameters())  # says on which device it is

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The output stays valid until the next call."""
        self.x.copy_(x)
        self.t.copy_(t)
        self.graph.replay()
        return self.out


def ways(machine: Machine) -> dict[str, Callable[[nn.Module, Tensor], nn.Module]]:
    """How the prior's network is run; what needs a GPU, only there."""
    found: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {"as it is": lambda network, x: network}
    backend = "eager" if machine.quick else "inductor"
    found["compiled"] = lambda network, x: torch.compile(network, backend=backend)
    if machine.device.type == "cuda":
        found["graph"] = Graphed
    return found


def flops(network: Callable[[], object]) -> float:
    """Of one call, as PyTorch counts them: a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network()
    return float(counter.get_total_flops())


def peak(machine: Machine) -> float:
    """FLOP/s of a product of square matrices in bfloat16."""
    side = 256 if machine.quick else 8192
    matrix = torch.randn(side, side, device=machine.device, dtype=torch.bfloat16)
    return 2 * side**3 / machine.seconds(lambda: matrix @ matrix, warm=3, repeat=10)


@contextmanager
def counting_waits(machine: Machine) -> Iterator[list[str]]:
    """The messages of every wait of the host inside."""
    waits: list[str] = []
    if machine.device.type != "cuda":
        yield waits
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits += [str(w.message) for w in caught if "synchronizing" in str(w.message)]


def target_rows(machine: Machine, batches: list[int], best: float) -> Iterator[str]:
    """A row for each way and batch."""
    config = TINY if machine.quick else UNetConfig()
    settings = replace(PAPER, spacing="20", start=4, free_from=2, factor=4) if machine.quick else PAPER
    unet = UNet(config).eval().requires_grad_(False).to(machine.device, memory_format=torch.channels_last)
    for batch in batches:
        face = torch.zeros(batch, 3, config.size, config.size, device=machine.device)
        t = torch.zeros(batch, dtype=torch.long, device=machine.device)
        work = flops(lambda face=face, t=t: unet(face, t)) * settings.start
        for name, way in ways(machine).items():
            label = f"target {config.size} px, {settings.start} steps, {batch} at once, {name}"
            if machine.time_is_up:
                yield f"{label:60} left out: the time is up"
                continue
            prior = DiffusionPrior(way(unet, face), config.size, spacing=settings.spacing)
            noise = ImageNoise(range(batch), machine.device)
            loop = lambda prior=prior, face=face, noise=noise: pseudo_target(face, lambda f: f, prior, noise, settings)  # noqa: E731
            loop()
            with counting_waits(machine) as waits:
                loop()
            seconds = machine.seconds(loop, warm=0, repeat=1)
            yield row(label, seconds / batch, work / seconds, best, len(waits))


def restore_rows(machine: Machine, batches: list[int], best: float) -> Iterator[str]:
    """A row for each restorer, precision and batch; pixels from memory to memory."""
    for restorer in restorers(machine):
        restorer = restorer.to(machine.device)
        for batch in batches:
            face = torch.rand(batch, 3, restorer.size, restorer.size, device=machine.device) * 2 - 1
            with torch.no_grad():
                work = flops(lambda face=face, restorer=restorer: restorer(face))
            for precision in ("float32", "bfloat16"):
                restorer.bf16 = precision == "bfloat16"
                label = f"restore {restorer.size} px, {batch} at once, {precision}"
                if machine.time_is_up:
                    yield f"{label:60} left out: the time is up"
                    continue
                run = lambda face=face, restorer=restorer: restore_batch(face, restorer)  # noqa: E731
                run()
                with counting_waits(machine) as waits:
                    run()
                seconds = machine.seconds(run, warm=1, repeat=3)
                yield row(label, seconds / batch, work / seconds, best, len(waits))


def restorers(machine: Machine) -> Iterator[Restorer]:
    """The built-in one, and a network of the published prior's shape at a fixed step."""
    if not machine.quick:
        yield load_restorer(device="cpu")
    unet = UNet(TINY if machine.quick else UNetConfig())
    yield OneStepRestorer(unet, DamageNet(), OneStepSettings(fixed=200)).eval().requires_grad_(False)


def row(label: str, seconds: float, speed: float, best: float, waits: int) -> str:
    """Per face: seconds, faces a second, TFLOP/s and its share of the peak, waits of the host."""
    told = f"{seconds:9.4f} s {1 / seconds:9.1f}/s {speed / 1e12:8.2f} TFLOP/s {speed / best:7.1%} of peak"
    return f"{label:60} {told} {waits:3} waits"


def main() -> None:
    """Print the table, a row at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="no row is begun after them, less two")
    parser.add_argument("--batches", type=int, nargs="*", help="default: 4 and 16 targets, 16 and 64 restored faces")
    parser.add_argument("--quick", action="store_true", help="tiny networks, on any machine")
    args = parser.parse_args()
    if not args.quick and not torch.cuda.is_available():
        parser.error("this needs a GPU; --quick tries it out without one")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = Machine(device, args.quick, time.monotonic() + 60 * max(0.5, args.minutes - 2))
    best = peak(machine)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "processor"
    print(f"{name}, PyTorch {torch.__version__}: {best / 1e12:.3f} TFLOP/s in bfloat16 at most", flush=True)
    small, large = ([1, 2], [2]) if args.quick else ([16, 4], [16, 64])
    for line in target_rows(machine, args.batches or small, best):
        print(line, flush=True)
    for line in restore_rows(machine, args.batches or large, best):
        print(line, flush=True)
    if device.type == "cuda":
        print(f"{torch.cuda.max_memory_allocated() / (1 << 30):.1f} GiB of memory at most")


if __name__ == "__main__":
    main()
