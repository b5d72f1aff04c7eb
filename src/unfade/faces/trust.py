"""How far to believe each region of a restored face: a bound on its distance to the true picture.

The square of a face is divided into CELLS x CELLS regions. The error of a region is the mean absolute difference of
result and truth over its pixels and channels, in grey levels of 0..255. LEVEL of all regions of all faces meet their
bound: it is the error that a quantile regression expects of a region, from the face and the result alone (Koenker &
Bassett 1978), times a factor that makes up for its mistakes on faces that it did not learn from (conformalized quantile
regression, Romano et al. 2019). The regions of a face resemble each other, so not regions but faces are counted as
independent (hierarchical conformal prediction, Lee, Barber & Willett 2023).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.errors import BadInput
from unfade.images.filters import at_size
from unfade.nets.damage import SIZE, DamageNet, statistics

CELLS = 16  # regions along each side of the square
FEATURES = 31  # numbers that are known of a region, see `evidence`
LEVEL = 0.9  # share of the regions whose error is at most the bound
ROUNDS = 60  # of the quantile regression
NEAREST = 1e-3  # smallest residual that a weight is computed of, in logarithms
RIDGE = 1e-6  # relative to the mean square of the evidence
MOST = 5.545  # largest logarithm of 1 + a bound: of 255 grey levels
WHOLE = [0, 1, 2, 4]  # of the evidence of regions, whose means over the face count too
KINDS = [0, 3, 6, 9, 12, 15, 1, 4, 7, 10]  # of `nets.damage.statistics`: grey in three octaves, colour in two
SCALE = 4  # levels of a map for each grey level of a bound, so that usual bounds can be seen

Seen = tuple[Tensor, Tensor]  # of K faces with M regions: evidence (K, M, F) and errors in grey levels (K, M)


@dataclass(frozen=True)
class Calibration:
    """The bounds of one restorer, as its card holds them."""

    weights: tuple[float, ...]  # of the evidence; their sum is the logarithm of 1 + the expected error
    factor: float  # logarithm of what the expected error is multiplied by
    choices: Mapping[str, float]  # fidelity and refinement of the restorer that was calibrated
    restorer: str  # SHA-256 of its weights
    faces: int  # clean faces that the factor is a quantile of
    damages: str  # what these were damaged by, in words

    def bounds(self, found: Tensor) -> Tensor:
        """The evidence of regions, (..., F), to their bounds in grey levels, (...)."""
        expected = found @ torch.tensor(self.weights) + self.factor
        return expected.clamp(0, MOST).expm1()


@dataclass(frozen=True, eq=False)
class Trust:
    """The calibrations that maps are made by, and why there is none for the faces of some restorers."""

    damage: DamageNet  # estimates how damaged a face is
    by_size: Mapping[int, Calibration]  # by the size of the restorer's faces, px
    missing: Mapping[int, str]  # for every other size a sentence that says why

    def why_not(self, faces: Sequence[Tensor]) -> str:
        """Why there is no map of a photo with these faces, (3, S, S) each; empty if there is one.

        A face without bounds is not left out of a map, where it would pass for the photo's own.
        """
        return next((self.missing[face.shape[-1]] for face in faces if face.shape[-1] in self.missing), "")

    @torch.no_grad()
    def bounds(self, face: Tensor, result: Tensor) -> Tensor:
        """A face (3, S, S) and its result, both in [-1, 1], to the bounds of its regions, (CELLS, CELLS).

        A face that came back as it was has bounds of 0: nothing in it is guessed.
        """
        if torch.equal(face, result):
            return torch.zeros(CELLS, CELLS)
        found = evidence(face[None], result[None], self.damage)[0]
        return self.by_size[face.shape[-1]].bounds(found).reshape(CELLS, CELLS)

    def map_of(self, face: Tensor, result: Tensor, strength: float) -> Tensor:
        """The bounds as a picture (3, S, S): from -1, nothing is guessed, to 1, a bound of 255 / SCALE or more.

        They fall with the strength, as the share of the result that is guessed does.
        """
        levels = (SCALE * strength * self.bounds(face, result)).clamp(max=255) / 127.5 - 1
        picture = F.interpolate(levels.expand(1, 3, -1, -1), size=tuple(face.shape[1:]), mode="nearest")
        return picture[0]


def calibrated(seen: Seen, about: Calibration) -> Calibration:
    """Calibrate on K clean faces that the restorer has not learned from; M counts all ways in which each is damaged.

    `about` holds everything else. Every third face is for the regression, the others for the factor. Raises BadInput
    for fewer faces than a bound needs.
    """
    found, wanted = seen
    learn, logs = torch.arange(len(found)) % 3 == 0, wanted.log1p()
    weights = quantile_regression(found[learn].flatten(0, 1), logs[learn].flatten())
    factor = conformal_quantile(logs[~learn] - found[~learn] @ weights)
    return replace(about, weights=tuple(weights.tolist()), factor=factor, faces=int((~learn).sum()))


def transferred(before: Calibration, first: Seen, now: Seen) -> Calibration:
    """The calibration of a restorer that learned further, from what it made of the same faces `first` and makes `now`.

    The factor rises as the scores of these faces do, and never falls: faces that are damaged as the restorer has just
    learned it are easier for it than real ones.
    """
    scores = [wanted.log1p() - found @ torch.tensor(before.weights) for found, wanted in (first, now)]
    raised = max(0.0, conformal_quantile(scores[1]) - conformal_quantile(scores[0]))
    return replace(before, factor=before.factor + raised)


def errors(result: Tensor, truth: Tensor) -> Tensor:
    """(B, 3, S, S) twice to (B, CELLS ** 2): the error of every region, in grey levels."""
    return _regions((result - truth).abs().mean(1, keepdim=True))


def conformal_quantile(scores: Tensor) -> float:
    """(K, M): the value that at least LEVEL of the M scores of a new face are expected not to exceed, given K others.

    A new face may be unlike all K, so that each of them counts for 1 / (K + 1) only. Raises BadInput where K is so
    small that no value is sure.
    """
    faces, count = len(scores), scores.numel()
    rank = ceil(round(LEVEL * (faces + 1) / max(1, faces) * count, 6))  # rounded, as 0.9 is no binary fraction
    if rank > count or not count:
        fewest = ceil(round(LEVEL / (1 - LEVEL), 6))
        raise BadInput(f"A bound for {LEVEL:.0%} of the regions needs at least {fewest} faces, got {faces}.")
    return float(scores.flatten().sort().values[rank - 1])


def quantile_regression(found: Tensor, wanted: Tensor) -> Tensor:
    """(N, F) and (N,): the weights, (F,), with which LEVEL of `wanted` lies below `found @ weights`.

    By majorizing and minimizing (Hunter & Lange 2000), which has no step size and draws nothing at random.
    """
    x, y = found.double(), wanted.double()
    ridge = RIDGE * x.square().mean() * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights: Tensor = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    for _ in range(ROUNDS):
        near = 1 / (NEAREST + (y - x @ weights).abs())
        weighed = x * near[:, None]
        weights = torch.linalg.solve(weighed.T @ x + ridge, weighed.T @ y + (2 * LEVEL - 1) * x.sum(0))
    return weights.float()


def evidence(face: Tensor, result: Tensor, damage: DamageNet) -> Tensor:
    """(B, 3, S, S) twice, in [-1, 1], to what is known of every region without a truth: (B, CELLS ** 2, FEATURES).

    How much the restorer changed, finely and as a whole; how much detail it drew, in the region, around it and across
    it; brightness; for the whole face the means of some of these, and what tells one kind of damage from another; and
    the place.
    """
    change, levels = result - face, F.adaptive_avg_pool2d(result, CELLS)
    fine = _regions(change.abs().mean(1, keepdim=True))
    coarse = 127.5 * F.adaptive_avg_pool2d(change, CELLS).abs().mean(1).flatten(1)
    drawn = _regions(_gradient(result))
    around = _around(drawn.reshape(-1, 1, CELLS, CELLS)).flatten(1)
    within = (F.adaptive_avg_pool2d(result.square(), CELLS) - levels.square()).clamp_min(0).sqrt().mean(1).flatten(1)
    across = (_around(levels.square()) - _around(levels).square()).clamp_min(0).sqrt().mean(1).flatten(1)
    seen = torch.stack([fine, coarse, drawn, around, 127.5 * within, 127.5 * across], -1).log1p()
    light = levels.mean(1).flatten(1)[..., None]
    whole = torch.cat([seen[..., WHOLE].mean(1), _kind_of_damage(face, damage)], 1)[:, None].expand(-1, CELLS**2, -1)
    return torch.cat([seen, light, light.square(), whole, _place().expand(len(face), -1, -1)], -1)


def _kind_of_damage(face: Tensor, damage: DamageNet) -> Tensor:
    """(B, 3, S, S) to (B, 12): the energies of octaves and of noise, grey and coloured, and the estimated damage."""
    face = at_size(face, SIZE)
    lost = damage.estimate(face)[:, None]
    return torch.cat([statistics(face)[:, KINDS] / 3, lost, lost.square()], 1)


def _regions(image: Tensor) -> Tensor:
    """(B, 1, S, S) in [-1, 1] units to the mean of every region in grey levels, (B, CELLS ** 2)."""
    return 127.5 * F.adaptive_avg_pool2d(image, CELLS).flatten(1)


def _gradient(image: Tensor) -> Tensor:
    """(B, 3, S, S) to (B, 1, S, S): the absolute differences of neighbouring pixels of the grey picture."""
    grey = F.pad(image.mean(1, keepdim=True), (0, 1, 0, 1), "replicate")
    here = grey[..., :-1, :-1]
    return (grey[..., :-1, 1:] - here).abs() + (grey[..., 1:, :-1] - here).abs()


def _around(cells: Tensor) -> Tensor:
    """Means over 3 x 3 regions."""
    return F.avg_pool2d(F.pad(cells, (1, 1, 1, 1), "replicate"), 3, 1)


def _place() -> Tensor:
    """(CELLS ** 2, 7): 1, and polynomials of the position, the same for both halves of a face."""
    line = (torch.arange(CELLS) + 0.5) / CELLS * 2 - 1
    down, across = (part.flatten() for part in torch.meshgrid(line, line.abs(), indexing="ij"))
    one = torch.ones_like(down)
    return torch.stack([one, across, across**2, down, down**2, across * down, across**2 * down**2], -1)
