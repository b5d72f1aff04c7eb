"""Context managers for modes, which restore the previous state at their end."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Inside, torch's global generators start from `seed`, for dropout and initial weights, which use no others."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def mode(training: bool, *networks: nn.Module) -> Iterator[None]:
    """Inside, the networks are in training or in evaluation mode."""
    before = [network.training for network in networks]
    for network in networks:
        network.train(training)
    try:
        yield
    finally:
        for network, was in zip(networks, before, strict=True):
            network.train(was)
