"""Batches prepared ahead of the training loop by worker processes or a thread, identical bit for bit.

A batch is a function of its step number, so nothing depends on which worker makes it, on the number of workers, or on
where a killed run continues.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, TypeVar

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unfade.errors import BadInput, UnfadeError
from unfade.jobs.workers import cores
from unfade.processes import starting

T = TypeVar("T")
Batch = tuple[Tensor, ...]
Batches = Callable[[int], Batch]

MOST_WORKERS = 8  # more would take memory and hardly help: one degrades hundreds of faces of 128 px a second
AHEAD = 2  # batches that each worker prepares in advance
DYING = 10  # seconds in which a worker whose connection broke turns out to have ended


@dataclass
class Clock:
    """How long a loop waited for its data, and how long it took in total."""

    waiting: float = 0.0  # seconds
    total: float = 0.0  # seconds

    @property
    def share(self) -> float:
        """The share of the time spent waiting, 0..1."""
        return self.waiting / self.total if self.total else 0.0


def watched(feed: Iterator[Batch], clock: Clock) -> Iterator[Batch]:
    """Pass batches on and add to `clock`, from the second batch on, as the first waits for the workers to start.

    Nothing here waits for the device. On a GPU, which may still be busy while the loop waits, the share is an upper
    bound of the time that it was idle for lack of data.
    """
    asked = None
    for batch in feed:
        got = time.perf_counter()
        if asked is not None:
            clock.waiting += got - asked
            clock.total += got - asked
        yield batch
        asked = time.perf_counter()
        clock.total += asked - got


@contextmanager
def feeding(
    batches: Batches, steps: range, *, workers: int = 0, device: torch.device | str = "cpu"
) -> Iterator[Iterator[Batch]]:
    """Inside, an iterator over `batches(step)` for each step, in order; for CUDA in pinned memory.

    `batches` is called by the worker processes. Where they are not forked (see `start_method`) it is pickled, and a
    script that trains must keep its work below `if __name__ == "__main__":`. With 0 workers, a thread calls it. An
    error of `batches` is raised when its step is due. Raises UnfadeError as soon as a worker is killed. No process is
    left behind, however the context is left.
    """
    if workers < 0:
        raise BadInput(f"Expected 0 or more workers, got {workers}; 0 prepares batches in a thread.")
    make = _from_processes if workers else _from_a_thread
    pin = torch.device(device).type == "cuda"
    try:
        with closing(make(batches, steps, workers, pin) if steps else _nothing()) as feed:
            yield feed
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise _ended(str(error).strip().rstrip(".")) from error


def brought(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device; a CUDA device takes it over from pinned memory while the loop goes on.

    Elsewhere the loop waits for the copy: MPS may read memory that has been freed meanwhile (pytorch/pytorch#189690).
    """
    return tuple(tensor.to(device, non_blocking=device.type == "cuda") for tensor in batch)


def _ended(how: str) -> UnfadeError:
    return UnfadeError(
        f"A process that prepares batches has ended ({how}), as when memory runs out; "
        "run again to go on from the last checkpoint, with fewer `workers` or none (0)."
    )


def spare_workers() -> int:
    """The number of cores that this process may use, minus one for the training itself; at most MOST_WORKERS."""
    return min(cores() - 1, MOST_WORKERS)


def start_method() -> str:
    """How worker processes are started, by multiprocessing's name.

    A fork starts at once and shares the decoded pictures in memory. Once CUDA is initialized it must not be used: the
    child lacks the driver's threads but inherits its locks, and hangs or fails. macOS' own libraries have the same
    problem, and Windows has no fork.
    """
    if sys.platform != "linux":
        return "spawn"
    return "forkserver" if torch.cuda.is_initialized() else "fork"  # type: ignore[no-untyped-call]


def _nothing() -> Generator[Batch, None, None]:
    yield from ()


def _from_a_thread(batches: Batches, steps: range, workers: int, pin: bool) -> Generator[Batch, None, None]:
    def make(step: int) -> Batch:
        return tuple(tensor.pin_memory() if pin else tensor for tensor in batches(step))

    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(make, steps[0])
        for step in steps:
            batch = following.result()
            if step != steps[-1]:
                following = thread.submit(make, step + steps.step)
            yield batch


def _from_processes(batches: Batches, steps: range, workers: int, pin: bool) -> Generator[Batch, None, None]:
    method, made = start_method(), None
    try:
        with _quiet_start(), starting(method):
            loader = DataLoader(
                _Steps(batches),
                batch_size=None,
                sampler=steps,
                num_workers=min(workers, len(steps)),
                prefetch_factor=AHEAD,
                pin_memory=pin,
                collate_fn=_as_it_is,
                worker_init_fn=_begin_worker,
                multiprocessing_context=method,
                generator=torch.Generator(),  # else it would draw from torch's global generator
            )
            made = iter(loader)
        for batch in _received(made):
            if isinstance(batch, UnfadeError):
                raise batch
            yield tuple(batch)
    finally:  # left to the garbage collector, workers would live as long as the traceback of an error
        if made is not None:
            _end(made)


def _received(made: Any) -> Iterator[Any]:
    """What the workers send. A worker that is killed while a batch is fetched from it breaks the connection first."""
    while True:
        try:
            batch = next(made)
        except StopIteration:
            return
        except (OSError, EOFError) as error:
            if wait([worker.sentinel for worker in made._workers], timeout=DYING):
                raise _ended("killed while it passed a batch on") from error
            raise
        yield batch


def _end(made: Any) -> None:
    try:
        made._shutdown_workers()
    finally:  # after a second Ctrl-C, or for a worker that does not react
        for worker in made._workers:
            if worker.is_alive():
                worker.kill()
                worker.join()


class _Steps(Dataset[Batch | UnfadeError]):
    """Batches by step number, made in a worker."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __getitem__(self, step: int) -> Batch | UnfadeError:
        try:
            return tuple(_shared(tensor) for tensor in self.batches(step))
        except UnfadeError as error:  # returned, not raised, as torch would put a traceback into its message
            return error


def _shared(tensor: Tensor) -> Tensor:
    """A tensor in shared memory, for the training process. In the queue's own thread, a failure would hang."""
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise UnfadeError(
            f"There is no room for batches in shared memory ({error}); use fewer `workers` or none (0), "
            "or give the container more shared memory."
        ) from error
    return tensor


def _as_it_is(batch: T) -> T:
    return batch


def _begin_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the training process ends its workers
    sys.excepthook = _say_no_more
    threading.Thread(target=_end_with_training, daemon=True).start()
    torch.set_num_threads(1)  # there are as many workers as cores already
    cv2.setNumThreads(1)


def _say_no_more(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Silences the queue's thread, which would print an error if Ctrl-C comes while it passes a batch on."""
    if not isinstance(error, ConnectionError):
        sys.__excepthook__(kind, error, trace)


def _end_with_training() -> None:
    """Ends a worker with the training process, even if that is killed; torch watches only the fork server."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Inside, OpenCV has no threads, as a forked child would wait for them forever, and two warnings are off.

    More workers than cores are what the caller asked for, and other threads at a fork do no harm: a worker takes none
    of the locks that those of this process (progress, OpenMP) may hold.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            yield
    finally:
        cv2.setNumThreads(threads)
