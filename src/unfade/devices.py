"""Which device networks run on."""

import os
import time

import torch
from torch import nn

from unfade.errors import BadInput, first_line

Device = torch.device | str  # as torch names them, or "auto"


def choose_device(device: Device = "auto") -> str:
    """The name of a device that is there; "auto" is a GPU if there is one. Raises BadInput for one that is not."""
    if device == "auto":
        return automatic()
    try:
        device = torch.device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = first_line(error)
        raise BadInput(f"The device {device} cannot be used ({reason}); set `device` to auto or cpu.") from error
    return str(device)


def automatic() -> str:
    """The fastest kind of device that is there; each process that torchrun has started gets a GPU of its own."""
    if torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}" if "TORCHELASTIC_RUN_ID" in os.environ else "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's parameters."""
    return next(network.parameters()).device


def clock(device: str) -> float:
    """Seconds, read once the device has done what it was given."""
    if device != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
