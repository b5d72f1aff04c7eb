"""Restore aligned faces, in one pass through a restorer."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from unfade.devices import device_of
from unfade.errors import BadInput
from unfade.faces.restoring import blend
from unfade.images.tone import grey_where
from unfade.jobs.journal import Entry
from unfade.jobs.run_stage import Item, Stage, run_stage
from unfade.jobs.runs import Run
from unfade.precision import autocast
from unfade.progress import Advance
from unfade.restorers.base import Restorer
from unfade.store.seeds import fingerprint
from unfade.training.modes import mode

# True at any fidelity above: at 0.25, the least degradation that is assumed is that of a face the network restores.
LEFT_ALONE = " left unchanged: hardly degraded (a fidelity of 0.25 restores such faces too)"


def restore_faces(
    faces: Iterable[Path],
    run: Run,
    restorer: Restorer,
    *,
    strength: float = 1.0,
    batch: int = 8,
    key: str = "",
    stage: str = "restored",
) -> list[Entry]:
    """Restore each face and write it to the run's folder, at the restorer's size. One entry for each face.

    A grey face stays grey. `strength` in 0..1 blends the result with its input. `key` identifies the weights: faces
    that were restored with other weights, or at another fidelity or strength, are restored again. Raises BadInput for
    a strength outside 0..1.
    """
    check_strength(strength)

    def work(items: list[Item], advance: Advance) -> Tensor:
        face = torch.stack([item.pixels for item in items])
        return grey_where(face, restore_batch(face, restorer, strength=strength))

    whole_key = fingerprint(key, choices(restorer, strength))

    def noted(face: Tensor, result: Tensor) -> tuple[str, ...]:
        return left_alone([face], [result]) if strength else ()  # at 0, every face is unchanged

    done = Stage(stage, work, restorer.size, batch, whole_key, restorer.bf16, noted=noted)
    return run_stage(done, faces, run)


def left_alone(faces: Sequence[Tensor], restored: Sequence[Tensor]) -> tuple[str, ...]:
    """A note of how many faces the restorer returned unchanged, since they are hardly degraded by its estimate."""
    count = sum(torch.equal(face, result) for face, result in zip(faces, restored, strict=True))
    return (f"{count} face{'s' * (count > 1)}{LEFT_ALONE}",) if count else ()


@torch.no_grad()
def restore_batch(face: Tensor, restorer: Restorer, *, strength: float = 1.0) -> Tensor:
    """Restore (B, 3, size, size) faces; the same shape, clamped to [-1, 1]. See `blend` for the strength.

    The network computes in bfloat16 if the restorer's `bf16` is set and the device supports it.
    """
    device = device_of(restorer)
    face = face.to(device)
    with mode(False, restorer), autocast(device, bf16=restorer.bf16):
        restored: Tensor = restorer(face)
    restored = restored.float()
    numbers = torch.where(
        restored.isfinite(), restored.clamp(-1, 1), torch.nan
    )  # so that infinity does not become white
    return blend(face, numbers, strength)


def check_strength(strength: float) -> None:
    """Raises BadInput for a strength outside 0..1."""
    if not 0 <= strength <= 1:
        raise BadInput(f"The strength must lie in 0..1 (0: the input, 1: the restored picture), got {strength}.")


def choices(restorer: Restorer, strength: float = 1.0) -> dict[str, float]:
    """What a result depends on besides the weights: fidelity and refinement (if there are any), strength, precision.

    Full strength and float32 are left out, so that runs of versions without these settings can be resumed.
    """
    made = {"fidelity": restorer.fidelity, "refine": restorer.refine, "bf16": restorer.bf16 or None}
    found = {name: float(value) for name, value in made.items() if value is not None}
    return found if strength == 1 else {**found, "strength": float(strength)}
