"""A small picture of curves, for contact sheets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unfade.images.files import from_bytes

MARGIN = 44  # px left of the axes and below them
GREY = "#bbbbbb"


@dataclass(frozen=True)
class Axis:
    """The range of an axis, from `low` to `high`, which differ."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]


def plot(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]], x: Axis, y: Axis, *, side: int) -> Tensor:
    """A picture (3, side, side) in [-1, 1] of curves, each a colour and points; values outside the axes are clipped."""
    image = Image.new("RGB", (side, side), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        shares = [min(1.0, max(0.0, (v - a.low) / (a.high - a.low))) for v, a in zip(point, (x, y), strict=True)]
        return MARGIN + shares[0] * (side - MARGIN - 10), 10 + (1 - shares[1]) * (side - MARGIN - 10)

    for tick in x.ticks:
        draw.line([place((tick, y.low)), place((tick, y.high))], GREY)
        draw.text(place((tick, y.low)), f"{tick:g}", "black", font, anchor="ma")
    for tick in y.ticks:
        draw.line([place((x.low, tick)), place((x.high, tick))], GREY)
        draw.text((MARGIN - 4, place((x.low, tick))[1]), f"{tick:g}", "black", font, anchor="rm")
    for colour, points in curves:
        draw.line([place(point) for point in points], colour, 2)
    draw.text((side / 2, side - 6), x.label, "black", font, anchor="ms")
    draw.text((MARGIN + 4, 12), y.label, "black", font, anchor="la")
    return from_bytes(np.asarray(image))
