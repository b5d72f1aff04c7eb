"""`unfade data`: every flag has an effect, the counts add up, and the exit code says whether all is well."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import Result
from test_prepare import PHOTOS
from toy_sets import contents, ffhq_folder, ffhq_list, wider_folder, zipped
from toy_stage import spoil
from toys import levels, save_pictures
from unfade.cli.command import SHOWN
from unfade.jobs import workers

Run = Callable[..., Result]
EFFECTS = {
    "--size": ("--size", "16"),
    "--split": ("--split", "2", "1"),
    "--stems": ("--split", "1", "1", "--stems", "stems.txt"),
    "--crop": ("--crop",),
    "--enlarge": ("--enlarge",),
    "--limit": ("--limit", "1"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With faces of several sizes, one of them not square, and a list of stems."""
    monkeypatch.chdir(tmp_path)
    save_pictures(Path("faces"), ["a.png", "b.png"], size=32)
    save_pictures(Path("faces"), ["small.png"], size=20)
    Image.fromarray(levels(0, 48)[:, :40]).save("faces/tall.png")
    Path("stems.txt").write_text("b\na\n")
    return Path()


@pytest.mark.parametrize("flag", EFFECTS)
def test_every_flag_has_an_effect(run: Run, folder: Path, flag: str) -> None:
    run("data", "prepare", "folder", "faces", "--out", "plain", "--size", "32", "--quiet")
    result = run("data", "prepare", "folder", "faces", "--out", "other", "--size", "32", *EFFECTS[flag], "--quiet")
    assert result.code in (0, 1)
    assert result.err == ""
    assert contents(Path("plain")) != contents(Path("other"))


def test_min_face_has_an_effect(run: Run, folder: Path) -> None:
    wider_folder(Path("wider"), PHOTOS)
    for least, names in (("2", 3), ("8", 2)):
        args = ("wider", "wider", "--out", least, "--size", "16", "--enlarge", "--min-face", least)
        assert run("data", "prepare", *args, "--json").json["done"] == names


def test_workers_are_the_cores_by_default(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(workers, "cores", lambda: 3)
    monkeypatch.setattr("unfade.datasets.prepare.ThreadPoolExecutor", lambda count: asked.append(count) or Pool())
    for flags in ((), ("--workers", "2")):
        run("data", "prepare", "folder", "faces", "--out", str(len(asked)), "--size", "16", *flags)
    assert asked == [3, 2]


class Pool:
    """Does everything at once."""

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, work: Callable[..., object], *args: object) -> "Pool":
        self.value = work(*args)
        return self

    def result(self) -> object:
        return self.value


def test_it_says_what_it_did(run: Run, folder: Path) -> None:
    root = ffhq_folder(Path("ffhq"), range(3))
    ffhq_list(root)
    spoil(root / "images1024x1024/00000/00001.png")
    args = ("data", "prepare", "ffhq", "ffhq", "--out", "out", "--size", "16")
    result = run(*args)
    lines = result.out.splitlines()
    assert result.code == 1
    assert lines[0] == "3 found = 2 done + 0 skipped + 1 failed + 0 without a face"
    assert lines[1].startswith("missing: 69997 of 70000: 00003, 00004, ")
    assert lines[2] == "verified: 2 files by their published MD5"
    assert lines[3].startswith("  images1024x1024/00000/00001.png: ffhq/images1024x1024/00000/00001.png is damaged")
    assert lines[4:] == ["results: out"]
    told = run(*args, "--json").json
    assert {key: told[key] for key in ("found", "done", "skipped", "failed", "no_face", "expected", "verified")} == {
        "found": 3, "done": 2, "skipped": 0, "failed": 1, "no_face": 0, "expected": 70_000, "verified": 2
    }  # fmt: skip
    assert len(told["missing"]) == 69_997
    assert run(*args, "--quiet").out == ""


def test_long_lists_are_cut_in_words_and_whole_in_json(run: Run, folder: Path) -> None:
    save_pictures(Path("many"), [f"{n}.png" for n in range(SHOWN + 3)], size=16)
    args = ("data", "prepare", "folder", "many", "--out", "out", "--size", "32")
    lines = run(*args).out.splitlines()
    assert lines[-2] == "  and 3 more; --json lists all"
    assert len(lines) == SHOWN + 3
    assert len(run(*args, "--json").json["failures"]) == SHOWN + 3


def test_what_cannot_be_started_is_one_line(run: Run, folder: Path) -> None:
    result = run("data", "prepare", "ffhq", "faces", "--out", "out")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith("faces holds no picture named like FFHQ's (00000.png to 69999.png); give the folder ")
    assert not Path("out").exists()
    result = run("data", "prepare", "folder", "faces", "--out", "out", "--split", "1", "1", "--stems", "none.txt")
    assert (result.code, result.err.count("\n")) == (2, 1)
    Path("empty.txt").touch()
    result = run("data", "prepare", "folder", "faces", "--out", "out", "--split", "1", "1", "--stems", "empty.txt")
    assert result.err == "empty.txt lists nothing; expected one stem a line.\n"


def test_verify_names_what_is_wrong(run: Run, folder: Path) -> None:
    run("data", "prepare", "folder", "faces", "--out", "out", "--size", "16", "--crop")
    result = run("data", "verify", "out")
    assert (result.code, result.out) == (0, "4 in the manifest = 4 unchanged + 0 missing + 0 changed; 0 extra\n")
    Path("out/a.png").unlink()
    Path("out/b.png").write_bytes(b"")
    Path("out/c.png").write_bytes(b"")
    result = run("data", "verify", "out")
    assert result.code == 1
    assert result.out.splitlines() == [
        "4 in the manifest = 2 unchanged + 1 missing + 1 changed; 1 extra",
        "  missing: a.png",
        "  changed: b.png",
        "  extra: c.png",
    ]
    result = run("data", "verify", "out", "--json")
    assert (result.code, result.json) == (
        1, {"checked": 4, "missing": ["a.png"], "changed": ["b.png"], "extra": ["c.png"]}
    )  # fmt: skip
    assert run("data", "verify", "faces").code == 2


def test_the_pictures_of_a_set_are_those_of_the_library(run: Run, folder: Path) -> None:
    run("data", "prepare", "folder", "faces", "--out", "out", "--size", "32")
    assert np.array_equal(np.asarray(Image.open("out/a.png")), levels(0, 32))
    assert json.loads(Path("out/run.json").read_text())["settings"]["prepare"]["size"] == 32


def test_pictures_of_other_names_are_listed(run: Run, folder: Path) -> None:
    save_pictures(Path("ffhq"), ["00000.png", "00007.png", "cover.png", "70000.png", "7 (copy).png"], size=32)
    args = ("data", "prepare", "ffhq", "ffhq", "--out", "out", "--size", "32")
    result = run(*args)
    assert "not taken, as their names are not of this set: 3: 7 (copy).png, 70000.png, cover.png\n" in result.out
    assert run(*args, "--json").json["odd_names"] == ["7 (copy).png", "70000.png", "cover.png"]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_file_that_is_too_large_fails_alone(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    save_pictures(Path("few"), ["a.png", "b.png"], size=32)
    with Path("few/b.png").open("ab") as file:
        file.truncate(1_000_000)  # anything may follow a picture
    monkeypatch.setattr("unfade.datasets.picture_sources.MOST", 999_999)
    source = zipped(Path("few")) if packed else Path("few")
    result = run("data", "prepare", "folder", source, "--out", "out", "--size", "32", "--json").json
    assert (result["done"], result["failed"]) == (1, 1)
    assert "b.png has 1,000,000 bytes, more than the 999,999 that are read" in result["failures"][0][1]
