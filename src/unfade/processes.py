"""Which of several processes speaks for all, what libraries print meanwhile, and Ctrl-C while workers start."""

import multiprocessing.resource_tracker
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


def leads() -> bool:
    """Whether this process writes and prints: the first of those that torchrun has started, or any other process."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


@contextmanager
def unheard() -> Iterator[None]:
    """Nothing that is written to standard error inside is seen, not even by libraries in C++."""
    before = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextmanager
def starting(method: str) -> Iterator[None]:
    """Inside, where processes are started by this method of multiprocessing, Ctrl-C waits; it is raised at the end.

    Raised at once it could be lost, since right after a fork Python runs code that cannot raise anything, and a
    process that is not on record yet could stay behind. The processes start with the signal blocked: Ctrl-C reaches
    them too, and one that died of it would be taken for one that ran out of memory. They ignore it from then on.
    """
    came: list[FrameType | None] = []
    before = signal.getsignal(signal.SIGINT)
    # only the main thread may set a handler, and only there is anything raised
    main = callable(before) and threading.current_thread() is threading.main_thread()
    if main:
        signal.signal(signal.SIGINT, lambda number, frame: came.append(frame))
    try:
        with _sigint_blocked(method):
            yield
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(signal.SIGINT, came[0])


@contextmanager
def _sigint_blocked(method: str) -> Iterator[None]:
    """Block SIGINT, which child processes inherit. This process may still get it, through another of its threads."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    if method != "fork":  # it is started in passing, and then SIGINT is not blocked any more
        multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
