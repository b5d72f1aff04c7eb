"""Whole photos restored: every photo is accounted for, nothing of others is touched, a killed run goes on."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from drawn import exif_with
from marked import LEVEL, SIZE, Dimmer, Place, Poisoned, finder, in_colour, load, save, scene, statuses
from unfade.errors import BadInput, DiskFull
from unfade.faces.align import scale_of, to_template
from unfade.faces.identity import Likeness
from unfade.faces.paste import PasteSettings
from unfade.images.decoding import read_photo
from unfade.images.photo import Photo
from unfade.images.provenance import Provenance
from unfade.images.tone import tone_of
from unfade.jobs.journal import Counts, Entry
from unfade.restorers.by_size import REDUCED, BySize
from unfade.restorers.load import load_restorer
from unfade.stages import photos
from unfade.stages.photos import FoundFace
from unfade.stages.restore_photos import Parts, PhotoSettings, result_names

ONE, TWO = ((20, 15, 24),), ((5, 8, 20), (50, 20, 24))
MADE = Provenance("unfade 9", "toy", "ab" * 32, "{}")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def entry_of(entries: list[Entry], name: str) -> Entry:
    (entry,) = (entry for entry in entries if entry.item == name)
    return entry


# What becomes of a photo


def test_faces_are_restored_and_the_rest_is_bit_for_bit(place: Place) -> None:
    path = place.save("a.png", *TWO)
    (entry,) = place.run()
    assert (entry.status, entry.output, entry.notes) == ("done", "a.png", ("2 faces",))
    before, after = load(path), load(place.out / "a.png")
    assert before.shape == after.shape
    for left, top, side in TWO:
        inside = np.s_[top + 4 : top + side - 4, left + 4 : left + side - 4]
        assert np.abs(after[inside] - (LEVEL + 127.5) / 2).max() <= 1, "half of what it was, in -1..1"
        square = np.s_[max(0, top - 15) : top + side + 15, max(0, left - 15) : left + side + 15]
        after[square] = before[square]
    assert np.array_equal(before, after)


def test_each_face_goes_through_the_restorer_of_its_size(place: Place) -> None:
    place.restorer = BySize([Dimmer(64), Dimmer(SIZE)])
    small, large = (5, 60, 20), (60, 20, 50)
    save(place.photos / "a.png", scene(large, small, height=110, width=150))
    (entry,) = place.run(sidecar=True)
    assert entry.notes[0] == "2 faces"
    assert [(one.size, one.together) for one in place.restorer.restorers] == [(SIZE, [1]), (64, [1])]
    faces = json.loads((place.out / "a.png.json").read_text())["faces"]
    assert [face["size"] for face in faces] == [SIZE, 64]
    sides = [face["size"] / scale_of(np.array(face["matrix"])) for face in faces]  # px of the photo
    assert sides[0] < REDUCED * SIZE < sides[1]
    after = load(place.out / "a.png")
    for left, top, side in (small, large):
        inside = np.s_[top + 6 : top + side - 6, left + 6 : left + side - 6]
        assert np.abs(after[inside] - (LEVEL + 127.5) / 2).max() <= 1


def test_strength_blends_with_the_photo(place: Place) -> None:
    toned, coloured = place.save("a.png", *TWO), save(place.photos / "b.png", in_colour(scene(*TWO)))
    for path in (toned, coloured):
        assert (tone_of(read_photo(path)) is None) == (path == coloured)
    assert set(statuses(place.run(strength=0.0)).values()) == {"done"}
    for path in (toned, coloured):
        assert np.array_equal(load(path), load(place.out / path.name))
    place.run(strength=0.5)
    assert abs(load(place.out / "a.png")[32, 62, 0] - (LEVEL + (LEVEL + 127.5) / 2) / 2) <= 1


@pytest.mark.parametrize(("choice", "dim"), [("all", [0, 1]), ("largest", [1]), ("0", [0]), ("1,0", [0, 1]), ("5", [])])
def test_only_chosen_faces_change(place: Place, choice: str, dim: list[int]) -> None:
    place.save("a.png", *TWO)
    place.find = finder(choice)
    entries = place.run(copy=True)
    assert statuses(entries) == {"a.png": "done" if dim else "no_face"}
    after = load(place.out / "a.png")
    middles = [after[top + side // 2, left + side // 2, 0] for left, top, side in TWO]
    assert [number for number, level in enumerate(middles) if level < LEVEL - 20] == dim


@pytest.mark.parametrize(("detect", "dim"), [({"min_face": 22}, 1), ({"max_face": 22}, 0)])
def test_only_faces_of_the_right_size_change(place: Place, detect: dict[str, float], dim: int) -> None:
    place.save("a.png", *TWO)
    place.find = finder(**detect)
    place.run()
    after = load(place.out / "a.png")
    left, top, side = TWO[1 - dim]
    assert after[top + side // 2, left + side // 2, 0] == LEVEL
    left, top, side = TWO[dim]
    assert after[top + side // 2, left + side // 2, 0] < LEVEL - 20


def test_a_photo_without_a_face_is_listed_and_copied_only_if_asked(place: Place) -> None:
    path = place.save("a.jpg")
    os.utime(path, (1e9, 1e9))
    (entry,) = place.run()
    assert (entry.status, entry.output) == ("no_face", "")
    assert entry.reason.startswith(
        f"{path}: no face found that matches the settings, upright or rotated by 90, 180 or 270 "
    )
    assert not place.out.exists() or place.written() == []
    (entry,) = place.run(copy=True)
    assert (entry.status, entry.output) == ("no_face", "a.jpg")
    assert (place.out / "a.jpg").read_bytes() == path.read_bytes()
    assert (place.out / "a.jpg").stat().st_mtime == 1e9
    place.run()
    assert place.written() == [], "a copy that is not asked for any more is withdrawn"


def test_a_copy_is_of_the_format_that_its_name_says(place: Place) -> None:
    path = place.save("a.jpg")
    save(place.photos / "b.gif", scene()[..., 0])
    place.run(copy=True, kind="PNG")
    assert place.written() == ["a.png", "b.png"]
    for name in place.written():
        with Image.open(place.out / name) as image:
            assert image.format == "PNG"
    assert np.array_equal(load(place.out / "a.png"), load(path))


def test_order_folders_and_any_names(place: Place) -> None:
    names = ["z.png", "B.JPG", "b.jpg", "写真/祖母 1.png", "été/ä b.c.webp", "a/x.png", "a/b/x.png", "x\udcff.png"]
    for seed, name in enumerate(names):
        place.save(name, *ONE, seed=seed)
    entries = place.run(sidecar=True)
    expected = [path.as_posix() for path in sorted(map(Path, names))]
    assert [entry.item for entry in entries] == expected
    assert set(statuses(entries).values()) == {"done"}
    assert place.written() == sorted([*names, *(f"{name}.json" for name in names)])
    assert place.run(sidecar=True) == entries


def test_kinds_that_are_not_written_become_others(place: Place) -> None:
    save(place.photos / "a.gif", scene(*ONE)[..., 0])
    place.save("b.ppm", *ONE)
    entries = place.run()
    assert [(entry.status, entry.output) for entry in entries] == [("done", "a.png"), ("done", "b.png")]
    assert "GIF is not written; PNG instead" in entries[0].notes


@pytest.mark.parametrize(("kind", "name"), [("PNG", "a.png"), ("webp", "a.webp"), ("tiff", "a.tif"), ("jpg", "a.JPEG")])
def test_the_format_can_be_chosen(place: Place, kind: str, name: str) -> None:
    place.save("a.JPEG", *ONE)
    (entry,) = place.run(kind=kind)
    assert (entry.status, entry.output) == ("done", name)
    with Image.open(place.out / name) as image:
        assert image.format == {"jpg": "JPEG"}.get(kind, kind.upper())


def test_the_quality_is_the_photos_own_or_the_one_asked_for(place: Place) -> None:
    path = place.save("a.jpg", *ONE, quality=60)
    place.run()
    with Image.open(path) as before, Image.open(place.out / "a.jpg") as after:
        assert before.quantization == after.quantization
    own = (place.out / "a.jpg").stat().st_size
    place.run(quality=98)
    assert (place.out / "a.jpg").stat().st_size > own


@pytest.mark.parametrize("wrong", [{"quality": 0}, {"quality": 101}, {"kind": "gif"}])
def test_settings_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        PhotoSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"strength": 1.5}])
def test_a_run_that_cannot_be(place: Place, wrong: dict[str, float]) -> None:
    place.save("a.png", *ONE)
    with pytest.raises(BadInput):
        place.run(**wrong)


def test_a_picture_too_large_for_its_new_format_fails_alone(place: Place) -> None:
    save(place.photos / "a.png", scene((8000, 10, 200), height=220, width=16_400))
    place.save("b.png", *ONE)
    entries = place.run(kind="webp")
    assert statuses(entries) == {"a.png": "failed", "b.png": "done"}
    assert entries[0].reason.startswith(f"{place.photos / 'a.png'} cannot be written as webp (")
    assert place.written() == ["b.webp"]


def test_a_format_that_refuses_a_picture_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*given: object, **how: object) -> bytes:
        raise RuntimeError("Failed to encode image: Invalid argument")  # Pillow's AVIF, above 65,536 pixels

    monkeypatch.setattr("unfade.stages.restore_photos.encode_photo", refuses)
    place.save("a.png", *ONE)
    (entry,) = place.run(kind="avif")
    assert entry.reason.endswith(
        "cannot be written as avif (Failed to encode image: Invalid argument); choose another `kind`."
    )


# What the file says


def test_metadata_and_dates_are_kept(place: Place) -> None:
    path = place.save("a.jpg", *ONE, exif=exif_with(6), dpi=(300, 300))
    os.utime(path, (1.5e9, 1.5e9))
    place.run(parts=Parts(provenance=MADE))
    target = place.out / "a.jpg"
    assert target.stat().st_mtime == 1.5e9
    with Image.open(target) as image:
        exif = image.getexif()
        assert (exif[0x010F], exif.get(0x0112, 1)) == ("maker", 1)
        assert exif.get_ifd(0x8769)[0x9003] == "1987:06:05 04:03:02"
        assert image.size == (60, 90), "turned upright"
        assert image.info["dpi"] == (300, 300)
        assert b"compositeWithTrainedAlgorithmicMedia" in image.info["xmp"]
        assert b"unfade 9" in image.info["xmp"]
    place.run()
    with Image.open(target) as image:
        assert "xmp" not in image.info


def test_sixteen_bits_stay(place: Place) -> None:
    deep = scene(*ONE)[..., 0].astype(np.uint16) * 257 + 3
    save(place.photos / "a.png", deep)
    assert statuses(place.run()) == {"a.png": "done"}
    before, after = read_photo(place.photos / "a.png"), read_photo(place.out / "a.png")
    assert after.levels.dtype == np.uint16
    assert after.origin.grey
    assert np.array_equal(before.levels[:2], after.levels[:2])
    assert not np.array_equal(before.levels, after.levels)


def test_alpha_stays(place: Place) -> None:
    clear = np.dstack([scene(*ONE), np.full((60, 90), 77, np.uint8)])
    save(place.photos / "a.png", clear)
    place.run()
    after = load(place.out / "a.png")
    assert after.shape == (60, 90, 4)
    assert (after[..., 3] == 77).all()


class Painter(Dimmer):
    """Makes faces green."""

    def forward(self, face: Tensor) -> Tensor:
        return face * torch.tensor([0.3, 1.0, 0.2])[:, None, None]


def test_grey_stays_grey_and_sepia_sepia(place: Place) -> None:
    place.restorer = Painter()
    grey = scene(*ONE)[..., 0]
    sepia = (grey[..., None] * np.array([1.0, 0.93, 0.82])).astype(np.uint8)
    save(place.photos / "grey.png", grey)
    save(place.photos / "sepia.png", sepia)
    place.run()
    with Image.open(place.out / "grey.png") as image:
        assert image.mode == "L"
    tones = [tone_of(read_photo(folder / "sepia.png")) for folder in (place.photos, place.out)]
    assert tones[1] is not None
    reds, blues = (np.interp([-0.5, 0.5], tones[1].luma, values) for values in (tones[1].red, tones[1].blue))
    assert (reds > 0).all()
    assert (blues < 0).all()
    sepia_before, sepia_after = load(place.photos / "sepia.png"), load(place.out / "sepia.png")
    assert np.abs(sepia_before - sepia_after).max() > 20, "it was restored all the same"
    place.run(colour=True)
    with Image.open(place.out / "grey.png") as image:
        assert image.mode == "RGB"
        red, green, _ = np.asarray(image)[27, 32].astype(int)
        assert green - red > 30
    assert tone_of(read_photo(place.out / "sepia.png")) is None


def test_the_sidecar_tells_of_the_faces(place: Place) -> None:
    place.save("ä/a.jpg", *TWO)
    entries = place.run(sidecar=True, parts=Parts(provenance=MADE, likeness=Likeness(lambda crop, face: 0.25, 0.6)))
    assert place.written() == ["ä/a.jpg", "ä/a.jpg.json"]
    text = (place.out / "ä/a.jpg.json").read_text("utf-8")
    told = json.loads(text)
    assert "ä/a.jpg" in text, "readable by people"
    assert (told["photo"], told["result"], told["sha256"]) == ("ä/a.jpg", "ä/a.jpg", MADE.sha256)
    for face, (left, top, side) in zip(told["faces"], TWO, strict=True):
        assert face["box"] == pytest.approx([left - 0.5, top - 0.5, left + side - 0.5, top + side - 0.5], abs=0.5)
        assert np.allclose(face["matrix"], to_template(face["points"], SIZE))
        assert (face["identity_distance"], face["score"] > 0.8) == (0.25, True)
    (place.out / "ä/a.jpg.json").unlink()
    again = place.run(sidecar=True, parts=Parts(provenance=MADE, likeness=Likeness(lambda crop, face: 0.25, 0.6)))
    assert again == entries
    assert (place.out / "ä/a.jpg.json").read_text("utf-8") == text


def test_a_large_face_and_a_small_restorer_are_noted(place: Place) -> None:
    save(place.photos / "a.png", scene((30, 30, 60), height=120, width=120))
    assert place.run()[0].notes == (
        "1 face", "a face is 3.5 times as large as the restorer's: finer detail stays as it was"
    )  # fmt: skip


@pytest.mark.parametrize("paste", [PasteSettings(way="face"), PasteSettings(colour="ring"), PasteSettings(feather=0.4)])
def test_ways_of_pasting_have_an_effect(place: Place, paste: PasteSettings) -> None:
    place.save("a.png", *ONE)
    place.run()
    plain = load(place.out / "a.png")
    place.run(paste=paste)
    assert not np.array_equal(load(place.out / "a.png"), plain)


def test_faces_of_an_enlarged_photo_are_in_their_places(place: Place) -> None:
    place.save("a.png", *ONE)

    def twice(photo: Photo) -> Photo:
        return Photo(photo.levels.repeat(2, 0).repeat(2, 1), origin=photo.origin)

    place.run(scale=2, parts=Parts(enlarge=twice))
    after = load(place.out / "a.png")
    assert after.shape == (120, 180, 3)
    left, top, side = (2 * value for value in ONE[0])
    assert np.abs(after[top + 8 : top + side - 8, left + 8 : left + side - 8] - (LEVEL + 127.5) / 2).max() <= 2


# Every photo is accounted for

GOOD = {"one": ONE, "two": TWO, "bare": ()}
KINDS = ("one", "two", "bare", "cut", "empty", "text", "gone", "film", "nan", "strange")


def put(place: Place, name: str, kind: str, seed: int) -> str:
    """Write one photo of a kind, and what should become of it."""
    path = place.photos / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind in GOOD:
        place.save(name, *GOOD[kind], seed=seed)
        return "done" if GOOD[kind] else "no_face"
    if kind == "gone":
        path.symlink_to("nowhere")
    elif kind == "film":
        frames = [Image.fromarray(scene(*ONE, seed=s)) for s in range(2)]
        frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:])
    elif kind in ("empty", "text"):
        path.write_text("" if kind == "empty" else "Dear diary")
    else:
        place.save(name, *ONE, seed=seed, level=255 if kind == "nan" else LEVEL)
    if kind == "cut":
        spoil(path)
    if kind == "strange":
        (place.out / name).parent.mkdir(parents=True, exist_ok=True)
        (place.out / name).write_text("mine")
        return "skipped"
    return "failed"


photos_of_a_run = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), min_size=1, max_size=11)


@settings(max_examples=25, deadline=None)
@given(first=photos_of_a_run, second=photos_of_a_run, batch=st.integers(1, 9), sidecar=st.booleans())
def test_found_is_done_and_skipped_and_failed_and_without_a_face(
    first: list[tuple[str, int]], second: list[tuple[str, int]], batch: int, sidecar: bool
) -> None:
    """Whatever is in the folder, and whatever it becomes before the second run."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), Poisoned())
        names = [f"{'sub/' * (i % 3 == 1)}{i:02d}.{('png', 'jpg', 'webp')[i % 3]}" for i in range(11)]
        strangers: set[str] = set()
        for kinds in (first, second):
            expected: dict[str, str] = {}
            for name, (kind, seed) in zip(names, kinds, strict=False):
                mine = kind == "strange" and (name in strangers or not (place.out / name).exists())
                status = put(place, name, "one" if kind == "strange" and not mine else kind, seed)
                strangers |= {name} if mine else set()
                expected[name] = "skipped" if name in strangers else status
            for name in names[len(kinds) :]:
                (place.photos / name).unlink(missing_ok=True)
            entries = place.run(batch=batch, sidecar=sidecar)
            assert statuses(entries) == dict(sorted(expected.items(), key=lambda item: Path(item[0])))
            counts = Counts.of(entries)
            assert counts.found == len(expected) == counts.done + counts.skipped + counts.failed + counts.no_face
            assert all(entry.reason for entry in entries if entry.status != "done")
            results = {name for name, status in expected.items() if status == "done"}
            there = {name for name in place.written() if name.removesuffix(".json") in expected}
            sidecars = {f"{name}.json" for name in results} if sidecar else set()
            assert there == results | sidecars | (strangers & expected.keys())
            assert all((place.out / name).read_text() == "mine" for name in strangers)


def test_two_photos_of_one_name_are_kept_apart(place: Place) -> None:
    for seed, name in enumerate(("a.bmp", "a.png", "b.png")):
        place.save(name, *ONE, seed=seed)
    assert statuses(place.run(kind="PNG")) == dict.fromkeys(("a.bmp", "a.png", "b.png"), "done")
    entries = place.run(kind="PNG")
    assert [entry.output for entry in entries] == ["a.bmp.png", "a.png", "b.png"]
    assert "written as a.bmp.png, as another photo has its name" in entries[0].notes
    assert place.written() == ["a.bmp.png", "a.png", "b.png"]


@pytest.mark.parametrize(
    ("names", "kind", "results"),
    [
        (["one.gif", "one.jpg", "one.png"], None, ["one.gif.png", "one.jpg", "one.png"]),
        (["one.gif", "one.jp2"], None, ["one.png", "one.jp2.png"]),
        (["a/x.png", "a/x.ppm", "x.ppm"], None, ["a/x.png", "a/x.ppm.png", "x.png"]),
        (["x.heic", "x.jpeg", "x.jpg"], None, ["x.heic.jpg", "x.jpeg", "x.jpg"]),
        (["x.jpg", "x.tif", "x.webp"], "PNG", ["x.png", "x.tif.png", "x.webp.png"]),
        (["x.JPG", "x.jpg"], "JPEG", ["x.JPG", "x.jpg"]),
        (["a.bmp", "a.bmp.png", "a.png"], "PNG", ["a.bmp.png.png", "a.bmp.png", "a.png"]),
    ],
)
def test_a_photo_keeps_its_name_and_others_append_to_theirs(
    names: list[str], kind: str | None, results: list[str]
) -> None:
    result_of = result_names([Path(name) for name in names], kind)
    assert [result_of(name) for name in names] == list(results)


def test_a_photo_that_takes_its_name_back_moves_the_result_of_another(place: Place) -> None:
    place.save("a.ppm", *ONE, seed=0)
    assert [entry.output for entry in place.run()] == ["a.png"]
    place.save("a.png", *ONE, seed=1)
    assert [entry.output for entry in place.run()] == ["a.png", "a.ppm.png"]
    assert place.written() == ["a.png", "a.ppm.png"]


def test_a_newcomer_of_the_same_name_does_not_take_over(place: Place) -> None:
    place.save("a.png", *ONE)
    first = place.run(kind="PNG")
    place.save("a.bmp", *ONE, seed=5)
    before = (place.out / "a.png").read_bytes()
    entries = place.run(kind="PNG")
    assert [entry.output for entry in entries] == ["a.bmp.png", "a.png"]
    assert entries[1:] == first
    assert (place.out / "a.png").read_bytes() == before


def test_a_broken_photo_does_not_keep_its_name_from_a_sound_one(place: Place) -> None:
    place.save("a.png", *ONE)
    (place.photos / "a.bmp").write_text("no")
    assert statuses(place.run(kind="PNG")) == {"a.bmp": "failed", "a.png": "done"}


def test_files_of_others_are_never_touched(place: Place) -> None:
    for name in ("a.png", "b.png", "c.png"):
        place.save(name, *ONE)
    place.out.mkdir()
    (place.out / "a.png").write_text("mine")
    (place.out / "b.png.json").write_text("mine")
    (place.out / "c.png").mkdir()
    (place.out / "other.txt").write_text("mine")
    for _ in range(2):
        entries = place.run(sidecar=True)
        assert set(statuses(entries).values()) == {"skipped"}
        assert entries[1].reason.startswith(f"{place.out / 'b.png.json'} is there already and was not made from ")
    assert place.written() == ["a.png", "b.png.json", "other.txt"]
    assert {(place.out / name).read_text() for name in place.written()} == {"mine"}
    (place.out / "a.png").unlink()
    assert statuses(place.run(sidecar=True)) == {"a.png": "done", "b.png": "skipped", "c.png": "skipped"}


def test_the_output_among_the_photos_is_not_taken_for_photos(place: Place) -> None:
    place.save("a.png", *ONE)
    place.folder = place.folder / "photos"  # photos/photos, photos/out
    place.save("b.png", *ONE)
    inner = Place(place.folder.parent)
    assert statuses(place.run()) == {"b.png": "done"}
    assert sorted(statuses(inner.run())) == ["a.png", "out/b.png", "photos/b.png"]


# Run again


def test_a_second_run_does_nothing(place: Place) -> None:
    for name in ("a.png", "b.jpg", "c.png"):
        place.save(name, *(() if name == "c.png" else ONE))
    first = place.run(copy=True)
    times = {path: path.stat().st_mtime_ns for path in (place.out, *place.out.iterdir())}
    journal = place.journal.path.read_bytes()
    place.restorer = Dimmer()
    assert place.run(copy=True) == first
    assert place.restorer.together == []
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert place.journal.path.read_bytes() == journal


def test_changed_photos_and_missing_results_are_done_again(place: Place) -> None:
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        place.save(name, *ONE, seed=seed)
    place.run()
    whole = {name: (place.out / name).read_bytes() for name in place.written()}
    place.save("a.png", *TWO, seed=9)
    (place.out / "b.png").unlink()
    untouched = (place.out / "c.png").stat().st_ino
    assert set(statuses(place.run()).values()) == {"done"}
    assert (place.out / "a.png").read_bytes() != whole["a.png"]
    assert (place.out / "b.png").read_bytes() == whole["b.png"]
    assert (place.out / "c.png").stat().st_ino == untouched


@pytest.mark.parametrize("change", ["broken", "nan", "no face", "gone"])
def test_an_old_result_never_stands_for_a_photo_that_failed(place: Place, change: str) -> None:
    place.restorer = Poisoned()
    path = place.save("a.png", *ONE)
    place.run(sidecar=True)
    assert place.written() == ["a.png", "a.png.json"]
    if change == "broken":
        spoil(path)
    elif change == "gone":
        path.unlink()
        path.symlink_to("nowhere")
    else:
        place.save("a.png", *(ONE if change == "nan" else ()), level=255)
    (entry,) = place.run(sidecar=True)
    assert entry.status == ("no_face" if change == "no face" else "failed")
    assert place.written() == []
    if change == "nan":
        assert entry.reason == f"{path}: the network gave values that are not numbers; try another `restorer`."
    path.unlink(missing_ok=True)
    place.save("a.png", *ONE)
    assert statuses(place.run(sidecar=True)) == {"a.png": "done"}


def test_a_face_of_nan_fails_its_photo_alone(place: Place) -> None:
    place.restorer = Poisoned()
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        place.save(name, *TWO, seed=seed, level=255 if name == "b.png" else LEVEL)
    assert statuses(place.run()) == {"a.png": "done", "b.png": "failed", "c.png": "done"}
    assert place.written() == ["a.png", "c.png"]


# Batches and memory


def test_faces_of_several_photos_go_together(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "TOGETHER", 3)
    for seed in range(5):
        place.save(f"{seed}.png", *((), ONE, TWO, ONE, TWO)[seed], seed=seed)
    dimmer = place.restorer = Dimmer()
    place.run(batch=8)
    assert dimmer.together == [3, 3]
    dimmer.together = []
    (place.out / "2.png").unlink()
    place.run(batch=2)
    assert dimmer.together == [2, 1], "the group of what is missing, as it was the first time"


def test_the_size_of_a_batch_changes_no_level_by_more_than_one(models: tuple[Path, Path], tmp_path: Path) -> None:
    network = load_restorer(models[0])
    results = []
    for batch in (1, 8):
        place = Place(tmp_path / str(batch), network, finder(size=network.size))
        for seed in range(6):
            place.save(f"{seed}.png", *TWO, seed=seed)
        assert set(statuses(place.run(batch=batch)).values()) == {"done"}
        results.append([load(place.out / name) for name in place.written()])
        assert all(
            np.abs(load(place.photos / name) - after).max() > 5
            for name, after in zip(place.written(), results[-1], strict=True)
        ), "it does something"
    assert max(np.abs(one - other).max() for one, other in zip(*results, strict=True)) <= 1


def test_never_more_than_three_groups_are_in_memory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "TOGETHER", 2)
    alive: list[weakref.ref[Photo]] = []
    counts: list[int] = []

    def count() -> None:
        alive[:] = [photo for photo in alive if photo() is not None]
        counts.append(len(alive))

    def reading(path: Path) -> Photo:
        photo = read_photo(path)
        alive.append(weakref.ref(photo))
        count()
        return photo

    def counting(face: Tensor) -> Tensor:
        count()
        return face * 0.5

    monkeypatch.setattr(photos, "read_photo", reading)
    monkeypatch.setattr(place.restorer, "forward", counting)
    for seed in range(50):
        place.save(f"{seed:02d}.png", *(ONE if seed % 5 else ()), seed=seed)
    place.save("bad.png")
    spoil(place.photos / "bad.png")
    assert Counts.of(place.run(copy=True)) == Counts(found=51, done=40, skipped=0, failed=1, no_face=10)
    assert 2 <= max(counts) <= 6
    count()
    assert counts[-1] == 0


# What the disk does


@pytest.mark.parametrize("name", ["sub/a.png", "a.png"])
def test_a_result_that_cannot_be_written_fails_alone(place: Place, name: str) -> None:
    """A file where the folder should be, or an older result in a folder that may not be written to."""
    place.save("sub/a.png", *ONE)
    place.save("b.png", *ONE)
    place.out.mkdir()
    (place.out / "sub").write_text("a file")
    entries = place.run(sidecar=True)
    assert statuses(entries) == {"b.png": "done", "sub/a.png": "failed"}
    assert entries[1].reason.startswith(f"{place.out / 'sub/a.png'} could not be written (")
    (place.out / "sub").unlink()
    assert set(statuses(place.run(sidecar=True)).values()) == {"done"}


def test_a_folder_that_may_not_be_written_to(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system says it; permissions do not stop everybody."""
    place.save("a.png", *ONE)
    place.save("sub/b.png", *ONE)
    place.save("sub/c.png")
    place.run(copy=True)
    for name in ("sub/b.png", "sub/c.png"):
        place.save(name, *ONE, seed=4)
    replace, unlink = Path.replace, Path.unlink

    def refusing(real: Callable[..., object]) -> Callable[..., object]:
        def call(path: Path, *args: object, **options: object) -> object:
            if path.parent == place.out / "sub" and not path.name.startswith("."):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            if args and isinstance(args[0], Path) and args[0].parent == place.out / "sub":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *args, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refusing(replace))
        patch.setattr(Path, "unlink", refusing(unlink))
        entries = place.run(copy=True)
        assert statuses(entries) == {"a.png": "done", "sub/b.png": "failed", "sub/c.png": "failed"}
        for entry in entries[1:]:
            assert "could not be written ([Errno 13] Permission denied" in entry.reason
            assert "is the result of an older photo but could not be removed" in entry.reason
    assert set(statuses(place.run(copy=True)).values()) == {"done"}


@pytest.mark.parametrize("long", ["sidecar", "suffix"])
def test_a_name_too_long_for_the_result_fails_alone(place: Place, long: str) -> None:
    name = "n" * 251 + ".png"
    place.save(name, *ONE)
    place.save("b.png", *ONE)
    entries = place.run(sidecar=long == "sidecar", kind="webp" if long == "suffix" else None)
    assert statuses(entries) == {"b.png": "done", name: "failed"}
    assert "could not be written" in entries[1].reason
    assert len(place.written()) == 1 + (long == "sidecar")


def test_a_photo_that_is_deleted_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is hashed, before it is read, or before it is copied; all others are done."""
    monkeypatch.setattr(photos, "TOGETHER", 2)
    for seed in range(8):
        place.save(f"{seed}.png", *(() if seed == 2 else ONE), seed=seed)
    hashed = photos._hashed

    def hashing(one: photos.Opened) -> photos.Opened:
        if one.name == "5.png":
            hashed(one)
            one.path.unlink()
            return one
        return hashed(one)

    def find(name: str, photo: Photo) -> list[FoundFace]:
        for gone in {"0.png": ("6.png",), "2.png": ("2.png",)}.get(name, ()):
            (place.photos / gone).unlink()
        return finder()(name, photo)

    monkeypatch.setattr(photos, "_hashed", hashing)
    place.find = find
    entries = place.run(copy=True)
    gone = {"2.png", "5.png", "6.png"}
    assert statuses(entries) == {f"{i}.png": "failed" if f"{i}.png" in gone else "done" for i in range(8)}
    for name in gone:
        reason = entry_of(entries, name).reason
        assert reason.startswith(f"{place.photos / name} cannot be opened (No such file or directory"), reason


@pytest.mark.parametrize("at", range(9))
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    names = [f"{seed}.png" for seed in range(5)]
    for seed, name in enumerate(names):
        place.save(name, *(() if seed == 3 else ONE), seed=seed)
    monkeypatch.setattr(photos, "TOGETHER", 2)
    fsync, left = os.fsync, at

    def no_room(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == -1:  # once: the run must not go on as if one photo had failed
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        with pytest.raises(DiskFull, match="free some space"):
            place.run(sidecar=True)
    assert not [entry for entry in place.journal.stage("restored") if entry.status == "failed"]
    assert not list(place.out.rglob(".*")) if place.out.exists() else True
    entries = place.run(sidecar=True)
    assert statuses(entries) == {name: "no_face" if name == "3.png" else "done" for name in names}
    assert [json.loads((place.out / f"{n}.json").read_text())["photo"] for n in names if n != "3.png"]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A real one of 256 KiB, where the system lets a test mount it."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here ({error})")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(place: Place, tmp_path: Path) -> None:
    names = [f"{seed}.png" for seed in range(6)]
    for seed, name in enumerate(names):
        place.save(name, *ONE, seed=seed)
    finished = place.run()
    expected = {name: (place.out / name).read_bytes() for name in names}
    with small_disk(tmp_path / "disk"):
        small = Place(tmp_path / "disk")
        shutil.copytree(place.photos, small.photos)
        ballast = small.folder / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(small.folder).free - 3 * max(map(len, expected.values()))))
        with pytest.raises(DiskFull, match="free some space"):
            small.run()
        assert set(small.written()) < set(names), "no half a photo stays behind"
        assert not [entry for entry in small.journal.stage("restored") if entry.status == "failed"]
        ballast.unlink()
        assert statuses(small.run()) == statuses(finished)
        assert {name: (small.out / name).read_bytes() for name in names} == expected


# Killed


@contextlib.contextmanager
def forks() -> Iterator["subprocess.Popen[str]"]:
    child = Path(__file__).with_name("restore_child.py")
    command = [sys.executable, str(child)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=child.parent
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def begin(process: "subprocess.Popen[str]", place: Place) -> int:
    """The number of a process that restores the photos of a place."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{place.folder}\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def status(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def contents(place: Place) -> dict[str, tuple[bytes, int]]:
    return {name: ((place.out / name).read_bytes(), dated(place, name)) for name in place.written() if "/." not in name}


def dated(place: Place, name: str) -> int:
    return 0 if name.endswith(".json") else (place.out / name).stat().st_mtime_ns


def test_killed_at_fifteen_moments_equals_uninterrupted(tmp_path: Path) -> None:
    """SIGKILL after random times, again and again, in runs that go on: nothing is lost, nothing is done twice."""
    whole, draw = Place(tmp_path / "whole"), random.Random(30)
    for seed in range(30):
        folder = "sub/" * (seed % 4 == 0)
        whole.save(f"{folder}{seed:02d}.{('png', 'jpg')[seed % 2]}", *((), ONE, TWO)[seed % 3], seed=seed)
    spoil(whole.photos / "01.jpg")
    with forks() as process:
        start = time.monotonic()
        begin(process, whole)
        assert status(process) == 0
        lasts = time.monotonic() - start
        expected, kills, number = contents(whole), 0, 0
        while kills < 15 or number == 0:
            killed = Place(tmp_path / f"killed{number}")
            if not killed.folder.exists():
                killed.folder.mkdir()
                killed.photos.symlink_to(whole.photos)
            child = begin(process, killed)
            if kills < 15:
                time.sleep(draw.uniform(0, lasts / 6))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            end = status(process)
            assert end in (0, signal.SIGKILL)
            kills += end == signal.SIGKILL
            if end == 0:
                check_equal(killed, whole, expected)
                number += 1
        if killed.out.exists() and end != 0:
            begin(process, killed)
            assert status(process) == 0
            check_equal(killed, whole, expected)


def check_equal(killed: Place, whole: Place, expected: dict[str, tuple[bytes, int]]) -> None:
    results = {name: found for name, found in contents(killed).items() if not Path(name).name.startswith(".")}
    assert results.keys() == expected.keys()
    assert all(results[name] == expected[name] for name in expected)
    lines = [json.loads(line) for line in killed.journal.path.read_text().splitlines() if is_whole(line)]
    ended = [line["item"] for line in lines if line["status"] != "begun"]
    assert len(ended) == len(set(ended)) == 30
    assert killed.journal.stage("restored") != []
    assert statuses(killed.run(sidecar=True, copy=True)) == statuses(whole.run(sidecar=True, copy=True))


def is_whole(line: str) -> bool:
    """A kill may leave a part of a line."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
