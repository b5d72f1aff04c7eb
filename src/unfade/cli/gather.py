"""The command `unfade gather`: add up the shards of a run."""

from pathlib import Path
from typing import Annotated

import typer

from unfade.cli.command import Outcome, command, failure_lines, first_lines, sum_line

Runs = Annotated[list[Path], typer.Argument(help="Folders that shards have filled: one for all, or several.")]


@command
def gather(runs: Runs) -> Outcome:
    """Add up the shards of a run: items without a result, items and files that are there twice, and missing shards."""
    from unfade.jobs.gather import gather as add_up

    found = add_up(runs)
    lines = [sum_line(found.counts.as_dict())]
    if found.counts.found != found.expected:
        lines.append(f"found by the shards: {found.expected}")
    if found.missing:
        lines.append(f"shards of {found.shards} that have not begun: {', '.join(map(str, found.missing))}")
    kinds = {"no result": found.gaps, "twice": found.doubles, "not counted": found.others, "not done": found.failures}
    for title, pairs in kinds.items():
        lines += [f"{title}: {len(pairs)}", *first_lines(failure_lines(pairs))] if pairs else []
    lines.append("everything adds up" if found.adds_up else "it does not add up")
    return Outcome(found.as_dict(), lines, failed=0 if found.adds_up else 1)
