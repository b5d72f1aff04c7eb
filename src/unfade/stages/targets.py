"""Make pseudo targets from aligned faces: restore, add noise up to step K, denoise with the prior (Algorithm 1)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from unfade.devices import device_of
from unfade.diffusion.guidance import CleanLowFrequency, FromFirstStep, LowFrequency, Noise
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.sampler import UPDATES, ImageNoise, sample
from unfade.diffusion.schedule import MODEL_STEPS, respaced, steps_of_noise
from unfade.errors import BadInput, refuse_below
from unfade.images.filters import at_size
from unfade.images.tone import grey_where
from unfade.jobs.journal import Entry
from unfade.jobs.run_stage import Item, Stage, run_stage
from unfade.jobs.runs import Run
from unfade.precision import autocast
from unfade.progress import Advance
from unfade.restorers.base import Restorer
from unfade.stages.restore import choices
from unfade.store.seeds import fingerprint

STAGE = "targets"
GRAINY = 1.4  # ratio of deviations, which the first three starts of 20 steps exceed, and the first two of 250
Attempt = Callable[[Tensor], Tensor]  # (B, 3, S, S) faces to the restorer's first attempts


@dataclass(frozen=True)
class TargetSettings:
    """How pseudo targets are made (Sec. 4.1)."""

    spacing: str = "250"  # how many of the 1000 steps are used
    start: int = 150  # K = 600 of 1000, in respaced steps
    free_from: int = 90  # L = 360 of 1000, in respaced steps: below it the prior is unconstrained
    factor: int = 16  # N of the low-pass filter, in pixels of the prior; 8 keeps more of the restorer's structure
    update: str = "ddpm"  # a name in UPDATES
    begin_with: str = "restored"  # what noise is added to: the "restored" face, or the degraded "face" itself
    by_damage: bool = False  # start lower than K for faces that are less degraded, see `start_for`
    batch: int | None = None  # faces denoised together; None: as many as `together` returns
    bf16: bool = False  # run prior and restorer in bfloat16 where the device supports it; the rest stays float32
    seed: int = 0

    def identity(self) -> dict[str, object]:
        """The settings that a target depends on: all but the number of faces that are denoised together."""
        values = asdict(self)
        unmade = {
            "begin_with": "restored",
            "by_damage": False,
        }  # left out at these defaults, so that runs of versions without these settings can be resumed
        return {k: v for k, v in values.items() if k != "batch" and (k not in unmade or v != unmade[k])}

    def check(self, size: int) -> None:
        """Raises BadInput, naming the setting, for settings that do not work with a prior of this size."""
        try:
            steps = len(respaced(self.spacing))
        except ValueError as error:
            raise BadInput(f"The spacing {self.spacing} cannot be used: {error}") from error
        if not 0 < self.start < steps:
            raise BadInput(f"Expected `start` to lie in 1..{steps - 1} of the {steps} steps used, got {self.start}.")
        if self.factor < 1 or size % self.factor or size // self.factor < 2:
            raise BadInput(f"The factor {self.factor} does not divide a side of {size} into 2 pixels or more.")
        if self.update not in UPDATES:
            raise BadInput(f"There is no update named {self.update}; there are: {', '.join(UPDATES)}.")
        if self.batch is not None:
            refuse_below(1, self, "batch")
        if self.begin_with not in BEGINNINGS:
            raise BadInput(f"Expected `begin_with` to be one of {', '.join(BEGINNINGS)}, got {self.begin_with}.")

    def for_size(self, size: int) -> "TargetSettings":
        """The same settings for images of another size, with N, which is given for 512 px, scaled to it."""
        return replace(self, factor=max(1, self.factor * size // 512))

    def for_noise(self, times: float) -> "TargetSettings":
        """The same settings with K and L moved to the steps whose noise is `times` as strong."""
        steps, moved = len(respaced(self.spacing)), steps_of_noise(times)
        start, free_from = (
            min(steps - 1, round(moved[step * MODEL_STEPS // steps] * steps / MODEL_STEPS))
            for step in (self.start, self.free_from)
        )
        return replace(self, start=start, free_from=free_from)


def make_targets(
    faces: Iterable[Path],
    run: Run,
    restorer: Restorer,
    prior: DiffusionPrior,
    *,
    settings: TargetSettings,
    key: str = "",
    stage: str = STAGE,
) -> list[Entry]:
    """Write a pseudo target for each aligned face to the run's folder. One entry for each face.

    The target of a grey face is made grey, since the prior would colour it and the restorer would learn to do so. `key`
    identifies the weights: targets made with other weights, or at another fidelity, are made again. `stage` is the name
    of the stage in the journal.
    """
    settings.check(prior.size)
    prior = prior.respaced(settings.spacing)

    def work(items: list[Item], advance: Advance) -> Tensor:
        face = torch.stack([item.pixels for item in items])
        seeds = [item.seed(settings.seed, "target") for item in items]
        targets: dict[int, Tensor] = {}
        for made, places in by_start(face, restorer, prior, settings):
            noise = ImageNoise([seeds[i] for i in places], device_of(prior))
            step = partial(advance, len(places) / max(1, made.start))
            target = pseudo_target(face[places], restorer.attempt, prior, noise, made, step)
            targets |= dict(zip(places, target, strict=True))
        return grey_where(face, torch.stack([targets[i] for i in range(len(items))]))

    whole_key = fingerprint(key, settings.identity(), choices(restorer))
    batch = settings.batch or together(device_of(prior), prior.size)
    targets = Stage(stage, work, restorer.size, batch, whole_key, settings.bf16)
    return run_stage(targets, faces, run)


def by_start(
    face: Tensor, restorer: Restorer, prior: DiffusionPrior, settings: TargetSettings
) -> list[tuple[TargetSettings, list[int]]]:
    """Group the faces of a batch by the step they start from: settings with that start, and indices of the faces."""
    matching = restorer.matching_step(face.to(device_of(restorer))) if settings.by_damage else None
    if matching is None:
        return [(settings, [*range(len(face))])]
    at_prior = steps_of_noise(prior.size / restorer.size)
    starts = [start_for(at_prior[t], prior.schedule.t_model, settings) for t in matching.tolist()]
    made = {
        start: replace(settings, start=start, free_from=settings.free_from * start // settings.start)
        for start in sorted(set(starts))
    }
    return [(made[start], [i for i, own in enumerate(starts) if own == start]) for start in made]


def start_for(matching: int, t_model: Sequence[int], settings: TargetSettings) -> int:
    """K for a face whose degradation matches step `matching` of 1000: the next respaced step above, at most `start`.

    A face without degradation gets 0, that is, no noise: its first attempt is its target.
    """
    if matching == 0:
        return 0
    return min(settings.start, 1 + sum(t < matching for t in t_model))


def together(device: torch.device, size: int) -> int:
    """How many faces go through a prior at once: 4 on a CPU, and 256 of 128 px on a GPU, which keeps it busy.

    At other sizes, a GPU gets the same number of pixels: 16 faces of 512 px, which fit into 8 GB without gradients.
    """
    return 4 if device.type == "cpu" else max(1, 256 * 128**2 // size**2)


def pseudo_target(
    face: Tensor,
    attempt: Attempt,
    prior: DiffusionPrior,
    noise: Noise,
    settings: TargetSettings,
    after_step: Callable[[], object] = lambda: None,
) -> Tensor:
    """Algorithm 1: targets of the prior's size for (B, 3, S, S) faces, all in [-1, 1].

    `attempt` makes the restorer's first attempt. `after_step` is called after each step of the prior.
    """
    device = device_of(prior)
    with torch.no_grad(), autocast(device, bf16=settings.bf16):
        # as published, the restorer works at its own size, and its result is resized to that of the prior
        first = at_size(BEGINNINGS[settings.begin_with](attempt, face.to(device)), prior.size)
        if settings.start == 0:
            return first
        usual = FromFirstStep if _leaves_grain(prior, settings.start) else LowFrequency
        constraint = CONSTRAINTS.get(settings.update, usual)
        guidance = constraint(first, settings.start, settings.free_from, settings.factor)
        target = sample(prior, guidance, noise, first, update=UPDATES[settings.update](), after_step=after_step)
    return target.clamp(-1, 1)


def _leaves_grain(prior: DiffusionPrior, start: int) -> bool:
    """Whether a face that is noised to `start`, as published, has much more noise than its first step expects.

    Where noise is stronger than the face, more steps follow, which remove it.
    """
    above, first = (float(1 / prior.schedule.alpha_bar[t] - 1) for t in (start, start - 1))
    return above < 1 and (above / first) ** 0.5 > GRAINY


# The published constraint corrects x_{t-1}. Updates for which that does not work have another constraint here.
CONSTRAINTS: dict[str, type[LowFrequency]] = {"dpm++": CleanLowFrequency}

BEGINNINGS: dict[str, Callable[[Attempt, Tensor], Tensor]] = {
    "restored": lambda attempt, face: attempt(face).float().clamp(-1, 1),
    "face": lambda attempt, face: face,
}
