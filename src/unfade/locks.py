"""Locks between processes, which end with the process that holds them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unfade.errors import OutputConflict


@contextmanager
def locked(file: Path, conflict: Callable[[], str], *, patience: float = 0) -> Iterator[None]:
    """Inside, no other process holds the lock `file`, which may stay behind.

    Waits `patience` seconds for another holder, and raises OutputConflict with the sentence of `conflict` after that.
    """
    lock = FileLock(file, timeout=patience)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputConflict(conflict()) from error
    try:
        yield
    finally:
        lock.release()
