"""The interface of all restorers."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import Config
from unfade.training.objective import Objective


class Restorer(nn.Module, ABC):
    """Maps a degraded, aligned face to a restored one of the same size.

    `architecture` names the family and `config()` describes the network; together with the weights, they are all that
    a file must hold. `frozen` names the submodules that fine-tuning does not change.
    """

    net: nn.Module  # the network itself, whose state-dict keys are the published ones
    published: bool = False  # whether files hold the state of `net`, with the published keys, or of the whole module
    size: int  # side of the face, px
    architecture: str
    frozen: tuple[str, ...] = ()
    bf16: bool = False  # whether `stages.restore` runs it in bfloat16 where the device supports it

    @abstractmethod
    def forward(self, face: Tensor) -> Tensor:
        """(B, 3, size, size), RGB in [-1, 1] -> the same shape and range, not clamped so that it can be trained."""

    def attempt(self, face: Tensor) -> Tensor:
        """The first attempt that a prior starts from: the same as `forward`, but without refinement."""
        restored: Tensor = self(face)
        return restored

    def matching_step(self, face: Tensor) -> Tensor | None:
        """For faces (B, 3, size, size), the steps of 1000, (B,), whose noise hides as much as their degradation does.

        The noise is that in images of `size`. None for a family that does not estimate degradation.
        """
        return None

    @abstractmethod
    def objective(self, settings: Any, **parts: Any) -> Objective:
        """The objective by which this family learns from (face, target) pairs; settings and parts are the family's."""

    @abstractmethod
    def config(self) -> Config:
        """The JSON values (numbers, strings and lists) from which the same network can be built again."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the faces that it takes, px, ascending."""
        return (self.size,)

    @property
    def stored(self) -> nn.Module:
        """The module whose state is in this restorer's file."""
        return self.net if self.published else self

    @property
    def fidelity(self) -> float | None:
        """The closeness to the input that results have, 0..1; None if it cannot be chosen for this family."""
        return None

    def set_fidelity(self, fidelity: float) -> None:
        """Set the fidelity. Raises BadInput outside 0..1, or if the family has no fidelity."""
        raise BadInput(f"The fidelity of a {self.architecture} cannot be set, got {fidelity}: leave `fidelity` out.")

    @property
    def refine(self) -> int | None:
        """The number of evaluations after the first, which bring back texture; None if the family cannot refine."""
        return None

    def set_refine(self, evaluations: int) -> None:
        """Set the number of refinements. Raises BadInput if it is not allowed, or if the family cannot refine."""
        raise BadInput(f"A {self.architecture} cannot refine its results, got {evaluations}: leave `refine` out.")

    def trainable(self) -> list[nn.Parameter]:
        """The parameters outside the `frozen` submodules, in the order of `named_parameters`."""
        prefixes = tuple(f"{name}." for name in self.frozen)
        return [value for name, value in self.named_parameters() if not name.startswith(prefixes)]


class OnlyRestores(Restorer):
    """A restorer that can neither learn nor be saved."""

    @property
    @abstractmethod
    def refusal(self) -> str:
        """The sentence that says so, and what to do instead."""

    def objective(self, settings: Any = None, **parts: Any) -> Objective:
        """Raises BadInput: it cannot learn."""
        raise BadInput(self.refusal)

    def trainable(self) -> list[nn.Parameter]:
        """Raises BadInput: it cannot learn."""
        raise BadInput(self.refusal)

    def config(self) -> Config:
        """Raises BadInput: it cannot be saved."""
        raise BadInput(self.refusal)
