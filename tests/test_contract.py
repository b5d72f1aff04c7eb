"""What every stage that works item by item promises: one test of each promise, run for all stages."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

import clips
from marked import SIZE, Dimmer, finder, save, scene
from networks import tiny_prior
from toys import ToyRestorer, save_pictures
from unfade.atomic import is_temporary
from unfade.datasets.data_sets import PrepareSettings
from unfade.datasets.prepare import prepare
from unfade.errors import OutputConflict
from unfade.images.finding import Found, find_photos, list_images
from unfade.jobs.journal import Counts, Entry, Journal
from unfade.jobs.runs import LOCK, Run, open_run
from unfade.stages import photos
from unfade.stages.crop import crop_photos
from unfade.stages.degrade import blind_degradation, degrade_faces
from unfade.stages.restore import restore_faces
from unfade.stages.restore_photos import PhotoSettings, restore_photos
from unfade.stages.targets import TargetSettings, make_targets

NAMES = "abcd"
MARKS = (((20, 15, 24),), ((5, 8, 20), (50, 20, 24)))
QUICK = TargetSettings(spacing="20", start=2, free_from=1, factor=4, batch=2)


@dataclass(frozen=True)
class Case:
    """A stage, and what the tests must know of it."""

    run: Callable[[Path, Run], list[Entry]]  # from a folder of sources
    write: Callable[[Path, int], object]  # a source of some seed
    suffix: str = ".png"  # of sources
    output: str = "b.png"  # that b becomes
    own: str = ""  # a file that belongs to the run as a whole
    lines_first: bool = False  # whether that has a line of each result before it is there
    every: int = 1  # only every so many moments are tried, where a run is slow


def face(path: Path, seed: int) -> None:
    save_pictures(path.parent, [path.name], size=32, first_seed=seed)


def photo(path: Path, seed: int) -> None:
    save(path, scene(*MARKS[seed % 2], seed=seed))


def found_in(folder: Path) -> Found:
    return find_photos(folder)


CASES = {
    "crop": Case(
        lambda sources, run: crop_photos(found_in(sources), run, finder(), size=SIZE),
        photo, output="b_01.png", own="faces.jsonl", lines_first=True,
    ),
    "targets": Case(
        lambda sources, run: make_targets(
            list_images(sources), run, ToyRestorer(32).eval(), tiny_prior(QUICK.spacing), settings=QUICK
        ),
        face, every=3,
    ),
    "degrade": Case(
        lambda sources, run: degrade_faces(list_images(sources), run, blind_degradation()),
        face, own="degradation.jsonl", lines_first=True,
    ),
    "prepare": Case(
        lambda sources, run: prepare(
            "folder", sources, run.folder, settings=PrepareSettings(size=32), workers=2
        ).entries,
        face, own="manifest.jsonl",
    ),
    "restore_faces": Case(
        lambda sources, run: restore_faces(list_images(sources), run, ToyRestorer(32).eval(), batch=3),
        face,
    ),
    "restore_photos": Case(
        lambda sources, run: restore_photos(
            found_in(sources), run, Dimmer(), finder(), PhotoSettings(sidecar=True)
        ),
        photo, output="b.png.json",
    ),
}  # fmt: skip


def restore_clips(sources: Path, run: Run) -> list[Entry]:
    from unfade.stages.video import restore_videos

    found = Found(sources, tuple(sorted(Path(path.name) for path in sources.iterdir())))
    return restore_videos(found, run, clips.Brighter(), clips.square_finder)


if find_spec("av"):
    CASES["restore_videos"] = Case(
        restore_clips, lambda path, seed: clips.make_clip(path, 2 + seed, codec="mpeg4"), ".avi", "b.avi", every=4
    )


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class Place:
    """A case with a folder of sources, which runs may share, and one of results; each `run` is a new process's."""

    case: Case
    sources: Path
    out: Path

    def run(self) -> list[Entry]:
        if self.case.run is CASES["prepare"].run:  # opens its run itself
            return self.case.run(self.sources, Run(self.out, Journal(self.out / "none")))
        with open_run(self.out, {"case": 1}, inputs=[self.sources]) as run:
            return self.case.run(self.sources, run)

    def source(self, name: str) -> Path:
        return self.sources / f"{name}{self.case.suffix}"

    def contents(self) -> dict[str, bytes]:
        """All but what tells of times and places; a folder that is not there is empty."""
        told = ("journal.jsonl", "run.json", LOCK)
        files = (path for path in self.out.rglob("*") if path.is_file() and path.name not in told)
        return {path.relative_to(self.out).as_posix(): path.read_bytes() for path in files}

    def times(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in self.out.rglob("*") if path.is_file()}


@pytest.fixture(params=CASES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(photos, "TOGETHER", 2)
    made = Place(CASES[request.param], tmp_path / "in", tmp_path / "whole")
    made.sources.mkdir()
    for seed, name in enumerate(NAMES):
        made.case.write(made.source(name), seed)
    return made


def statuses(entries: list[Entry]) -> dict[str, str]:
    counts = Counts.of(entries)
    assert counts.found == counts.done + counts.skipped + counts.failed + counts.no_face == len(entries)
    return {Path(entry.item).stem: entry.status for entry in entries}


DONE = dict.fromkeys(NAMES, "done")


# Killed


@contextmanager
def killed_at(moment: int) -> Iterator[None]:
    """The process ends when it waits for the disk for the so many-th time; nothing is tidied up afterwards."""
    fsync, unlink, left = os.fsync, Path.unlink, [moment]

    def waiting(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        fsync(descriptor)

    def removing(path: Path, missing_ok: bool = False) -> None:
        if left[0] >= 0:
            unlink(path, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", waiting)
        patch.setattr(Path, "unlink", removing)
        yield


def check_whole(killed: Place, expected: dict[str, bytes]) -> None:
    """There is no half of a result under its name, and none without its line."""
    found = {name: content for name, content in killed.contents().items() if name in expected}
    lines = found.pop(killed.case.own, b"").decode()
    assert all(content == expected[name] for name, content in found.items())
    assert not killed.case.lines_first or all(f'"{name}"' in lines for name in found)


def test_killed_anywhere_and_run_again_is_as_never_killed(place: Place, tmp_path: Path) -> None:
    whole = place.run()
    assert statuses(whole) == DONE
    moment, kills, expected = 0, 0, place.contents()
    while kills == moment // place.case.every:
        killed = Place(place.case, place.sources, tmp_path / f"killed{moment}")
        with killed_at(moment):
            try:
                killed.run()
            except Killed:
                kills += 1
        check_whole(killed, expected)
        assert killed.run() == whole
        assert killed.contents() == expected
        moment += place.case.every
    assert kills * place.case.every >= 3 * len(NAMES), "each begins, is written, and is done"


# Run again


def test_a_second_run_writes_nothing(place: Place) -> None:
    first = place.run()
    before = place.times()
    del before[LOCK]
    assert place.run() == first
    assert {name: time for name, time in place.times().items() if name != LOCK} == before


def test_malformed_lines_are_passed_over(place: Place) -> None:
    """Whoever wrote it; a killed run leaves a part of a line."""
    first, expected = place.run(), place.contents()
    odd = ['{"a": 1}', "[]", "3", "null", '"done"', "[" * 100_000, '{"photo": [], "content": 1, "faces": 2}']
    odd += [json.dumps({"stage": [], "item": {}, "status": "done", "key": 1, "reason": "", "notes": [], "outputs": []})]
    odd += ['{"name": [], "sha256": 1, "kind": 2, "size": 3, "draw": 4}', '{"stage": "re']
    for path in place.out.glob("*.jsonl"):
        path.write_text(path.read_text() + "\n".join(odd))
    assert place.run() == first
    place.source("e").write_bytes(place.source("b").read_bytes()[:60])
    assert place.run()[: len(NAMES)] == first
    assert place.contents() == expected


def test_a_changed_source_is_done_again_and_a_lost_result_too(place: Place) -> None:
    place.run()
    expected = place.contents()
    (place.out / place.case.output).unlink()
    assert statuses(place.run()) == DONE
    assert place.contents() == expected
    place.case.write(place.source("b"), 5)
    assert statuses(place.run()) == DONE
    assert place.contents().keys() == expected.keys()
    assert [name for name in expected if place.contents()[name] != expected[name]], "another picture, another result"


# What belongs to others


def test_a_file_of_somebody_else_is_left_alone(place: Place) -> None:
    target = place.out / place.case.output
    target.parent.mkdir()
    target.write_text("mine")
    for _ in range(2):
        entries = place.run()
        assert statuses(entries) == DONE | {"b": "skipped"}
        assert entries[1].reason.startswith(f"{target} is there already and was not made from {place.source('b')} by")
        assert entries[1].is_open, "exit code 1"
        assert [name for name in place.contents() if name.startswith("b")] == [place.case.output]
        assert target.read_text() == "mine"
    target.unlink()
    assert statuses(place.run()) == DONE


def test_who_was_passed_over_keeps_what_it_has(place: Place) -> None:
    """As two runs at once in one folder once left it: what one had made was somebody else's to the other."""
    first, expected = place.run(), place.contents()
    journal = place.out / "journal.jsonl"
    stage = first[0].stage
    lost = {"stage": stage, "status": "skipped", "key": "", "reason": "Not ours.", "notes": [], "outputs": []}
    with journal.open("a") as file:
        file.writelines(json.dumps({**lost, "item": entry.item}) + "\n" for entry in first)
    assert place.run() == first
    assert place.contents() == expected


def test_a_file_of_the_run_that_somebody_else_has_is_refused(place: Place) -> None:
    if not place.case.own:
        pytest.skip("this stage has no file but its results")
    place.out.mkdir()
    (place.out / place.case.own).write_text("mine")
    for _ in range(2):
        with pytest.raises(OutputConflict, match=f"{place.case.own} is there already and was not made by"):
            place.run()
        assert (place.out / place.case.own).read_text() == "mine"
        assert place.contents().keys() == {place.case.own}


# One bad item


ERRORS = [RecursionError("too deep"), MemoryError(), KeyError("orientation"), OSError(errno.ENAMETOOLONG, "too long")]


@contextmanager
def failing(place: Place, where: str, error: Exception) -> Iterator[None]:
    """b cannot be read, or its results cannot be written."""
    opening, making = Path.open, Path.touch

    def open_file(path: Path, *args: object, **options: object) -> object:
        if path == place.source("b"):
            raise error
        return opening(path, *args, **options)

    def make_file(path: Path, *args: object, **options: object) -> None:
        if path.name.startswith(".b"):
            raise error
        making(path, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*((Path, "open", open_file) if where == "read" else (Path, "touch", make_file)))
        yield


@pytest.mark.parametrize("where", ["read", "written"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_one_bad_item_fails_alone_whatever_is_wrong_with_it(place: Place, where: str, error: Exception) -> None:
    whole, expected = place.run(), place.contents()
    content = place.source("b").read_bytes()
    place.case.write(place.source("b"), 5)
    for _ in range(2):
        with failing(place, where, error):
            entries = place.run()
        assert statuses(entries) == DONE | {"b": "failed"}
        entry = entries[1]
        assert str(place.source("b")) in entry.reason or str(place.out / "b") in entry.reason, "it says which"
        assert entry.reason.endswith(".")
        if where == "written" and not isinstance(error, OSError):
            assert type(error).__name__ in entry.reason
        assert not [name for name in place.contents() if name.startswith("b")], "nor passes an older result for it"
    place.source("b").write_bytes(content)
    assert place.run() == whole
    assert place.contents() == expected


# Two runs at once, and what killed ones leave behind


def test_a_second_run_at_the_same_time_is_refused(place: Place) -> None:
    place.run()
    before = place.contents()
    settings = json.loads((place.out / "run.json").read_text())["settings"]
    with open_run(place.out, settings):
        with pytest.raises(OutputConflict, match=f"is being filled by another run .process {os.getpid()} on .* since "):
            place.run()
        assert place.contents() == before | {".unfade.holder": (place.out / ".unfade.holder").read_bytes()}
    assert statuses(place.run()) == DONE


def test_temporary_files_of_killed_runs_are_swept_and_no_others(place: Place) -> None:
    place.run()
    other = place.out / "other run"
    other.mkdir()
    (other / "run.json").write_text("{}")
    left = [place.out / ".a.png.x7_abcde.unfade.png", place.out / "sub" / ".b.json.12345678.unfade.json"]
    kept = [place.out / ".a.png", place.out / "a.unfade.png", place.out / ".a.x7_abcd.unfade.png", other / left[0].name]
    left[1].parent.mkdir()
    for path in (*left, *kept):
        path.touch()
    assert [is_temporary(path.name) for path in (*left, *kept)] == [True, True, False, False, False, True]
    assert statuses(place.run()) == DONE
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
