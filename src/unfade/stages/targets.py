"""Aligned faces to pseudo targets: restore, noise to step K, denoise with the prior (Algorithm 1)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from unfade.diffusion.guidance import CleanLowFrequency, LowFrequency, Noise
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.sampler import UPDATES, ImageNoise, sample
from unfade.diffusion.schedule import respaced
from unfade.errors import BadInput
from unfade.images.filters import resize
from unfade.images.tone import grey_where
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.run_stage import Item, Stage, run_stage
from unfade.precision import autocast
from unfade.progress import Advance, Progress, silent
from unfade.restorers.base import Restorer
from unfade.stages.restore import choices
from unfade.store.seeds import fingerprint

STAGE = "targets"
Attempt = Callable[[Tensor], Tensor]  # (B, 3, S, S) faces to the restorer's first attempts


@dataclass(frozen=True)
class TargetSettings:
    """How pseudo targets are made (Sec. 4.1)."""

    spacing: str = "250"  # how many of the 1000 steps are kept
    start: int = 150  # K = 600 of 1000, in respaced steps
    free_from: int = 90  # L = 360 of 1000: below this the prior runs free
    factor: int = (
        16  # N of the low-pass filter, in pixels of the prior's images; 8 keeps more of the restorer's structure
    )
    update: str = "ddpm"  # a name in UPDATES
    begin_with: str = "restored"  # what is noised: "restored", or "face", without the restorer's first attempt
    by_damage: bool = False  # noise a face that is less damaged than K's noise by less, see `start_for`
    batch: int | None = None  # faces denoised together; None: as `together` counts
    bf16: bool = False  # prior and restorer in bfloat16 where the device has it; the rest stays float32
    seed: int = 0

    def identity(self) -> dict[str, object]:
        """What a target depends on: everything but the number of faces made together."""
        values = asdict(self)
        unmade = {
            "begin_with": "restored",
            "by_damage": False,
        }  # not mentioned, so that runs begun before there was a choice go on
        return {k: v for k, v in values.items() if k != "batch" and (k not in unmade or v != unmade[k])}

    def check(self, size: int) -> None:
        """Raises BadInput, naming the setting, for settings that a prior of this size cannot follow."""
        try:
            steps = len(respaced(self.spacing))
        except ValueError as error:
            raise BadInput(f"The spacing {self.spacing} is of no use: {error}") from error
        if not 0 < self.start < steps:
            raise BadInput(f"The start must lie in 1..{steps - 1} of the {steps} steps kept, got {self.start}.")
        if self.factor < 1 or size % self.factor or size // self.factor < 2:
            raise BadInput(f"The factor {self.factor} does not divide a side of {size} into 2 pixels or more.")
        if self.update not in UPDATES:
            raise BadInput(f"There is no update named {self.update}; there are: {', '.join(UPDATES)}.")
        if self.batch is not None and self.batch < 1:
            raise BadInput(f"Faces are denoised one or more at a time, got {self.batch} together.")
        if self.begin_with not in BEGINNINGS:
            raise BadInput(f"Targets cannot begin with {self.begin_with}; they can with: {', '.join(BEGINNINGS)}.")

    def for_size(self, size: int) -> "TargetSettings":
        """The same filter on images of another size: N is meant for 512 px."""
        return replace(self, factor=max(1, self.factor * size // 512))


def make_targets(
    faces: Iterable[Path],
    out: Path,
    restorer: Restorer,
    prior: DiffusionPrior,
    *,
    size: int,
    settings: TargetSettings,
    journal: Journal,
    key: str = "",
    stage: str = STAGE,
    progress: Progress = silent,
) -> list[Entry]:
    """Write a pseudo target for each aligned face to `out`; `size` is the restorer's. One entry for each face.

    The target of a grey face is grey: the prior would colour it, and the restorer learn to. `key` says which weights
    these are: targets made with others, or at another fidelity, are made again. `stage` names them in the journal.
    """
    settings.check(prior.size)
    prior = prior.respaced(settings.spacing)

    def work(items: list[Item], advance: Advance) -> Tensor:
        face = torch.stack([item.pixels for item in items])
        seeds = [item.seed(settings.seed, "target") for item in items]
        targets: dict[int, Tensor] = {}
        for made, places in by_start(face, restorer, prior, settings):
            noise = ImageNoise([seeds[i] for i in places], _device(prior))
            step = partial(advance, len(places) / max(1, made.start))
            target = pseudo_target(face[places], restorer.attempt, prior, noise, made, step)
            targets |= dict(zip(places, target, strict=True))
        return grey_where(face, torch.stack([targets[i] for i in range(len(items))]))

    whole_key = fingerprint(key, settings.identity(), choices(restorer))
    batch = settings.batch or together(_device(prior), prior.size)
    return run_stage(Stage(stage, work, size, batch, whole_key, settings.bf16), faces, out, journal, progress=progress)


def by_start(
    face: Tensor, restorer: Restorer, prior: DiffusionPrior, settings: TargetSettings
) -> list[tuple[TargetSettings, list[int]]]:
    """The faces of a batch, by their places in it, that are noised alike, and how."""
    matching = restorer.matching_step(face.to(_device(restorer))) if settings.by_damage else None
    if matching is None:
        return [(settings, [*range(len(face))])]
    starts = [start_for(t, prior.schedule.t_model, settings) for t in matching.tolist()]
    made = {
        start: replace(settings, start=start, free_from=settings.free_from * start // settings.start)
        for start in sorted(set(starts))
    }
    return [(made[start], [i for i, own in enumerate(starts) if own == start]) for start in made]


def start_for(matching: int, t_model: Sequence[int], settings: TargetSettings) -> int:
    """K of a face whose damage matches that step of 1000: the next respaced one above it, at most the settings' K.

    0, no noise at all, for a face without damage: its first attempt is its target.
    """
    if matching == 0:
        return 0
    return min(settings.start, 1 + sum(t < matching for t in t_model))


def together(device: torch.device, size: int) -> int:
    """How many faces of a size go through a prior at once: 4 on a processor; a GPU needs 256 of 128 px to be busy.

    As many pixels at other sizes: 16 faces of 512 px, which a GPU of 8 GB holds without gradients.
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
    """Algorithm 1: (B, 3, S, S) faces to targets of the prior's size, all in [-1, 1]; `attempt` is the restorer's."""
    device = _device(prior)
    with torch.no_grad(), autocast(device, bf16=settings.bf16):
        first = _at_size(BEGINNINGS[settings.begin_with](attempt, face.to(device)), prior.size)
        if settings.start == 0:
            return first
        constraint = CONSTRAINTS.get(settings.update, LowFrequency)
        guidance = constraint(first, settings.start, settings.free_from, settings.factor)
        target = sample(prior, guidance, noise, first, update=UPDATES[settings.update](), after_step=after_step)
    return target.clamp(-1, 1)


# Where the low frequencies are held for an update that the published place, x_{t-1}, does not suit.
CONSTRAINTS: dict[str, type[LowFrequency]] = {"dpm++": CleanLowFrequency}

BEGINNINGS: dict[str, Callable[[Attempt, Tensor], Tensor]] = {
    "restored": lambda attempt, face: attempt(face).float().clamp(-1, 1),
    "face": lambda attempt, face: face,
}


def _at_size(image: Tensor, size: int) -> Tensor:
    """Published order: restored at the restorer's size, then brought to the prior's."""
    return image if image.shape[-1] == size else resize(image, size, size)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
