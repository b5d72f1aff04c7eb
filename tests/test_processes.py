"""Ctrl-C while processes start: it is not lost, and nobody is left behind."""

import multiprocessing
import signal
import sys
import threading
from multiprocessing.context import ForkProcess, ForkServerProcess
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from toy_degradations import Negative
from toys import save_pictures, toy_batches
from unfade.images.finding import list_images
from unfade.jobs.journal import Journal
from unfade.jobs.runs import Run
from unfade.jobs.workers import run_stage_on_cores
from unfade.processes import starting
from unfade.training.loader import feeding

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers start in another way")
METHODS = ("fork", "forkserver")


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_waits_until_processes_have_started(method: str) -> None:
    went_on = []

    def start() -> None:
        with starting(method):
            signal.raise_signal(signal.SIGINT)
            went_on.append(True)

    with pytest.raises(KeyboardInterrupt):
        start()
    assert went_on


def test_an_interrupt_is_more_than_the_error_that_it_causes() -> None:
    def start() -> None:
        with starting("fork"):
            signal.raise_signal(signal.SIGINT)
            raise EOFError

    with pytest.raises(KeyboardInterrupt):
        start()


@pytest.mark.parametrize("method", METHODS)
def test_all_is_as_before(method: str) -> None:
    def state() -> tuple[object, set[signal.Signals]]:
        return signal.getsignal(signal.SIGINT), set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    before = state()
    with starting(method):
        assert state() != before
    assert state() == before
    with pytest.raises(ZeroDivisionError), starting(method):
        raise ZeroDivisionError
    assert state() == before


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with starting("fork"):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_may_start_processes_too() -> None:
    ended = []

    def start() -> None:
        with starting("fork"):
            ended.append(True)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert ended


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_processes_start_with_interrupts_ignored() -> None:
    child = multiprocessing.get_context("fork").Process(target=signal.raise_signal, args=(signal.SIGINT,))
    with starting("fork"):
        child.start()
    child.join()
    assert child.exitcode == 0


def interrupt_at_start(monkeypatch: pytest.MonkeyPatch, process: type[BaseProcess]) -> None:
    def start(self: BaseProcess) -> None:
        BaseProcess.start(self)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(process, "start", start)


@pytest.mark.parametrize("method", METHODS)
def test_workers_of_a_training_end_when_they_have_hardly_begun(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at_start(monkeypatch, {"fork": ForkProcess, "forkserver": ForkServerProcess}[method])
    monkeypatch.setattr("unfade.training.loader.start_method", lambda: method)
    with pytest.raises(KeyboardInterrupt) as caught, feeding(toy_batches, range(9), workers=2) as feed:
        next(feed)
    assert not multiprocessing.active_children(), caught  # what was raised may be kept


def test_workers_of_a_stage_end_when_they_have_hardly_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pictures(tmp_path, ["a.png", "b.png"])
    interrupt_at_start(monkeypatch, ForkServerProcess)
    run, told = Run(tmp_path, Journal(tmp_path / "journal.jsonl")), []
    with pytest.raises(KeyboardInterrupt) as caught:
        run_stage_on_cores(Negative(), list_images(tmp_path), run, tell=told.append, workers=2)
    assert not multiprocessing.active_children(), caught
