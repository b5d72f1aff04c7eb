"""The main job on whole photos, end to end on tiny networks: counts, faces, results, report, resuming."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unfade.recipes.sources
from adapt_settings import small
from marked import load, save, scene, squares
from toys import same_state, state_of
from unfade.errors import BadInput, OutputConflict
from unfade.faces.detect import DetectSettings
from unfade.progress import Advance
from unfade.recipes.adapt import Adapted, adapt
from unfade.recipes.adapt_settings import AdaptSettings
from unfade.recipes.restore import restore
from unfade.recipes.sources import FindSettings
from unfade.restorers.image_level import ImageLossSettings
from unfade.restorers.load import load_restorer
from unfade.stages.photos import Choice
from unfade.stages.restore_photos import PhotoSettings
from unfade.zoo.load import Loaded

Models = tuple[Path, Path]
ONE, TWO = ((20, 15, 24),), ((5, 8, 20), (50, 20, 24))


class Stopped(Exception):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True, scope="module")
def marks_are_faces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    file = tmp_path_factory.mktemp("marks") / "detector"
    file.write_text("finds bright squares")
    marks = Loaded(squares, file, "marks", "unknown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfade.recipes.sources, "loaded_detector", lambda name, device: marks)
        yield


def write_photos(folder: Path) -> Path:
    """Six photos, eight faces in the four that have some, one without, one that is none."""
    for seed, name in enumerate(("a.jpg", "b.png", "sub/a.png", "sub/\udcff.webp")):
        save(folder / name, scene(*(TWO if seed % 2 else ONE), seed=seed))
    save(folder / "bare.png", scene())
    (folder / "bad.png").write_text("no")
    return folder


def brief(models: Models) -> AdaptSettings:
    """Three steps of the prior, four of the optimiser."""
    base = small(*models)
    loop = replace(base.finetune.loop, steps=4, checkpoint_every=1, validate_every=4)
    losses = ImageLossSettings(perceptual_weight=0.5, gan_weight=0)
    targets = replace(base.targets, start=3, free_from=1)
    return replace(base, targets=targets, finetune=replace(base.finetune, loop=loop), losses=losses)


def counts_of(done: Adapted) -> tuple[int, int, int, int]:
    counts = done.counts
    assert counts.skipped == 0
    return counts.found, counts.done, counts.failed, counts.no_face


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed."""

    photos: Path
    run: Path
    done: Adapted
    events: int  # how often it told of progress

    def copied(self, folder: Path) -> tuple[Path, Path]:
        """The photos and the run, for a test that changes them."""
        pairs = [(self.photos, folder / "photos"), (self.run, folder / "run")]
        return tuple(Path(shutil.copytree(*pair)) for pair in pairs)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def whole(models: Models, marks_are_faces: None, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder, events = tmp_path_factory.mktemp("whole"), 0

    @contextmanager
    def counting(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        def advance(amount: float) -> None:
            nonlocal events
            events += 1

        yield advance

    done = adapt(write_photos(folder / "photos"), folder / "run", brief(models), progress=counting)
    return Whole(folder / "photos", folder / "run", done, events)


def test_photos_become_faces_targets_and_restored_photos(whole: Whole) -> None:
    photos, run, done = whole.photos, whole.run, whole.done
    assert counts_of(done) == (6, 4, 1, 1)
    assert {name for name, _ in done.failures} == {"bad.png", "bare.png"}
    faces = ["a_00.png", "b_00.png", "b_01.png", "sub__a_00.png", "sub__\ufffd_00.png", "sub__\ufffd_01.png"]
    for folder in ("faces", "pretrained", "targets", "restored_faces"):
        assert sorted(path.name for path in (run / folder).glob("*.png")) == faces
    restored = sorted(path.relative_to(run / "restored").as_posix() for path in (run / "restored").rglob("*.*"))
    assert restored == ["a.jpg", "b.png", "sub/a.png", "sub/\udcff.webp"]
    for name in restored:
        before, after = load(photos / name), load(run / "restored" / name)
        assert before.shape == after.shape
        assert np.abs(before - after).max() > 5
        assert (run / "restored" / name).stat().st_mtime == pytest.approx((photos / name).stat().st_mtime, abs=1e-3)
    with Image.open(run / "restored" / "b.png") as image:
        assert b"compositeWithTrainedAlgorithmicMedia" in image.info["xmp"]
    assert json.loads((run / "restorer.json").read_text())["pairs"] == 6
    report = (run / "report.html").read_text()
    for shown in ("6 photos found; 4 with 6 faces restored", "sub__a_00.png", "bare.png", "bad.png"):
        assert shown in report
    assert "1 failed + 1 without a face" in report
    for shown in ("Photos (4)", "Faces (6)", "Failed (1)", "Without a face (1)", "What the diffusion prior made"):
        assert shown.lower() in report.lower()
    assert len(list((run / "report").iterdir())) == 2 * 4


def test_a_second_run_changes_nothing(models: Models, whole: Whole) -> None:
    photos, run, first = whole.photos, whole.run, whole.done
    files = [path for path in run.rglob("*") if path.is_file() and path.suffix != ".html"]
    before = {path: path.stat().st_mtime_ns for path in files}
    second = adapt(photos, run, brief(models))
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert (second.counts, second.history) == (first.counts, first.history)


def test_stopped_anywhere_equals_uninterrupted(models: Models, whole: Whole, tmp_path: Path) -> None:
    left, stops = 0, 0

    @contextmanager
    def stopping(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        def advance(amount: float) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stopped

        yield advance

    for allowed in (1, 3, whole.events // 3, whole.events // 2):
        left = allowed
        try:
            adapt(whole.photos, tmp_path / "stopped", brief(models), progress=stopping)
        except Stopped:
            stops += 1
    assert stops >= 3
    adapt(whole.photos, tmp_path / "stopped", brief(models))
    one, other = files_of(whole.run), files_of(tmp_path / "stopped")
    assert one.keys() == other.keys()
    for name in one.keys() - {"journal.jsonl", "report.html", "run.json"}:
        if name.startswith("restored/"):  # these name the file of the restorer by its hash
            assert np.array_equal(load(one[name]), load(other[name])), name
        elif not name.endswith(".safetensors"):
            assert one[name].read_bytes() == other[name].read_bytes(), name
    adapted, again = (load_restorer(path["restorer.safetensors"]) for path in (one, other))
    assert same_state(state_of(adapted), state_of(again))


def files_of(run: Path) -> dict[str, Path]:
    return {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}


def test_photos_that_come_and_go(models: Models, whole: Whole, tmp_path: Path) -> None:
    photos, run = whole.copied(tmp_path)
    kept = (run / "targets" / "b_00.png").stat().st_mtime_ns
    (photos / "a.jpg").rename(tmp_path / "a.jpg")
    save(photos / "new.png", scene(*ONE, seed=9))
    assert counts_of(adapt(photos, run, brief(models))) == (6, 4, 1, 1)
    assert (run / "targets" / "b_00.png").stat().st_mtime_ns == kept
    (tmp_path / "a.jpg").rename(photos / "a.jpg")
    assert counts_of(adapt(photos, run, brief(models))) == (7, 5, 1, 1)
    assert (run / "restored" / "a.jpg").exists()


def test_a_photo_that_comes_while_the_adaptation_runs_is_not_called_bare(models: Models, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")

    @contextmanager
    def adding(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        if label == "targets":
            save(photos / "new.png", scene(*ONE, seed=9))
            (photos / "b.png").unlink()
        yield lambda amount: None

    done = adapt(photos, tmp_path / "run", brief(models), progress=adding)
    assert counts_of(done) == (6, 3, 2, 1)
    assert dict(done.failures)["new.png"].startswith("new.png was not searched for faces when the others were")
    assert counts_of(adapt(photos, tmp_path / "run", brief(models))) == (6, 4, 1, 1)


def test_photos_without_any_face_are_refused_in_one_sentence(models: Models, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "bare.png", scene())
    with pytest.raises(BadInput, match=r"^None of the 1 photos .*bare\.png: no face found that matches the settings"):
        adapt(tmp_path / "photos", tmp_path / "run", brief(models))


@pytest.mark.parametrize(
    ("find", "faces"),
    [
        (FindSettings(choice=Choice("largest")), 4),
        (FindSettings(detect=DetectSettings(max_face=22)), 2),
    ],
    ids=["largest", "small"],
)
def test_only_the_faces_asked_for_are_adapted_to(
    models: Models, tmp_path: Path, find: FindSettings, faces: int
) -> None:
    photos = write_photos(tmp_path / "photos")
    done = adapt(photos, tmp_path / "run", brief(models), find=find)
    assert len(list((tmp_path / "run" / "faces").glob("*.png"))) == faces
    assert done.counts.done == min(faces, 4)
    assert done.counts.no_face == 5 - done.counts.done
    with pytest.raises(OutputConflict):
        adapt(photos, tmp_path / "run", brief(models))


def test_settings_of_the_results_arrive(models: Models, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    adapt(photos, tmp_path / "run", brief(models), whole=PhotoSettings(kind="PNG", sidecar=True, copy=True))
    names = sorted(path.relative_to(tmp_path / "run" / "restored").as_posix() for path in
                   (tmp_path / "run" / "restored").rglob("*.*"))  # fmt: skip
    photos_of = ["a.png", "b.png", "sub/a.png", "sub/\udcff.png"]
    assert names == sorted(["bare.png", *photos_of, *(f"{name}.json" for name in photos_of)])


def test_the_adapted_restorer_gives_the_same_on_its_own(whole: Whole, tmp_path: Path) -> None:
    """`restore` with the run finds the faces again; `adapt` took them from its list."""
    photos, run = whole.photos, whole.run
    entries = restore(photos, tmp_path / "again", run)
    assert [entry.status for entry in entries] == ["done", "done", "failed", "no_face", "done", "done"]
    for name in ("a.jpg", "b.png", "sub/a.png", "sub/\udcff.webp"):
        assert np.array_equal(load(run / "restored" / name), load(tmp_path / "again" / name))
    assert load_restorer(run).size == 32


def test_a_photo_without_a_face_whose_name_is_not_text_is_reported(models: Models, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a\udcff.png", scene())
    save(tmp_path / "photos" / "b.png", scene(*TWO))
    assert counts_of(adapt(tmp_path / "photos", tmp_path / "run", brief(models))) == (2, 1, 0, 1)
