"""Worker processes: the same results as one, one writer, and nobody's death costs more than a picture."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from toy_degradations import Negative, Stillborn
from toy_stage import Killed, make_a_mess, negative, statuses
from toys import save_pictures
from unfade.errors import BadInput, DiskFull
from unfade.images.files import read_image, to_bytes
from unfade.images.finding import list_images
from unfade.jobs.journal import Counts, Entry, Journal
from unfade.jobs.runs import Run
from unfade.jobs.workers import Make, cores, one_thread, run_stage_on_cores
from unfade.progress import Advance

NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png"]


class Place:
    """A folder of photos and one of results; each `run` is a new process's."""

    def __init__(self, folder: Path) -> None:
        self.photos, self.out, self.told = folder / "photos", folder / "out", []

    def run(self, make: Make, workers: int = 2, **options: object) -> list[Entry]:
        run = Run(self.out, Journal(self.out / "journal.jsonl"), **options)
        return run_stage_on_cores(make, list_images(self.photos), run, tell=self.told.append, workers=workers)

    def written(self) -> dict[str, np.ndarray]:
        return {path.name: to_bytes(read_image(path)) for path in sorted(self.out.glob("*.png"))}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def negatives(*names: str) -> dict[str, np.ndarray]:
    return {name: negative(NAMES.index(name)) for name in names}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_folder_of_good_and_bad_files(place: Place, workers: int) -> None:
    expected = make_a_mess(place.photos) | {"oblong.png": "done"}  # nothing is brought to a size
    save_pictures(place.photos, ["good.bmp"], first_seed=8)
    (place.out).mkdir()
    (place.out / "tall.png").write_text("mine")
    entries = place.run(Negative(), workers)
    expected |= {"good.bmp": "done", "good.png": "failed", "tall.webp": "skipped"}
    assert statuses(entries) == expected
    assert [entry.item for entry in entries] == [path.name for path in list_images(place.photos)]
    counts = Counts.of(entries)
    assert counts.found == counts.done + counts.skipped + counts.failed == len(expected)
    assert np.array_equal(to_bytes(read_image(place.out / "good.png")), negative(8))
    assert (place.out / "tall.png").read_text() == "mine"
    assert sorted(place.told) == sorted(name for name, status in expected.items() if status == "done")


def test_a_second_run_does_nothing(place: Place) -> None:
    save_pictures(place.photos, NAMES)
    place.run(Negative())
    lines = (place.out / "journal.jsonl").read_bytes()
    assert statuses(place.run(Negative(trouble="die"))) == dict.fromkeys(NAMES, "done")
    assert (place.out / "journal.jsonl").read_bytes() == lines


def test_progress_adds_up(place: Place) -> None:
    save_pictures(place.photos, NAMES)
    (place.photos / "b.png").write_text("no picture")
    amounts: list[float] = []

    @contextmanager
    def progress(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        assert (label, total) == ("negative", 5)
        yield amounts.append

    place.run(Negative(trouble="die"), progress=progress)
    assert sum(amounts) == 5
    place.run(Negative(), progress=progress)
    assert sum(amounts) == 10
    assert 0 not in amounts


@pytest.mark.parametrize(("trouble", "code"), [("die", -9), ("leave", 5)])
def test_a_dead_worker_costs_one_picture(place: Place, trouble: str, code: int) -> None:
    save_pictures(place.photos, NAMES)
    entries = place.run(Negative(trouble=trouble))
    assert statuses(entries) == dict.fromkeys(NAMES, "done") | {"c.png": "failed"}
    said = f"{place.photos / 'c.png'}: the worker process ended with code {code} at this picture"
    assert entries[2].reason.startswith(said)
    assert same(place.written(), negatives("a.png", "b.png", "d.png", "e.png"))
    assert statuses(place.run(Negative())) == dict.fromkeys(NAMES, "done")
    assert same(place.written(), negatives(*NAMES))


def test_of_two_of_one_name_none_is_lost_when_the_first_dies(place: Place) -> None:
    save_pictures(place.photos, ["a.bmp", "a.png", "b.png"])
    entries = place.run(Negative(trouble="die", culprit="a.bmp"))
    assert statuses(entries) == {"a.bmp": "failed", "a.png": "failed", "b.png": "done"}
    assert "and a.bmp would both become" in entries[1].reason


def test_an_old_result_never_stands_for_one_that_died(place: Place) -> None:
    save_pictures(place.photos, ["c.png"])
    place.run(Negative())
    save_pictures(place.photos, ["c.png"], first_seed=5)
    assert statuses(place.run(Negative(trouble="die"))) == {"c.png": "failed"}
    assert place.written() == {}


def test_what_cannot_be_worked_on_fails_alone(place: Place) -> None:
    save_pictures(place.photos, NAMES)
    entries = place.run(Negative(trouble="refuse"))
    assert statuses(entries) == dict.fromkeys(NAMES, "done") | {"c.png": "failed"}
    assert entries[2].reason == "c.png: No."


def test_an_unforeseen_error_fails_alone_and_the_next_run_goes_on(place: Place) -> None:
    save_pictures(place.photos, NAMES)
    entries = place.run(Negative(trouble="fail"))
    assert statuses(entries) == dict.fromkeys(NAMES, "done") | {"c.png": "failed"}
    assert "failed with ZeroDivisionError: a bug (toy_degradations.py, line " in entries[2].reason
    assert statuses(place.run(Negative())) == dict.fromkeys(NAMES, "done")
    assert same(place.written(), negatives(*NAMES))


def test_workers_that_cannot_begin_end_the_run(place: Place) -> None:
    save_pictures(place.photos, NAMES)
    with pytest.raises(RuntimeError, match="ended with code 3 before it began"):
        place.run(Stillborn())


@pytest.mark.parametrize("error", [Killed, DiskFull("The disk is full.")])
@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_run_that_ends_at_any_line_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int
) -> None:
    save_pictures(place.photos, NAMES)
    record, left = Journal.record, at

    def ending(journal: Journal, entry: Entry) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise error
        record(journal, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "record", ending)
        with pytest.raises((Killed, DiskFull)):
            place.run(Negative())
    assert not multiprocessing.active_children()
    assert statuses(place.run(Negative())) == dict.fromkeys(NAMES, "done")
    assert same(place.written(), negatives(*NAMES))


def test_fewer_than_one_worker(place: Place) -> None:
    save_pictures(place.photos, NAMES)
    with pytest.raises(BadInput, match="1 worker process or more, got 0"):
        place.run(Negative(), 0)


def test_one_thread_and_then_as_before() -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    with one_thread():
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away here")
def test_cores_are_those_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    assert cores() == len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
