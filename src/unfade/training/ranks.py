"""One training in several processes, which torchrun starts: each takes its share of the micro-batches of every step.

Every process holds the whole model and makes the whole batch. Gradients are added up before each step, so that all take
the same step, that of a single process with the same batch and micro-batch. The first process writes.
"""

import atexit
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unfade.errors import BadInput

T = TypeVar("T")


class Ranks:
    """What one of the processes has to know of the others. A process that is alone has rank 0 of 1."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    def check(self, batch: int, micro_batch: int) -> None:
        """Raises BadInput where a batch has no micro-batch for each process."""
        if -(-batch // micro_batch) < self.count:
            raise BadInput(
                f"A `batch` of {batch} in parts of {micro_batch} leaves some of {self.count} processes without a part; "
                f"set `micro_batch` to {max(1, batch // self.count)} or less, or start fewer processes."
            )

    def own(self, parts: Sequence[T], otherwise: Callable[[], object]) -> Iterator[tuple[int, T]]:
        """This process's parts with their numbers; `otherwise` is called in place of each of the others'."""
        for number, part in enumerate(parts):
            if number % self.count == self.rank:
                yield number, part
            else:
                otherwise()

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give all processes the sum of their gradients. A parameter that has none in any process keeps none."""
        learning = [p for p in parameters if p.requires_grad]
        if self.count == 1 or not learning:
            return
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learning]
        there = torch.tensor([float(p.grad is not None) for p in learning], device=grads[0].device)
        flat = torch.cat([there, *(grad.reshape(-1).float() for grad in grads)])
        dist.all_reduce(flat)
        sums = torch.split(flat[len(learning) :], [p.numel() for p in learning])
        for parameter, has, total in zip(learning, flat[: len(learning)].tolist(), sums, strict=True):
            parameter.grad = total.view_as(parameter).to(parameter.dtype) if has else None

    def mean(self, values: Tensor) -> float:
        """The mean of a vector over all its elements in all processes."""
        if self.count == 1:
            return float(values.mean())
        both = torch.stack([values.double().sum(), torch.tensor(float(len(values)), device=values.device).double()])
        dist.all_reduce(both)
        return float(both[0] / both[1])

    def together(self, rows: list[T]) -> list[T]:
        """The rows of all processes."""
        if self.count == 1:
            return rows
        found: list[list[T]] = [[] for _ in range(self.count)]
        dist.all_gather_object(found, rows)
        return [row for some in found for row in some]

    def taken_up(self, rows: list[T]) -> list[T]:
        """Of rows that `together` has joined, those that this process goes on with. Waits until all have read them."""
        if self.count > 1:
            dist.barrier()
        return rows[self.rank :: self.count]


def joined(device: torch.device) -> Ranks:
    """This process as one of those that torchrun has started, or alone if it was started otherwise.

    The processes stay connected until they end: connecting again would find what is left of the first connection.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return Ranks()
    if not dist.is_initialized():
        on_gpu = device.type == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
        atexit.register(dist.destroy_process_group)
    return Ranks(dist.get_rank(), dist.get_world_size())
