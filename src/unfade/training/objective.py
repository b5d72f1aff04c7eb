"""The training objective: the interface between the one training loop and each family's losses."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Objective(nn.Module, ABC):
    """Turns a batch into named, weighted loss terms. The loop minimises their sum.

    An objective with trained parameters (an adversarial one) has its own optimiser, whose state is part of
    `get_extra_state`, so that a checkpoint of the objective is complete.
    """

    @abstractmethod
    def forward(self, model: nn.Module, *batch: Tensor) -> dict[str, Tensor]:
        """Weighted scalar loss terms by name, for one micro-batch."""

    def after_backward(self) -> None:
        """Called after the backward pass of each micro-batch; an adversarial objective adds its own gradients here."""

    def skip(self) -> None:
        """Called instead of the passes of a micro-batch that another process takes; state that every pass changes,
        whatever its data, changes here too."""

    def after_step(self) -> None:
        """Called after each optimiser step; an adversarial objective takes its own step here."""
