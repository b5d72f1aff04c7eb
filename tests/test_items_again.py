"""Run again: nothing is done twice, nothing of others is overwritten, and a killed run goes on."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from toy_stage import Killed, Place, Work, negative, spoil, statuses
from toys import save_pictures
from unfade.errors import BadInput, DiskFull
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.run_stage import Item
from unfade.progress import Advance


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_second_run_does_nothing(place: Place) -> None:
    save_pictures(place.photos, ["a.png", "b.png"])
    first = place.run(Work())
    times = [path.stat().st_mtime_ns for path in place.out.iterdir()]
    work = Work()
    assert place.run(work) == first
    assert work.given == []
    assert [path.stat().st_mtime_ns for path in place.out.iterdir()] == times


def test_changed_content_is_done_again(place: Place) -> None:
    save_pictures(place.photos, ["a.png", "b.png"])
    place.run(Work())
    save_pictures(place.photos, ["b.png"], first_seed=7)
    work = Work()
    assert statuses(place.run(work)) == {"a.png": "done", "b.png": "done"}
    assert work.names == ["b.png"]
    assert np.array_equal(place.output("b.png"), negative(7))


def test_another_key_is_done_again_and_a_missing_output_too(place: Place) -> None:
    save_pictures(place.photos, ["a.png", "b.png"])
    place.run(Work(), key="one")
    work = Work()
    place.run(work, key="other")
    assert work.names == ["a.png", "b.png"]
    (place.out / "a.png").unlink()
    place.run(work, key="other")
    assert work.names == ["a.png", "b.png", "a.png"]


def test_a_new_picture_is_added(place: Place) -> None:
    save_pictures(place.photos, ["a.png"])
    place.run(Work())
    save_pictures(place.photos, ["b.png"])
    work = Work()
    assert statuses(place.run(work)) == {"a.png": "done", "b.png": "done"}
    assert work.names == ["b.png"]


@pytest.mark.parametrize("how", ["input", "work", "values"])
def test_an_old_result_never_stands_for_one_that_failed(place: Place, how: str) -> None:
    def refuse(items: list[Item], advance: Advance) -> Tensor:
        raise BadInput("No.")

    works = {
        "input": Work(),
        "work": refuse,
        "values": lambda items, advance: torch.full((len(items), 3, 16, 16), torch.nan),
    }
    save_pictures(place.photos, ["a.png"])
    place.run(Work())
    spoil(place.photos / "a.png") if how == "input" else save_pictures(place.photos, ["a.png"], first_seed=5)
    assert statuses(place.run(works[how])) == {"a.png": "failed"}
    assert place.written() == []
    save_pictures(place.photos, ["a.png"], first_seed=6)
    assert statuses(place.run(Work())) == {"a.png": "done"}
    assert np.array_equal(place.output("a.png"), negative(6))


# Nothing of others is overwritten


def test_a_file_of_somebody_else_is_left_alone(place: Place) -> None:
    save_pictures(place.photos, ["a.png", "b.png"])
    place.out.mkdir()
    (place.out / "a.png").write_text("mine")
    work = Work()
    for _ in range(2):
        entries = place.run(work)
        assert statuses(entries) == {"a.png": "skipped", "b.png": "done"}
        assert entries[0].reason.startswith(f"{place.out / 'a.png'} is there already and was not made from ")
        assert (place.out / "a.png").read_text() == "mine"
    assert work.names == ["b.png"]
    (place.out / "a.png").unlink()
    assert statuses(place.run(work)) == {"a.png": "done", "b.png": "done"}


def test_a_folder_of_the_results_name_is_left_alone(place: Place) -> None:
    save_pictures(place.photos, ["a.png"])
    (place.out / "a.png").mkdir(parents=True)
    assert statuses(place.run(Work())) == {"a.png": "skipped"}


def test_the_second_of_two_of_the_same_stem_fails_by_name(place: Place) -> None:
    save_pictures(place.photos, ["a.bmp", "a.png", "b.png"])
    for _ in range(2):
        entries = place.run(Work(), batch=1)
        assert statuses(entries) == {"a.bmp": "done", "a.png": "failed", "b.png": "done"}
        photo = place.photos / "a.png"
        assert entries[1].reason == f"{photo} and a.bmp would both become a.png; rename one of the two."
    assert np.array_equal(place.output("a.png"), negative(0))


def test_a_newcomer_of_the_same_stem_does_not_take_over(place: Place) -> None:
    save_pictures(place.photos, ["a.png"])
    first = place.run(Work())
    save_pictures(place.photos, ["a.bmp"], first_seed=5)
    work = Work()
    entries = place.run(work)
    assert statuses(entries) == {"a.bmp": "skipped", "a.png": "done"}
    assert entries[1:] == first
    assert work.names == []
    assert np.array_equal(place.output("a.png"), negative(0))


# Killed and run again


def test_a_kill_between_the_picture_and_its_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pictures(place.photos, ["a.png"])
    record = Journal.record

    def killing(journal: Journal, entry: Entry) -> None:
        if entry.status == "done":
            raise Killed
        record(journal, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", killing)
        with pytest.raises(Killed):
            place.run(Work())
    assert place.written() == ["a.png"]
    assert place.journal.entry("negative", "a.png").status == "begun"
    assert statuses(place.run(Work())) == {"a.png": "done"}


@pytest.mark.parametrize("full", ["picture", "journal"])
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    save_pictures(place.photos, ["a.png", "b.png", "c.png"])
    spoil(place.photos / "b.png")
    real, left = os.fsync, 4 if full == "picture" else 3  # begun, picture, done; failed; begun, picture, done

    def no_room(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == -1:  # once: the run must not go on as if one picture had failed
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        with pytest.raises(DiskFull, match="free some space"):
            place.run(Work(), batch=1)
    assert place.written() == ["a.png"]
    work = Work()
    assert statuses(place.run(work, batch=1)) == {"a.png": "done", "b.png": "failed", "c.png": "done"}
    assert work.names == ["c.png"]


@pytest.mark.parametrize("status", ["begun", "skipped", "failed"])
def test_no_room_for_a_line_is_not_the_pictures_fault(
    place: Place, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    save_pictures(place.photos, ["a.png"])
    if status == "failed":
        spoil(place.photos / "a.png")
    if status == "skipped":
        place.out.mkdir()
        (place.out / "a.png").write_text("mine")
    record = Journal.record

    def no_room(journal: Journal, entry: Entry) -> None:
        if entry.status == status:
            raise DiskFull("The disk is full.")
        record(journal, entry)

    monkeypatch.setattr(Journal, "record", no_room)
    with pytest.raises(DiskFull):
        place.run(Work())
    assert place.journal.stage("negative") == []


def test_batches_are_the_same_after_a_restart(place: Place) -> None:
    """What is left of a batch is worked on beside the pictures that were there the first time."""
    save_pictures(place.photos, ["a.png", "b.png", "c.png", "d.png", "e.png"])
    seen: list[list[str]] = []

    def work(items: list[Item], advance: Advance) -> Tensor:
        seen.append([item.name for item in items])
        return torch.stack([-item.pixels for item in items])

    place.run(work, batch=2)
    untouched = (place.out / "c.png").stat().st_mtime_ns
    (place.out / "d.png").unlink()
    entries = place.run(work, batch=2)
    assert seen == [["a.png", "b.png"], ["c.png", "d.png"], ["e.png"], ["c.png", "d.png"]]
    assert [entry.status for entry in entries] == ["done"] * 5
    assert (place.out / "c.png").stat().st_mtime_ns == untouched
