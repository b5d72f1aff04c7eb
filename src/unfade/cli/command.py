"""What all commands share: reading the flags, printing the outcome as text or JSON, and the exit code.

A command's body turns flags into settings, calls one recipe or stage, and returns an `Outcome`.
"""

import io
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
from unfade.processes import leads
from unfade.shown import first_few, json_text, printable

if TYPE_CHECKING:
    from unfade.jobs.journal import Entry
    from unfade.jobs.shards import Shard

PassedOver = tuple[tuple[str, int], ...]  # as `images.finding.Found` has it
Remarks = Sequence[tuple[str, str]]  # (file, remark about it)
SHOWN = 20  # lines that are printed of a long list; --json has all of them


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command. As text, `rows` and `tables` are printed first, then a line for everything else."""

    result: Mapping[str, object]  # for JSON; its reasons are worded as in the journal
    lines: Sequence[str] = ()
    failures: Remarks | None = None  # in JSON too, as are `notes`; None if the command does not work item by item
    notes: Remarks | None = None
    warnings: Sequence[str] | None = None  # about the whole, one sentence each; in JSON too
    last: Sequence[str] = ()
    failed: int = 0  # items that are not done; the exit code is 1 if there are any
    rows: Sequence[Mapping[str, object]] = ()  # of one table
    tables: Mapping[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)  # more tables, by title

    def as_dict(self) -> dict[str, object]:
        """The JSON object."""
        remarks = {"failures": self.failures, "notes": self.notes}
        given: dict[str, object] = {k: [[*pair] for pair in pairs] for k, pairs in remarks.items() if pairs is not None}
        return {**self.result, **given, **({} if self.warnings is None else {"warnings": [*self.warnings]})}

    def in_words(self) -> Iterator[str]:
        """The lines of text that follow the tables."""
        yield from self.lines
        yield from failure_lines(self.failures or ())
        yield from note_lines(self.notes or ())
        yield from self.warnings or ()
        yield from self.last


@dataclass(frozen=True)
class Flags:
    """A group of flags: a command with a parameter of such a class has a flag for each field."""


def command(body: Callable[..., Outcome]) -> Callable[..., None]:
    """Turn a body into a command with a flag for each of its parameters, and --json and --quiet.

    A parameter called `progress` does not become a flag; it receives the progress display.
    """
    hints = get_type_hints(body, include_extras=True)
    given = signature(body).parameters
    groups = {name: hints[name] for name in given if is_dataclass(hints[name])}

    @wraps(body)
    def run(as_json: bool, quiet: bool, **values: Any) -> None:
        as_json, quiet = as_json and leads(), quiet or not leads()
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
    """Print the outcome as one JSON object or as text, and exit with 1 if some items failed."""
    if as_json:
        text = json_text(outcome.as_dict(), ascii_only=False)
        put(text if text.isprintable() else json_text(outcome.as_dict()))
    elif not quiet:
        if outcome.rows:
            _print_table(outcome.rows)
        for title, rows in outcome.tables.items():
            _print_table(rows, title)
        for line in outcome.in_words():
            put(printable(spoken(line)))
    if outcome.failed:
        raise typer.Exit(1)


def of_entries(
    entries: "list[Entry]", out: str | Path, *, shards: "Sequence[Shard]" = (), passed_over: PassedOver = ()
) -> Outcome:
    """The outcome of a stage that has processed pictures one by one, or these shards of them."""
    from unfade.jobs.journal import Counts, notes_of
    from unfade.jobs.runs import JOURNAL, of_gone

    names = [shard.named(JOURNAL) for shard in shards] or [JOURNAL]
    gone = [file for name in names for file in of_gone(entries, Path(out), journal=name)]
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
    """The counts as one line: found = done + skipped + failed + without a face."""
    return "{found} found = {done} done + {skipped} skipped + {failed} failed + {no_face} without a face".format(
        **counts
    )


def failure_lines(failures: Remarks) -> list[str]:
    """One line for each failure: the file and the reason."""
    return [f"  {name}: {reason}" for name, reason in failures]


def first_lines(lines: Sequence[str]) -> list[str]:
    """The first SHOWN lines, and one that counts the others."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"  and {more} more; --json lists all"] if more > 0 else [])]


def passed_over_lines(passed_over: PassedOver, place: Path | None = None) -> list[str]:
    """One line that counts the pictures of formats that are not read; no line if there are none."""
    from unfade.images.finding import in_words

    return [f"not read{f' in {place}' if place else ''}: {in_words(passed_over)}"] if passed_over else []


def gone_lines(files: Sequence[str]) -> list[str]:
    """One line about results of earlier runs whose photos were not given this time; no line if there are none."""
    if not files:
        return []
    return [f"results of an earlier run whose photos are no longer there, left as they are: {first_few(files)}"]


def note_lines(notes: Remarks) -> list[str]:
    """One line for all notes that differ only in numbers: the first file, how many more files, and its note."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for item, note in notes:
        kinds.setdefault(re.sub(r"\d+(\.\d+)?", "#", note), []).append((item, note))
    return [f"  {alike[0][0]}{_and_more(len(alike) - 1)}: {alike[0][1]}" for alike in kinds.values()]


def _and_more(count: int) -> str:
    return f" and {count} more" if count else ""


def _print_table(rows: Sequence[Mapping[str, object]], title: str | None = None) -> None:
    """Print a table, with numbers to four significant digits."""
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
    """Numbers to four significant digits; names as printable text in which Rich sees no markup."""
    from rich.text import Text

    return Text(f"{value:.4g}" if isinstance(value, float) else printable(str(value)))
