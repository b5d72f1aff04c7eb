"""Faces cut from whole photos, with the transforms that bring them back: none without its line, no line too many."""

import json
from pathlib import Path

import numpy as np
import pytest

import marked
from marked import SIZE, finder, load, save, scene, statuses
from unfade.errors import BadInput, DiskFull
from unfade.images.decoding import read_photo
from unfade.images.files import read_image
from unfade.images.finding import Found, find_photos
from unfade.images.photo import Photo
from unfade.jobs.journal import Entry
from unfade.stages import crop as cropping
from unfade.stages.crop import crop_photos, faces_in, flat_names, found_before
from unfade.stages.photos import FoundFace

ONE, TWO = ((20, 15, 24),), ((5, 8, 20), (50, 20, 24))


class Place(marked.Place):
    """A folder of photos and one of faces; each `run` is a new process's."""

    @property
    def out(self) -> Path:
        return self.folder / "faces"

    def run(self, key: str = "") -> list[Entry]:
        return crop_photos(find_photos(self.photos), self.begun, self.find, size=SIZE, key=key)

    def faces(self) -> list[str]:
        return sorted(path.name for path in self.out.glob("*.png"))

    def lines(self) -> list[str]:
        return [json.loads(line)["photo"] for line in (self.out / "faces.jsonl").read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_face_of_every_photo_is_cut(place: Place) -> None:
    place.save("a.jpg", *TWO)
    place.save("b.png")
    place.save("写真/c.png", *ONE)
    (place.photos / "d.png").write_text("no")
    entries = place.run()
    assert statuses(entries) == {"a.jpg": "done", "b.png": "no_face", "d.png": "failed", "写真/c.png": "done"}
    assert (entries[0].notes, entries[0].output) == (("2 faces",), "a_00.png")
    assert "no face found that matches the settings" in entries[1].reason
    assert place.faces() == ["a_00.png", "a_01.png", "写真__c_00.png"]
    expected = {"a.jpg": ["a_00.png", "a_01.png"], "b.png": [], "写真/c.png": ["写真__c_00.png"]}
    assert faces_in(place.out) == expected
    for name in place.faces():
        face = read_image(place.out / name)
        assert face.shape == (3, SIZE, SIZE)
        assert face[:, SIZE // 2, SIZE // 2].mean() > 0.7
        assert face[:, 0, 0].mean() < 0


def test_what_was_found_before_is_found_again_without_a_detector(place: Place) -> None:
    place.save("a.png", *TWO)
    place.save("b.png")
    place.run()
    again = found_before(place.out)
    photo = read_photo(place.photos / "a.png")
    for one, other in zip(finder()("a.png", photo), again("a.png", photo), strict=True):
        assert np.array_equal(one.matrix, other.matrix)
        assert np.array_equal(one.face.points, other.face.points)
        assert (one.index, one.face.box, one.face.score) == (other.index, other.face.box, other.face.score)
    assert again("b.png", photo) == []
    with pytest.raises(BadInput, match=r"^c\.png was not searched for faces when the others were; run the same"):
        again("c.png", photo)


@pytest.mark.parametrize("choice", ["largest", "1"])
def test_the_number_of_a_face_is_in_its_name(place: Place, choice: str) -> None:
    place.save("a.png", *TWO)
    place.find = finder(choice)
    place.run()
    assert place.faces() == ["a_01.png"]
    (found,) = found_before(place.out)("a.png", Photo(scene()))
    assert found.index == 1


# Names


def named(*names: str) -> dict[str, str]:
    return flat_names(Found(Path(), tuple(sorted(map(Path, names)))))


def test_names_are_flat_and_short() -> None:
    assert named("a.png", "b/c.d.jpg", "写真/祖母 1.png") == {
        "a.png": "a", "b/c.d.jpg": "b__c.d", "写真/祖母 1.png": "写真__祖母 1"
    }  # fmt: skip
    assert named("a.png", "a.jpg") == {"a.png": "a-png", "a.jpg": "a-jpg"}
    assert named("a\udcff.png") == {"a\udcff.png": "a\ufffd"}


@pytest.mark.parametrize(
    "names",
    [
        ("a/b.png", "a__b.png"),
        ("a.jpg", "a.png", "a-jpg.png"),
        ("a/b.jpg", "a/b.png", "a__b.png", "a__b-png.jpg"),
        ("a/b/c.png", "a/b__c.png", "a__b/c.png", "a__b__c.png"),
        ("祖" * 80 + ".png", "祖" * 80 + ".jpg", "祖" * 79 + "父.png"),
        ("x" * 160 + "1.png", "x" * 160 + "2.png", "/".join(["folder"] * 60) + "/a.png"),
        ("\udcff.png", "\udcfe.png"),
    ],
)
def test_no_two_names_are_alike_and_none_too_long(names: tuple[str, ...]) -> None:
    flat = named(*names)
    assert set(flat) == set(names)
    assert len(set(flat.values())) == len(names)
    assert all(len(name.encode()) < 200 and "/" not in name for name in flat.values())


def test_photos_of_like_names_have_their_own_faces(place: Place) -> None:
    for seed, name in enumerate(("a/b.png", "a__b.png", "a__b.jpg", "n" * 240 + ".png")):
        place.save(name, *TWO, seed=seed)
    assert set(statuses(place.run()).values()) == {"done"}
    assert len(place.faces()) == 8
    assert sorted(file for files in faces_in(place.out).values() for file in files) == place.faces()


# Run again


def test_a_lost_face_another_key_and_a_changed_photo_are_cut_again(place: Place) -> None:
    place.save("a.png", *TWO)
    place.save("b.png", *ONE)
    place.run()
    whole = {name: (place.out / name).read_bytes() for name in place.faces()}
    (place.out / "a_01.png").unlink()
    place.run()
    assert {name: (place.out / name).read_bytes() for name in place.faces()} == whole
    asked: list[str] = []

    def find(name: str, photo: Photo) -> list[FoundFace]:
        asked.append(name)
        return finder("largest")(name, photo)

    place.find = find
    place.run("largest")
    assert sorted(asked) == ["a.png", "b.png"]
    assert place.faces() == ["a_01.png", "b_00.png"], "what the new key does not ask for is removed"


@pytest.mark.parametrize("change", ["fewer", "none", "broken", "gone"])
def test_faces_of_a_photo_as_it_was_are_removed(place: Place, change: str) -> None:
    path = place.save("a.png", *TWO)
    place.save("b.png", *ONE)
    place.run()
    path.unlink()
    if change in ("fewer", "none"):
        place.save("a.png", *(ONE if change == "fewer" else ()))
    elif change == "broken":
        path.write_text("no")
    entries = place.run()
    status = {"fewer": "done", "none": "no_face", "broken": "failed"}.get(change)
    assert statuses(entries) == ({"a.png": status} if status else {}) | {"b.png": "done"}
    assert place.faces() == ["a_00.png"] * (change == "fewer") + ["b_00.png"]
    assert place.lines() == ["a.png"] * (change in ("fewer", "none")) + ["b.png"]


def test_a_photo_that_comes_back_is_cut_again(place: Place) -> None:
    path = place.save("a.png", *TWO)
    place.save("b.png", *ONE)
    first, whole = place.run(), faces_in(place.out)
    content = path.read_bytes()
    path.unlink()
    assert statuses(place.run()) == {"b.png": "done"}
    path.write_bytes(content)
    assert place.run() == first
    assert faces_in(place.out) == whole
    assert place.faces() == ["a_00.png", "a_01.png", "b_00.png"]


def test_lines_are_in_the_order_of_the_photos(place: Place) -> None:
    for name in ("c.png", "b.png"):
        place.save(name, *ONE)
    place.run()
    place.save("a.png", *ONE)
    place.save("b.png", *TWO)
    place.run()
    assert place.lines() == ["a.png", "b.png", "c.png"]


def test_a_part_of_a_line_is_passed_over(place: Place) -> None:
    place.save("a.png", *ONE)
    place.save("b.png", *TWO)
    place.run()
    path = place.out / "faces.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-40])
    assert faces_in(place.out) == {"a.png": ["a_00.png"]}
    (place.out / "b_00.png").unlink()
    (place.out / "b_01.png").unlink()
    assert set(statuses(place.run()).values()) == {"done"}
    assert path.read_text() == whole


def test_a_full_disk_ends_the_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        place.save(f"{seed}.png", *ONE, seed=seed)

    def full(path: Path, image: object) -> None:
        raise DiskFull("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(cropping, "write_png", full)
        with pytest.raises(DiskFull):
            place.run()
    assert [entry.status for entry in place.journal.stage("faces")] == ["begun"]
    assert set(statuses(place.run()).values()) == {"done"}


def test_a_face_is_as_the_photo_shows_it(place: Place) -> None:
    """Where the mark is as large as the template's box in the crop, its pixels are the photo's."""
    side = round(SIZE * 272 / 512)
    save(place.photos / "a.png", scene((30, 20, side), height=60, width=90))
    place.run()
    face = load(place.out / "a_00.png")
    assert np.abs(face[11:22, 10:21] - 230).max() <= 25
