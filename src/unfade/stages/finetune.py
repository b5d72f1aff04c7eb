"""Fine-tune a restorer on pairs of a face and its pseudo target (Sec. 3.3)."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unfade.degradations.fitted import FittedDegradation, fit
from unfade.degradations.matching import matched
from unfade.devices import device_of
from unfade.errors import BadInput
from unfade.images.pairing import paired
from unfade.images.tone import grey_where
from unfade.progress import Progress, silent
from unfade.restorers.base import Restorer
from unfade.stages.restore import restore_batch
from unfade.store.seeds import seed_for
from unfade.training.batches import Draw, Order, Pictures, flip
from unfade.training.loader import Batch
from unfade.training.loop import History, LoopSettings, train
from unfade.training.modes import mode
from unfade.training.objective import Objective

HELD_OUT, REDEGRADED = "held_out", "redegraded"  # names of scores: held-out photos, and held-out clean faces degraded
LEAST_HELD_OUT = 2  # pairs
LEAST_FITTED = 6  # fewest pairs that a degradation is fitted to
MOST_FITTED = 100  # most pairs that a degradation is fitted to
MOST_MATCHED = 50  # most photos, and most clean faces, by which it is corrected
TOGETHER = 8  # faces that are restored together for that
Paths = Sequence[Path]
Damage = FittedDegradation | None
Distance = Callable[[Tensor, Tensor], Tensor]  # two (B, 3, H, W) to (B,)


@dataclass(frozen=True)
class FinetuneSettings:
    """How a restorer learns from pseudo targets."""

    loop: LoopSettings = field(default_factory=LoopSettings)
    flip: bool = False  # mirror half of the pairs; the paper does so for CodeFormer, but not for SwinIR
    hold_out: float = 0.1  # share of the pairs that is kept for validation; see `split`

    # Share of the training faces that are clean faces degraded like the folder's photos, instead of the photos with
    # their targets. Their truth is known, so that details that the prior invented are not learned as truth. 0 is the
    # paper's; with fewer than LEAST_FITTED pairs it has no effect.
    redegraded: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.redegraded <= 1:
            raise BadInput(f"The share of re-degraded clean faces must lie in 0..1, got {self.redegraded}.")
        if not 0 <= self.hold_out <= 0.5:
            raise BadInput(f"The share to hold out must lie in 0..0.5, got {self.hold_out}.")


@dataclass(frozen=True)
class Pair:
    """The files of a face and of its pseudo target."""

    face: Path
    target: Path


def pairs_of(faces: Path, targets: Path) -> list[Pair]:
    """The faces that have a target of the same file stem, with that target, sorted.

    Raises BadInput if there are none, or if two pictures of a folder share a stem, since one would be paired with the
    other's target.
    """
    pairs = [Pair(face, target) for face, target in paired(faces, targets).pairs]
    if not pairs:
        raise BadInput(
            f"No picture in {targets} has the file name of one in {faces}; make targets from these faces first."
        )
    return pairs


def split(pairs: Sequence[Pair], share: float, *, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from and pairs held out, drawn by their names and the seed.

    At least LEAST_HELD_OUT are held out, since fewer prove nothing; none if there are fewer than three times as many.
    """
    count = max(LEAST_HELD_OUT, int(len(pairs) * share)) if share and len(pairs) >= 3 * LEAST_HELD_OUT else 0
    drawn = sorted(pairs, key=lambda pair: seed_for("hold out", seed, pair.face.name))
    held_out = set(drawn[:count])
    return [pair for pair in pairs if pair not in held_out], [pair for pair in pairs if pair in held_out]


def finetune(
    restorer: Restorer,
    pairs: Sequence[Pair],
    *,
    objective: Objective,
    settings: FinetuneSettings,
    real: Paths = (),
    clean: Paths = (),
    distance: Distance | None = None,
    on_fitted: Callable[[FittedDegradation], None] | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> History:
    """Fine-tune in place, without changing `restorer.frozen`; with a `checkpoint`, an interrupted run can be resumed.

    `real` are clean faces as the real examples of a discriminator; without them it uses the targets. `clean` are faces
    of anyone, to be degraded like the photos (`settings.redegraded`); without them the targets are. `on_fitted` is
    given that degradation before the restorer learns. Validation on the held-out pairs, before the first step (step 0)
    and during training, reports the mean absolute difference and `distance`. If `became_worse`, the restorer gets its
    old weights back.
    """
    learned, watched = split(pairs, settings.hold_out, seed=settings.loop.seed)
    fitted = _fitted(restorer, learned, clean) if settings.redegraded or on_fitted else None
    if fitted and on_fitted:
        on_fitted(fitted)
    damage = fitted if settings.redegraded else None
    shown, kept = _shared_out(clean, learned, watched)
    validate = _score(watched, kept, restorer.size, distance, damage, settings.loop.seed) if watched else None
    restorer.requires_grad_(False)
    for parameter in restorer.trainable():
        parameter.requires_grad_(True)
    before = copy.deepcopy(restorer.state_dict())
    with mode(False, restorer), torch.no_grad():
        first = [{"step": 0, **validate(restorer)}] if validate else []
    batches = _batches(learned, real, shown, restorer.size, settings, damage)
    history = train(
        restorer,
        objective,
        batches,
        settings.loop,
        checkpoint=checkpoint,
        validate=validate,
        progress=progress,
        label="fine-tuning",
    )
    history.validations[:0] = first
    if became_worse(history):
        restorer.load_state_dict(before)
    return history


def became_worse(history: History) -> bool:
    """Whether the restorer scores worse on held-out pairs after the last step than before the first.

    If a degradation was fitted, held-out clean faces degraded by it decide, since their truth is known. The targets of
    the photos cannot decide then: they were made from the results of the restorer before training, and favour it. The
    criterion is the mean relative change of the scores. False if nothing was held out.
    """
    if len(history.validations) < 2:
        return False
    before, after = history.validations[0], history.validations[-1]
    decisive = [name for name in before if name.startswith(REDEGRADED)] or [name for name in before if name != "step"]
    change = sum(after[name] / before[name] - 1 for name in decisive if before[name] > 0)
    return change > 0 or math.isnan(change)  # of a training that diverged


def _shared_out(
    clean: Sequence[Path], learned: Sequence[Pair], watched: Sequence[Pair]
) -> tuple[list[Path], list[Path]]:
    """Clean faces to learn from, and clean faces to validate on, as many as pairs; the targets if there are none."""
    if not clean:
        return [pair.target for pair in learned], [pair.target for pair in watched]
    count = min(len(watched), len(clean) // 2)
    return [*clean[count:]], [*clean[:count]]


def _fitted(restorer: Restorer, pairs: Sequence[Pair], clean: Paths) -> FittedDegradation | None:
    """The degradation of the photos, by their targets and the restorer's results; None for too few pairs.

    `clean` are faces of anyone; without any, the targets are taken for clean.
    """
    if len(pairs) < LEAST_FITTED:
        return None
    used, size = pairs[:: -(-len(pairs) // MOST_FITTED)], restorer.size
    faces, targets = (torch.stack(_images(part, size)) for part in ([p.face for p in used], [p.target for p in used]))
    known = torch.stack(_images(clean[:MOST_MATCHED], size)) if clean else targets[:MOST_MATCHED]
    known = grey_where(faces[[i % len(faces) for i in range(len(known))]], known)
    spread = torch.linspace(0, len(faces) - 1, min(len(faces), MOST_MATCHED)).round().long()
    return matched(fit(faces, targets), faces[spread], known, partial(_restored, restorer))


def _restored(restorer: Restorer, faces: Tensor) -> Tensor:
    return torch.cat([restore_batch(part, restorer).cpu() for part in torch.split(faces, TOGETHER)])


def degraded(
    clean: Tensor, photo: Tensor, damage: FittedDegradation, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A clean face, degraded, and its truth; both grey if the photo is. All are (3, S, S)."""
    truth = grey_where(photo[None], clean[None])
    return grey_where(photo[None], damage.damaged(truth[0], rng)[None])[0], truth[0]


def _batches(
    pairs: Sequence[Pair], real: Paths, clean: Paths, size: int, settings: FinetuneSettings, damage: Damage
) -> Callable[[int], Batch]:
    seed, batch = settings.loop.seed, settings.loop.batch
    faces, targets = Pictures([p.face for p in pairs], size), Pictures([p.target for p in pairs], size)
    truths, reals = Pictures(clean, size), Pictures(real, size)
    order, truth_order, real_order = (
        Order([1.0] * max(1, count), seed=seed + i) for i, count in enumerate((len(pairs), len(clean), len(real)))
    )

    def pair(draw: Draw, other: Draw) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(seed_for("redegraded", seed, draw.position))
        if damage is None or rng.random() >= settings.redegraded:
            return faces[draw.item], targets[draw.item]
        return degraded(truths[other.item], faces[draw.item], damage, rng)

    def mirrored(image: Tensor, draw: Draw) -> Tensor:
        return flip(image, draw, seed) if settings.flip else image

    def make(step: int) -> Batch:
        draws = order.step(step, batch)
        made = [pair(*both) for both in zip(draws, truth_order.step(step, batch), strict=True)]
        parts = [torch.stack([mirrored(p[i], d) for p, d in zip(made, draws, strict=True)]) for i in (0, 1)]
        if real:
            parts.append(torch.stack([reals[d.item] for d in real_order.step(step, batch)]))
        return tuple(parts)

    return make


def _score(
    pairs: Sequence[Pair], clean: Paths, size: int, distance: Distance | None, damage: Damage, seed: int
) -> Callable[[nn.Module], dict[str, float]]:
    photos, targets = Pictures([p.face for p in pairs], size), Pictures([p.target for p in pairs], size)
    shown: dict[str, tuple[Iterable[Tensor], Iterable[Tensor]]] = {HELD_OUT: (photos, targets)}
    if damage is not None and clean:
        draws = [np.random.default_rng(seed_for("held out", seed, path.name)) for path in clean]
        faces = zip(Pictures(clean, size), photos, draws, strict=False)
        made = [degraded(face, photo, damage, draw) for face, photo, draw in faces]
        shown[REDEGRADED] = ([pair[0] for pair in made], [pair[1] for pair in made])

    def score(restorer: nn.Module) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, (faces, truths) in shown.items():
            found |= _distances(restorer, faces, truths, name, distance)
        return found

    return score


def _images(paths: Sequence[Path], size: int) -> list[Tensor]:
    return [*Pictures(paths, size)]


def _distances(
    restorer: nn.Module, faces: Iterable[Tensor], targets: Iterable[Tensor], name: str, distance: Distance | None
) -> dict[str, float]:
    """Mean scores of the faces, restored one by one: NAME_l1, and NAME_perceptual if there is a distance."""
    device = device_of(restorer)
    differences, distances = [], []
    for face, wanted in zip(faces, targets, strict=True):
        restored, target = restorer(face[None].to(device)).float().clamp(-1, 1), wanted[None].to(device)
        differences.append((restored - target).abs().mean() / 2)
        if distance:
            distances.append(distance(restored, target).mean())
    means = {f"{name}_l1": float(torch.stack(differences).mean())}
    return means | ({f"{name}_perceptual": float(torch.stack(distances).mean())} if distances else {})
