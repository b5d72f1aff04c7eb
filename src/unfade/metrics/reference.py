"""Distance of a restored image from the truth: PSNR and SSIM, and the colour matching that the paper applies first."""

import torch
import torch.nn.functional as F
from torch import Tensor

_RADIUS, _SIGMA = 5, 1.5  # the 11 x 11 Gaussian window (Wang et al. 2004)
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # its two stabilising constants, for values of 0..255


def psnr(restored: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, one float64 value per image: (B,).

    Both are (B, 3, H, W) in [-1, 1]; the error is taken over all channels on values of 0..255, which are neither
    rounded nor clipped. Identical images give inf. Raises ValueError on different shapes: images are never resized
    or cropped here.
    """
    _same_shape(restored, truth)
    error = (_levels(restored) - _levels(truth)).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / error)


def ssim(restored: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity, at most 1, one float64 value per image: (B,).

    Both are (B, 3, H, W) in [-1, 1], H and W at least 11. Gaussian window 11 x 11 of sigma 1.5, only where it fits
    into the image; the mean over pixels and channels (Wang et al. 2004, Eq. 13). Raises ValueError on different shapes
    or on images smaller than the window.
    """
    _same_shape(restored, truth)
    a, b = _levels(restored), _levels(truth)
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (var_a + var_b + _C2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def matched(restored: Tensor, truth: Tensor) -> Tensor:
    """The restored image with each channel's mean and deviation set to the truth's, in float64 and unclipped.

    Both are (B, 3, H, W) in [-1, 1], and so is the result, except for values that matching moves out of the range.
    The paper's published scores are `psnr(matched(restored, truth), truth)` and the same with `ssim`, so that a shift
    of colour or contrast costs nothing. A flat channel gets the truth's mean. Raises ValueError on other shapes.
    """
    _same_shape(restored, truth)
    source, aim = restored.double(), truth.double()
    deviation = _deviation(source)
    flat = deviation < 1e-9
    gain = torch.where(flat, 0.0, _deviation(aim) / torch.where(flat, 1.0, deviation))
    return gain * source + (_mean(aim) - gain * _mean(source))  # in this order, an identical image stays unchanged


def _same_shape(restored: Tensor, truth: Tensor) -> None:
    if restored.shape != truth.shape or restored.ndim != 4:
        raise ValueError(
            f"expected two images of one shape (B, 3, H, W), got {tuple(restored.shape)} and {tuple(truth.shape)}; "
            "bring them to one size first"
        )


def _levels(image: Tensor) -> Tensor:
    """[-1, 1] to float64 values of 0..255."""
    return (image.double() + 1) * 127.5


def _blur(x: Tensor) -> Tensor:
    """The window's weighted mean at every place where it fits: (B, C, H, W) -> (B, C, H - 10, W - 10)."""
    size = 2 * _RADIUS + 1
    if min(x.shape[-2:]) < size:
        raise ValueError(f"SSIM needs images of at least {size} x {size} pixels, got {x.shape[-1]} x {x.shape[-2]}")
    offset = torch.arange(-_RADIUS, _RADIUS + 1, dtype=x.dtype, device=x.device)
    window = torch.exp(-(offset**2) / (2 * _SIGMA**2))
    window = (window / window.sum()).expand(x.shape[1], 1, 1, size)
    x = F.conv2d(x, window, groups=x.shape[1])
    return F.conv2d(x, window.transpose(-1, -2), groups=x.shape[1])


def _mean(image: Tensor) -> Tensor:
    return image.mean(dim=(2, 3), keepdim=True)


def _deviation(image: Tensor) -> Tensor:
    return image.std(dim=(2, 3), keepdim=True, unbiased=False)
