"""From an FFHQ-aligned face to the chip that dlib would cut for its embedding.

dlib finds five landmarks and aligns them with those of its mean face. In FFHQ's framing they always lie near the same
places, so one fixed similarity serves all faces.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.faces.align import TEMPLATE_SIZE, Matrix, inverse, least_squares, scale_of
from unfade.nets.dlib_face import SIDE

PADDING = 0.25  # of the side of the mean face's box, on each side of it, as in the network's training
MEAN_FACE: Matrix = np.array(  # in its box: outer and inner corner of the right eye, of the left one, base of the nose
    [(0.85957, 0.21350), (0.64606, 0.22897), (0.12058, 0.21373), (0.33409, 0.22906), (0.49011, 0.62780)]
)
FOUND: Matrix = np.array(  # where dlib finds these landmarks in FFHQ's framing, 512 px: the mean over 197 faces
    [(344.0, 244.2), (293.5, 246.4), (167.0, 244.1), (217.6, 246.4), (257.1, 340.9)]
)


def to_chip(size: int) -> Matrix:
    """The similarity that takes an FFHQ-aligned face of `size` px to dlib's chip of 150 px: (2, 3)."""
    found = (FOUND + 0.5) * (size / TEMPLATE_SIZE) - 0.5  # positions are those of the centres of pixels
    return least_squares(found, (MEAN_FACE + PADDING) / (1 + 2 * PADDING) * SIDE)


def chips_of(faces: Tensor) -> Tensor:
    """FFHQ-aligned faces (B, 3, S, S) in [-1, 1] -> chips (B, 3, 150, 150), on the same device.

    Bilinear, as dlib does it; antialiased where it shrinks.
    """
    shrunk = round(faces.shape[-1] * scale_of(to_chip(faces.shape[-1])))  # px: nothing shrinks after this
    if shrunk < faces.shape[-1]:
        faces = F.interpolate(faces, (shrunk, shrunk), mode="bicubic", align_corners=False, antialias=True)
    size = faces.shape[-1]
    grid = _grid(size, faces.dtype, faces.device).expand(len(faces), -1, -1, -1)
    return F.grid_sample(faces.clamp(-1, 1), grid, mode="bilinear", padding_mode="border", align_corners=False)


@lru_cache(maxsize=16)
def _grid(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Where the pixels of a chip lie in a face of `size` px, (150, 150, 2) in [-1, 1]; kept for the next face."""
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    places = np.stack([x, y, np.ones_like(x)], -1) @ inverse(to_chip(size)).T
    with torch.inference_mode(False):  # else a training could not use what an inference has left here
        grid = torch.from_numpy((2 * places + 1) / size - 1).float()  # not every device has float64
        return grid.to(device, dtype)
