"""Trains until it is stopped, with two worker processes that begin in the given way; after each step it says who."""

import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import unfade.training.loader as loader
from toys import LOOP, ToyObjective, toy_batches, toy_model
from unfade.training.loop import train


@contextmanager
def telling(label: str, total: int, *, start: int = 0) -> Iterator[Any]:
    def advance(amount: float) -> None:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(0.05)

    yield advance


if __name__ == "__main__":
    loader.start_method = lambda: sys.argv[1]
    train(toy_model(), ToyObjective(), toy_batches, replace(LOOP, steps=10**6), workers=2, progress=telling)
