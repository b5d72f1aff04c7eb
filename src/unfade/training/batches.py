"""The pictures of each training step, kept decoded, in an order that depends on the step number alone."""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unfade.errors import BadInput
from unfade.images.files import from_bytes, read_image, to_bytes
from unfade.images.filters import fit_square
from unfade.images.finding import SUFFIXES, files_below
from unfade.store.seeds import seed_for


@dataclass(frozen=True)
class Draw:
    """One position in the order."""

    item: int
    epoch: int
    position: int  # in the whole training, from 0


class Order:
    """A shuffled order over the items, anew in each epoch, without replacement.

    An epoch holds an item as often as its weight says, rounded up or down at random (systematic resampling), so that
    an item of weight 1/3 is in about one epoch of three.
    """

    def __init__(self, weights: Sequence[float], *, seed: int):
        self._edges = np.cumsum(np.asarray(weights, dtype=np.float64))
        self._seed = seed
        self.epoch_length = max(1, round(float(self._edges[-1])))
        self._drawn: dict[int, np.ndarray] = {}  # the orders of the last epochs that were needed

    def step(self, step: int, batch: int) -> list[Draw]:
        """The items of training step `step`, counted from 0."""
        return [self._at(position) for position in range(step * batch, (step + 1) * batch)]

    def _at(self, position: int) -> Draw:
        epoch, place = divmod(position, self.epoch_length)
        return Draw(int(self._epoch(epoch)[place]), epoch, position)

    def _epoch(self, epoch: int) -> np.ndarray:
        places = self._drawn.get(epoch)
        if places is None:
            places = self._draw_epoch(epoch)
            self._drawn = dict([*self._drawn.items(), (epoch, places)][-4:])
        return places

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng(seed_for("order", self._seed, epoch))
        spacing = self._edges[-1] / self.epoch_length
        points = (np.arange(self.epoch_length) + rng.random()) * spacing
        return rng.permutation(np.searchsorted(self._edges, points, side="right").clip(max=len(self._edges) - 1))


class Pictures:
    """Square pictures of one size. As many as fit in `keep` bytes stay decoded, in 8 bits; others are read every time.

    The kept pictures are one tensor, which worker processes share: a fork reads the same memory, and pickling a tensor
    for another process moves it to shared memory once. Raises UnreadableImage or BadInput for a file that cannot be
    used; the kept pictures are read at the start.
    """

    def __init__(self, paths: Sequence[Path], size: int, *, keep: int = 2 << 30):
        self.paths = list(paths)
        self.size = size
        kept = min(len(self.paths), keep // (3 * size * size))
        self._kept = torch.empty(kept, size, size, 3, dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._keep, range(kept)))

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Tensor:
        """(3, size, size) float32 in [-1, 1]."""
        return from_bytes(self._kept[index].numpy() if index < len(self._kept) else self._read(index))

    @property
    def all_kept(self) -> bool:
        """Whether all pictures are kept, so that no file is read again."""
        return len(self._kept) == len(self.paths)

    def _keep(self, index: int) -> None:
        self._kept[index] = torch.from_numpy(self._read(index))

    def _read(self, index: int) -> np.ndarray:
        path = self.paths[index]
        return to_bytes(fit_square(read_image(path), self.size, path))


def flip(image: Tensor, draw: Draw, seed: int) -> Tensor:
    """Mirror the image left to right at half of the positions in the order; the same ones in every run."""
    return image.flip(-1) if seed_for("flip", seed, draw.position) & 1 else image


def find_training_pictures(folder: Path, weights: Mapping[str, float]) -> tuple[list[Path], list[float]]:
    """All pictures below a folder, sorted, with the weight of the subfolder in which each lies (1 unless given).

    Raises BadInput for an empty folder, for a weight that is below 0, infinite, not a number or for a subfolder that
    does not exist, and if no picture has a weight above 0.
    """
    names = files_below(folder, SUFFIXES) if folder.is_dir() else ()
    paths = [folder / name for name in names if name.suffix.lower() in SUFFIXES]
    if not paths:
        raise BadInput(f"{folder} holds no pictures; expected aligned faces, in it or in folders below it.")
    folders = {part for p in paths for part in p.relative_to(folder).parts[:-1]}
    if unknown := sorted(set(weights) - folders):
        raise BadInput(f"There is no folder named {unknown[0]} with pictures below {folder} to give a weight to.")
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise BadInput(f"Expected the weight of {name} to be 0 or more, got {weight}.")
    found = [_weight(p.relative_to(folder).parts[:-1], weights) for p in paths]
    if not any(found):
        raise BadInput(f"No picture below {folder} has a weight above 0, so that there is nothing to learn from.")
    return paths, found


def _weight(parts: tuple[str, ...], weights: Mapping[str, float]) -> float:
    return next((weights[part] for part in reversed(parts) if part in weights), 1.0)
