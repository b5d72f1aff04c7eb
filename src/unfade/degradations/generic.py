"""Generic degradation: blur, downsampling, noise of any colour and grain, JPEG, enlarging, each at random.

It is wider than the blind degradation of Eq. 9, whose noise is spatially white, independent in each channel and weak;
the noise of sensors and films is coloured, coarse and at times stronger than the picture.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REFERENCE = 128  # px, side of the faces that the sigmas are meant for


def generic(face: Tensor, rng: np.random.Generator) -> Tensor:
    """(3, S, S) in [-1, 1], degraded. Of the results with noise, one in ten is not clipped to that range."""
    size = face.shape[-1]
    if rng.random() < 0.7:
        blurred = cv2.GaussianBlur(face.permute(1, 2, 0).numpy(), (0, 0), log_uniform(rng, 0.3, 3.5) * size / REFERENCE)
        face = torch.from_numpy(blurred).permute(2, 0, 1)
    side = max(8, round(size / (log_uniform(rng, 1, 14) if rng.random() < 0.75 else 1)))
    small = F.interpolate(face[None], size=(side, side), mode="area")
    if rng.random() < 0.85:
        small = noisy(small, rng)
    if rng.random() < 0.3:
        small = compressed(small, int(rng.integers(20, 100)))
    return F.interpolate(small, size=(size, size), mode=("bilinear", "bicubic")[rng.integers(2)])[0]


def noisy(image: Tensor, rng: np.random.Generator) -> Tensor:
    """(1, 3, H, W) plus noise of any grain and correlation of the channels; half the time it grows with brightness.

    The standard deviation is drawn log-uniformly from 0.005..0.7.
    """
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape)).astype(np.float32))
    for _ in range(rng.integers(4)):  # each averaging pass makes the grain coarser; the factor keeps its strength
        noise = F.avg_pool2d(F.pad(noise, (1, 1, 1, 1), mode="reflect"), 3, 1) * 1.8
    alike = rng.uniform(-0.3, 0.95)
    mixing = np.linalg.cholesky(np.eye(3) * (1 - alike) + alike) * np.exp(rng.normal(0, 0.25, (3, 1)))
    noise = torch.einsum("ij,bjhw->bihw", torch.from_numpy(mixing.astype(np.float32)), noise)
    gain = 1 + image if rng.random() < 0.5 else torch.ones(())
    result = image + log_uniform(rng, 0.005, 0.7) * gain.clamp(0.3) * noise
    return result.clamp(-1, 1) if rng.random() < 0.9 else result


def compressed(image: Tensor, quality: int) -> Tensor:
    """(1, 3, H, W) through a JPEG of a quality in 1..100."""
    levels = (image[0].clamp(-1, 1) + 1).mul(127.5).round().permute(1, 2, 0).numpy().astype(np.uint8)
    _, data = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_COLOR)).permute(2, 0, 1)[None].float() / 127.5 - 1


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A draw between `low` and `high`, uniform in the logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
