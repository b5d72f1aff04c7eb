"""Demosaicing: from a GRBG mosaic to a colour picture of the same size.

Every function takes (h, w) float32 in [0, 1] and returns (h, w, 3) RGB float32 in [0, 1]. In the mosaic (0, 0) is
green, (0, 1) red, (1, 0) blue and (1, 1) green, repeated every two pixels; odd sizes end in half a tile.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from unfade.zoo.load import load_network

Array = npt.NDArray[np.float32]

GRBG = ((0, 0, 1), (0, 1, 0), (1, 0, 2), (1, 1, 1))  # (row, column, channel) of Gr, R, B, Gb

_GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], dtype=np.float32) / 4
_RED_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=np.float32) / 4
_BORDER = 2  # an even border, mirrored around the edge pixel, continues the pattern
_LEVELS = 2**14 - 1  # OpenCV's edge-aware demosaicing takes integers; 14 bits are beyond any phone's


def edge_aware(mosaic: Array) -> Array:
    """OpenCV's edge-aware demosaicing: green along the smaller of the two gradients, then red and blue.

    OpenCV copies the second row and column to the first; a mirrored border avoids that and changes nothing inside.
    """
    levels = (mosaic * np.float32(_LEVELS)).astype(np.uint16)
    framed = cv2.copyMakeBorder(levels, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_REFLECT_101)
    rgb = cv2.demosaicing(framed, cv2.COLOR_BayerGB2RGB_EA)  # OpenCV names patterns by the second row's pixels 2 and 3
    inside = np.asarray(rgb, dtype=np.float32)[_BORDER:-_BORDER, _BORDER:-_BORDER]
    return inside / np.float32(_LEVELS)


def bilinear(mosaic: Array) -> Array:
    """Each missing colour is the mean of its nearest neighbours; this blurs edges and leaves coloured fringes."""
    rgb = measured(mosaic)
    planes = [
        cv2.filter2D(np.ascontiguousarray(rgb[..., channel]), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        for channel, kernel in enumerate((_RED_BLUE, _GREEN, _RED_BLUE))
    ]
    return np.stack(planes, axis=2, dtype=np.float32)


def learned(mosaic: Array) -> Array:
    """Demosaicing by the network of Gharbi et al. 2016, as the paper's authors do it; runs on the CPU."""
    planes = torch.from_numpy(measured(mosaic)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        rgb = _network()(planes)[0].clamp(0, 1)
    return np.ascontiguousarray(rgb.permute(1, 2, 0).numpy())


def measured(mosaic: Array) -> Array:
    """(h, w) to (h, w, 3): each value in the channel that it measures, 0 in the other two."""
    rgb = np.zeros((*mosaic.shape, 3), dtype=np.float32)
    for row, column, channel in GRBG:
        rgb[row::2, column::2, channel] = mosaic[row::2, column::2]
    return rgb


DEMOSAIC: dict[str, Callable[[Array], Array]] = {"edge-aware": edge_aware, "bilinear": bilinear, "learned": learned}


@lru_cache(maxsize=1)
def _network() -> nn.Module:
    """The demosaicing network, loaded once per process."""
    network: nn.Module = load_network("demosaic-bayer", "demosaic").network
    return network.requires_grad_(False)
