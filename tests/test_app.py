"""Behind the page: users' folders, what is shown of a photo, what is restored. None of it needs gradio."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unfade
from hostile import hostile_files
from unfade.app import work
from unfade.app.looking import Looked, looked_at
from unfade.app.users import User
from unfade.app.work import Wanted, restorers_for
from unfade.errors import BadInput
from unfade.images.files import list_images
from unfade.jobs.background import Background
from unfade.jobs.journal import Entry
from unfade.jobs.shards import Portion
from unfade.progress import Progress

SAMPLES = Path(unfade.__file__).parent / "samples" / "held_out_photos"


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User.of(tmp_path / "work", None)


def picture(path: Path, level: int = 90, side: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (level, level, level)).save(path)
    return path


def people(path: Path) -> Path:
    """Two faces, side by side."""
    whole = Image.new("RGB", (400, 200), (70, 80, 90))
    for i, x in ((3, 20), (5, 220)):
        with Image.open(list_images(SAMPLES)[i]) as face:
            whole.paste(face.convert("RGB").resize((160, 160)), (x, 20))
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.save(path)
    return path


def test_a_token_names_a_folder_and_nothing_else_does(tmp_path: Path) -> None:
    new = User.of(tmp_path, None)
    assert User.of(tmp_path, new.folder.name) == new
    for token in ("../../etc", "", "a/b", "x" * 23, ["x" * 22], 5, "é" * 22):
        other = User.of(tmp_path, token)
        assert other.folder.parent == tmp_path
        assert len(other.folder.name) == 22
        assert other != User.of(tmp_path, token)


def test_uploads_are_kept_as_they_came(user: User, tmp_path: Path) -> None:
    first, same = picture(tmp_path / "a" / "me.PNG", 90), picture(tmp_path / "b" / "me.PNG", 90)
    other, hidden = picture(tmp_path / "c" / "me.jpg", 40), picture(tmp_path / "d" / ".hidden.png")
    assert list(user.take([first, same, other, hidden])) == []
    assert user.names == ["hidden.png", "me-2.jpg", "me.png"], "no two of one stem, and the same picture once"
    assert (user.photos / "me-2.jpg").read_bytes() == other.read_bytes()
    with Image.open(user.thumb("me.png")) as small:
        assert small.format == "JPEG"


def test_200_hostile_uploads_get_a_sentence_each(user: User, tmp_path: Path) -> None:
    files = hostile_files(tmp_path / "files")
    said = list(user.take(files))
    assert len(said) == 200
    assert [line for line in said if str(tmp_path) in line or "\n" in line or not line.endswith((".", "?", ")"))] == []
    assert all(line.startswith(path.name) for line, path in zip(said, files, strict=True))
    assert user.names == []


def test_a_click_names_the_smallest_face_under_it() -> None:
    looked = Looked(np.zeros((100, 100, 3), np.uint8), ((0, 0, 90, 90), (10, 10, 30, 30)))
    assert (looked.at(20, 20), looked.at(50, 50), looked.at(95, 95)) == (1, 0, None)
    assert Looked(looked.pixels, ()).at(1, 1) is None
    plain, marked = looked.marked([]), looked.marked([1])
    assert (plain[60, 0] != 0).any(), "the first box"
    assert (plain[27, 27] == 0).all(), "nothing inside of the second"
    assert (marked[27, 27] != 0).any(), "but for the cross of a face that is left out"


def test_faces_are_where_they_are_in_the_picture(tmp_path: Path) -> None:
    looked = looked_at(people(tmp_path / "two.png"))
    assert [looked.at(100, 100), looked.at(300, 100), looked.at(200, 190)] == [0, 1, None]


def test_photos_of_the_same_faces_are_restored_together(
    user: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[str, list[str], float | None]] = []

    def restore(
        photos: Path, out: Path, spec: str, settings: unfade.RestoreSettings, *, portion: Portion, **_: object
    ) -> list[Entry]:
        names = [path.name for path in portion.photos(photos, out).names]
        calls.append((settings.find.choice.which, names, settings.fidelity))
        out.mkdir(parents=True, exist_ok=True)
        for name in names[:-1]:
            (out / name).touch()
        done = [Entry("restored", name, "done", outputs=(name,)) for name in names[:-1]]
        return [*done, Entry("restored", names[-1], "no_face", reason=f"{photos}/{names[-1]}: no face found.")]

    monkeypatch.setattr(work, "restore", restore)
    list(
        user.take(
            [people(tmp_path / f"{name}.png") for name in "a"] + [picture(tmp_path / f"{n}.png", n) for n in (1, 2)]
        )
    )
    wanted = Wanted(user, left_out={"a.png": [0], "gone.png": [1]})
    assert wanted.restore() == ["2.png: no face found.", "a.png: no face found."]
    assert calls == [("all", ["1.png", "2.png"], 0.5), ("1", ["a.png"], 0.5)]
    assert wanted.result("1.png") is not None
    assert wanted.result("2.png") is None
    assert Wanted(user, strength=0.5).result("1.png") is None, "made in another way"
    assert Wanted(user, left_out={"a.png": [0, 1]}, restorer="small-swinir").restore()[0] == (
        "a.png: all of its faces are left out."
    )
    assert calls[-1] == ("all", ["1.png", "2.png"], None), "SwinIR has no fidelity"


def test_only_installed_restorers_and_own_adaptations_can_be_chosen(user: User) -> None:
    assert {"small-restorer", "small-swinir"} <= {*restorers_for(user)}
    with pytest.raises(BadInput, match=r"There is no restorer /etc/passwd; there are: small"):
        assert Wanted(user, restorer="/etc/passwd").spec
    run = Wanted(user, steps=3).run
    run.mkdir(parents=True)
    (run / "restorer.safetensors").touch()
    assert restorers_for(user)["adapted from small-restorer, 3 steps"] == str(run)


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


def test_the_page_needs_its_extra(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("unfade.cli.page.find_spec", lambda name: None)
    refused = run("app", "--work", tmp_path)
    assert (refused.code, refused.err) == (
        2,
        'The page needs gradio, which is not installed: pip install "unfade[app]"\n',
    )
    assert json.dumps([*tmp_path.iterdir()]) == "[]"
