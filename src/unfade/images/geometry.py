"""Positions and sizes in a picture that is turned or scaled."""

from collections.abc import Callable
from dataclasses import dataclass

Point = tuple[float, float]
TURNED: dict[int, Callable[[float, float], Point]] = {  # by EXIF orientation: moves a point, in shares of the sides
    1: lambda x, y: (x, y),
    2: lambda x, y: (1 - x, y),
    3: lambda x, y: (1 - x, 1 - y),
    4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (1 - y, x),
    7: lambda x, y: (1 - y, 1 - x),
    8: lambda x, y: (y, 1 - x),
}


@dataclass(frozen=True)
class Move:
    """A turn and a scaling of a picture."""

    orientation: int  # the EXIF orientation that was applied
    before: tuple[int, int]  # width and height in px
    after: tuple[int, int]

    @property
    def moves(self) -> bool:
        """Whether positions or sizes change."""
        return self.orientation != 1 or self.before != self.after

    @property
    def is_quarter(self) -> bool:
        """Whether width and height are exchanged."""
        return self.orientation >= 5

    def point(self, x: float, y: float) -> Point:
        """The new position of a point, in px."""
        across, down = TURNED[self.orientation](x / self.before[0], y / self.before[1])
        return across * self.after[0], down * self.after[1]

    def extent(self, width: float, height: float) -> Point:
        """The new sides of an area, in px."""
        across, down = width / self.before[0], height / self.before[1]
        across, down = (down, across) if self.is_quarter else (across, down)
        return across * self.after[0], down * self.after[1]

    def subject(self, numbers: list[float]) -> list[float]:
        """EXIF's SubjectArea after the move: a point, a circle (centre, diameter) or a rectangle (centre, sides)."""
        place = self.point(numbers[0], numbers[1])
        if len(numbers) == 4:
            return [*place, *self.extent(numbers[2], numbers[3])]
        return [*place, *(self.extent(number, number)[0] for number in numbers[2:])]

    @property
    def in_shares(self) -> "Move":
        """The same move for positions and sizes given as shares of the picture's sides."""
        return Move(self.orientation, (1, 1), (1, 1))
