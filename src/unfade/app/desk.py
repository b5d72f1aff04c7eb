"""Work in a thread of its own, which can be watched and stopped."""

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

from unfade.errors import UnfadeError
from unfade.progress import Advance, Progress


class Stopped(BaseException):
    """The work was stopped. No Exception: a stage would take that for one bad item, and go on."""


Work = Callable[[Progress], Sequence[str]]


class Background:
    """Work that is given a progress and returns what to say at its end; begun again, stopped work is resumed."""

    def __init__(self, work: Work, turn: threading.Lock) -> None:
        """Begin as soon as no other work holds `turn`."""
        self.stage, self.done, self.total = "waiting for other work", 0.0, 0
        self.said: Sequence[str] | None = None  # at the end: by the work, or about its error; None until then
        self._work, self._turn, self._stop = work, turn, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        """How far the work is, or what there is to say at its end."""
        if self.said is None:
            return [f"{self.stage}: {self.done:.0f} of {self.total}"]
        return [*self.said] or ["Done."]

    def stop(self) -> None:
        """End the work after the present item."""
        self._stop.set()

    def wait(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._turn.acquire(timeout=0.2):
                self._check()
            try:
                self.said = self._work(self._progress)
            finally:
                self._turn.release()
        except Stopped:
            self.said = ["Stopped. What is finished is kept; begin again to resume."]
        except UnfadeError as error:
            self.said = [str(error)]
        except BaseException as error:
            self.said = [f"An error ended the work ({type(error).__name__}: {error}); begin again to resume."]
            raise

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    @contextmanager
    def _progress(self, label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        self.stage, self.done, self.total = label, float(start), total

        def advance(amount: float) -> None:
            self._check()
            self.done += amount

        self._check()
        yield advance


class Desk:
    """Work for several owners: one at a time for each of them, and one of a kind at a time for all."""

    def __init__(self) -> None:
        self._turns: dict[Hashable, threading.Lock] = defaultdict(threading.Lock)
        self._given: dict[Hashable, Background] = {}

    def begin(self, owner: Hashable, kind: Hashable, work: Work) -> None:
        """Begin work for an owner, unless that of before has not ended yet."""
        before = self.of(owner)
        if before is None or before.said is not None:
            self._given[owner] = Background(work, self._turns[kind])

    def of(self, owner: Hashable) -> Background | None:
        """What was begun last for an owner, if anything was."""
        return self._given.get(owner)
