"""What the user sees while work goes on, and at its end. Progress goes to stderr, results to stdout."""

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from unfade.cli.wording import spoken
from unfade.progress import Advance, Progress, silent

if TYPE_CHECKING:
    from unfade.jobs.journal import Entry

PassedOver = tuple[tuple[str, int], ...]  # as `images.finding.Found` has it
EVERY = 5.0  # seconds between plain lines
PATIENCE = 2.0  # seconds before anything is said of work that may be over at once


def progress(*, quiet: bool) -> Progress:
    """A bar on a terminal, plain lines elsewhere, nothing if quiet."""
    if quiet:
        return silent
    return _bar if sys.stderr.isatty() else _lines


def finish(
    result: Mapping[str, object], *, as_json: bool, quiet: bool, lines: Sequence[str] = (), failed: int = 0
) -> None:
    """Say what came of it, as one JSON object or in words, and exit with 1 if some items failed.

    In words settings are flags; in JSON reasons are those of the journal.
    """
    if as_json:
        print(_as_json(result))
    elif not quiet:
        for line in lines:
            print(_sayable(spoken(line)))
    if failed:
        _fail()


def _as_json(result: Mapping[str, object]) -> str:
    text = json.dumps(result, ensure_ascii=False)
    return text if text == _sayable(text) else json.dumps(result)


def _sayable(text: str) -> str:
    """File names may hold what standard output cannot show, even bytes that are no characters."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table, numbers to four digits."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(*rows[0])
    for row in rows:
        shown.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(shown)


def sum_line(counts: Mapping[str, int]) -> str:
    """found = done + skipped + failed + no face, in words."""
    return "{found} found = {done} done + {skipped} skipped + {failed} failed + {no_face} without a face".format(
        **counts
    )


def failure_lines(failures: Sequence[tuple[str, str]]) -> list[str]:
    """The reasons, one a line."""
    return [f"  {name}: {reason}" for name, reason in failures]


def passed_over_lines(passed_over: PassedOver, place: Path | None = None) -> list[str]:
    """What is a picture and was not read, in one line; none where there is nothing of the kind."""
    from unfade.images.finding import in_words

    return [f"not read{f' of {place}' if place else ''}: {in_words(passed_over)}"] if passed_over else []


def finish_stage(
    entries: "list[Entry]", out: Path, as_json: bool, quiet: bool, *, passed_over: PassedOver = ()
) -> None:
    """Say what became of each picture of a stage, and exit with 1 if some were not done."""
    from unfade.jobs.journal import Counts, notes_of

    counts = Counts.of(entries).as_dict()
    failures = [(entry.item, entry.reason) for entry in entries if entry.status != "done"]
    notes = notes_of(entries)
    left_out = passed_over_lines(passed_over)
    lines = [sum_line(counts), *left_out, *failure_lines(failures), *note_lines(notes), f"results: {out}"]
    result = {**counts, "failures": [[*pair] for pair in failures], "notes": [[*pair] for pair in notes]}
    result |= {"passed_over": dict(passed_over), "out": str(out)}
    finish(result, as_json=as_json, quiet=quiet, lines=lines, failed=sum(entry.is_open for entry in entries))


def note_lines(notes: Sequence[tuple[str, str]]) -> list[str]:
    """One line for each kind of note, the same but for its numbers: the first file it is about, and how many more."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for item, note in notes:
        kinds.setdefault(re.sub(r"\d+(\.\d+)?", "#", note), []).append((item, note))
    return [f"  {told[0][0]}{_and_more(len(told) - 1)}: {told[0][1]}" for told in kinds.values()]


def _and_more(count: int) -> str:
    return f" and {count} more" if count else ""


def _fail() -> NoReturn:
    raise typer.Exit(1)


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

    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn())
    rate = TextColumn("{task.fields[rate]}")
    with Progress(*columns, rate, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=start, rate="")
        clock = _Clock(total, start)

        def advance(amount: float) -> None:
            clock.done += amount
            bar.update(task, completed=clock.done, rate=clock.rate() or "")

        yield advance


@contextmanager
def _lines(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
    clock = _Clock(total, start)
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
