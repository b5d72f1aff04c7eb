"""Modes that put back what they found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

DRAWS = ("uniform_", "normal_", "trunc_normal_")  # endings of what fills a tensor at random


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Inside, torch's own generators start from `seed`: for dropout and fresh weights, which take no other."""
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


class undrawn(TorchFunctionMode):  # noqa: N801 - a context manager, as those above
    """Inside, networks are built with whatever numbers their memory holds: for those that a file then fills.

    Drawing fresh numbers takes longer than reading the file.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(DRAWS):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
