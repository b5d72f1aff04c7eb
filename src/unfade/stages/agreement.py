"""Targets that disagree with their photos are not learned from: there the prior drew another picture, not a better one.

A photo can be trusted for its low frequencies and colours, which blur and noise hardly touch. How far these may move
depends on the damage, which the photos of a folder share, so each target is compared with the others of the folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.errors import BadInput
from unfade.images.files import read_image
from unfade.images.filters import fit_square
from unfade.stages.finetune import Pair

BLOCKS = 8  # along each side; their means are the low frequencies, and each is as wide as an eye
TRUSTED = 0.03  # of the range of values: smaller differences count as agreement, whatever the others are


@dataclass(frozen=True)
class Agreement:
    """Which pairs are learned from."""

    kept: list[Pair]
    left_out: list[Pair]


def agreeing(pairs: Sequence[Pair], most: float) -> Agreement:
    """Leave out the pairs that disagree more than `most` times as much as the median pair; 0 keeps all.

    Raises BadInput for a number between 0 and 1, which would leave out half of them.
    """
    if most and most < 1:
        raise BadInput(f"Targets may disagree 1 or more times as much as the median one, got {most}; 0 keeps all.")
    if not most or not pairs:
        return Agreement([*pairs], [])
    found = [disagreement_of(pair) for pair in pairs]
    limit = max(TRUSTED, most * median(found))
    kept = [pair for pair, value in zip(pairs, found, strict=True) if value <= limit]
    return Agreement(kept, [pair for pair in pairs if pair not in kept])


def disagreement_of(pair: Pair) -> float:
    """`disagreement` of a pair's files; the target is brought to the face's size."""
    face, target = read_image(pair.face), read_image(pair.target)
    return float(disagreement(face[None], fit_square(target, face.shape[-1], pair.target)[None]))


def disagreement(face: Tensor, target: Tensor) -> Tensor:
    """(B, 3, S, S) twice in [-1, 1] to (B,) in 0..1: the mean difference of their colours in blocks."""
    low, other = (F.adaptive_avg_pool2d(image, BLOCKS) for image in (face, target))
    return torch.abs(low - other).mean((1, 2, 3)) / 2
