"""What every restorer is, whatever its family."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import Config
from unfade.training.objective import Objective


class Restorer(nn.Module, ABC):
    """Maps a degraded, aligned face to a restored one of the same size.

    `architecture` names the family and `config()` its shape: with the weights they are all that a file must hold.
    `frozen` names the submodules that fine-tuning leaves as they are.
    """

    net: nn.Module  # the network itself: its state-dict keys are the published ones
    published: bool = False  # whether files hold the state of `net`, under those keys, or that of this module
    size: int  # side of the face, px
    architecture: str
    frozen: tuple[str, ...] = ()
    bf16: bool = False  # whether `stages.restore` runs it in bfloat16 where the device has it

    @abstractmethod
    def forward(self, face: Tensor) -> Tensor:
        """(B, 3, size, size), RGB in [-1, 1] -> the same shape and range; not clamped, so that it can be trained."""

    def attempt(self, face: Tensor) -> Tensor:
        """What a prior begins with: the same as `forward`, without any refinement of its own."""
        restored: Tensor = self(face)
        return restored

    def matching_step(self, face: Tensor) -> Tensor | None:
        """The steps of 1000 whose noise takes as much of faces (B, 3, size, size) as their damage did, (B,).

        None for a family that does not estimate damage.
        """
        return None

    @abstractmethod
    def objective(self, settings: Any, **parts: Any) -> Objective:
        """How this family learns from (face, target) pairs. Settings and ready made parts are the family's own."""

    @abstractmethod
    def config(self) -> Config:
        """Numbers, strings and lists (JSON) from which the same network can be built again."""

    @property
    def stored(self) -> nn.Module:
        """The module whose state is in this restorer's file."""
        return self.net if self.published else self

    @property
    def fidelity(self) -> float | None:
        """Closeness to the input that the family lets one choose, 0..1; None where there is no such choice."""
        return None

    def set_fidelity(self, fidelity: float) -> None:
        """Run at another fidelity from now on. Raises BadInput outside 0..1, or for a family that has none."""
        raise BadInput(f"A {self.architecture} has no fidelity to choose, got {fidelity}: leave `fidelity` out.")

    @property
    def refine(self) -> int | None:
        """Evaluations after the first that bring back texture; None where the family has no such choice."""
        return None

    def set_refine(self, evaluations: int) -> None:
        """Refine so many times from now on. Raises BadInput for a number, or a family, that cannot."""
        raise BadInput(f"A {self.architecture} cannot refine its results, got {evaluations}: leave refine out.")

    def trainable(self) -> list[nn.Parameter]:
        """The parameters outside the `frozen` submodules, in the order of `named_parameters`."""
        prefixes = tuple(f"{name}." for name in self.frozen)
        return [value for name, value in self.named_parameters() if not name.startswith(prefixes)]
