"""Leave out targets that disagree with their photos: there the prior has made a different picture, not a better one.

The low frequencies and colours of a photo can be trusted, since blur and noise hardly change them. How much a target
may differ in them depends on the degradation, which the photos of a folder share; so each target is compared with the
others of its folder. The person of a badly degraded photo cannot be recognised, but that of the first attempt can, so a
target must also show the person of the attempt that it was made from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.errors import BadInput
from unfade.faces.identity import Likeness
from unfade.images.files import read_image
from unfade.images.filters import fit_square
from unfade.stages.finetune import Pair

BLOCKS = 8  # along each side; their means are the low frequencies, and each is as wide as an eye
APART = 1.5  # times the median distance, if that is more than the limit for one person
TRUSTED = 0.03  # of the range of values; smaller differences always count as agreement


@dataclass(frozen=True)
class Agreement:
    """The pairs to learn from, and the others."""

    kept: list[Pair]
    left_out: list[Pair]


def agreeing(
    pairs: Sequence[Pair], most: float, likeness: Likeness | None = None, attempts: Path | None = None
) -> Agreement:
    """Leave out the pairs whose disagreement is more than `most` times the median; 0 keeps all.

    With `likeness` and the folder of the first attempts, which have the names of the faces, targets that show another
    person are left out too. Raises BadInput as `check_agreement` does.
    """
    check_agreement(most)
    if not most or not pairs:
        return Agreement([*pairs], [])
    found = [disagreement_of(pair) for pair in pairs]
    limit = max(TRUSTED, most * median(found))
    kept = [pair for pair, value in zip(pairs, found, strict=True) if value <= limit]
    if likeness is not None and attempts is not None:
        kept = _of_one_person(kept, likeness, attempts)
    used = set(kept)
    return Agreement(kept, [pair for pair in pairs if pair not in used])


def check_agreement(most: float) -> None:
    """Raises BadInput for anything but 0 or a number from 1 on: one in between would leave out half of the targets."""
    if most and not 1 <= most < math.inf:
        raise BadInput(f"Expected `agreement` to be 1 or more, or 0 to use all targets, got {most}.")


def _of_one_person(pairs: list[Pair], likeness: Likeness, attempts: Path) -> list[Pair]:
    """The pairs whose targets show the person of the first attempt; never less than half of them."""
    distances = [likeness.distance(read_image(attempts / pair.face.name), read_image(pair.target)) for pair in pairs]
    limit = max(likeness.limit, APART * median(distances))
    return [pair for pair, distance in zip(pairs, distances, strict=True) if distance <= limit]


def disagreement_of(pair: Pair) -> float:
    """`disagreement` of a pair's files; the target is resized to the face's size."""
    face, target = read_image(pair.face), read_image(pair.target)
    return float(disagreement(face[None], fit_square(target, face.shape[-1], pair.target)[None]))


def disagreement(face: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the mean colours of blocks, (B,) in 0..1; both are (B, 3, S, S) in [-1, 1]."""
    low, other = (F.adaptive_avg_pool2d(image, BLOCKS) for image in (face, target))
    return torch.abs(low - other).mean((1, 2, 3)) / 2
