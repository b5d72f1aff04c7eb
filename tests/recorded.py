"""Access to the golden numbers in tests/golden: arrays, recorded noise, filled weights and test pictures."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golden.fill import fill_module, image, image_u8

FOLDER = Path(__file__).parent / "golden"

__all__ = ["arrays", "fill_module", "image_u8", "manifest", "meta", "noise", "picture", "subsampled"]


def arrays(name: str) -> dict[str, np.ndarray]:
    """All arrays of tests/golden/<name>.npz."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def meta(name: str) -> dict[str, Any]:
    """The settings recorded beside the arrays."""
    result: dict[str, Any] = json.loads(str(arrays(name)["meta"]))
    return result


def manifest(name: str) -> dict[str, Any]:
    """A manifest of state-dict keys and shapes."""
    result: dict[str, Any] = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    return result


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    """The recorded standard normal draw of that name."""
    draw = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    return torch.from_numpy(draw.astype(np.float32))


def picture(height: int, width: int, seed: int, count: int = 1) -> Tensor:
    """`count` deterministic pictures of consecutive seeds: (count, 3, height, width) in [-1, 1]."""
    stack = np.stack([image(height, width, seed + i) for i in range(count)])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous() * 2 - 1


def subsampled(values: Tensor, golden: dict[str, np.ndarray], name: str) -> Tensor:
    """Those of the values that were recorded under `name`: every so many of them."""
    return values.flatten()[:: int(golden[f"{name}.stride"])]
