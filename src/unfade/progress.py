"""How long work reports its progress, without knowing who shows it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[float], None]


class Progress(Protocol):
    """`with progress("targets", 22) as advance: ... advance(1)`: `total` items, `start` of them done before."""

    def __call__(self, label: str, total: int, *, start: int = 0) -> AbstractContextManager[Advance]: ...


@contextmanager
def silent(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
    """Progress that reports nothing."""
    yield lambda amount: None
