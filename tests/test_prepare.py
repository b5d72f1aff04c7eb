"""Sets of faces made ready: what is taken, under which name, in which part, and what a second run does."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toy_sets import SIZE, contents, ffhq_folder, ffhq_list, wider_folder, zipped
from toy_stage import spoil
from toys import levels, save_pictures
from unfade.datasets.data_sets import FFHQ_LIST, PrepareSettings
from unfade.datasets.manifest import read_manifest, verify_folder
from unfade.datasets.prepare import Prepared, prepare
from unfade.datasets.splits import as_numbered, read_stems, split_by_rule
from unfade.datasets.wider import Square, cut
from unfade.errors import BadInput, OutputConflict
from unfade.images.files import from_bytes, read_image, to_bytes
from unfade.images.filters import resize
from unfade.jobs.journal import Counts
from unfade.training.batches import find_training_pictures

# the rule of splits.py: if these change, everybody's test set changes
RULE_TRAIN = ("21244", "20069", "01039")
RULE_HASH = "3f609a3e6af237bd75f5387b86634e4735b2791aa7a06da1dfdb616656032492"


def prepared(kind: str, source: Path, out: Path, **options: object) -> Prepared:
    outer = {name: options.pop(name) for name in ("limit", "workers", "progress") if name in options}
    return prepare(kind, source, out, settings=PrepareSettings(**{"size": SIZE, **options}), **outer)


def statuses(done: Prepared) -> dict[str, str]:
    return {entry.item: entry.status for entry in done.entries}


def reasons(done: Prepared) -> list[str]:
    return [entry.reason for entry in done.entries if entry.reason]


def pictures(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def refused(kind: str, source: Path, **options: object) -> str:
    out = source.parent / "refused"
    with pytest.raises(BadInput) as caught:
        prepared(kind, source, out, **options)
    assert not out.exists()
    return str(caught.value)


# FFHQ


@pytest.mark.parametrize("form", ["root", "nested", "flat", "zip"])
def test_ffhq_in_every_form_gives_the_same(tmp_path: Path, form: str) -> None:
    root = ffhq_folder(tmp_path / "ffhq", [0, 7, 1003, 69999], nested=form != "flat")
    save_pictures(root / "thumbnails128x128" / "00000", ["00000.png"], first_seed=99)
    source = {"root": root, "zip": zipped(root)}.get(form, root / "images1024x1024")
    done = prepared("ffhq", source, tmp_path / "out")
    assert pictures(tmp_path / "out") == ["00000.png", "00007.png", "01003.png", "69999.png"]
    for name in pictures(tmp_path / "out"):
        assert np.array_equal(to_bytes(read_image(tmp_path / "out" / name)), levels(int(name[:5])))
    assert (done.expected, len(done.missing), done.missing[:2]) == (70_000, 69_996, ("00001", "00002"))
    assert Counts.of(done.entries) == Counts(4, 4, 0, 0, 0)


def test_ffhq_is_verified_against_its_list(tmp_path: Path) -> None:
    root = ffhq_folder(tmp_path / "ffhq", range(3))
    ffhq_list(root)
    wrong = save_pictures(root / "images1024x1024" / "00000", ["00001.png"], first_seed=5)[0]
    for source in (root, root / "images1024x1024"):
        done = prepared("ffhq", source, tmp_path / f"out of {source.name}")
        assert list(statuses(done).values()) == ["done", "failed", "done"]
        assert done.verified == 2
        shown = hashlib.md5(wrong.read_bytes()).hexdigest()
        assert reasons(done)[0].startswith(f"{wrong} has the MD5 {shown}, its publisher's list says ")
        assert pictures(tmp_path / f"out of {source.name}") == ["00000.png", "00002.png"]
    assert prepared("ffhq", root, tmp_path / "out of ffhq").verified == 2, "a second run knows it still"


def test_ffhqs_list_is_for_its_own_size_only(tmp_path: Path) -> None:
    root = ffhq_folder(tmp_path / "ffhq", range(2), size=SIZE)
    ffhq_list(root, size=1024)
    assert prepared("ffhq", root, tmp_path / "out").verified == 0


@pytest.mark.parametrize(
    "text", ["{}", "[]", "{", '{"0": {}}', '{"a": 1}', '{"0": {"image": {"file_path": "b/00001.png"}}}']
)
def test_a_list_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    root = ffhq_folder(tmp_path / "ffhq", [0])
    (root / FFHQ_LIST).write_text(text)
    assert refused("ffhq", root).startswith(f"{root / FFHQ_LIST} is not the list of FFHQ's pictures with their MD5s (")


def test_folders_other_than_ffhq_are_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    expected = f"{source} holds no picture named like FFHQ's (00000.png to 69999.png); give the folder images1024x1024,"
    assert refused("ffhq", source).startswith(expected)
    save_pictures(source, ["70000.png", "0001.png", "holiday.png"])
    assert refused("ffhq", source).startswith(expected)
    save_pictures(source / "a", ["00000.png"])
    save_pictures(source / "b", ["00000.png"])
    assert "holds number 0 twice, a/00000.png and b/00000.png" in refused("ffhq", source)


def test_a_missing_or_truncated_source_is_reported(tmp_path: Path) -> None:
    assert "nowhere is not there" in refused("ffhq", tmp_path / "nowhere")
    cut_off = zipped(ffhq_folder(tmp_path / "ffhq", range(3)))
    cut_off.write_bytes(cut_off.read_bytes()[:900])
    assert f"{cut_off} is neither a folder nor a whole zip file (900 bytes:" in refused("ffhq", cut_off)


def test_a_damaged_file_of_a_zip_fails_alone(tmp_path: Path) -> None:
    root = ffhq_folder(tmp_path / "ffhq", range(3))
    spoil(root / "images1024x1024" / "00000" / "00001.png")
    whole = zipped(root)
    data = bytearray(whole.read_bytes())
    data[data.index(b"IDAT", data.index(b"00002.png")) + 30] ^= 255  # inside the pixels of the third
    whole.write_bytes(data)
    done = prepared("ffhq", whole, tmp_path / "out")
    assert list(statuses(done).values()) == ["done", "failed", "failed"]
    inside = whole / "ffhq/images1024x1024/00000"
    assert reasons(done)[0].startswith(f"{inside / '00001.png'} is damaged or cut off")
    assert reasons(done)[1].startswith(f"{inside / '00002.png'} cannot be unpacked (Bad CRC-32")


# CelebA-HQ and splits


def celeba(folder: Path, names: list[str]) -> Path:
    for name in names:
        save_pictures(folder, [name], first_seed=int(as_numbered(Path(name).stem)))
    return folder


@pytest.mark.parametrize("form", ["{}.jpg", "{:05d}.png", "imgHQ{:05d}.png"])
def test_celebahq_is_split_by_the_rule_whatever_is_there(tmp_path: Path, form: str) -> None:
    chosen = sorted(range(30_000), key=lambda n: hashlib.sha256(str(n).encode()).hexdigest())[:3000]
    train, test = [f"{n:05d}" for n in chosen[:2500]], [f"{n:05d}" for n in chosen[2500:]]
    there = [chosen[0], chosen[2499], chosen[2500]]
    other = next(n for n in range(30_000) if n not in chosen)
    source = celeba(tmp_path / "CelebA-HQ-img", [form.format(n) for n in (*there, other)])
    out = tmp_path / "out"
    done = prepared("celebahq", source, out)
    assert (out / "train.txt").read_text().split() == train
    assert (out / "test.txt").read_text().split() == test
    assert pictures(out) == sorted([f"train/{train[0]}.png", f"train/{train[-1]}.png", f"test/{test[0]}.png"])
    assert (done.expected, len(done.missing)) == (3000, 2997)
    assert [(line.name, line.split) for line in read_manifest(out)][-1] == (f"test/{test[0]}.png", "test")


def test_the_rule_is_the_same_for_ever() -> None:
    names = [f"{n:05d}" for n in range(30_000)]
    split = split_by_rule(names, (2500, 500))
    assert split["train"][:3] == RULE_TRAIN
    assert hashlib.sha256(" ".join(split["train"] + split["test"]).encode()).hexdigest() == RULE_HASH


def test_a_list_of_stems_is_followed_in_its_order(tmp_path: Path) -> None:
    source = celeba(tmp_path / "source", ["3.jpg", "20.jpg", "7.jpg", "100.jpg"])
    (tmp_path / "stems.txt").write_text("20\n00007\n\nimgHQ00003\n")
    stems = read_stems(tmp_path / "stems.txt")
    prepared("celebahq", source, tmp_path / "out", split=(2, 1), stems=stems)
    assert [line.name for line in read_manifest(tmp_path / "out")] == [
        "train/00020.png",
        "train/00007.png",
        "test/00003.png",
    ]
    lists = ((tmp_path / "out" / f"{part}.txt").read_text() for part in ("train", "test"))
    assert list(lists) == ["00020\n00007\n", "00003\n"]


@pytest.mark.parametrize(
    ("stems", "split", "expected"),
    [
        ("1\n2\n", (2, 1), "The list holds 2 stems, `split` 2 1 needs 3"),
        ("1\n01\n", (1, 1), "The stem 01 is listed twice"),
        ("1\n30000\n", (1, 1), "The stem 30000 names nothing of this set"),
        ("1\n2\n", None, "The list holds 2 stems, `split` 2500 500 needs 3,000"),
        ("4\n5\n", (1, 1), "None of the pictures that the split asks for are in the source"),
        ("4\n5\n", (3, -1), "Expected `split` with two numbers of pictures, such as 2500 500, got 3 -1"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(
    tmp_path: Path, stems: str, split: tuple[int, int] | None, expected: str
) -> None:
    source = celeba(tmp_path / "source", ["1.jpg", "2.jpg"])
    assert refused("celebahq", source, split=split, stems=tuple(stems.split())).startswith(expected)


def test_arrays_are_answered_with_their_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    np.save(source / "imgHQ00000.npy", levels(0).transpose(2, 0, 1)[None])
    said = refused("celebahq", source)
    assert said.startswith(f"{source / 'imgHQ00000.npy'} is an array, and arrays are not read; make each a picture")
    command = said.split("with ")[1].removesuffix(".")
    monkeypatch.chdir(source)
    exec(f"import PIL.Image, numpy; file = 'imgHQ00000.npy'; {command}")
    assert np.array_equal(to_bytes(read_image(source / "00000.png")), levels(0))


def test_any_set_can_be_split(tmp_path: Path) -> None:
    source = ffhq_folder(tmp_path / "ffhq", range(4)).joinpath("images1024x1024")
    done = prepared("folder", source, tmp_path / "out", split=(2, 1))
    assert [line.split for line in read_manifest(tmp_path / "out")] == ["train", "train", "test"]
    assert (done.expected, done.missing) == (3, ())
    assert refused("folder", source, split=(4, 1)).startswith("`split` 4 1 needs 5 pictures, there are 4")


# WIDER FACE

FACE = "{} {} {} {} 0 0 0 {} {} 0 "
PHOTOS = {
    "0--Parade/0_Parade_1.jpg": [FACE.format(20, 20, 10, 14, 0, 0), FACE.format(1, 1, 4, 4, 0, 0)],
    "0--Parade/0_Parade_2.jpg": [],
    "1--Handshaking/1_Hand_3.jpg": [
        FACE.format(30, 20, 20, 20, 1, 0),
        FACE.format(30, 20, 20, 20, 0, 2),
        FACE.format(-3, 40, 14, 20, 0, 1),
    ],
}


def test_wider_faces_are_cut_out_of_their_photos(tmp_path: Path) -> None:
    source = wider_folder(tmp_path / "wider", PHOTOS)
    done = prepared("wider", source, tmp_path / "out", min_face=8)
    assert pictures(tmp_path / "out") == ["0_Parade_1_0.png", "1_Hand_3_2.png"]
    assert Counts.of(done.entries) == Counts(3, 2, 0, 0, 1)
    assert done.left_out == {"with a box under 8 px": 1, "invalid or heavily occluded": 2}
    assert (done.expected, done.missing) == (3, ())
    for line, seed in zip(read_manifest(tmp_path / "out"), (0, 2), strict=True):
        expected = resize(cut(from_bytes(levels(seed, 64)), Square(*line.square)), SIZE, SIZE)
        assert np.array_equal(to_bytes(read_image(tmp_path / "out" / line.name)), to_bytes(expected))
    assert line.square[0] < 0, "this one leaves the photo"


def test_small_wider_faces_need_enlarge(tmp_path: Path) -> None:
    source = wider_folder(tmp_path / "wider", PHOTOS)
    done = prepared("wider", source, tmp_path / "out", min_face=8, size=20)
    assert pictures(tmp_path / "out") == ["1_Hand_3_2.png"]
    assert done.left_out["smaller than `size` 20 when cut out (`enlarge` takes them)"] == 1
    prepared("wider", source, tmp_path / "enlarged", min_face=2, size=20, enlarge=True)
    assert len(pictures(tmp_path / "enlarged")) == 3
    assert "has no face to give: 0 of 3 annotated photos are not there, 3 with a box under 48 px" in refused(
        "wider", source
    )


def test_wider_photos_that_are_missing_are_reported(tmp_path: Path) -> None:
    source = wider_folder(tmp_path / "wider", PHOTOS)
    (source / "WIDER_val/images/1--Handshaking/1_Hand_3.jpg").unlink()
    assert prepared("wider", source, tmp_path / "out", min_face=8).missing == ("1--Handshaking/1_Hand_3.jpg",)
    (source / "WIDER_val/images/0--Parade/0_Parade_1.jpg").unlink()
    (source / "WIDER_val/images/0--Parade/0_Parade_2.jpg").unlink()
    assert "3 of 3 annotated photos are not there, no photo with a face" in refused("wider", source)


def test_wider_as_cropped_faces(tmp_path: Path) -> None:
    save_pictures(tmp_path / "crops", ["b.png", "a.png"])
    prepared("wider", tmp_path / "crops", tmp_path / "out")
    assert pictures(tmp_path / "out") == ["a.png", "b.png"]
    save_pictures(tmp_path / "photos" / "WIDER_val" / "images" / "0--Parade", ["a.jpg"])
    assert "without wider_face_split/wider_face_val_bbx_gt.txt" in refused("wider", tmp_path / "photos")


# Any folder


def test_a_tree_is_flattened_by_path(tmp_path: Path) -> None:
    for part, seed in (("", 0), ("a", 1), ("a/b", 2)):
        save_pictures(tmp_path / "tree" / part, ["face.png"], first_seed=seed)
    (tmp_path / "tree/.hidden.png").write_text("no picture")
    prepared("folder", tmp_path / "tree", tmp_path / "out")
    assert pictures(tmp_path / "out") == ["a__b__face.png", "a__face.png", "face.png"]
    paths, weights = find_training_pictures(tmp_path / "out", {})
    assert ([path.name for path in paths], weights) == (pictures(tmp_path / "out"), [1.0] * 3)


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("b/c.png", "b__c.png"), ("A.png", "a.png")])
def test_two_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for seed, name in enumerate(names):
        save_pictures((tmp_path / "tree" / name).parent, [Path(name).name], first_seed=seed)
    said = refused("folder", tmp_path / "tree")
    assert all(str(tmp_path / "tree" / name) in said for name in names)
    assert said.endswith("rename one of the two.")


def test_a_name_too_long_is_refused(tmp_path: Path) -> None:
    save_pictures(tmp_path / "tree" / ("x" * 200), ["y" * 60 + ".png"])
    assert "too long a path for one file name" in refused("folder", tmp_path / "tree")


def test_what_is_not_square_needs_crop(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    Image.fromarray(levels(0, 32)[:, :20]).save(tmp_path / "source" / "tall.png")
    done = prepared("folder", tmp_path / "source", tmp_path / "out")
    assert reasons(done)[0].startswith(
        f"{tmp_path / 'source' / 'tall.png'} is 20 x 32 pixels; aligned faces are square"
    )
    prepared("folder", tmp_path / "source", tmp_path / "cropped", size=20, crop=True)
    assert np.array_equal(to_bytes(read_image(tmp_path / "cropped" / "tall.png")), levels(0, 32)[6:26, :20])


def test_what_is_small_needs_enlarge(tmp_path: Path) -> None:
    path = save_pictures(tmp_path / "source", ["a.png"])[0]
    done = prepared("folder", path.parent, tmp_path / "out", size=32)
    assert reasons(done) == [
        f"{path} is 16 x 16 pixels, smaller than `size` 32; choose a smaller size, or say `enlarge`."
    ]
    prepared("folder", path.parent, tmp_path / "large", size=32, enlarge=True)
    expected = to_bytes(resize(from_bytes(levels(0)), 32, 32))
    assert np.array_equal(to_bytes(read_image(tmp_path / "large" / "a.png")), expected)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("faces", {}, "There is no set of faces named faces; there are: ffhq, celebahq, wider, folder."),
        ("folder", {"size": 8}, "Expected `size` to be at least 16, got 8."),
        ("folder", {"limit": 0}, "Expected `limit` to be at least 1, got 0."),
        ("folder", {"workers": 0}, "Expected `workers` to be at least 1, got 0."),
        ("folder", {"min_face": 9}, "`min_face` is for WIDER FACE's photos with "),
        ("ffhq", {"min_face": 9}, "`min_face` is for WIDER FACE's photos with "),
        ("folder", {"stems": ("a",)}, "A list of stems is of use to a split only"),
    ],
)
def test_flags_without_sense_are_refused(tmp_path: Path, kind: str, options: dict, expected: str) -> None:
    save_pictures(tmp_path / "source", ["00000.png"])
    assert refused(kind, tmp_path / "source", **options).startswith(expected)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for kind in ("folder", "wider", "celebahq"):
        assert refused(kind, tmp_path / "source").startswith(f"{tmp_path / 'source'} holds no picture")


def test_the_result_cannot_lie_in_the_source(tmp_path: Path) -> None:
    save_pictures(tmp_path / "source", ["a.png"])
    for out in (tmp_path / "source", tmp_path / "source" / "out"):
        with pytest.raises(OutputConflict, match="lies in the source"):
            prepared("folder", tmp_path / "source", out)


# Again, and all of it


def test_the_same_content_is_taken_once(tmp_path: Path) -> None:
    save_pictures(tmp_path / "source", ["a.png"])
    save_pictures(tmp_path / "source", ["b.png"])
    save_pictures(tmp_path / "source", ["c.png"], first_seed=1)
    done = prepared("folder", tmp_path / "source", tmp_path / "out", workers=3)
    assert statuses(done) == {"a.png": "done", "b.png": "skipped", "c.png": "done"}
    assert reasons(done) == [
        f"{tmp_path / 'source' / 'b.png'} has the same content as what became a.png; it is taken once."
    ]
    assert verify_folder(tmp_path / "out").extra == ()


def test_an_earlier_one_of_the_same_content_takes_over(tmp_path: Path) -> None:
    save_pictures(tmp_path / "source", ["b.png"])
    prepared("folder", tmp_path / "source", tmp_path / "out")
    save_pictures(tmp_path / "source", ["a.png"])
    prepared("folder", tmp_path / "source", tmp_path / "out")
    assert pictures(tmp_path / "out") == ["a.png"]


def test_workers_change_nothing(tmp_path: Path) -> None:
    source = save_pictures(tmp_path / "source", [f"{n}.png" for n in range(11)], size=20)[0].parent
    spoil(source / "3.png")
    alone = prepared("folder", source, tmp_path / "alone")
    for workers in (2, 5, 16):
        assert prepared("folder", source, tmp_path / str(workers), workers=workers).entries == alone.entries
        assert contents(tmp_path / str(workers)) == contents(tmp_path / "alone")


def test_what_was_changed_is_made_again(tmp_path: Path) -> None:
    source = save_pictures(tmp_path / "source", ["a.png", "b.png", "c.png"])[0].parent
    prepared("folder", source, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "a.png").write_text("spoilt")
    (tmp_path / "out" / "b.png").unlink()
    prepared("folder", source, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    spoil(source / "c.png")
    assert list(statuses(prepared("folder", source, tmp_path / "out")).values()) == ["done", "done", "failed"]
    assert pictures(tmp_path / "out") == ["a.png", "b.png"]


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    source = save_pictures(tmp_path / "source", ["a.png"])[0].parent
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("mine")
    done = prepared("folder", source, tmp_path / "out")
    assert statuses(done) == {"a.png": "skipped"}
    assert (tmp_path / "out" / "a.png").read_text() == "mine"
    assert verify_folder(tmp_path / "out").extra == ("a.png",)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    source = save_pictures(tmp_path / "source", ["a.png"], size=64)[0].parent
    prepared("folder", source, tmp_path / "out")
    for options in ({"size": 32}, {"split": (1, 0)}, {"crop": True}, {"enlarge": True}):
        with pytest.raises(OutputConflict, match="holds a run made with"):
            prepared("folder", source, tmp_path / "out", **options)


def test_limit_takes_the_first_and_goes_on_without(tmp_path: Path) -> None:
    source = save_pictures(tmp_path / "source", ["a.png", "b.png", "c.png"])[0].parent
    assert len(prepared("folder", source, tmp_path / "out", limit=2).entries) == 2
    assert pictures(tmp_path / "out") == ["a.png", "b.png"]
    prepared("folder", source, tmp_path / "out")
    prepared("folder", source, tmp_path / "at once")
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")
    (tmp_path / "out" / pictures(tmp_path / "out")[-1]).unlink()
    before = read_manifest(tmp_path / "out")[:-1]
    prepared("folder", source, tmp_path / "out", limit=1)  # the others are there still
    assert read_manifest(tmp_path / "out") == before
    assert verify_folder(tmp_path / "out").extra == ()


# The manifest


def test_the_manifest_has_a_line_for_each_picture(tmp_path: Path) -> None:
    source = save_pictures(tmp_path / "source", ["a.png"], size=20)[0].parent
    prepared("folder", source, tmp_path / "out", split=(1, 0))
    line = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    assert line == {
        "name": "train/a.png",
        "split": "train",
        "source": "a.png",
        "source_sha256": hashlib.sha256((source / "a.png").read_bytes()).hexdigest(),
        "sha256": hashlib.sha256((tmp_path / "out" / "train" / "a.png").read_bytes()).hexdigest(),
        "size": SIZE,
        "square": None,
    }


def test_verify_finds_what_is_wrong(tmp_path: Path) -> None:
    source = save_pictures(tmp_path / "source", ["a.png", "b.png", "c.png"])[0].parent
    out = tmp_path / "out"
    prepared("folder", source, out, split=(2, 1))
    found = verify_folder(out)
    assert (found.checked, found.missing, found.changed, found.extra) == (3, (), (), ())
    names = [line.name for line in read_manifest(out)]
    (out / names[0]).unlink()
    (out / names[1]).write_bytes((source / "a.png").read_bytes() + b"!")
    save_pictures(out / "test", ["more.png"])
    found = verify_folder(out)
    assert (found.missing, found.changed, found.extra) == ((names[0],), (names[1],), ("test/more.png",))


def test_a_folder_with_an_incomplete_manifest_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no manifest\.jsonl; name a folder that"):
        verify_folder(tmp_path)
    for text in ("{", "[]", '{"name": "a"}'):
        (tmp_path / "manifest.jsonl").write_text(text)
        with pytest.raises(BadInput, match=r"manifest\.jsonl is damaged"):
            verify_folder(tmp_path)
