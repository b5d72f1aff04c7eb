"""Where a place of a picture goes, and how long its sides are, when the picture is turned or scaled."""

from collections.abc import Callable
from dataclasses import dataclass

Point = tuple[float, float]
TURNED: dict[int, Callable[[float, float], Point]] = {  # EXIF orientation: where a place, in shares of the sides, goes
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
    """What became of a picture's sides."""

    orientation: int  # EXIF's, that was applied
    before: tuple[int, int]  # width and height in px
    after: tuple[int, int]

    @property
    def moves(self) -> bool:
        """Whether anything has to follow."""
        return self.orientation != 1 or self.before != self.after

    @property
    def is_quarter(self) -> bool:
        """Whether width and height changed places."""
        return self.orientation >= 5

    def point(self, x: float, y: float) -> Point:
        """A place in px."""
        across, down = TURNED[self.orientation](x / self.before[0], y / self.before[1])
        return across * self.after[0], down * self.after[1]

    def extent(self, width: float, height: float) -> Point:
        """The sides of an area in px."""
        across, down = width / self.before[0], height / self.before[1]
        across, down = (down, across) if self.is_quarter else (across, down)
        return across * self.after[0], down * self.after[1]

    def subject(self, numbers: list[float]) -> list[float]:
        """A place, a circle (place and diameter) or a rectangle (its middle and sides), as EXIF's SubjectArea."""
        place = self.point(numbers[0], numbers[1])
        if len(numbers) == 4:
            return [*place, *self.extent(numbers[2], numbers[3])]
        return [*place, *(self.extent(number, number)[0] for number in numbers[2:])]

    @property
    def in_shares(self) -> "Move":
        """The same where places and sides are shares of the picture's."""
        return Move(self.orientation, (1, 1), (1, 1))
