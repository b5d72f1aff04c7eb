"""Quality of a picture without a truth to compare it with: NIQE by statistics, and MANIQA averaged over crops.

MUSIQ is the output of its network. None of them considers who is in the picture: a sharp stranger scores well.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.images.filters import resize
from unfade.nets.architecture import Architecture
from unfade.nets.maniqa import MANIQA

BLOCK = 96  # px, the side of NIQE's blocks
FEATURES = 36  # features of a block: 18 at each of two scales
LUMA = (0.299, 0.587, 0.114)  # Y of YIQ
_RADIUS, _SIGMA = 3, 7 / 6  # of the 7 x 7 Gaussian window
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # (rows, columns) from a pixel to the neighbours in the products
ROWS, COLUMNS = 4, 5  # grid of MANIQA's 20 crops
TOGETHER = 5  # crops per forward pass


class Niqe(nn.Module):
    """Pictures (B, 3, H, W), RGB in [-1, 1] -> NIQE (B,), float64, from 0, lower is better.

    Mittal et al., "Making a 'Completely Blind' Image Quality Analyzer" (2013), Eq. 10, over whole blocks of 96 px of
    the rounded luma; the rest at the right and the bottom is ignored. A picture without any contrast gives NaN. For a
    single block, as of a 128 px face, the score means little: it ranks some degraded faces above their truth.
    The mean and covariance of the features of sharp, undistorted pictures are loaded like weights. Raises BadInput
    on pictures that are smaller than a block.
    """

    mean: Tensor  # (36,)
    covariance: Tensor  # (36, 36)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES, dtype=torch.float64))
        self.register_buffer("covariance", torch.eye(FEATURES, dtype=torch.float64))

    def forward(self, picture: Tensor) -> Tensor:
        features = block_features(picture)
        usable = features.isfinite().all(2, keepdim=True)  # flat blocks have no shape
        mean = features.nanmean(1)
        centred = torch.where(usable, features, 0)
        count = usable.sum(1, keepdim=True)
        centred = torch.where(usable, centred - centred.sum(1, keepdim=True) / count.clamp(min=1), 0)
        covariance = centred.transpose(1, 2) @ centred / (count - 1).clamp(min=1)
        inverse = torch.linalg.pinv((self.covariance + covariance) / 2, hermitian=True)
        apart = (self.mean - mean)[:, :, None]
        distance: Tensor = (apart.transpose(1, 2) @ inverse @ apart).squeeze((1, 2)).sqrt()
        return distance


def block_features(picture: Tensor) -> Tensor:
    """(B, 3, H, W), RGB in [-1, 1] -> NIQE's features (B, blocks, 36), float64; NaN where a block has no contrast.

    18 of each block at full size, then 18 of it at half size (Sec. II-B). Raises BadInput on pictures smaller than one.
    """
    height, width = picture.shape[-2:]
    if min(height, width) < BLOCK:
        raise BadInput(f"NIQE looks at blocks of {BLOCK} x {BLOCK} pixels, but this picture has {width} x {height}.")
    levels = (picture.double() + 1) * 127.5
    luma = (levels * levels.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True).round()
    luma = luma[..., : height // BLOCK * BLOCK, : width // BLOCK * BLOCK]
    half = resize(luma, luma.shape[-2] // 2, luma.shape[-1] // 2)
    return torch.cat([shape_features(normalised(luma), BLOCK), shape_features(normalised(half), BLOCK // 2)], 2)


def normalised(luma: Tensor) -> Tensor:
    """Levels (B, 1, H, W) minus their local mean, divided by their local contrast plus 1 (Eq. 1)."""
    offset = torch.arange(-_RADIUS, _RADIUS + 1, dtype=luma.dtype, device=luma.device)
    window = torch.exp(-(offset**2) / (2 * _SIGMA**2))
    window = window / window.sum()

    def blurred(x: Tensor) -> Tensor:
        x = F.pad(x, (_RADIUS,) * 4, mode="replicate")
        return F.conv2d(F.conv2d(x, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))

    mean = blurred(luma)
    deviation = (blurred(luma * luma) - mean**2).abs().sqrt()
    return (luma - mean) / (deviation + 1)


def shape_features(x: Tensor, side: int) -> Tensor:
    """(B, 1, H, W) -> (B, blocks, 18): shapes of the values and of their products with four neighbours (Eq. 5 to 8)."""
    blocks = x.unfold(2, side, side).unfold(3, side, side).flatten(1, 3)  # (B, blocks, side, side)
    shape, left, right = asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for step in _NEIGHBOURS:
        shape, left, right = asymmetric_gaussian(blocks * blocks.roll(step, (2, 3)))
        mean = (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))  # Eq. 8
        features += [shape, mean, left, right]
    return torch.stack(features, 2)


def asymmetric_gaussian(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(..., H, W) -> shape, left and right scale of an asymmetric generalised Gaussian (Eq. 5), each (...,).

    By matching moments (Lasmar et al. 2009), the shape to 0.001 between 0.2 and 10; all NaN for values without a
    positive or without a negative one.
    """
    x = blocks.flatten(-2)
    left, right = (_root_mean_square(x, side) for side in (x < 0, x > 0))
    ratio = left / right
    moment = x.abs().mean(-1) ** 2 / (x**2).mean(-1)
    wanted = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, moments = (table.to(x.device) for table in _shapes())
    above = torch.searchsorted(moments, wanted.contiguous()).clamp(1, len(moments) - 1)
    nearer = (wanted - moments[above - 1]).abs() <= (moments[above] - wanted).abs()
    shape = torch.where(wanted.isfinite(), shapes[above - nearer.long()], math.nan)
    scale = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape, left * scale, right * scale


def _root_mean_square(x: Tensor, which: Tensor) -> Tensor:
    return ((x**2 * which).sum(-1) / which.sum(-1)).sqrt()


@lru_cache(maxsize=1)
def _shapes() -> tuple[Tensor, Tensor]:
    """Shapes of a generalised Gaussian and, for each, its squared mean over its mean square, which rises with it."""
    shapes = torch.arange(200, 10_001, dtype=torch.float64) / 1000
    one, two, three = (torch.lgamma(k / shapes) for k in (1, 2, 3))
    return shapes, torch.exp(2 * two - one - three)


class CroppedManiqa(nn.Module):
    """Pictures (B, 3, H, W), RGB in [-1, 1] -> MANIQA (B,), higher is better: the mean over 20 crops.

    The published scripts draw 20 random crops, so that scores vary. Here the corners are the centres of 4 x 5 equal
    cells of their range, which gives the mean that random crops estimate. `scale` belongs to the weights, see MANIQA.
    Raises BadInput on pictures that are smaller than a crop.
    """

    def __init__(self, net: MANIQA, *, scale: float) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.scale = scale

    def forward(self, picture: Tensor) -> Tensor:
        side = self.net.config.size
        height, width = picture.shape[-2:]
        if min(height, width) < side:
            raise BadInput(f"MANIQA looks at crops of {side} x {side} pixels, but this picture has {width} x {height}.")
        corners = [(y, x) for y in corners_of(height - side, ROWS) for x in corners_of(width - side, COLUMNS)]
        crops = torch.cat([picture[..., y : y + side, x : x + side] for y, x in corners])  # crop by crop
        scores = [self.net(part, scale=self.scale) for part in torch.split(crops, TOGETHER)]
        return torch.cat(scores).view(len(corners), -1).mean(0)


def corners_of(room: int, count: int) -> list[int]:
    """The starts of crops within a range of `room` px: the middles of `count` cells; a single one if `room` is 0."""
    return [room * (2 * k + 1) // (2 * count) for k in range(count)] if room else [0]


ARCHITECTURE = Architecture("quality", ("mean", "covariance"), lambda config: Niqe(), lambda state: [{}])
