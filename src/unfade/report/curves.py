"""Loss curves as inline SVG pictures: a light line of what was recorded, a strong one of its moving mean."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

Point = tuple[float, float]

WIDTH, HEIGHT = 420, 240  # units of the picture, which scales with the page
LEFT, RIGHT, TOP, BOTTOM = 52, 406, 10, 204  # the edges of the plotted area
_MOST_POINTS = 600  # more than one per unit of width cannot be told apart
_LOG_FROM = 20.0  # a range of values wider than this factor is drawn on a logarithmic axis


@dataclass(frozen=True)
class Curve:
    """One recorded quantity over the steps of a training."""

    name: str  # what is drawn, e.g. "loss: perceptual"
    points: Sequence[Point]  # (step, value), by rising step; a value that is not finite leaves a gap


@dataclass(frozen=True)
class Axis:
    """Maps values to places in the picture and knows its round numbers."""

    low: float  # value at `start`
    high: float  # value at `end`
    start: float  # units of the picture
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where `value` lies, in units of the picture."""
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Three to about eight round numbers within the axis."""
        return _log_ticks(self.low, self.high) if self.log else _round_ticks(self.low, self.high)


def draw(curve: Curve) -> Markup:
    """The curve as an `<svg>` element, coloured by the page's variables --line, --raw, --grid and --quiet.

    Values above 0 that spread over more than a factor of 20 get a logarithmic axis. A curve without any finite value
    gives a picture that says so.
    """
    raw = finite(curve.points)
    if not raw:
        body = Markup('<text class="empty" x="{}" y="{}">nothing recorded</text>').format(WIDTH / 2, HEIGHT / 2)
        return _frame(curve.name, body)
    x, y = _axes(raw)
    lines = _lines(curve.points, raw, lambda p: f"{x.place(p[0]):.1f} {y.place(p[1]):.1f}")
    return _frame(f"{curve.name}, {describe(raw, len(curve.points) - len(raw))}", _grid(x, y) + lines)


def figures(curves: Iterable[Curve]) -> Markup:
    """The curves with their names and a line about each, side by side as far as the page's style allows."""
    figure = Markup('<figure class="card"><h3>{}</h3>{}<figcaption>{}</figcaption></figure>')
    drawn = [figure.format(curve.name, draw(curve), _caption(curve)) for curve in curves]
    return Markup('<div class="curves">{}</div>').format(Markup("").join(drawn))


def _caption(curve: Curve) -> str:
    points = finite(curve.points)
    return describe(points, len(curve.points) - len(points)) if points else ""


def describe(points: Sequence[Point], gaps: int = 0) -> str:
    """One line about finite points: first and last value (smoothed if there are many), the range, what is missing."""
    mean = moving_mean(points)
    (_, first), (_, last) = (mean or points)[0], (mean or points)[-1]
    values = [value for _, value in points]
    course = f"from {first:.4g} to {last:.4g}{' (smoothed)' if mean else ''}, lowest {min(values):.4g}"
    alone = f"{last:.4g} at step {_number(points[0][0])}"
    return (course if len(points) > 1 else alone) + (f"; {gaps} not finite" if gaps else "")


def finite(points: Iterable[Point]) -> list[Point]:
    """The points without NaN and infinities."""
    return [(step, value) for step, value in points if math.isfinite(step) and math.isfinite(value)]


def moving_mean(points: Sequence[Point]) -> list[Point]:
    """Centred moving mean over a twentieth of the points; empty below 20 points, where it would hide too much."""
    if len(points) < 20:
        return []
    means = [(_mean([p[0] for p in bucket]), _mean([p[1] for p in bucket])) for bucket in _buckets(points)]
    half = max(1, len(means) // 40)
    return [(means[i][0], _mean([p[1] for p in means[max(0, i - half) : i + half + 1]])) for i in range(len(means))]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _buckets(points: Sequence[Point]) -> list[Sequence[Point]]:
    """At most `_MOST_POINTS` groups of neighbours."""
    size = -(-len(points) // _MOST_POINTS)
    return [points[i : i + size] for i in range(0, len(points), size)]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """The lowest and the highest point of each group, so that no spike is lost."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    return [p for b in _buckets(points) for p in sorted({min(b, key=lambda p: p[1]), max(b, key=lambda p: p[1])})]


def _axes(points: Sequence[Point]) -> tuple[Axis, Axis]:
    values = [value for _, value in points]
    low, high = min(values), max(values)
    log = low > 0 and high / low > _LOG_FROM
    margin = (high / low) ** 0.04 if log else 0.04 * (high - low)
    low, high = (low / margin, high * margin) if log else (low - margin, high + margin)
    x = Axis(*_apart(points[0][0], points[-1][0]), LEFT, RIGHT)
    return x, Axis(*_apart(low, high), BOTTOM, TOP, log)


def _apart(low: float, high: float) -> tuple[float, float]:
    """Widened around a single value, so that an axis never has length 0."""
    if high > low:
        return low, high
    margin = abs(low) / 2 or 1.0
    return low - margin, low + margin


def _round_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = high / low > 1e3
    ticks = [factor * 10.0**power for power in powers for factor in ((1,) if wide else (1, 2, 5))]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside[:: -(-len(inside) // 8)]


def _number(value: float) -> str:
    """Round, with thousands set apart: 20,000 and 0.3."""
    return f"{value:,.0f}" if abs(value) >= 1000 and value == round(value) else f"{value:.4g}"


def _grid(x: Axis, y: Axis) -> Markup:
    across = Markup('<path class="grid" d="M{} {}H{}"/><text class="y" x="{}" y="{}">{}</text>')
    along = Markup('<path class="grid" d="M{} {}v4"/><text class="x" x="{}" y="{}">{}</text>')
    rows = [(f"{y.place(v):.1f}", f"{y.place(v) + 4:.1f}", _number(v)) for v in y.ticks()]
    columns = [(f"{x.place(v):.1f}", _number(v)) for v in x.ticks()]
    parts = [across.format(LEFT, at, RIGHT, LEFT - 7, text_at, text) for at, text_at, text in rows]
    parts += [along.format(at, BOTTOM, at, BOTTOM + 17, text) for at, text in columns]
    middle, scale = (LEFT + RIGHT) / 2, "step; logarithmic values" if y.log else "step"
    return Markup("").join(
        [*parts, Markup('<text class="x" x="{}" y="{}">{}</text>').format(middle, HEIGHT - 3, scale)]
    )


def _lines(points: Sequence[Point], raw: Sequence[Point], place: Callable[[Point], str]) -> Markup:
    runs = [list(run) for whole, run in groupby(points, lambda p: bool(finite([p]))) if whole]
    mean = moving_mean(raw)
    if not mean:  # few points: a strong line, and a dot where one stands alone between gaps
        alone, lines = [run for run in runs if len(run) == 1], [run for run in runs if len(run) > 1]
        return _path("mean", lines, place) + _path("dot", alone, place)
    return _path("raw", map(_thinned, runs), place) + _path("mean", [mean], place)


def _path(kind: str, runs: Iterable[Sequence[Point]], place: Callable[[Point], str]) -> Markup:
    """One subpath per run. A run of one point gets length 0, which round line ends show as a dot."""
    d = "".join("M" + "L".join(map(place, run)) + ("h0" if len(run) == 1 else "") for run in runs)
    return Markup('<path class="{}" d="{}"/>').format(kind, d) if d else Markup("")


def _frame(title: str, body: Markup) -> Markup:
    opening = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)
    return opening + body + Markup("</svg>")
