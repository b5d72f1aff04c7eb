"""A time limit for reading one file: some files are made to take hours, and some disks never answer."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from unfade.errors import BadInput, UnreadableImage

T = TypeVar("T")

LIMIT = "UNFADE_SECONDS"
USUAL = 120.0  # s; a photo of 100 megapixels takes one or two


def most_seconds() -> float:
    """The most seconds that a picture, or one frame of a film, may take to be read: USUAL.

    The environment variable UNFADE_SECONDS sets another number. Raises BadInput where it is not a number.
    """
    return min(limit_in(LIMIT, USUAL, "seconds, like 600"), threading.TIMEOUT_MAX)


def limit_in(variable: str, usual: float, example: str) -> float:
    """The number that an environment variable sets, or the usual one; `example` says of what.

    Raises BadInput where it is not a number above 0.
    """
    value = os.environ.get(variable) or str(usual)
    try:
        most = float(value)
    except ValueError:
        most = 0
    if not 0 < most < math.inf:
        raise BadInput(f"{variable} is {value!r}; set it to a number of {example}, or leave it out.")
    return most


def too_slow(path: Path) -> UnreadableImage:
    """The error for a file that takes longer than `most_seconds`."""
    return UnreadableImage(
        f"{path} takes longer than the {most_seconds():g} s that one file may take to be read; convert it first, or "
        f"set the environment variable {LIMIT} to more."
    )


@contextmanager
def checked_time(path: Path) -> Iterator[None]:
    """Raises `too_slow` after a block that took too long, for what only ends by itself and is repeated."""
    begin = time.monotonic()
    yield
    if time.monotonic() - begin > most_seconds():
        raise too_slow(path)


def within_limit(path: Path, read: Callable[[], T]) -> T:
    """What `read` returns or raises. Raises UnreadableImage, naming `path`, if that takes longer than `most_seconds`.

    A decoder cannot be interrupted, so its thread is then left to itself; it does not keep the program from ending.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(read())
        except BaseException as error:
            raised.append(error)

    limit = most_seconds()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit)
    if raised:
        raise raised[0]
    if not found:
        raise too_slow(path)
    return found[0]
