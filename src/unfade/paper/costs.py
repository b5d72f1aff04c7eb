"""Table 27: parameters, time and memory of each method, with the published shapes and arbitrary weights.

Time and memory do not depend on what the weights are. A method of diffusion is walked for its first steps alone: the
steps are alike, so the whole walk takes as long as these, with all that is done once, and as many more as it has.
"""

import gc
import math
import re
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfade.devices import clock
from unfade.diffusion.guidance import Guidance, Noise
from unfade.diffusion.load import prior_of
from unfade.diffusion.prior import DiffusionPrior, Step
from unfade.diffusion.sampler import ImageNoise
from unfade.diffusion.schedule import respaced
from unfade.errors import UnfadeError, first_line
from unfade.jobs.workers import worker_context
from unfade.nets.diffbir import DiffBIR, DiffBIRConfig
from unfade.nets.pgdiff_restorer import PGDiffRestorer, PGDiffRestorerConfig
from unfade.nets.text_encoder import TextEncoder, TextEncoderConfig
from unfade.nets.unet import UNet, UNetConfig
from unfade.progress import Progress, silent
from unfade.recipes.compare import peak_memory
from unfade.restorers.base import Restorer
from unfade.restorers.load import RESTORERS as BUILT
from unfade.stages.methods import METHODS, Inputs, Method, Own, in_latents, walk
from unfade.stages.restore import restore_batch
from unfade.training.modes import seeded

MEMINFO = Path("/proc/meminfo")
STEPS = 4  # number of sampling steps that are measured; the median of the times between their ends is used
REPEATS = 3  # number of runs of a restorer; the median is used
FFHQ_256 = UNetConfig(256, 128, (1, 1, 2, 2, 4, 4), (1,) * 6, (16,), resblock_updown=True)
WALKS = {"DifFace": "difface", "DiffBIR": "diffbir", "PG-Diff": "pgdiff", "DR2": "dr2", "our targets": "ours"}
RESTORERS = {"GFPGAN": "gfpgan", "VQFR": "vqfr", "SwinIR": "swinir", "CodeFormer": "codeformer"}
HEADROOM = 1.5  # factor on the memory of the weights, for everything else that is computed
ONE_STEP = "one step of the prior"


@dataclass(frozen=True)
class Shapes:
    """The shapes of the networks; the defaults are the published ones."""

    size: int = 512  # side of a face, px
    restorers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # architecture -> its config
    prior: UNetConfig = UNetConfig()
    dr2: UNetConfig = FFHQ_256  # DR2 has a prior of its own
    pgdiff: PGDiffRestorerConfig = field(default_factory=PGDiffRestorerConfig)
    diffbir: DiffBIRConfig = field(default_factory=DiffBIRConfig)
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)  # of DiffBIR

    def restorer(self, architecture: str) -> Restorer:
        """The restorer of that architecture, with random weights."""
        return BUILT[architecture]({"size": self.size, **self.restorers.get(architecture, {})}).eval()


PUBLISHED = Shapes()


@dataclass(frozen=True)
class Cost:
    """The cost of a method, for one face."""

    label: str
    parameters: int  # of the method's own networks, without its first stage
    steps: int = 0  # of diffusion
    per_step: float = math.nan  # seconds
    seconds: float = math.nan  # for a face, including the first stage
    memory_mb: float | None = None  # peak of the process (CPU) or of the device while it ran
    note: str = ""  # why it was not measured

    def values(self) -> dict[str, float]:
        """The measured values, by the headings of the columns."""
        values = {
            "parameters, M": self.parameters / 1e6,
            "steps": float(self.steps) if self.steps else math.nan,  # a restorer takes none
            "s per step": self.per_step,
            "s per face": self.seconds,
            "peak MB": math.nan if self.memory_mb is None else self.memory_mb,
        }
        return {name: value for name, value in values.items() if not math.isnan(value)}


class FirstSteps(Guidance):
    """A guidance that stops after the first few steps, and notes in `ends` when each of them was done."""

    def __init__(self, whole: Guidance, steps: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.whole, self.steps, self.clock = whole, steps, clock
        self.differentiable = whole.differentiable
        self.ends: list[float] = []

    def timesteps(self, num_steps: int) -> list[int]:
        """The first ones of the walk."""
        return self.whole.timesteps(num_steps)[: self.steps]

    def start(self, prior: DiffusionPrior, t: int, noise: Noise, like: Tensor) -> Tensor:
        """As the walk's."""
        return self.whole.start(prior, t, noise, like)

    def correct_x0(self, step: Step) -> Tensor:
        """As the walk's."""
        return self.whole.correct_x0(step)

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """As the walk's."""
        corrected = self.whole.correct_x_prev(prior, step, x_prev, noise)
        self.ends.append(self.clock())
        return corrected


def measured_costs(shapes: Shapes = PUBLISHED, *, device: str = "cpu", progress: Progress = silent) -> list[Cost]:
    """The costs of each method in the table, in its order, and of our targets; one face at a time, in float32."""
    costs = []
    with progress("costs", len(WALKS) + len(RESTORERS) + 1) as advance:
        for label in [*list(WALKS)[:-1], "GFPGAN", "VQFR", ONE_STEP, "SwinIR", "CodeFormer", "our targets"]:
            costs.append(_measured(label, shapes, device))
            advance(1)
    return costs


def parameters_of(label: str, shapes: Shapes = PUBLISHED) -> int:
    """How many there are, counted without memory for them.

    DiffBIR's text encoder counts, as in the paper, though it runs only once, when a file of weights is taken in.
    """
    with torch.device("meta"):
        text = _count(TextEncoder(shapes.text)) if label == "DiffBIR" else 0
        return _count(_network(label, shapes)) + text


def _measured(label: str, shapes: Shapes, device: str) -> Cost:
    parameters = parameters_of(label, shapes)
    wanted = HEADROOM * 4 * parameters  # bytes of float32
    if device == "cpu" and wanted > available_memory():
        return Cost(label, parameters, note=f"not measured: it needs about {wanted / 1e9:.0f} GB of memory")
    try:
        if device != "cpu":
            steps, per_step, seconds, memory = _costs(label, shapes, device)
        else:  # in a process of its own, since one process keeps memory that earlier methods have used
            with ProcessPoolExecutor(1, mp_context=worker_context(__name__)) as process:
                steps, per_step, seconds, memory = process.submit(_costs, label, shapes, device).result()
    except (UnfadeError, MemoryError, RuntimeError) as error:  # RuntimeError: how torch says that a CPU has no memory
        return Cost(label, parameters, note=f"not measured: {first_line(error)}")
    return Cost(label, parameters, steps, per_step, seconds, memory)


def _costs(label: str, shapes: Shapes, device: str) -> tuple[int, float, float, float | None]:
    """(steps, seconds of a step, seconds of a face, peak memory in MB)."""
    with peak_memory(device) as peak, seeded(torch.device("cpu"), 0):
        steps, per_step, seconds = _times(label, shapes, device)
    gc.collect()
    return steps, per_step, seconds, peak[0]


def _times(label: str, shapes: Shapes, device: str) -> tuple[int, float, float]:
    """(steps, seconds of a step, seconds of a face)."""
    face = torch.rand(1, 3, shapes.size, shapes.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    face = face.to(device)
    if label in RESTORERS:
        restorer = shapes.restorer(RESTORERS[label]).to(device)
        return 0, math.nan, _median(lambda: restore_batch(face, restorer), device)
    if label == ONE_STEP:
        prior = prior_of(UNet(shapes.prior), device=device)
        with torch.no_grad():
            seconds = _median(lambda: prior.denoise(face, 0), device)
        return 1, seconds, seconds
    return _walk_times(METHODS[WALKS[label]], shapes, face, device, label)


def _walk_times(method: Method, shapes: Shapes, face: Tensor, device: str, label: str) -> tuple[int, float, float]:
    first, own = shapes.restorer("swinir").to(device), _own(label, shapes, device)
    prior = prior_of(UNet(shapes.dr2 if label == "DR2" else shapes.prior), device=device).respaced(method.spacing)
    steps = steps_of(method)

    def walked(count: int) -> tuple[float, list[float]]:
        guides: list[FirstSteps] = []

        def guide(given: Inputs) -> Guidance:
            guides.append(FirstSteps(method.guide(given), count, partial(clock, device)))
            return guides[-1]

        short = replace(method, guide=guide)
        seconds = _seconds(lambda: walk(short, face, first, prior, ImageNoise([0], device), own), device)
        return seconds, guides[-1].ends

    walked(1)  # a warm-up run: what happens only once per process is not measured
    measured = min(STEPS, steps)
    seconds, ends = walked(measured)
    per_step = statistics.median(b - a for a, b in pairwise(ends)) if measured > 1 else seconds
    return steps, per_step, seconds + (steps - measured) * per_step


def steps_of(method: Method) -> int:
    """The number of evaluations of the prior in a method's sampling."""
    face = torch.zeros(1, 3, 64, 64)
    return len(method.guide(Inputs(face, face)).timesteps(len(respaced(method.spacing))))


def _own(label: str, shapes: Shapes, device: str) -> Own | None:
    if label not in ("PG-Diff", "DiffBIR"):
        return None
    network: Own = PGDiffRestorer(shapes.pgdiff) if label == "PG-Diff" else DiffBIR(shapes.diffbir)
    return network.eval().requires_grad_(False).to(device)


def _network(label: str, shapes: Shapes) -> nn.Module:
    if label in RESTORERS:
        return shapes.restorer(RESTORERS[label])
    if METHODS.get(WALKS.get(label, ""), METHODS["ours"]).walk is in_latents:
        return DiffBIR(shapes.diffbir)
    return UNet(shapes.dr2 if label == "DR2" else shapes.prior)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def available_memory() -> float:
    """Bytes of memory available without swapping; infinity if the system does not report them."""
    known = re.search(r"MemAvailable: +(\d+) kB", MEMINFO.read_text()) if MEMINFO.exists() else None
    return int(known[1]) * 1024 if known else math.inf


def _median(work: Callable[[], object], device: str) -> float:
    work()
    return statistics.median(_seconds(work, device) for _ in range(REPEATS))


def _seconds(work: Callable[[], object], device: str) -> float:
    begin = clock(device)
    work()
    return clock(device) - begin
