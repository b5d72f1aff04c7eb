"""What the user sees on stderr while work goes on, and the one way to standard output."""

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from unfade.errors import UnfadeError
from unfade.progress import Advance, Progress, silent
from unfade.shown import printable

EVERY = 5.0  # seconds between plain lines
PATIENCE = 2.0  # seconds before anything is said of work that may be over at once


def progress(*, quiet: bool) -> Progress:
    """A bar on a terminal, plain lines elsewhere, nothing if quiet."""
    if quiet:
        return silent
    return _bar if sys.stderr.isatty() else _lines


def put(text: str) -> None:
    """Print text on standard output. Raises UnfadeError if nobody takes it any more: a full disk, a closed pipe."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        drop_output()
        reason = "it is closed" if error.errno in (errno.EBADF, errno.EPIPE) else error.strerror
        raise UnfadeError(
            f"Standard output cannot be written to ({reason}); what the command made is kept, and the same command "
            "goes on from there."
        ) from error


def drop_output() -> None:
    """Let what is left for standard output go nowhere, so that the end of the process does not fail on it again."""
    with suppress(OSError, ValueError):  # in tests it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _bar(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description:>12}", markup=False), BarColumn(), MofNCompleteColumn())
    rate = TextColumn("{task.fields[rate]}")
    with Progress(*columns, rate, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(printable(label), total=total, completed=start, rate="")
        clock = _Clock(total, start)

        def advance(amount: float) -> None:
            clock.done += amount
            bar.update(task, completed=clock.done, rate=clock.rate() or "")

        yield advance


@contextmanager
def _lines(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
    clock, label = _Clock(total, start), printable(label)
    said = clock.begin + PATIENCE - EVERY

    def advance(amount: float) -> None:
        nonlocal said
        clock.done += amount
        now = time.monotonic()
        if now - said >= EVERY and now - clock.begin >= PATIENCE and clock.done < total:
            said = now
            speed = f", {clock.rate()}, {clock.left()} left" if clock.rate() else ""
            print(f"{label}: {clock.done:.0f} of {total}{speed}", file=sys.stderr, flush=True)

    yield advance
    seconds = time.monotonic() - clock.begin
    if seconds >= PATIENCE:
        print(f"{label}: {clock.done:.0f} of {total} in {seconds:.0f} s", file=sys.stderr, flush=True)


class _Clock:
    """How fast it goes and how long it will take."""

    def __init__(self, total: int, start: int):
        self.total, self.start, self.done = total, start, float(start)
        self.begin = time.monotonic()

    def rate(self) -> str | None:
        """None as long as nothing is done: then nobody knows."""
        done = self.done - self.start
        if done <= 0:
            return None
        per_second = done / max(1e-9, time.monotonic() - self.begin)
        return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"

    def left(self) -> str:
        done = self.done - self.start
        seconds = (time.monotonic() - self.begin) * (self.total - self.done) / max(done, 1e-9)
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
