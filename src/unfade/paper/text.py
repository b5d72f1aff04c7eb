"""A reproduced table as Markdown, next to the values printed in the paper, and as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unfade.evaluation.gap import Estimate
from unfade.paper.printed import Printed
from unfade.paper.scores import Verdict
from unfade.report.document import METRICS
from unfade.shown import finite


@dataclass(frozen=True)
class Row:
    """The row of one way on one set of photos."""

    label: str
    photos: str
    values: Mapping[str, Estimate] = field(default_factory=dict)  # by metric
    note: str = ""  # why there are none


@dataclass(frozen=True)
class Made:
    """A table."""

    name: str
    printed: Printed
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]
    about: Mapping[str, object]  # photos, models, device
    failures: Sequence[tuple[str, str]]  # (file, reason)
    file: Path  # Markdown; the JSON file is next to it


def as_markdown(made: Made) -> str:
    """The table, its claims and what it was made from."""
    title = f"# {made.printed.title.capitalize()}: {made.printed.caption}"
    about = [f"- {name}: {value}" for name, value in made.about.items()]
    return "\n".join([title, "", *side_by_side(made.printed, made.rows), *claim_lines(made.verdicts), *about, ""])


def side_by_side(printed: Printed, rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: a row for each way and set of photos, the printed values first, then ours."""
    ours = list(dict.fromkeys(metric for row in rows for metric in row.values))
    head = [
        "",
        "photos",
        *(f"printed {title_of(m)}" for m in printed.metrics),
        *(map(title_of, ours) if ours else ["ours"]),
    ]
    made = {(row.label, row.photos) for row in rows}
    unmade = [Row(line.label, line.photos) for line in printed.lines if (line.label, line.photos) not in made]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in [*rows, *unmade]:
        line = printed.line(row.label, row.photos)
        theirs = [line.cells[m] if line else "" for m in printed.metrics]
        shown = [estimate(m, row.values[m]) if m in row.values else "" for m in ours] or [""]
        lines.append(_line([row.label, row.photos, *theirs, shown[0] or row.note, *shown[1:]]))
    return [*lines, ""]


def cells_of(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Rows of cells by the heads of their columns, without intervals: for a terminal."""
    ours = list(dict.fromkeys(metric for row in rows for metric in row.values))
    noted = any(row.note for row in rows)
    return [
        {
            "row": row.label,
            "photos": row.photos,
            **{title_of(m): number(m, row.values[m].value) if m in row.values else "-" for m in ours},
            **({"note": row.note} if noted else {}),
        }
        for row in rows
    ]


def claim_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """Lines of Markdown: the claims of the paper's rows, and whether ours support them."""
    lines = [f"- {claimed(verdict)}" for verdict in verdicts]
    return [*lines, ""] if lines else []


def claimed(verdict: Verdict) -> str:
    """In one sentence."""
    claim, metric = verdict.claim, METRICS[verdict.metric]
    by = ""
    if found := verdict.difference:
        value, low, high = (f"{number:.{metric.digits}f}" for number in (found.value, found.low, found.high))
        by = f" (by {value}, {low} to {high})"
    return f"{claim.better} better than {claim.worse} in {metric.label}, {claim.photos}: {verdict.verdict}{by}."


def estimate(metric: str, value: Estimate) -> str:
    """A value and its interval, if it has one."""
    if math.isnan(value.value):
        return "-"
    if value.low == value.high:
        return number(metric, value.value)
    return f"{number(metric, value.value)} ({number(metric, value.low)} to {number(metric, value.high)})"


def number(metric: str, value: float) -> str:
    """A number with as many digits as the metric is reported with, or else four significant digits."""
    return f"{value:.{METRICS[metric].digits}f}" if metric in METRICS else f"{value:.4g}"


def title_of(metric: str) -> str:
    """Of a column."""
    return METRICS[metric].label if metric in METRICS else metric


def as_json(made: Made) -> dict[str, object]:
    """The table for JSON; values that are not finite become None."""
    return {
        "table": made.name,
        "caption": made.printed.caption,
        **made.about,
        "rows": [_row(row) for row in made.rows],
        "claims": [
            {**vars(v.claim), "tried with": v.metric, "verdict": v.verdict, "difference": _difference(v)}
            for v in made.verdicts
        ],
    }


def _difference(verdict: Verdict) -> dict[str, float | None] | None:
    return finite(vars(verdict.difference)) if verdict.difference else None


def _row(row: Row) -> dict[str, object]:
    values = {metric: finite(vars(value)) for metric, value in row.values.items()}
    return {"label": row.label, "photos": row.photos, "values": values, "note": row.note}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
