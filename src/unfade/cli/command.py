"""What every command does around its own work: flags in, one outcome out, as words or JSON, and the exit code.

A command's body turns flags into settings, calls one recipe or stage, and returns an `Outcome`.
"""

import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import typer

from unfade.cli import flags as f
from unfade.cli.console import progress, put
from unfade.cli.wording import spoken
from unfade.shown import printable

if TYPE_CHECKING:
    from unfade.jobs.journal import Entry

PassedOver = tuple[tuple[str, int], ...]  # as `images.finding.Found` has it
Told = Sequence[tuple[str, str]]  # (file, what is said about it)


@dataclass(frozen=True)
class Outcome:
    """What a command came to. In words, `rows` are a table and everything else a line each, in this order."""

    result: Mapping[str, object]  # for JSON, whose reasons are those of the journal
    lines: Sequence[str] = ()
    failures: Told | None = None  # these two are in JSON as well; None: it does not work item by item
    notes: Told | None = None
    last: Sequence[str] = ()
    failed: int = 0  # items that are not done: the exit code is 1 if there are any
    rows: Sequence[Mapping[str, object]] = ()
    tables: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)  # more of them, by their titles

    def as_dict(self) -> dict[str, object]:
        """The JSON object."""
        told = {"failures": self.failures, "notes": self.notes}
        return {**self.result, **{name: [[*pair] for pair in some] for name, some in told.items() if some is not None}}

    def in_words(self) -> Iterator[str]:
        """Line by line."""
        yield from self.lines
        yield from failure_lines(self.failures or ())
        yield from note_lines(self.notes or ())
        yield from self.last


@dataclass(frozen=True)
class Flags:
    """Flags that belong together: a command that has a parameter of such a class has a flag for each field."""


def command(body: Callable[..., Outcome]) -> Callable[..., None]:
    """A command that has the flags of the body, and --json and --quiet.

    A parameter of the body that is called `progress` is no flag: it gets what shows progress.
    """
    hints = get_type_hints(body, include_extras=True)
    given = signature(body).parameters
    groups = {name: hints[name] for name in given if is_dataclass(hints[name])}

    @wraps(body)
    def run(as_json: bool, quiet: bool, **values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        if "progress" in given:
            values["progress"] = progress(quiet=quiet)
        say(body(**values), as_json=as_json, quiet=quiet)

    own = [flag for p in given.values() if p.name != "progress" for flag in _flags_of(p, hints[p.name])]
    flags = [*own, _flag("as_json", f.Json, False), _flag("quiet", f.Quiet, False)]
    run.__signature__ = Signature(flags)  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {flag.name: flag.annotation for flag in flags}
    return run


def _flags_of(given: Parameter, hint: Any) -> list[Parameter]:
    if not is_dataclass(hint):
        return [_flag(given.name, hint, given.default)]
    hints = get_type_hints(hint, include_extras=True)
    usual = {each.name: Parameter.empty if each.default is MISSING else each.default for each in fields(hint)}
    return [_flag(name, hints[name], default) for name, default in usual.items()]


def _flag(name: str, hint: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def say(outcome: Outcome, *, as_json: bool, quiet: bool) -> None:
    """Say what came of it, as one JSON object or in words, and exit with 1 if some items failed."""
    if as_json:
        text = json.dumps(outcome.as_dict(), ensure_ascii=False)
        put(text if text.isprintable() else json.dumps(outcome.as_dict()))
    elif not quiet:
        if outcome.rows:
            _print_table(outcome.rows)
        for title, rows in outcome.tables.items():
            _print_table(rows, title)
        for line in outcome.in_words():
            put(printable(spoken(line)))
    if outcome.failed:
        raise typer.Exit(1)


def of_entries(entries: "list[Entry]", out: Path, *, passed_over: PassedOver = ()) -> Outcome:
    """What became of each picture of a stage."""
    from unfade.jobs.journal import Counts, notes_of
    from unfade.jobs.runs import of_gone

    gone = of_gone(entries, out)
    counts = Counts.of(entries).as_dict()
    return Outcome(
        {**counts, "passed_over": dict(passed_over), "of_gone_photos": gone, "out": str(out)},
        [sum_line(counts), *passed_over_lines(passed_over), *gone_lines(gone)],
        failures=[(entry.item, entry.reason) for entry in entries if entry.status != "done"],
        notes=notes_of(entries),
        last=[f"results: {out}"],
        failed=sum(entry.is_open for entry in entries),
    )


def sum_line(counts: Mapping[str, int]) -> str:
    """found = done + skipped + failed + no face, in words."""
    return "{found} found = {done} done + {skipped} skipped + {failed} failed + {no_face} without a face".format(
        **counts
    )


def failure_lines(failures: Told) -> list[str]:
    """The reasons, one a line."""
    return [f"  {name}: {reason}" for name, reason in failures]


def passed_over_lines(passed_over: PassedOver, place: Path | None = None) -> list[str]:
    """What is a picture and was not read, in one line; none where there is nothing of the kind."""
    from unfade.images.finding import in_words

    return [f"not read{f' of {place}' if place else ''}: {in_words(passed_over)}"] if passed_over else []


def gone_lines(files: Sequence[str]) -> list[str]:
    """What is in the folder of results from photos that were not given this time, in one line; none if nothing is."""
    if not files:
        return []
    first, more = ", ".join(files[:3]), f" and {len(files) - 3} more" if len(files) > 3 else ""
    return [f"of photos that are gone, made by an earlier run and left as they are: {first}{more}"]


def note_lines(notes: Told) -> list[str]:
    """One line for each kind of note, the same but for its numbers: the first file it is about, and how many more."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for item, note in notes:
        kinds.setdefault(re.sub(r"\d+(\.\d+)?", "#", note), []).append((item, note))
    return [f"  {alike[0][0]}{_and_more(len(alike) - 1)}: {alike[0][1]}" for alike in kinds.values()]


def _and_more(count: int) -> str:
    return f" and {count} more" if count else ""


def _print_table(rows: Sequence[Mapping[str, object]], title: str | None = None) -> None:
    """Numbers to four digits."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title)
    for name in rows[0]:
        shown.add_column(_cell(name))
    for row in rows:
        shown.add_row(*map(_cell, row.values()))
    drawn, terminal = io.StringIO(), sys.stdout.isatty()
    Console(file=drawn, width=None if terminal else 160, force_terminal=terminal).print(shown)
    put(drawn.getvalue().rstrip("\n"))


def _cell(value: object) -> Any:
    """Of numbers four digits; of names what is printable, and no markup."""
    from rich.text import Text

    return Text(f"{value:.4g}" if isinstance(value, float) else printable(str(value)))
