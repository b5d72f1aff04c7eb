"""A stage on several cores, for pictures that are independent of each other.

Each worker process runs `run_stage` on one picture at a time and reads and writes the files itself, so no pixels pass
between processes. It sends its journal entries to the process that started it, and waits until they are on disk. So
there is one writer, and killing a run with workers leaves the same state as killing one without.
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
from unfade.jobs.runs import Run
from unfade.processes import starting
from unfade.progress import Advance

PATIENCE = 10.0  # seconds that a worker has to finish its picture when the run ends early

Tell = Callable[[Any], None]  # passes a line to the process that keeps it, and returns when it is stored
Make = Callable[[Tell], Stage]  # makes the stage anew in each process; the function is pickled, the stage is not


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_context(*modules: str) -> BaseContext:
    """How worker processes start: from a fork server, which imports these modules once for all of them.

    A plain fork would copy the locks of other threads. Systems without fork servers start each process from scratch.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*modules])
    return context


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits OpenCV and torch to one thread: the other cores have workers, and sums do not depend on thread counts."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def run_stage_on_cores(make: Make, sources: Iterable[Path], run: Run, *, tell: Tell, workers: int = 1) -> list[Entry]:
    """`run_stage` for the stage that `make` makes, on several worker processes, with the same results as on one.

    `tell` receives what the stage reports on its pictures; like the journal, it is called in this process only. A
    picture whose worker dies fails alone. Raises BadInput for fewer than one worker.
    """
    if workers < 1:
        raise BadInput(f"Expected 1 worker process or more, got {workers}; leave it out to use every core.")
    paths = list(sources)
    if workers == 1:
        with one_thread():
            return run_stage(make(tell), paths, run)
    name = make(tell).name
    with run.progress(name, len(paths)) as advance:
        _Foreman(make, name, paths, run, tell, advance).work(workers)
    return Outputs(name, run).entries(path.name for path in paths)


@dataclass(eq=False)
class _Worker:
    """A worker process, as seen by the process that started it."""

    process: BaseProcess
    connection: Connection
    task: list[Path] | None = None  # the pictures it is working on; None before its first

    def finished(self, name: str) -> None:
        self.task = [path for path in self.task or [] if path.name != name]

    def dismiss(self, until: float) -> int | None:
        """Ends the process by that time and returns its exit code; one that waits for an answer ends at once."""
        try:
            self.connection.close()
            self.process.join(max(0.0, until - time.monotonic()))
        finally:  # a second Ctrl-C ends the wait
            if self.process.exitcode is None:
                self.process.kill()
                self.process.join()
        code = self.process.exitcode
        self.process.close()
        return code


class _Foreman:
    """Hands out the pictures, writes every line, and notices workers that die."""

    def __init__(self, make: Make, stage: str, paths: Sequence[Path], run: Run, tell: Tell, advance: Advance):
        self.make, self.stage, self.run, self.advance = make, stage, run, advance
        self.waiting = deque(_by_stem(paths))
        self.crew: dict[Any, _Worker] = {}
        self.context = worker_context("__main__", __name__, type(make).__module__)
        self.answers: dict[str, Callable[[_Worker, Any], object]] = {
            "next": self._next,
            "record": self._record,
            "tell": lambda worker, line: tell(line),
            "raised": self._raise,
        }

    def work(self, workers: int) -> None:
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
            process = self.context.Process(target=_work, args=(self.make, self.run.folder, theirs), daemon=True)  # type: ignore[attr-defined]
            process.start()
            theirs.close()  # so that the end of the worker is the end of the connection
            self.crew[ours] = _Worker(process, ours)

    def _dismiss(self) -> None:
        """Ends all workers. All are notified before any is waited for, and none is left, whatever is raised."""
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
        with suppress(OSError):  # the worker is dead, which the main loop notices next
            worker.connection.send(answer)

    def _next(self, worker: _Worker, _: object) -> object:
        """The next paths and their existing entries; None when there is nothing left to do."""
        if worker.task:
            self.advance(len(worker.task))  # they were done before, so no entry was recorded for them
        worker.task = self.waiting.popleft() if self.waiting else []
        entries = [self.run.journal.entry(self.stage, path.name) for path in worker.task]
        return (worker.task, [entry for entry in entries if entry is not None]) if worker.task else None

    def _record(self, worker: _Worker, entry: Entry) -> None:
        self.run.journal.record(entry)
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
            f"{path}: the worker process ended with code {code} at this picture, perhaps for lack of memory; run again "
            "with fewer workers."
        )
        Outputs(self.stage, self.run).failed(path.name, path, error)
        self.advance(1)


class _Reporter(Journal):
    """The journal in a worker: knows the entries that it was given, and sends new ones to the main process."""

    def __init__(self, connection: Any, entries: Iterable[Entry]):
        self._connection = connection
        self._entries = {(entry.stage, entry.item): entry for entry in entries}

    def _write(self, entry: Entry) -> None:
        _ask(self._connection, "record", entry)


class _Alone(BaseException):
    """The main process has ended the run and no longer answers."""


def _work(make: Make, out: Path, connection: Any) -> None:
    """The main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; workers are ended over the connection
    with suppress(_Alone), one_thread():
        try:
            stage = make(partial(_ask, connection, "tell"))
            while task := _ask(connection, "next"):
                run_stage(stage, task[0], Run(out, _Reporter(connection, task[1])))
        except Exception as error:
            _ask(connection, "raised", error if isinstance(error, UnfadeError) else as_text(error))


def _ask(connection: Any, request: str, argument: object = None) -> Any:
    try:
        connection.send((request, argument))
        return connection.recv()
    except (EOFError, OSError) as error:
        raise _Alone from error


def as_text(error: Exception) -> RuntimeError:
    """An unforeseen exception of a worker process as one that can be pickled, whatever it holds."""
    return RuntimeError(f"In a worker process:\n{''.join(traceback.format_exception(error))}")


def _by_stem(paths: Iterable[Path]) -> list[list[Path]]:
    """Groups of files that would get the same output name: their order decides which of them gets it."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.stem, []).append(path)
    return list(groups.values())
