"""The printed values of the paper's tables, read from `printed.toml`."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

CAMERAS = tuple(f"{factor}x {noise}" for noise in ("mild", "moderate", "severe") for factor in (4, 8))
REAL = "real"  # real photos, without a truth
MEANS = {  # sets of photos whose values are means over those of others
    "8x, mean": ("8x moderate", "8x severe"),
    "severe, mean": ("4x severe", "8x severe"),
    "all four, mean": ("4x moderate", "8x moderate", "4x severe", "8x severe"),
}
Rows = Sequence[list[str]]
UNREADABLE = "?"


@dataclass(frozen=True)
class Line:
    """One row of a table on one set of photos."""

    label: str
    photos: str  # a camera, a key of MEANS, REAL, or what table 27 has
    cells: Mapping[str, str]  # metric -> as it is printed

    def value(self, metric: str) -> float:
        """The value of a cell; NaN if it is illegible or missing."""
        cell = self.cells.get(metric, UNREADABLE)
        return math.nan if cell == UNREADABLE else float(cell)


@dataclass(frozen=True)
class Claim:
    """The claim that one row is better than another."""

    metric: str
    better: str
    worse: str
    photos: str


@dataclass(frozen=True)
class Printed:
    """A table as it is printed."""

    name: str  # "1" to "27", or a figure's
    caption: str
    metrics: Sequence[str]
    sets: Sequence[str]  # of photos
    lines: Sequence[Line]
    claims: Sequence[Claim]

    @property
    def title(self) -> str:
        """The name of the table in a sentence."""
        return f"figure {self.name.removeprefix('fig')}" if self.name.startswith("fig") else f"table {self.name}"

    def line(self, label: str, photos: str) -> Line | None:
        """The row with these values; None if there is none."""
        return next((line for line in self.lines if (line.label, line.photos) == (label, photos)), None)


@cache
def printed_tables() -> dict[str, Printed]:
    """All tables by name, in the paper's order."""
    text = (files("unfade.paper") / "printed.toml").read_text(encoding="utf-8")
    return {name: _printed(name, **table) for name, table in tomllib.loads(text).items()}


def cameras_of(photos: str) -> tuple[str, ...]:
    """The sets that a value is the mean of; a single set is its own mean."""
    return MEANS.get(photos, (photos,))


def _printed(name: str, caption: str, metrics: list[str], sets: list[str], rows: Rows, claims: Rows = ()) -> Printed:
    lines = [Line(label, photos, dict(zip(metrics, cells.split(), strict=True))) for label, photos, cells in rows]
    return Printed(name, caption, metrics, sets, lines, [Claim(*claim) for claim in claims])
