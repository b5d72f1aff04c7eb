"""Which device networks run on."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn

from unfade.errors import BadInput, OutOfMemory, first_line

Device = torch.device | str  # as torch names them, or "auto"
MORE_ROOM = "close other programs that use the device, or set `device` to cpu"
NO_ROOM = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # in messages of CUDA, MPS, processors, cuDNN


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


def constant(like: Tensor, *numbers: float) -> Tensor:
    """These numbers, with the type and on the device of a tensor. Not to be changed: they are kept for the next time,
    as the host would wait for the device whenever it copies them there.
    """
    return _constant(numbers, like.dtype, like.device)


@lru_cache(maxsize=64)
def _constant(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # else a training could not use what an inference has left here
        return torch.tensor(numbers).to(device, dtype)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the processor, has no room for a tensor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_ROOM)


@contextmanager
def room_in_memory(way_out: str = MORE_ROOM) -> Iterator[None]:
    """Inside, running out of memory raises OutOfMemory, whose sentence ends with the way out."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"{too_small(error)}; {way_out}.") from error


def too_small(error: BaseException) -> str:
    """The begin of a sentence about an error for which `is_out_of_memory`."""
    said = ". ".join(first_line(error).split(". ")[:2]).rstrip(".")  # what follows are numbers of the allocator
    return f"The memory is too small ({said})"


def clock(device: str) -> float:
    """Seconds, read once the device has done what it was given."""
    if device != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
