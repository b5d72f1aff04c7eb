"""A stage on several cores, for pictures that have nothing to do with each other.

Each worker process runs `run_stage` on one picture at a time, and reads and writes the pictures itself: no pixel
travels. What it has for the journal it hands to the process that started it, and waits until that is on the disk. So
there is one writer, and a run with workers that is killed is in the same state as one without.
"""

import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import torch

from unfade.errors import BadInput, UnfadeError
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.outputs import Outputs
from unfade.jobs.run_stage import Stage, run_stage
from unfade.processes import starting
from unfade.progress import Advance, Progress, silent

PATIENCE = 10.0  # seconds that a worker has to finish its picture when the run ends early

Tell = Callable[[Any], None]  # hands a line to whoever keeps it, and returns when it is kept
Make = Callable[[Tell], Stage]  # makes the stage, in each process anew; it is pickled, its stage is not


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV and torch keep to one core: the others have workers, and no sum depends on how many threads share it."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def run_stage_on_cores(
    make: Make,
    sources: Iterable[Path],
    out: Path,
    journal: Journal,
    *,
    tell: Tell,
    workers: int = 1,
    progress: Progress = silent,
) -> list[Entry]:
    """`run_stage` of the stage that `make` makes, by so many worker processes; the results are those of one.

    `tell` takes what the stage has to tell of its pictures; it is called in this process only, as the journal is. A
    picture whose worker dies fails alone. Raises BadInput for no worker.
    """
    if workers < 1:
        raise BadInput(f"Expected 1 worker process or more, got {workers}; leave it out to use every core.")
    paths = list(sources)
    if workers == 1:
        with one_thread():
            return run_stage(make(tell), paths, out, journal, progress=progress)
    name = make(tell).name
    with progress(name, len(paths)) as advance:
        _Foreman(make, name, paths, out, journal, tell, advance).run(workers)
    entries = [journal.entry(name, path.name) for path in paths]
    return [entry for entry in entries if entry is not None]


@dataclass(eq=False)
class _Worker:
    """A worker process, as the process that started it sees it."""

    process: BaseProcess
    connection: Connection
    task: list[Path] | None = None  # what it is on; None before its first

    def finished(self, name: str) -> None:
        self.task = [path for path in self.task or [] if path.name != name]

    def dismiss(self, until: float) -> int | None:
        """Its exit code, at that time at the latest; one that waits for an answer ends at once."""
        try:
            self.connection.close()
            self.process.join(max(0.0, until - time.monotonic()))
        finally:  # Ctrl-C once more ends the patience
            if self.process.exitcode is None:
                self.process.kill()
                self.process.join()
        code = self.process.exitcode
        self.process.close()
        return code


class _Foreman:
    """Hands out the pictures, writes every line, and notices who dies."""

    def __init__(
        self, make: Make, stage: str, paths: Sequence[Path], out: Path, journal: Journal, tell: Tell, advance: Advance
    ):
        self.make, self.stage, self.out, self.journal, self.advance = make, stage, out, journal, advance
        self.waiting = deque(_by_stem(paths))
        self.crew: dict[Any, _Worker] = {}
        self.context = _context(make)
        self.answers: dict[str, Callable[[_Worker, Any], object]] = {
            "next": self._next,
            "record": self._record,
            "tell": lambda worker, line: tell(line),
            "raised": self._raise,
        }

    def run(self, workers: int) -> None:
        try:
            for _ in range(min(workers, len(self.waiting))):
                self._hire()
            while self.crew:
                for connection in wait(list(self.crew)):
                    self._hear(self.crew[connection])
        finally:
            self._dismiss()

    def _hire(self) -> None:
        with starting(self.context.get_start_method()):
            ours, theirs = self.context.Pipe()
            process = self.context.Process(target=_work, args=(self.make, self.out, theirs), daemon=True)  # type: ignore[attr-defined]
            process.start()
            theirs.close()  # so that the end of the worker is the end of the connection
            self.crew[ours] = _Worker(process, ours)

    def _dismiss(self) -> None:
        """All workers learn of the end before any of them is waited for, and none is left, whatever is raised."""
        until = time.monotonic() + PATIENCE
        with ExitStack() as stack:
            for worker in self.crew.values():
                stack.callback(worker.dismiss, until)
                worker.connection.close()

    def _hear(self, worker: _Worker) -> None:
        try:
            request, argument = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        answer = self.answers[request](worker, argument)
        with suppress(OSError):  # it is dead: the next thing heard of it is its end
            worker.connection.send(answer)

    def _next(self, worker: _Worker, _: object) -> object:
        """Paths and the entries they have; None when there is nothing left to do."""
        if worker.task:
            self.advance(len(worker.task))  # they were done before and needed no line
        worker.task = self.waiting.popleft() if self.waiting else []
        entries = [self.journal.entry(self.stage, path.name) for path in worker.task]
        return (worker.task, [entry for entry in entries if entry is not None]) if worker.task else None

    def _record(self, worker: _Worker, entry: Entry) -> None:
        self.journal.record(entry)
        if entry.status not in ("begun", "withdrawn"):
            worker.finished(entry.item)
            self.advance(1)

    def _raise(self, worker: _Worker, error: Exception) -> None:
        raise error

    def _bury(self, worker: _Worker) -> None:
        del self.crew[worker.connection]
        code = worker.dismiss(time.monotonic() + PATIENCE)
        if worker.task is None:
            raise RuntimeError(f"A worker process ended with code {code} before it began; use one worker to see why.")
        for path in worker.task:
            self._fail(path, code)
        if self.waiting:
            self._hire()

    def _fail(self, path: Path, code: int | None) -> None:
        error = BadInput(
            f"{path}: the worker process ended with code {code} while it was on this picture, perhaps for want of "
            "memory; run again with fewer workers."
        )
        Outputs(self.stage, self.out, self.journal).failed(path.name, path, error)
        self.advance(1)


class _Reporter(Journal):
    """The journal as a worker has it: knows the entries it was given, and hands on its own."""

    def __init__(self, connection: Any, entries: Iterable[Entry]):
        self._connection = connection
        self._entries = {(entry.stage, entry.item): entry for entry in entries}

    def _write(self, entry: Entry) -> None:
        _ask(self._connection, "record", entry)


class _Alone(BaseException):
    """The run was ended, and answers no more questions."""


def _work(make: Make, out: Path, connection: Any) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches everyone; the end comes over the connection
    with suppress(_Alone), one_thread():
        try:
            stage = make(partial(_ask, connection, "tell"))
            while task := _ask(connection, "next"):
                run_stage(stage, task[0], out, _Reporter(connection, task[1]))
        except Exception as error:
            _ask(connection, "raised", error if isinstance(error, UnfadeError) else _as_text(error))


def _ask(connection: Any, request: str, argument: object = None) -> Any:
    try:
        connection.send((request, argument))
        return connection.recv()
    except (EOFError, OSError) as error:
        raise _Alone from error


def _as_text(error: Exception) -> RuntimeError:
    """An exception that can be sent, whatever it holds."""
    return RuntimeError(f"In a worker process:\n{''.join(traceback.format_exception(error))}")


def _by_stem(paths: Iterable[Path]) -> list[list[Path]]:
    """Files that would get the same name stay together: which of them gets it depends on their order."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.stem, []).append(path)
    return list(groups.values())


def _context(make: Make) -> BaseContext:
    """Not fork, which copies the locks of other threads; a fork server imports what is needed once for all workers."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, type(make).__module__])
    return context
