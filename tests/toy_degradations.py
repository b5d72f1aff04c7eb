"""Degradations and stages that can be pickled, so that worker processes make them too."""

import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.blind import BlindDraw, draw_blind
from unfade.errors import BadInput
from unfade.jobs.run_stage import Item, Stage
from unfade.jobs.workers import Tell
from unfade.progress import Advance


@dataclass(frozen=True)
class Numbers:
    """The blind degradation, which remembers the seed of every draw and the size of every face."""

    kind: ClassVar[str] = "blind"
    name: str = ""
    seeds: list[int] = field(default_factory=list, repr=False, compare=False)
    sizes: list[tuple[int, int]] = field(default_factory=list, repr=False, compare=False)

    def draw(self, rng: np.random.Generator, *, height: int, width: int) -> BlindDraw:
        self.seeds.append(int(rng.integers(2**40)))
        self.sizes.append((height, width))
        return replace(draw_blind(rng, size=width), noise_seed=self.seeds[-1])


@dataclass(frozen=True)
class Negative:
    """A stage that makes negatives, tells the names, and has trouble with one of the pictures."""

    trouble: str = "none"  # a key of TROUBLES
    culprit: str = "c.png"

    def __call__(self, tell: Tell) -> Stage:
        def work(items: list[Item], advance: Advance) -> Tensor:
            for item in items:
                tell(item.name)
                if item.name == self.culprit:
                    TROUBLES[self.trouble]()
            return -torch.stack([item.pixels for item in items])

        return Stage("negative", work, None, 1)


@dataclass(frozen=True)
class Stillborn:
    """A stage that only one process can make."""

    process: int = field(default_factory=os.getpid)

    def __call__(self, tell: Tell) -> Stage:
        if os.getpid() != self.process:
            os._exit(3)
        return Negative()(tell)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    raise SystemExit(5)


def refuse() -> None:
    raise BadInput("No.")


def fail() -> None:
    raise ZeroDivisionError("a bug")


TROUBLES = {"none": lambda: None, "die": die, "leave": leave, "refuse": refuse, "fail": fail}


def contents(folder: Path) -> dict[str, bytes]:
    """What a run is judged by: its pictures and the lines about them."""
    kept = [path for path in folder.iterdir() if path.suffix in (".png", ".jsonl") and path.name != "journal.jsonl"]
    return {path.name: path.read_bytes() for path in sorted(kept)}
