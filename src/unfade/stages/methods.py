"""Faces to restored faces by the diffusion methods that the paper compares with, each with its published settings.

A method is a guidance for the one reverse loop, the schedule it walks, and whether a restorer follows. Filters were
published for 256 or 512 px and are scaled to the prior's size, so that they keep the same share of a face.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from unfade.diffusion.guidance import DDA, DR2, ILVR, DifFace, Guidance, LowFrequency, Noise, PGDiff
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.sampler import UPDATES, ImageNoise, sample
from unfade.errors import BadInput
from unfade.images.filters import resize
from unfade.images.tone import grey_where
from unfade.nets.pgdiff_restorer import PGDiffRestorer
from unfade.precision import autocast
from unfade.progress import Advance, Progress, silent
from unfade.restorers.base import Restorer
from unfade.stages.items import Item, Stage, run_stage
from unfade.stages.restore import choices, key_with, restore_batch
from unfade.store.runs import Entry, Journal


@dataclass(frozen=True)
class Inputs:
    """What a guidance may be made of; images are (B, 3, size, size) in [-1, 1], at the prior's size."""

    face: Tensor
    restored: Tensor  # what the restorer makes of the face
    own: PGDiffRestorer | None = None  # the network of a method that brings one

    def own_target(self, x_t: Tensor, t: int) -> Tensor:
        """What PG-Diff's restorer says of x_t at an original step. Raises BadInput where it is not there."""
        if self.own is None:
            raise BadInput("This method needs the network that it was published with; load it and hand it over.")
        steps = torch.full((len(x_t),), t, device=x_t.device)
        with torch.no_grad():
            target: Tensor = self.own(x_t, self.face, steps)
        return target.float()

    def factor(self, published: int, size: int) -> int:
        """A filter's factor, published for so many px, at this size; at least 2, for 1 filters nothing."""
        return max(2, published * self.face.shape[-1] // size)


@dataclass(frozen=True)
class Method:
    """How one method walks."""

    source: str
    guide: Callable[[Inputs], Guidance]
    spacing: str  # of the 1000 steps
    update: str = "ddpm"  # a name in UPDATES
    restores: bool = False  # the restorer works on the result
    own: str = ""  # a model of the table that the method was published with


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
}


@dataclass(frozen=True)
class MethodSettings:
    """What all methods share."""

    batch: int = 4  # faces denoised together
    bf16: bool = False  # networks in bfloat16 where the device has it; everything else stays float32
    seed: int = 0


def method_named(name: str) -> Method:
    """Raises BadInput, which lists the methods there are."""
    if name not in METHODS:
        raise BadInput(f"There is no method named {name}; there are: {', '.join(METHODS)}.")
    return METHODS[name]


def run_method(
    name: str,
    faces: Iterable[Path],
    out: Path,
    restorer: Restorer,
    prior: DiffusionPrior,
    *,
    own: PGDiffRestorer | None = None,
    settings: MethodSettings = MethodSettings(),
    journal: Journal,
    key: str = "",
    progress: Progress = silent,
) -> list[Entry]:
    """Write what a method makes of each aligned face to `out`, at the restorer's size. One entry for each face.

    `own` is the network that the method was published with, if it has one. `key` says which weights these are. Raises
    BadInput for an unknown method, or one without its network.
    """
    method = method_named(name)
    walked = prior.respaced(method.spacing)
    device = next(prior.parameters()).device

    def work(items: list[Item], advance: Advance) -> Tensor:
        face = torch.stack([item.pixels for item in items]).to(device)
        noise = ImageNoise([item.seed(settings.seed, name) for item in items], device)
        with autocast(device, bf16=settings.bf16):
            return grey_where(face, walk(method, face, restorer, walked, noise, own))

    identity = {k: v for k, v in asdict(settings).items() if k != "batch"}
    whole_key = key_with(f"{key}/{name}/{sorted(identity.items())}", choices(restorer))
    stage = Stage(name, work, restorer.size, settings.batch, whole_key)
    return run_stage(stage, faces, out, journal, progress=progress)


def walk(
    method: Method, face: Tensor, restorer: Restorer, prior: DiffusionPrior, noise: Noise,
    own: PGDiffRestorer | None = None,
) -> Tensor:  # fmt: skip
    """(B, 3, S, S) faces of the restorer's size to the same, clamped to [-1, 1]; `prior` has the method's schedule."""
    size = face.shape[-1]
    given = Inputs(_at_size(face, prior.size), _at_size(restore_batch(face, restorer), prior.size), own)
    guidance = method.guide(given)
    result = sample(prior, guidance, noise, given.face, update=UPDATES[method.update]).clamp(-1, 1)
    result = _at_size(result, size)
    return restore_batch(result, restorer) if method.restores else result


def _at_size(image: Tensor, size: int) -> Tensor:
    return image if image.shape[-1] == size else resize(image, size, size)
