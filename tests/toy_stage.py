"""A stage that makes negatives, a place for it to work in, and the mess that a folder of photos can be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toys import levels, save_pictures
from unfade.images.files import read_image, to_bytes
from unfade.images.finding import list_images
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.run_stage import Item, Stage, run_stage
from unfade.jobs.runs import Run
from unfade.progress import Advance


class Killed(BaseException):
    """Stands for the end of the process."""


class Work:
    """Turns pictures into their negatives and remembers what was asked of it, batch by batch.

    Pictures that are done and only keep the others company are not counted.
    """

    def __init__(self) -> None:
        self.given: list[list[str]] = []

    def __call__(self, items: list[Item], advance: Advance) -> Tensor:
        self.given.append([item.name for item in items if not item.done])
        return -torch.stack([item.pixels for item in items])

    @property
    def names(self) -> list[str]:
        return [name for batch in self.given for name in batch]


class Place:
    """A folder of photos and one of results; each `run` is a new process's."""

    def __init__(self, folder: Path) -> None:
        self.photos, self.out, self.journal_path = folder / "photos", folder / "out", folder / "journal.jsonl"

    def run(self, work: Callable[[list[Item], Advance], Tensor], **options: object) -> list[Entry]:
        stage = replace(Stage("negative", work, None, 4), **options)
        return run_stage(stage, list_images(self.photos), self.begun)

    @property
    def journal(self) -> Journal:
        return Journal(self.journal_path)

    @property
    def begun(self) -> Run:
        return Run(self.out, self.journal)

    def output(self, name: str) -> np.ndarray:
        return to_bytes(read_image(self.out / name))

    def written(self) -> list[str]:
        return sorted(path.name for path in self.out.glob("*"))


def statuses(entries: list[Entry]) -> dict[str, str]:
    return {entry.item: entry.status for entry in entries}


def negative(seed: int, size: int = 16) -> np.ndarray:
    return 255 - levels(seed, size)


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def make_a_mess(folder: Path) -> dict[str, str]:
    """Good and bad files, and what should become of each."""
    save_pictures(folder, ["good.png", "cut.png", "tall.webp", "写真 1.bmp", " .png"])
    spoil(folder / "cut.png")
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("Dear diary")
    (folder / "folder.png").mkdir()
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("L", (16, 16), 9).save(folder / "grey.png")
    frames = [Image.fromarray(levels(seed)) for seed in range(2)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (16, 20)).save(folder / "oblong.png")
    good = dict.fromkeys(("good.png", "tall.webp", "写真 1.bmp", " .png", "grey.png"), "done")
    bad = ("cut.png", "empty.jpg", "text.jpg", "folder.png", "one.png", "film.gif", "oblong.png")
    return good | dict.fromkeys(bad, "failed")
