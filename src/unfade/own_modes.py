"""torch's modes inside the library, whatever the program around it has chosen for itself."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

KINDS = ("cpu", "cuda", "mps", "xpu")  # of devices, each with an autocast of its own


@contextmanager
def own_modes() -> Iterator[None]:
    """Inside, torch's modes are those of a fresh process; at the end they are again those of the program around.

    Gradients are recorded, tensors are float32 and on the CPU unless said otherwise, and nothing is computed in lower
    precision unasked. So a call does the same in a notebook under `no_grad` or `inference_mode`, under an autocast, or
    with another default dtype or device. torch's global generator, from which new networks draw the weights that their
    files then replace, is put back too. Only what differs is set: the default dtype is that of all threads.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in filter(torch.is_autocast_enabled, KINDS):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if (before := torch.get_default_dtype()) != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, before)
        yield
