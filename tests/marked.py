"""Photos with drawn marks for faces, and a detector that finds these, so that no weights are needed."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from toys import ToyRestorer
from unfade.faces.align import TEMPLATE
from unfade.faces.detect import DetectSettings
from unfade.faces.detectors import Face
from unfade.images.finding import find_photos
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.runs import Run
from unfade.restorers.base import Restorer
from unfade.stages.photos import Choice, Finder, Searching
from unfade.stages.restore_photos import Parts, PhotoSettings, restore_photos

Pixels = NDArray[np.uint8]
Mark = tuple[int, int, int]  # left, top, side in px

SIZE = 32  # px, side of the faces
LEVEL = 230  # of marks, unless said otherwise
NO_PARTS = Parts()
POINTS = (TEMPLATE - 120) / 272  # the landmarks in a box from (0, 0) to (1, 1)


def squares(photo: Tensor) -> list[Face]:
    """A detector: bright squares of 12 to 300 px are faces, the brighter the more probable."""
    bright = (photo.mean(0) > 0.4).numpy().astype(np.uint8)
    _, _, stats, middles = cv2.connectedComponentsWithStats(bright)
    boxes = [(*row[:3], *middle) for row, middle in zip(stats[1:], middles[1:], strict=True) if 12 <= row[2] <= 300]
    return [face_in(x - 0.5, y - 0.5, side, float(photo[:, int(v), int(u)].mean())) for x, y, side, u, v in boxes]


def face_in(left: float, top: float, side: float, brightness: float) -> Face:
    points = np.array([left, top]) + POINTS * side
    return Face((left, top, left + side, top + side), points, min(1.0, (brightness + 1) / 2))


def scene(*marks: Mark, height: int = 60, width: int = 90, seed: int = 0, level: int = LEVEL) -> Pixels:
    """Dark noise with bright squares: (height, width, 3)."""
    pixels = np.random.default_rng(seed).integers(40, 90, (height, width, 3), dtype=np.uint8)
    for left, top, side in marks:
        pixels[top : top + side, left : left + side] = level
    return pixels


def in_colour(pixels: Pixels) -> Pixels:
    """With a bar of red, 10 % of the picture."""
    pixels[:, -9:] = (160, 20, 20)
    return pixels


def save(path: Path, pixels: NDArray[np.uint8 | np.uint16], **how: object) -> Path:
    """In the format that the name says; JPEG nearly without loss, so that no mark falls apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    usual = {"quality": 95, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    Image.fromarray(pixels).save(path, **{**usual, **how})
    return path


def load(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int64)


class Dimmer(ToyRestorer):
    """Halves what it gets, each face without regard to the others, and remembers how many came together."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__(size)
        self.together: list[int] = []

    def forward(self, face: Tensor) -> Tensor:
        self.together.append(len(face))
        return face * 0.5


class Poisoned(Dimmer):
    """Gives no numbers for faces that are white in the middle."""

    def forward(self, face: Tensor) -> Tensor:
        white = face[:, :, self.size // 2, self.size // 2].amin(1) > 0.95
        return torch.where(white[:, None, None, None], torch.nan, super().forward(face))


def finder(choice: str = "all", *, size: int = SIZE, **detect: float) -> Finder:
    return Searching(squares, DetectSettings(**detect), Choice(choice), size)


@dataclass
class Place:
    """A folder of photos and one of results; each `run` is a new process's."""

    folder: Path
    restorer: Restorer = field(default_factory=Dimmer)
    find: Finder = field(default_factory=finder)

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def journal(self) -> Journal:
        return Journal(self.folder / "journal.jsonl")

    @property
    def begun(self) -> Run:
        return Run(self.out, self.journal)

    def run(self, *, parts: Parts = NO_PARTS, batch: int = 8, strength: float = 1.0, **settings: object) -> list[Entry]:
        found = find_photos(self.photos, without=self.out)
        return restore_photos(
            found, self.begun, self.restorer, self.find, PhotoSettings(**settings), parts,
            batch=batch, strength=strength,
        )  # fmt: skip

    def save(self, name: str, *marks: Mark, level: int = LEVEL, seed: int = 0, **how: object) -> Path:
        return save(self.photos / name, scene(*marks, level=level, seed=seed), **how)

    def written(self) -> list[str]:
        return sorted(path.relative_to(self.out).as_posix() for path in self.out.rglob("*") if path.is_file())


def statuses(entries: list[Entry]) -> dict[str, str]:
    return {entry.item: entry.status for entry in entries}
