"""Restorers of several sizes as one: each face goes through the smallest that does not reduce it much."""

from collections.abc import Sequence

from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.restorers.base import OnlyRestores, Restorer

REDUCED = 1.25  # px of the photo per px of a restorer, up to which a face goes through it rather than a larger one


class BySize(OnlyRestores):
    """Maps faces of any of its `sizes` to restored ones of the same size. It cannot learn."""

    architecture = "by_size"

    def __init__(self, restorers: Sequence[Restorer]) -> None:
        """Raises BadInput for two restorers of one size."""
        super().__init__()
        ordered = sorted(restorers, key=lambda restorer: restorer.size)
        self.restorers, self.size = tuple(ordered), ordered[0].size  # from the smallest
        self.net = nn.ModuleList(ordered)
        if len({*self.sizes}) < len(ordered):
            sizes = ", ".join(map(str, self.sizes))
            raise BadInput(f"Expected one `restorer` of each size, got those of {sizes} px: leave one out.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the faces that it takes, px, ascending."""
        return tuple(restorer.size for restorer in self.restorers)

    def forward(self, face: Tensor) -> Tensor:
        restored: Tensor = self.restorers[self.sizes.index(face.shape[-1])](face)
        return restored

    @property
    def fidelity(self) -> float | None:
        """The fidelity of all of them."""
        return self.restorers[0].fidelity

    @property
    def refine(self) -> int | None:
        """The number of refinements of all of them."""
        return self.restorers[0].refine

    @property
    def refusal(self) -> str:
        """Each of them has a file of its own."""
        return "Several restorers can neither learn nor be saved as one: name one of them as `restorer`."


def size_for(side: float, sizes: Sequence[int]) -> int:
    """The size at which a face that covers `side` px of its photo is restored, one of `sizes`, which ascend."""
    return next((size for size in sizes if side <= REDUCED * size), sizes[-1])
