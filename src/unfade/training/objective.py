"""What a network learns from: the interface between the one training loop and each family's losses."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Objective(nn.Module, ABC):
    """Turns a batch into named, weighted loss terms. The loop minimises their sum.

    An objective that learns itself (an adversarial one) keeps its own optimiser, whose state travels in
    `get_extra_state`, so that a checkpoint of the objective is complete.
    """

    @abstractmethod
    def forward(self, model: nn.Module, *batch: Tensor) -> dict[str, Tensor]:
        """Weighted scalar loss terms by name, for one micro-batch."""

    def after_backward(self) -> None:
        """Runs after the backward pass of each micro-batch; an adversarial objective adds its own gradients here."""

    def after_step(self) -> None:
        """Runs after each optimiser step; an adversarial objective takes its own step here."""
