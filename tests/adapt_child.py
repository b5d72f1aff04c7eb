"""A small adaptation in a process of its own, so that a test can kill it: prints a line whenever work goes on."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from adapt_settings import quick
from unfade.progress import Advance
from unfade.recipes.adapt import adapt


@contextmanager
def spoken(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
    print(label, flush=True)
    yield lambda amount: print(label, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    photos, out, restorer, prior = sys.argv[1:]
    adapt(Path(photos), Path(out), quick(restorer, prior), progress=spoken, aligned=True)
