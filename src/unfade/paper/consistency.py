"""Check the printed tables against each other: one run must have the same numbers everywhere, and means must be right.

Labels stand for ways to make pictures (`tables.TABLES`), so that rows of different tables are known for the same run
whatever they are called. Numbers of parameters are counted in the networks themselves.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from unfade.paper.costs import ONE_STEP, WALKS, parameters_of, steps_of
from unfade.paper.printed import MEANS, UNREADABLE, Line, Printed, printed_tables
from unfade.paper.tables import COSTS, TABLES, Share, Way, as_usual
from unfade.report.document import METRICS
from unfade.stages.methods import METHODS

ALIKE = 3  # with so many equal cells, two rows of different runs are not equal by chance
OFF = 0.1  # relative difference allowed between a time and its number of steps times the time of one


@dataclass(frozen=True)
class Cells:
    """A row of a table, and the run that it belongs to."""

    table: Printed
    line: Line
    way: Way

    @property
    def run(self) -> tuple[Way, str]:
        """What rows that have to be equal have in common."""
        return self.way, self.line.photos

    @property
    def name(self) -> str:
        """The row as it is named in a sentence."""
        return f"{self.line.label}, {self.line.photos}"


@dataclass(frozen=True)
class Contradiction:
    """An inconsistency in a table."""

    table: str
    sentence: str


@dataclass(frozen=True)
class Checked:
    """What was compared, and the inconsistencies that were found."""

    repeated: int  # cells that are printed in more than one table
    means: int  # cells that are means of others
    costs: int  # numbers of parameters and times
    contradictions: Sequence[Contradiction]


def check_tables(tables: Mapping[str, Printed] | None = None) -> Checked:
    """Recompute every mean and every repeated cell of the printed tables."""
    tables = tables or printed_tables()
    rows = [*_rows(tables)]
    repeated, means, costs = [*_repeated(rows)], [*_means(rows)], [*_costs(tables[COSTS])]
    found = [c for _, c in (*repeated, *means, *costs) if c is not None]
    order = {name: place for place, name in enumerate(tables)}
    found += _captions(rows, {c.table for c in found})
    counts = [sum(count for count, _ in part) for part in (repeated, means, costs)]
    return Checked(counts[0], counts[1], counts[2], sorted(dict.fromkeys(found), key=lambda c: order[c.table]))


Mean = Callable[[Way, str, str], float]  # of a way and the photos, by metric
Compared = tuple[int, Contradiction | None]  # number of cells, and the inconsistency, if there is one


def _rows(tables: Mapping[str, Printed]) -> Iterator[Cells]:
    for name, table in tables.items():
        for line in table.lines:
            way = TABLES.get(name, {}).get(line.label)
            if way is not None and not isinstance(way, Share):
                yield Cells(table, line, as_usual(way))


def _repeated(rows: Sequence[Cells]) -> Iterator[Compared]:
    """Compare the rows of one run with each other."""
    runs: dict[tuple[Way, str], list[Cells]] = defaultdict(list)
    for row in rows:
        runs[row.run].append(row)
    for same in runs.values():
        yield sum(max(0, sum(_legible(row, m) for row in same) - 1) for m in same[0].line.cells), None
        yield from ((0, contradiction) for contradiction in _odd_ones(same, rows))


def _odd_ones(same: Sequence[Cells], rows: Sequence[Cells]) -> Iterator[Contradiction]:
    """Of rows that should be equal but are not, those with numbers of another run; if there are none, the second."""
    pairs = [(row, other, wrong) for row in same for other in same if (wrong := _different(row, other))]
    odd = [row for row in same if _twin(row, rows)] or [pairs[0][1] if pairs else same[0]]
    for row in odd:
        others = ((other, wrong) for this, other, wrong in pairs if this == row and other not in odd)
        other, wrong = next(others, (None, []))
        if other is not None:
            twin = _twin(row, rows)
            source = f"; {_those_of(row, twin)}" if twin else ""
            yield Contradiction(row.table.name, f"{_against(row, other, wrong)}{source}.")


def _different(first: Cells, second: Cells) -> list[str]:
    both = [m for m in first.line.cells if _legible(first, m) and _legible(second, m)]
    return [m for m in both if first.line.value(m) != second.line.value(m)]


def _against(first: Cells, second: Cells, wrong: Sequence[str]) -> str:
    elsewhere = f"{second.table.title} ({second.line.label})"
    return f"{first.name} has {_listed(first, wrong)}, but in {elsewhere} {_listed(second, wrong)}"


def _those_of(first: Cells, twin: Cells) -> str:
    return f"{', '.join(_title(m) for m in _equal(first, twin))} are those of {twin.name} in {twin.table.title}"


def _twin(row: Cells, rows: Sequence[Cells]) -> Cells | None:
    """A row of another run with the same numbers."""
    return next((r for r in rows if r.run != row.run and len(_equal(row, r)) >= ALIKE), None)


def _equal(first: Cells, second: Cells) -> list[str]:
    return [m for m in first.line.cells if _legible(first, m) and first.line.cells[m] == second.line.cells.get(m)]


def _captions(rows: Sequence[Cells], known: set[str]) -> list[Contradiction]:
    """Rows with the numbers of another run, one per table, in tables without an inconsistency so far."""
    found: dict[str, Contradiction] = {}
    for row in rows:
        twin = _twin(row, rows)
        if twin and not {row.table.name, twin.table.name} & known and row.table.name not in found:
            found[row.table.name] = Contradiction(row.table.name, f"{row.name}: {_those_of(row, twin)}.")
    return [*found.values()]


def _means(rows: Sequence[Cells]) -> Iterator[Compared]:
    """Compare each mean with the rows that it is the mean of, in whatever tables they are."""
    known = {(*row.run, m): row.line.value(m) for row in reversed(rows) for m in row.line.cells if _legible(row, m)}
    ways = {(row.table.name, row.way): row for row in rows if row.line.photos in MEANS}

    def mean(way: Way, photos: str, metric: str) -> float:
        return sum(known.get((way, each, metric), math.nan) for each in MEANS[photos]) / len(MEANS[photos])

    for row in ways.values():
        photos = row.line.photos
        means = {m: value for m in row.line.cells if not math.isnan(value := mean(row.way, photos, m))}
        wrong = [m for m, value in means.items() if not _rounds_to(value, row.line.cells[m])]
        yield len(means), _no_mean(row, wrong, means, [*ways.values()], mean) if wrong else None


def _no_mean(
    row: Cells, wrong: Sequence[str], means: Mapping[str, float], others: Sequence[Cells], mean: Mean
) -> Contradiction:
    """The inconsistency of a mean, with the row whose mean it really is, if there is one."""
    cells = ", ".join(
        f"{_title(m)} {row.line.cells[m]} (the mean is {means[m]:.{_digits(row.line.cells[m]) + 1}f})" for m in wrong
    )
    sentence = f"{row.name}: {cells}"
    photos = row.line.photos
    for other in others:
        fits = [m for m in means if _rounds_to(mean(other.way, photos, m), row.line.cells[m])]
        if other.way != row.way and len(fits) >= ALIKE:
            sentence += f"; these are the means of {other.line.label}"
            break
    return Contradiction(row.table.name, f"{sentence}.")


def _costs(table: Printed) -> Iterator[Compared]:
    """Compare the printed parameters with counted ones, and times with the numbers of steps."""
    step = next(line.value("s per face") for line in table.lines if line.label == ONE_STEP)
    for line in table.lines:
        printed = line.cells["parameters, M"]
        if printed != UNREADABLE:
            counted = parameters_of(line.label) / 1e6
            sentence = f"{line.label} has {printed} M parameters; counted are {counted:.2f} M{WHY.get(line.label, '')}."
            yield 1, None if _rounds_to(counted, printed) else Contradiction(table.name, sentence)
        if line.label in ("DifFace", "PG-Diff"):  # these two walk the prior whose step is printed
            steps = steps_of(METHODS[WALKS[line.label]])
            seconds = line.value("s per face")
            sentence = (
                f"{line.label} takes {seconds:.2f} s: {seconds / step:.0f} steps of the prior at {step:.4f} s, but as "
                f"published it walks {steps}."
            )
            yield 1, Contradiction(table.name, sentence) if abs(seconds / step / steps - 1) > OFF else None


WHY = {
    "GFPGAN": " in version 1.4 (the paper does not say which it took)",
    "VQFR": " in version 2 (the paper does not say which it took)",
}


def _legible(row: Cells, metric: str) -> bool:
    return row.line.cells.get(metric, UNREADABLE) != UNREADABLE


def _rounds_to(value: float, cell: str) -> bool:
    """Whether rounding can explain the value: half a unit of its last digit, plus as much in the values it averages."""
    return cell != UNREADABLE and abs(value - float(cell)) <= 10 ** -_digits(cell) * (1 + 1e-6)


def _digits(cell: str) -> int:
    return len(cell.partition(".")[2])


def _listed(row: Cells, metrics: Sequence[str]) -> str:
    return ", ".join(f"{_title(m)} {row.line.cells[m]}" for m in metrics)


def _title(metric: str) -> str:
    return METRICS[metric].label.removesuffix(" (dB)").removesuffix(", colours matched").removesuffix(" of PIPAL")
