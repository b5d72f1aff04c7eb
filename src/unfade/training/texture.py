"""How much two images differ in texture, wherever its details lie."""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, STEP = 16, 8  # px: side of a window, and the distance to the next
AROUND = 3  # windows on each side of the block whose power is averaged
FLOOR = 3e-5  # power that is too weak to matter: that of white noise of about two levels of 255


def texture_distance(image: Tensor, other: Tensor) -> Tensor:
    """The mean absolute difference between the logarithms of their local power spectra, one number per image: (B,).

    Both are (B, C, H, W) in [-1, 1], H and W at least 32. Phases do not count, so texture that must be invented need
    not lie where it lies in the other image; but blur lacks power, and a regular pattern has too much of it at one
    frequency. A perceptual distance alone may be lowered by such patterns.
    """
    return (_log_spectra(image) - _log_spectra(other)).abs().mean((1, 2, 3))


def _log_spectra(image: Tensor) -> Tensor:
    """(B, C, H, W) to (B, channels and frequencies, rows, columns)."""
    window = torch.hann_window(WINDOW, device=image.device)
    patches = image.float().unfold(2, WINDOW, STEP).unfold(3, WINDOW, STEP) * (window[:, None] * window)
    power = torch.view_as_real(torch.fft.rfft2(patches, norm="ortho")).square().sum(-1)
    return (F.avg_pool2d(power.movedim((2, 3), (4, 5)).flatten(1, 3), AROUND, 1) + FLOOR).log()
