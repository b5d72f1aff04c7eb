"""The diffusion methods that the paper compares with, each with its published settings.

A method is a guidance for the one reverse loop, a schedule, the space it runs in (pixels or latents), and whether a
restorer runs on the result. Filters were published for 256 or 512 px and are scaled with the prior's size, so that they
cover the same share of a face.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from unfade.devices import device_of
from unfade.diffusion.guidance import (
    DDA,
    DR2,
    ILVR,
    DifFace,
    Guidance,
    LowFrequency,
    Noise,
    PGDiff,
    RestorationGuidance,
)
from unfade.diffusion.latent import prior_given
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.sampler import UPDATES, ImageNoise, sample
from unfade.errors import BadInput, refuse_below
from unfade.images.filters import at_size
from unfade.images.tone import grey_where
from unfade.images.wavelets import with_colours_of
from unfade.jobs.journal import Entry
from unfade.jobs.run_stage import Item, Stage, run_stage
from unfade.jobs.runs import Run
from unfade.nets.diffbir import DiffBIR
from unfade.nets.pgdiff_restorer import PGDiffRestorer
from unfade.precision import autocast
from unfade.progress import Advance
from unfade.restorers.base import Restorer
from unfade.stages.restore import choices, restore_batch
from unfade.store.seeds import fingerprint

T = TypeVar("T")
Own = PGDiffRestorer | DiffBIR  # networks that are part of a published method


@dataclass(frozen=True)
class Inputs:
    """What a guidance can be made from; images are (B, 3, size, size) in [-1, 1], of the size that is sampled at."""

    face: Tensor
    restored: Tensor  # the restorer's result for the face
    own: Own | None = None  # the method's own network, if it has one

    def own_target(self, x_t: Tensor, t: int) -> Tensor:
        """PG-Diff's restored face for x_t at step `t` of 1000. Raises BadInput if `own` is not PG-Diff's network."""
        steps = torch.full((len(x_t),), t, device=x_t.device)
        with torch.no_grad():
            target: Tensor = _needed(self.own, PGDiffRestorer)(x_t, self.face, steps)
        return target.float()

    @cached_property
    def own_latents(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the restored picture's latent. Raises BadInput if `own` is not DiffBIR."""
        with torch.no_grad():
            return _needed(self.own, DiffBIR).encode(self.restored)

    def own_target_latent(self, noise: Noise) -> Tensor:
        """A latent of the restored picture, drawn at random."""
        mean, deviation = self.own_latents
        return mean + deviation * noise(mean)

    def factor(self, published: int, size: int) -> int:
        """The factor of a filter published for `size` px, scaled to this size; at least 2, since 1 would not filter."""
        return max(2, published * self.face.shape[-1] // size)


def _needed(own: object, kind: type[T]) -> T:
    if not isinstance(own, kind):
        raise BadInput("This method needs the network that it was published with; load it and pass it as `own`.")
    return own


Walk = Callable[["Method", Inputs, DiffusionPrior, Noise], Tensor]


def in_pixels(method: "Method", given: Inputs, prior: DiffusionPrior, noise: Noise) -> Tensor:
    """Sample from the given prior with the method's guidance; (B, 3, size, size), not clamped."""
    return sample(prior, method.guide(given), noise, given.face, update=UPDATES[method.update]())


def in_latents(method: "Method", given: Inputs, prior: DiffusionPrior, noise: Noise) -> Tensor:
    """Sample from the method's own prior, conditioned on the restored picture, whose colours the result gets too.

    This is DiffBIR (Sec. 3).
    """
    network, (hint, _) = _needed(given.own, DiffBIR), given.own_latents
    prior = prior_given(network, hint, spacing=method.spacing)
    latent = sample(prior, method.guide(given), noise, hint, update=UPDATES[method.update]())
    with torch.no_grad():
        return with_colours_of(network.picture(latent), given.restored)


@dataclass(frozen=True)
class Method:
    """How one method works."""

    source: str
    guide: Callable[[Inputs], Guidance]
    spacing: str  # how many of the 1000 steps are used
    update: str = "ddpm"  # a name in UPDATES
    restores: bool = False  # whether the restorer runs on the result
    own: str = ""  # name of the model that is part of the published method, if there is one
    walk: Walk = in_pixels


METHODS: dict[str, Method] = {
    "ours": Method(
        "Kuai et al. 2025, Algorithm 1: the pseudo targets",
        lambda given: LowFrequency(given.restored, 150, 90, given.factor(16, 512)),
        "250",
    ),
    "ours-short": Method(
        "the same noise levels in a fifth of the steps",
        lambda given: LowFrequency(given.restored, 30, 18, given.factor(16, 512)),
        "50",
    ),
    "difface": Method("Yue & Loy 2022, DDPM as in the paper", lambda given: DifFace(given.restored, 100), "250"),
    "difface-ddim": Method(
        "Yue & Loy, their code of today", lambda given: DifFace(given.restored, 100), "ddim250", "ddim-eta0.5"
    ),
    "ilvr": Method("Choi et al. 2021", lambda given: ILVR(given.face, given.factor(32, 256), 20), "100"),
    "dda": Method("Gao et al. 2023", lambda given: DDA(given.face, 50, given.factor(4, 256), 6.0), "100"),
    "dr2": Method(
        "Wang et al. 2023, N = 4, then the restorer",
        lambda given: DR2(given.face, given.factor(4, 256), 42, 22),
        "100",
        restores=True,
    ),
    "pgdiff": Method(
        "Yang et al. 2023, with their own restorer of x_t",
        lambda given: PGDiff(given.own_target),
        "1000",
        own="pgdiff-restorer",
    ),
    "pgdiff-restored": Method(
        "the same, drawn to the restorer's picture of the face",
        lambda given: PGDiff(lambda x_t, t: given.restored),
        "1000",
    ),
    "diffbir": Method(
        "Lin et al. 2023, the face model of the first version, after the restorer",
        lambda given: RestorationGuidance(given.own_target_latent),
        "50",
        own="diffbir-face",
        walk=in_latents,
    ),
}


@dataclass(frozen=True)
class MethodSettings:
    """The settings that all methods share."""

    batch: int = 4  # faces denoised together
    bf16: bool = False  # networks in bfloat16 where the device has it; everything else stays float32
    seed: int = 0

    def __post_init__(self) -> None:
        refuse_below(1, self, "batch")


def method_named(name: str) -> Method:
    """The method of that name. Raises BadInput, with the list of methods, for an unknown name."""
    if name not in METHODS:
        raise BadInput(f"There is no method named {name}; there are: {', '.join(METHODS)}.")
    return METHODS[name]


def run_method(
    name: str,
    faces: Iterable[Path],
    run: Run,
    restorer: Restorer,
    prior: DiffusionPrior,
    *,
    own: Own | None = None,
    settings: MethodSettings = MethodSettings(),
    key: str = "",
) -> list[Entry]:
    """Run a method on aligned faces and write its results, of the restorer's size, to the run's folder.

    Returns one entry for each face. `own` is the method's own network, if it has one. `key` identifies the weights.
    Raises BadInput for an unknown method, or if its own network is missing.
    """
    method = method_named(name)
    walked = prior.respaced(method.spacing)
    device = device_of(prior)

    def work(items: list[Item], advance: Advance) -> Tensor:
        face = torch.stack([item.pixels for item in items]).to(device)
        noise = ImageNoise([item.seed(settings.seed, name) for item in items], device)
        with autocast(device, bf16=settings.bf16):
            return grey_where(face, walk(method, face, restorer, walked, noise, own))

    identity = {k: v for k, v in asdict(settings).items() if k != "batch"}
    whole_key = fingerprint(key, name, identity, choices(restorer))
    stage = Stage(name, work, restorer.size, settings.batch, whole_key, settings.bf16)
    return run_stage(stage, faces, run)


def walk(
    method: Method, face: Tensor, restorer: Restorer, prior: DiffusionPrior, noise: Noise, own: Own | None = None
) -> Tensor:
    """Run a method on (B, 3, S, S) faces of the restorer's size; the same shape, clamped to [-1, 1].

    `prior` already has the method's schedule.
    """
    size = face.shape[-1]
    side = own.config.size if isinstance(own, DiffBIR) else prior.size
    given = Inputs(at_size(face, side), at_size(restore_batch(face, restorer), side), own)
    result = method.walk(method, given, prior, noise).clamp(-1, 1)
    result = at_size(result, size).clamp(-1, 1)  # resizing overshoots
    return restore_batch(result, restorer) if method.restores else result
