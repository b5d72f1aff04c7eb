"""Exponential moving average of weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """A moving average of a network's parameters; buffers are not averaged."""

    def __init__(self, network: nn.Module, decay: float, *, ramp: bool = False):
        self.decay = decay
        self.ramp = ramp  # a faster decay at the start, for a network that is trained from scratch
        self._average = {k: v.detach().clone() for k, v in network.named_parameters()}

    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network's weights after optimiser step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.ramp else self.decay
        names = [k for k, v in network.named_parameters() if v.requires_grad]
        current = [p.detach() for p in network.parameters() if p.requires_grad]
        torch._foreach_lerp_([self._average[k] for k in names], current, 1 - decay)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Inside, the network has the averaged weights; afterwards it gets its own back."""
        own = {k: v.detach().clone() for k, v in network.named_parameters()}
        self.copy_to(network)
        try:
            yield
        finally:
            _copy(own, network)

    def copy_to(self, network: nn.Module) -> None:
        """Give the network the averaged weights permanently."""
        _copy(self._average, network)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return self._average

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over averaged parameters."""
        for key, value in state.items():
            self._average[key].copy_(value)


@torch.no_grad()
def _copy(source: dict[str, Tensor], network: nn.Module) -> None:
    for key, value in network.named_parameters():
        value.copy_(source[key])
