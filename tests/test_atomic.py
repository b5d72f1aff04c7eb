"""A file is wholly there or not there, and a full disk is told as one, whichever library was writing."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from unfade.atomic import atomic_write, write_through
from unfade.errors import DiskFull
from unfade.jobs.journal import Entry, Journal

FULL = Path("/dev/full")
on_linux = pytest.mark.skipif(not FULL.is_char_device(), reason="needs /dev/full")


def torch_save_into_a_full_disk(temporary: Path) -> None:
    with FULL.open("wb") as file:
        torch.save({"a": torch.zeros(1_000_000)}, file)


def torch_on_a_full_disk(temporary: Path) -> None:
    """As it looks where the file is closed without an error of its own."""
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError:
        raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 - torch names no cause either


def safetensors_on_a_full_disk(temporary: Path) -> None:
    raise SafetensorError(f"Error while serializing: I/O error: No space left on device (os error {errno.ENOSPC})")


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def failing_with(error: Exception) -> Callable[[Path], None]:
    def write(temporary: Path) -> None:
        temporary.write_bytes(b"half of ")
        raise error

    return write


def test_content_is_replaced(tmp_path: Path) -> None:
    atomic_write(tmp_path / "new" / "a.txt", "first")
    atomic_write(tmp_path / "new" / "a.txt", b"second")
    assert (tmp_path / "new" / "a.txt").read_text() == "second"
    assert names_in(tmp_path / "new") == ["a.txt"]


def test_text_is_utf8(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a.txt", "naïve 写真")
    assert (tmp_path / "a.txt").read_bytes() == "naïve 写真".encode()


def test_a_long_name_will_do(tmp_path: Path) -> None:
    name = "写" * 80 + ".png"  # 244 bytes of 255
    atomic_write(tmp_path / name, b"x")
    assert names_in(tmp_path) == [name]


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    """Weights too: safetensors writes files that only their owner may read."""
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a.txt", "x")
        write_through(tmp_path / "b.safetensors", lambda temporary: save_file({"b": torch.zeros(1)}, temporary))
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o640, 0o640]


def test_the_umask_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the whole process: a thread that changed it back last would leave the one in between."""

    def never(mask: int) -> int:
        raise AssertionError("other threads make files with it")

    monkeypatch.setattr(os, "umask", never)
    atomic_write(tmp_path / "a.txt", "x")


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.EIO, "broken disk"), KeyboardInterrupt()])
def test_a_write_that_fails_changes_nothing(tmp_path: Path, error: Exception) -> None:
    atomic_write(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)) as caught:
        write_through(tmp_path / "a.txt", failing_with(error))
    assert caught.value is error
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_after_writing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    atomic_write(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", fail) if step == "fsync" else monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="broken disk"):
        atomic_write(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(failing_with(OSError(errno.ENOSPC, "No space left on device")), id="full"),
        pytest.param(failing_with(OSError(errno.EDQUOT, "Disk quota exceeded")), id="quota"),
        pytest.param(safetensors_on_a_full_disk, id="safetensors"),
        pytest.param(torch_on_a_full_disk, id="torch"),
        pytest.param(torch_save_into_a_full_disk, id="torch itself", marks=on_linux),
    ],
)
def test_a_full_disk_is_reported_as_such(tmp_path: Path, write: Callable[[Path], None]) -> None:
    atomic_write(tmp_path / "a.txt", "old")
    with pytest.raises(DiskFull, match=re.escape(f"{tmp_path / 'a.txt'} could not be written because the disk is")):
        write_through(tmp_path / "a.txt", write)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_no_room_for_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "touch", fail)
    with pytest.raises(DiskFull):
        atomic_write(tmp_path / "a.txt", "new")


@on_linux
def test_a_journal_on_a_full_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.symlink_to(FULL)
    with pytest.raises(DiskFull, match=r"journal\.jsonl"):
        journal.record(Entry("restored", "a.png", "done"))
    assert journal.entry("restored", "a.png") is None
