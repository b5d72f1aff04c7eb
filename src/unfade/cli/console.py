"""Progress on standard error, and the one function that prints on standard output."""

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
PATIENCE = 2.0  # seconds before the first line, so that short work prints none


def progress(*, quiet: bool) -> Progress:
    """A progress bar on a terminal, plain lines elsewhere, nothing if quiet."""
    if quiet:
        return silent
    return _bar if sys.stderr.isatty() else _lines


def put(text: str) -> None:
    """Print text on standard output. Raises UnfadeError if it cannot be written: a full disk, a closed pipe."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        drop_output()
        reason = "it is closed" if error.errno in (errno.EBADF, errno.EPIPE) else error.strerror
        raise UnfadeError(
            f"Standard output cannot be written to ({reason}); what the command made is kept, and the same command "
            "resumes from there."
        ) from error


def drop_output() -> None:
    """Discard whatever is still to be written to standard output, so that the process does not fail again at exit."""
    with suppress(OSError, ValueError):  # under pytest it may have no file descriptor
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
    printed = clock.begin + PATIENCE - EVERY

    def advance(amount: float) -> None:
        nonlocal printed
        clock.done += amount
        now = time.monotonic()
        if now - printed >= EVERY and now - clock.begin >= PATIENCE and clock.done < total:
            printed = now
            speed = f", {clock.rate()}, {clock.left()} left" if clock.rate() else ""
            print(f"{label}: {clock.done:.0f} of {total}{speed}", file=sys.stderr, flush=True)

    yield advance
    seconds = time.monotonic() - clock.begin
    if seconds >= PATIENCE:
        print(f"{label}: {clock.done:.0f} of {total} in {seconds:.0f} s", file=sys.stderr, flush=True)


class _Clock:
    """The speed of the work, and the time that is left."""

    def __init__(self, total: int, start: int):
        self.total, self.start, self.done = total, start, float(start)
        self.begin = time.monotonic()

    def rate(self) -> str | None:
        """Items per second, or seconds per item; None before the first item is done."""
        done = self.done - self.start
        if done <= 0:
            return None
        per_second = done / max(1e-9, time.monotonic() - self.begin)
        return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"

    def left(self) -> str:
        done = self.done - self.start
        seconds = (time.monotonic() - self.begin) * (self.total - self.done) / max(done, 1e-9)
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
