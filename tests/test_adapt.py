"""The main job, end to end on tiny networks: results, resuming after a kill, bad input, settings that count."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapt_settings import small
from tiny_models import write_faces
from unfade.diffusion.load import loaded_prior
from unfade.errors import BadInput, OutputConflict, UnfadeError
from unfade.images.files import read_image
from unfade.progress import Advance, Progress, silent
from unfade.recipes.adapt import WEIGHTS, adapt, attempts_by
from unfade.recipes.adapt_settings import SMALL_ADAPT, AdaptSettings, as_published, to_damage
from unfade.recipes.restore import RestoreSettings, restore
from unfade.recipes.tuning import finetune_to_file
from unfade.restorers.load import load_restorer, loaded_restorer
from unfade.stages.finetune import Pair
from unfade.store.checkpoints import read_weights, write_card

Models = tuple[Path, Path]
CHILD = Path(__file__).with_name("adapt_child.py")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_weights(run / "restorer.safetensors").state


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_everything_is_there(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 5)
    done = adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True)
    run = tmp_path / "run"
    names = [f"face{i:02d}.png" for i in range(5)]
    for folder in ("faces", "pretrained", "targets", "restored"):
        assert sorted(path.name for path in (run / folder).iterdir()) == names
    assert done.counts.as_dict() == {"found": 5, "done": 5, "skipped": 0, "failed": 0, "no_face": 0}
    assert json.loads((run / "restorer.json").read_text())["pairs"] == 5
    assert not list(run.glob("*.training"))
    assert "face04.png" in (run / "report.html").read_text()
    assert [row["step"] for row in done.history.losses] == [6]
    assert not same(weights(run), read_weights(models[0]).state)
    adapted = load_restorer(run)
    face = read_image(run / "faces" / names[0])[None]
    restored = read_image(run / "restored" / names[0])
    assert (adapted(face)[0].clamp(-1, 1) - restored).abs().max() <= 1.01 / 255


def test_a_second_run_changes_nothing(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 3)
    first = adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.png")}
    state = (tmp_path / "run" / "restorer.safetensors").stat().st_mtime_ns
    second = adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.png")} == before
    assert (tmp_path / "run" / "restorer.safetensors").stat().st_mtime_ns == state
    assert second.counts == first.counts
    assert second.history == first.history


def test_more_photos_later_are_taken_in(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 3)
    adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True)
    kept = (tmp_path / "run" / "targets" / "face00.png").stat().st_mtime_ns
    write_faces(tmp_path / "photos", 1, first=3)
    done = adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True)
    assert done.counts.done == 4
    assert (tmp_path / "run" / "targets" / "face00.png").stat().st_mtime_ns == kept


def test_results_of_removed_photos_are_named_and_those_of_broken_ones_deleted(models: Models, tmp_path: Path) -> None:
    photos, results = tmp_path / "photos", tmp_path / "run" / "restored"
    write_faces(photos, 4)
    assert adapt(photos, tmp_path / "run", small(*models), aligned=True).of_gone == ()
    (photos / "face00.png").unlink()
    (photos / "face01.png").write_bytes((photos / "face01.png").read_bytes()[:99])
    done = adapt(photos, tmp_path / "run", small(*models), aligned=True)
    assert done.counts.as_dict() == {"found": 3, "done": 2, "skipped": 0, "failed": 1, "no_face": 0}
    assert done.of_gone == ("face00.png",)
    assert sorted(path.name for path in results.iterdir()) == ["face00.png", "face02.png", "face03.png"]


def child(photos: Path, out: Path, models: Models) -> "subprocess.Popen[str]":
    command = [sys.executable, str(CHILD), str(photos), str(out), *map(str, models)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHILD.parent)


def test_killed_three_times_equals_uninterrupted(models: Models, tmp_path: Path) -> None:
    """SIGKILL at random moments, then again and again: the restorer is the same bit for bit."""
    photos, events = tmp_path / "photos", 0
    write_faces(photos, 4)

    @contextmanager
    def counting(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        def advance(amount: float) -> None:
            nonlocal events
            events += 1

        advance(0)
        yield advance

    adapt(photos, tmp_path / "whole", small(*models), progress=counting, aligned=True)
    draw = random.Random(2026)
    for moment in sorted(draw.randrange(2, events) for _ in range(3)):
        with child(photos, tmp_path / "killed", models) as process:
            assert process.stdout is not None
            for _ in range(moment // 2):  # the run before has done a part already
                process.stdout.readline()
            process.kill()
    adapt(photos, tmp_path / "killed", small(*models), aligned=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    for folder in ("targets", "restored"):
        for path in sorted((tmp_path / "whole" / folder).iterdir()):
            assert path.read_bytes() == (tmp_path / "killed" / folder / path.name).read_bytes()
    journal = [json.loads(line) for line in (tmp_path / "killed" / "journal.jsonl").read_text().splitlines()]
    assert {entry["status"] for entry in journal} == {"begun", "done"}


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_second_round_is_an_adaptation_of_the_first(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 3)
    settings = small(*models)
    adapt(tmp_path / "photos", tmp_path / "one", settings, aligned=True)
    card = json.loads((tmp_path / "one" / "restorer.json").read_text())
    write_card(tmp_path / "one" / WEIGHTS, {**card, "licence": "MIT"})
    by_hand = replace(settings, restorer=str(tmp_path / "one"))
    adapt(tmp_path / "photos", tmp_path / "by-hand", by_hand, aligned=True)
    assert json.loads((tmp_path / "by-hand" / "restorer.json").read_text())["licence"] == "MIT", "it is passed on"
    twice, run = replace(settings, rounds=2), tmp_path / "twice"
    done = adapt(tmp_path / "photos", run, twice, aligned=True)
    assert same(weights(run / "round-1"), weights(tmp_path / "one"))
    assert same(weights(run), weights(tmp_path / "by-hand"))
    for name in ("face00.png", "face01.png", "face02.png"):
        assert (run / "targets" / name).read_bytes() == (tmp_path / "by-hand" / "targets" / name).read_bytes()
    assert (attempts_by(run, twice), attempts_by(run, settings)) == (run / "round-1" / WEIGHTS, settings.restorer)
    assert (done.counts.found, done.counts.done, done.restorer) == (3, 3, run / WEIGHTS)
    with pytest.raises(BadInput, match="Expected `rounds` to be 1 or more, got 0"):
        replace(settings, rounds=0)


def test_settings_that_cannot_work_are_refused_before_any_work(
    models: Models, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    write_faces(tmp_path / "photos", 3)
    usual = small(*models)
    for wrong, said in (
        (replace(usual, perceptual="vgg"), "no perceptual distance named vgg"),
        (replace(usual, perceptual="lpips"), "unfade models pull lpips-vgg"),
        (replace(usual, targets=replace(usual.targets, start=999)), "Expected `start` to lie in"),
    ):
        with pytest.raises(UnfadeError, match=said):
            adapt(tmp_path / "photos", tmp_path / "run", wrong, aligned=True)
        assert not (tmp_path / "run").exists()
    with pytest.raises(BadInput, match="Expected `agreement` to be 1 or more, or 0"):
        replace(usual, agreement=0.5)


def test_every_stage_shows_its_progress(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 3)
    shown: dict[str, float] = {}

    @contextmanager
    def progress(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        def advance(amount: float) -> None:
            shown[label] = shown.get(label, start / total) + amount / total

        yield advance

    adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True, progress=progress)
    assert list(shown) == ["faces", "pretrained", "targets", "fine-tuning", "restored faces", "restored"]
    assert all(share == pytest.approx(1) for share in shown.values())


def test_rounds_go_on_where_they_were_stopped(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 3)
    settings = replace(small(*models), rounds=2)
    adapt(tmp_path / "photos", tmp_path / "whole", settings, aligned=True)

    def stopping(at: int) -> Progress:
        left = at

        def count(amount: float) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        @contextmanager
        def progress(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
            yield count

        return progress

    stops = 0
    while stops < 10:
        try:
            adapt(tmp_path / "photos", tmp_path / "stopped", settings, aligned=True, progress=stopping(20))
            break
        except Killed:
            stops += 1
    assert 1 <= stops < 10, "it was stopped, and came to its end"
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))


def test_bad_pictures_fail_alone(models: Models, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    good = write_faces(photos, 3)
    (photos / "notes.jpg").write_text("not a picture")
    (photos / "cut.png").write_bytes(good[0].read_bytes()[:200])
    done = adapt(photos, tmp_path / "run", small(*models), aligned=True)
    counts = done.counts
    assert (counts.found, counts.done, counts.failed) == (5, 3, 2)
    assert {name for name, _ in done.failures} == {"notes.jpg", "cut.png"}
    assert not (tmp_path / "run" / "restored" / "notes.png").exists()
    report = (tmp_path / "run" / "report.html").read_text()
    assert "notes.jpg" in report
    assert "cut.png" in report


def test_photos_that_are_all_unusable_are_refused_in_one_sentence(models: Models, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("no")
    with pytest.raises(BadInput, match=r"None of the 1 photos .*a\.jpg"):
        adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True)


def test_other_settings_need_another_folder(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 2)
    settings = small(*models)
    adapt(tmp_path / "photos", tmp_path / "run", settings, aligned=True)
    with pytest.raises(OutputConflict, match="factor = 4, now it is 2"):
        adapt(
            tmp_path / "photos",
            tmp_path / "run",
            replace(settings, targets=replace(settings.targets, factor=2)),
            aligned=True,
        )
    bigger = replace(settings, targets=replace(settings.targets, batch=1))
    assert adapt(tmp_path / "photos", tmp_path / "run", bigger, aligned=True).counts.done == 2


def test_the_input_is_never_the_output(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 1)
    with pytest.raises(OutputConflict, match="is also the input"):
        adapt(tmp_path / "photos", tmp_path / "photos", small(*models), aligned=True)


CHANGES: dict[str, Callable[[AdaptSettings], AdaptSettings]] = {
    "perceptual": lambda s: replace(s, perceptual="none"),
    "perceptual weight": lambda s: replace(s, losses=replace(s.losses, perceptual_weight=0.1)),
    "gan weight": lambda s: replace(s, losses=replace(s.losses, gan_weight=0.0)),
    "flip": lambda s: replace(s, finetune=replace(s.finetune, flip=False)),
    "start": lambda s: replace(s, targets=replace(s.targets, start=10)),
    "seed": lambda s: replace(s, targets=replace(s.targets, seed=1)),
    "rounds": lambda s: replace(s, rounds=2),
}


@pytest.fixture(scope="module")
def plain(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos, and a run with the plain settings."""
    folder = tmp_path_factory.mktemp("plain")
    write_faces(folder / "photos", 2)
    adapt(folder / "photos", folder / "run", small(*models), aligned=True)
    return folder


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_settings_have_an_effect(
    change: Callable[[AdaptSettings], AdaptSettings], models: Models, plain: Path, tmp_path: Path
) -> None:
    adapt(plain / "photos", tmp_path / "changed", change(small(*models)), aligned=True)
    assert not same(weights(plain / "run"), weights(tmp_path / "changed"))


def test_real_faces_and_truth(models: Models, plain: Path, tmp_path: Path) -> None:
    write_faces(tmp_path / "real", 3, first=50)
    photos = plain / "photos"
    done = adapt(photos, tmp_path / "run", small(*models), real=tmp_path / "real", truth=photos, aligned=True)
    assert not same(weights(plain / "run"), weights(tmp_path / "run"))
    rows = {row["against the truth"]: row for row in done.page.scores}
    assert rows.keys() == {"input", "pre-trained", "target", "adapted"}
    assert rows["input"]["psnr"] == float("inf")


def test_restore_with_a_run(plain: Path, tmp_path: Path) -> None:
    entries = restore(
        plain / "photos", tmp_path / "again", plain / "run", RestoreSettings(size="restorer"), aligned=True
    )
    assert [entry.status for entry in entries] == ["done", "done"]
    for name in ("face00.png", "face01.png"):
        assert (tmp_path / "again" / name).read_bytes() == (plain / "run" / "restored_faces" / name).read_bytes()


def test_clean_faces_that_nothing_would_look_at_are_refused(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 2)
    write_faces(tmp_path / "real", 2, first=50)
    settings = small(*models)
    settings = replace(settings, losses=replace(settings.losses, gan_weight=0.0))
    settings = replace(settings, finetune=replace(settings.finetune, redegraded=0.0))
    unused = replace(settings, finetune=replace(settings.finetune, redegraded=1.0), clean="targets")
    for one in (settings, unused):
        with pytest.raises(BadInput, match="set `clean` to drawn, or raise `redegraded` or `gan_weight`"):
            adapt(tmp_path / "photos", tmp_path / "run", one, real=tmp_path / "real", aligned=True)
    assert not (tmp_path / "run").exists()


def test_two_fine_tunings_do_not_write_one_file(models: Models, tmp_path: Path) -> None:
    pairs = [Pair(path, path) for path in write_faces(tmp_path / "faces", 2)]
    out = tmp_path / "tuned.safetensors"

    def tuned(progress: Progress) -> None:
        restorer, prior = loaded_restorer(models[0], device="cpu"), loaded_prior(models[1], device="cpu")
        finetune_to_file(restorer, prior, pairs, out, small(*models), clean=[], progress=progress)

    @contextmanager
    def meanwhile(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        with pytest.raises(OutputConflict, match="is being trained by another process; wait for it"):
            tuned(silent)
        yield lambda amount: None

    tuned(meanwhile)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "tuned.json", "tuned.safetensors"]


def test_which_clean_faces_are_damaged(tmp_path: Path) -> None:
    """The user's, else the package's for restorers of their size, else the targets; none without a share of them."""
    own = [tmp_path / "a.png"]
    assert to_damage(SMALL_ADAPT, 128, own) == own
    for size in (128, 256):
        drawn = to_damage(SMALL_ADAPT, size, [])
        assert len(drawn) >= 50
        assert {read_image(path).shape for path in drawn} == {(3, size, size)}
    assert to_damage(SMALL_ADAPT, 512, []) == []
    assert to_damage(SMALL_ADAPT, 512, own) == own
    for settings in (replace(SMALL_ADAPT, clean="targets"), as_published(SMALL_ADAPT)):
        assert to_damage(settings, 128, own) == []
    with pytest.raises(BadInput, match="to be drawn or targets, got mine"):
        replace(SMALL_ADAPT, clean="mine")


def test_a_photo_that_was_removed_is_not_counted_any_more(models: Models, tmp_path: Path) -> None:
    photos = write_faces(tmp_path / "photos", 3)
    adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True)
    photos[0].unlink()
    done = adapt(tmp_path / "photos", tmp_path / "run", small(*models), aligned=True)
    assert (done.counts.found, done.counts.done) == (2, 2)
