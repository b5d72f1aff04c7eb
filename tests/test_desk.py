"""Work in the background: watched, stopped, waiting for its turn; one at a time for each owner."""

import threading
from functools import partial

import pytest

from unfade.app.desk import Background, Desk
from unfade.errors import BadInput
from unfade.progress import Progress


def test_work_is_watched_and_stopped_and_waits_for_its_turn() -> None:
    turn, begun, go_on = threading.Lock(), threading.Event(), threading.Event()

    def counting(progress: Progress) -> list[str]:
        with progress("counting", 3, start=1) as advance:
            advance(1)
            begun.set()
            assert go_on.wait(10)
            advance(1)
        return ["counted"]

    first = Background(counting, turn)
    assert begun.wait(10)
    second = Background(lambda progress: ["never"], turn)
    assert (first.stage, first.done, first.total, first.said) == ("counting", 2.0, 3, None)
    assert (second.stage, second.said) == ("waiting for other work", None)
    second.stop()
    second.wait()
    first.stop()
    go_on.set()
    first.wait()
    assert first.said == second.said == ["Stopped. What is finished is kept; begin again to resume."]
    third = Background(counting, turn)
    third.wait()
    assert third.said == ["counted"]


def failing(error: Exception) -> Background:
    def work(progress: Progress) -> list[str]:
        raise error

    background = Background(work, threading.Lock())
    background.wait()
    return background


def test_errors_of_work_become_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    crashed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", crashed.append)
    assert failing(BadInput("Expected a photo.")).said == ["Expected a photo."]
    assert crashed == []
    assert failing(KeyError("oops")).said == ["An error ended the work (KeyError: 'oops'); begin again to resume."]
    assert len(crashed) == 1, "a fault of the program is not hidden"


def test_an_owner_has_one_work_at_a_time_and_a_kind_is_done_once_at_a_time() -> None:
    desk, go_on, first, begun = Desk(), threading.Event(), threading.Event(), list[str]()

    def waiting(name: str, progress: Progress) -> list[str]:
        begun.append(name)
        first.set()
        assert go_on.wait(10)
        return [name]

    for owner, kind, name in (("me", "a", "1"), ("me", "b", "2"), ("you", "a", "3"), ("they", "b", "4")):
        desk.begin(owner, kind, partial(waiting, name))
        assert first.wait(10)
    mine, yours, theirs = (desk.of(owner) for owner in ("me", "you", "they"))
    assert mine is not None
    assert yours is not None
    assert theirs is not None
    assert desk.of("nobody") is None
    assert yours.lines == ["waiting for other work: 0 of 0"]
    go_on.set()
    for given in (mine, yours, theirs):
        given.wait()
    assert (begun[-1], {*begun}) == ("3", {"1", "3", "4"}), "what was asked of a busy owner is not done later either"
    desk.begin("me", "b", lambda progress: [])
    again = desk.of("me")
    assert again is not None
    assert again is not mine
    again.wait()
    assert (again.lines, mine.lines) == (["Done."], ["1"])
