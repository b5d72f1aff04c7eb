"""Whole photos in groups: which faces are chosen, who comes with whom, and how many are in memory."""

import struct
import zlib
from pathlib import Path

import pytest
import torch

from marked import SIZE, Place, finder, save, scene, squares, statuses
from unfade.errors import BadInput, DiskFull
from unfade.faces.detectors import Face
from unfade.images.decoding import read_photo
from unfade.images.finding import Found, find_photos
from unfade.images.photo import Photo
from unfade.stages import photos
from unfade.stages.photos import Choice, FoundFace, groups_of, opened_groups

THREE = ((2, 5, 16), (30, 20, 28), (66, 3, 20))  # marks from left to right; the second is the largest


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def never(name: str, content: str) -> bool:
    return False


def faces_of(choice: str, **detect: float) -> list[FoundFace]:
    return finder(choice, **detect)("a.png", Photo(scene(*THREE)))


# Which faces


@pytest.mark.parametrize(
    ("choice", "numbers"),
    [("all", [0, 1, 2]), ("largest", [1]), ("0,2", [0, 2]), ("1", [1]), (" 2 , 0 ", [0, 2]), ("7", []), ("0,7", [0])],
)
def test_faces_are_chosen_from_left_to_right(choice: str, numbers: list[int]) -> None:
    assert [found.index for found in faces_of(choice)] == numbers


@pytest.mark.parametrize("choice", ["", "first", "0,,1", "-1", "1.5", "0;1", "ALL"])
def test_a_choice_that_is_none_is_refused(choice: str) -> None:
    with pytest.raises(BadInput, match=r"^Expected faces to be all, largest, or numbers"):
        Choice(choice)


def test_the_size_of_a_face_decides_before_the_choice() -> None:
    assert [found.face.width for found in faces_of("all", min_face=18)] == pytest.approx([28, 20], abs=0.5)
    assert [found.face.width for found in faces_of("all", max_face=25)] == pytest.approx([16, 20], abs=0.5)
    (largest,) = faces_of("largest", max_face=25)  # numbers are of the faces that were found
    assert (largest.index, largest.face.width) == (1, pytest.approx(20))
    assert faces_of("largest", min_face=40) == []


# Groups


def found_of(folder: Path, sides: list[int]) -> Found:
    for number, side in enumerate(sides):
        save(folder / f"{number:02d}.png", scene((5, 5, 20), height=side, width=side))
    return find_photos(folder)


def test_a_group_ends_at_its_number_and_at_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = found_of(tmp_path, [40] * 6 + [100, 100, 40])
    monkeypatch.setattr(photos, "TOGETHER", 4)
    monkeypatch.setattr(photos, "PIXELS", 13_000)
    numbers = [[int(name[:2]) for name in group] for group in groups_of(found)]
    assert numbers == [[0, 1, 2, 3], [4, 5], [6], [7, 8]]


def test_a_photo_of_more_than_a_group_is_one_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "PIXELS", 1000)
    assert [len(group) for group in groups_of(found_of(tmp_path, [40, 20, 20, 20]))] == [1, 2, 1]


def test_unreadable_photos_are_in_a_group_too(tmp_path: Path) -> None:
    found = found_of(tmp_path, [40, 40])
    (tmp_path / "00.png").write_text("no picture")
    (tmp_path / "02.png").touch()
    assert list(groups_of(find_photos(tmp_path))) == [["00.png", "01.png", "02.png"]]
    (tmp_path / "01.png").unlink()
    assert list(groups_of(found)) == [["00.png", "01.png"]]


def claiming(side: int) -> bytes:
    """The head of a PNG that says it is so wide and high, and a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(300))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "side",
    [
        10_000,
        60_000,
    ],
)
def test_looking_at_the_size_of_a_huge_photo_warns_of_nothing(place: Place, side: int) -> None:
    place.save("a.png", (5, 5, 20))
    (place.photos / "b.png").write_bytes(claiming(side))
    assert statuses(place.run()) == {"a.png": "done", "b.png": "failed"}


def test_groups_are_the_same_whatever_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "TOGETHER", 3)
    found = found_of(tmp_path, [40] * 8)
    names = [name.as_posix() for name in found.names]
    for done in (set(), set(names), set(names[:1]), set(names[2:7]), set(names[3:6])):
        groups = list(opened_groups(found, finder(), [SIZE], lambda name, content, done=done: name in done))
        assert [[one.name for one in group] for group in groups] == [names[:3], names[3:6], names[6:]]
        for group in groups:
            whole = not {one.name for one in group} <= done
            assert [one.photo is not None for one in group] == [whole] * len(group), "those who keep company are read"
            assert [len(one.crops) for one in group] == [whole] * len(group)
            assert all(len(one.content) == 64 for one in group)


def test_what_cannot_be_read_or_searched_has_its_error(tmp_path: Path) -> None:
    found = found_of(tmp_path, [40, 40, 40])
    (tmp_path / "00.png").unlink()

    def find(name: str, photo: Photo) -> list[FoundFace]:
        if name == "01.png":
            raise BadInput("No.")
        return finder()(name, photo)

    ((gone, refused, sound),) = opened_groups(found, find, [SIZE], never)
    assert (gone.content, gone.photo) == ("", None)
    assert str(gone.error).startswith(f"{tmp_path / '00.png'} cannot be opened")
    assert str(refused.error) == "No."
    assert (sound.error, [crop.shape for crop in sound.crops]) == (None, [(3, SIZE, SIZE)])


def test_an_unforeseen_error_names_the_photo_and_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    def find(name: str, photo: Photo) -> list[FoundFace]:
        raise error

    error: Exception = ZeroDivisionError()
    ((one,),) = opened_groups(found_of(tmp_path, [40]), find, [SIZE], never)
    assert one.error is error
    error = DiskFull("The disk is full.")
    with pytest.raises(DiskFull):
        list(opened_groups(found_of(tmp_path, [40]), find, [SIZE], never))


def test_nothing_is_read_ahead_of_the_next_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "TOGETHER", 2)
    read: list[str] = []

    def reading(path: Path) -> Photo:
        read.append(path.name)
        return read_photo(path)

    monkeypatch.setattr(photos, "read_photo", reading)
    groups = opened_groups(found_of(tmp_path, [40] * 9), finder(), [SIZE], never)
    for number in range(1, 4):
        next(groups)
        assert len(read) <= 2 * (number + 1)
    groups.close()
    assert len(read) <= 8


def test_the_toy_detector_sees_what_is_drawn() -> None:
    face: Face
    (face,) = squares(torch.from_numpy(scene((10, 12, 20))).permute(2, 0, 1) / 127.5 - 1)
    assert face.box == (9.5, 11.5, 29.5, 31.5)
    assert 0.85 < face.score < 0.95
