"""Folder in, folder out: everything is accounted for, and bad files fail alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from toy_stage import Place, Work, make_a_mess, negative, spoil, statuses
from toys import ToyRestorer, levels, save_pictures
from unfade.errors import BadInput, DiskFull, UnreadableImage
from unfade.images.files import from_bytes, to_bytes
from unfade.images.finding import list_images
from unfade.jobs.journal import Counts
from unfade.jobs.run_stage import SMALLEST, Item, Stage, load_item, run_stage
from unfade.progress import Advance
from unfade.stages.crop import take_aligned
from unfade.stages.restore import restore_batch, restore_faces


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# What goes well, and what does not


def test_every_picture_becomes_one(place: Place) -> None:
    save_pictures(place.photos, ["a.png", "b.png"])
    entries = place.run(Work())
    assert [(e.stage, e.item, e.status, e.output) for e in entries] == [
        ("negative", "a.png", "done", "a.png"),
        ("negative", "b.png", "done", "b.png"),
    ]
    assert place.written() == ["a.png", "b.png"]
    assert all(np.array_equal(place.output(name), negative(seed)) for seed, name in enumerate(("a.png", "b.png")))
    assert place.journal.stage("negative") == entries


def test_bad_files_fail_alone_and_the_counts_add_up(place: Place) -> None:
    expected = make_a_mess(place.photos)
    entries = place.run(Work(), size=16)
    assert statuses(entries) == expected
    counts = Counts.of(entries)
    assert (counts.found, counts.done, counts.failed, counts.skipped) == (12, 5, 7, 0)
    for entry in entries:
        assert (entry.output == "") == (entry.status == "failed")
        if entry.status == "failed":
            assert entry.reason.startswith(str(place.photos / entry.item))
            assert entry.reason.endswith(".")
    assert place.written() == sorted(f"{Path(name).stem}.png" for name, status in expected.items() if status == "done")
    assert place.journal.entry("negative", "grey.png").notes == ("grey converted to RGB",)


def test_bad_files_are_tried_again_and_may_be_intact_by_then(place: Place) -> None:
    expected = make_a_mess(place.photos)
    place.run(Work(), size=16)
    save_pictures(place.photos, ["cut.png"])
    work = Work()
    assert statuses(place.run(work, size=16)) == expected | {"cut.png": "done"}
    assert work.names == ["cut.png"]


def test_entries_come_in_the_order_asked_for(place: Place) -> None:
    paths = save_pictures(place.photos, ["c.png", "a.png", "b.png"])
    spoil(paths[1])
    entries = run_stage(Stage("negative", Work(), None, 2), iter(paths), place.begun)
    assert [entry.item for entry in entries] == ["c.png", "a.png", "b.png"]


def test_too_small_a_picture(place: Place) -> None:
    paths = save_pictures(place.photos, ["small.png"], size=SMALLEST - 1)
    with pytest.raises(BadInput, match=r"small\.png is 15 x 15 pixels; a face needs at least 16"):
        load_item(paths[0], None)
    assert load_item(save_pictures(place.photos, ["big.png"], size=SMALLEST)[0], None).pixels.shape == (3, 16, 16)


def test_an_item_knows_its_content_and_not_its_name(place: Place) -> None:
    paths = save_pictures(place.photos, ["a.png"]) + save_pictures(place.photos, ["b.png"])
    one, same = (load_item(path, 16) for path in paths)
    other = load_item(save_pictures(place.photos, ["c.png"], first_seed=9)[0], 16)
    assert one.seed(0, "target") == same.seed(0, "target")
    assert len({one.seed(0, "target"), one.seed(1, "target"), one.seed(0, "degrade"), other.seed(0, "target")}) == 4


def test_an_unreadable_item_fails_alone(place: Place) -> None:
    paths = save_pictures(place.photos, ["a.png"])
    spoil(paths[0])
    with pytest.raises(UnreadableImage):
        load_item(paths[0], None)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_of_nan_fail(place: Place, value: float) -> None:
    def work(items: list[Item], advance: Advance) -> Tensor:
        result = Work()(items, advance)
        result[1, 0, 3, 3] = value
        return result

    save_pictures(place.photos, ["a.png", "b.png", "c.png"])
    entries = place.run(work)
    assert statuses(entries) == {"a.png": "done", "b.png": "failed", "c.png": "done"}
    assert entries[1].reason.startswith("b.png: the network gave values that are not numbers")
    assert place.written() == ["a.png", "c.png"]
    assert statuses(place.run(Work())) == {"a.png": "done", "b.png": "done", "c.png": "done"}


def test_what_cannot_be_worked_on_fails_and_the_rest_goes_on(place: Place) -> None:
    def work(items: list[Item], advance: Advance) -> Tensor:
        if items[0].pixels.shape[-1] < 20:
            raise BadInput("Expected a picture of at least 20 pixels; use a larger one.")
        return Work()(items, advance)

    save_pictures(place.photos, ["a.png", "b.png"], size=32)
    save_pictures(place.photos, ["small.png"])
    entries = place.run(work)
    assert statuses(entries) == {"a.png": "done", "b.png": "done", "small.png": "failed"}
    assert entries[2].reason == "small.png: Expected a picture of at least 20 pixels; use a larger one."


def test_an_unforeseen_error_fails_one_picture_alone(place: Place) -> None:
    """The others of its batch are tried again, each by itself; what is done already is not."""
    seen: list[list[str]] = []

    def work(items: list[Item], advance: Advance) -> Tensor:
        seen.append([item.name for item in items])
        if any(item.name == "b.png" for item in items):
            raise RuntimeError("shapes cannot\nbe multiplied.")
        return -torch.stack([item.pixels for item in items])

    save_pictures(place.photos, ["a.png", "b.png", "c.png"])
    for _ in range(2):
        entries = place.run(work)
        assert statuses(entries) == {"a.png": "done", "b.png": "failed", "c.png": "done"}
        reason = entries[1].reason
        assert reason.startswith(
            f"{place.photos / 'b.png'} failed with RuntimeError: shapes cannot be multiplied (test_"
        )
    assert seen == [
        ["a.png", "b.png", "c.png"],
        ["a.png"],
        ["b.png"],
        ["c.png"],
        ["a.png", "b.png", "c.png"],
        ["b.png"],
    ]
    assert np.array_equal(place.output("c.png"), negative(2))


def test_a_result_that_is_missing_shifts_no_other(place: Place) -> None:
    save_pictures(place.photos, ["a.png", "b.png"])
    entries = place.run(lambda items, advance: -torch.stack([item.pixels for item in items[1:]] or [torch.zeros(0)]))
    assert set(statuses(entries).values()) == {"failed"}
    assert place.written() == []


def test_what_ends_a_run_is_nobodys_fault(place: Place) -> None:
    def work(items: list[Item], advance: Advance) -> Tensor:
        raise ending

    save_pictures(place.photos, ["a.png", "b.png"])
    for ending in (KeyboardInterrupt(), SystemExit(3), DiskFull("The disk is full.")):
        with pytest.raises(type(ending)):
            place.run(work)
    assert place.journal.stage("negative") == []


# Company


def test_batches_hold_equal_shapes_and_no_more_than_asked_for(place: Place) -> None:
    save_pictures(place.photos, [f"a{i}.png" for i in range(5)])
    save_pictures(place.photos, ["b0.png", "b1.png"], size=20)
    work = Work()
    place.run(work, batch=2)
    assert [len(names) for names in work.given] == [2, 2, 1, 2]
    assert work.names == sorted(work.names)
    work.given.clear()
    place.run(work, batch=4, size=16, key="one size")
    assert [len(names) for names in work.given] == [4, 3]


def test_pictures_are_brought_to_size(place: Place) -> None:
    save_pictures(place.photos, ["a.png"], size=32)
    place.run(Work(), size=16)
    assert place.output("a.png").shape == (16, 16, 3)


def test_results_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    results = []
    for batch in (1, 3, 8):
        place = Place(tmp_path / str(batch))
        paths = save_pictures(place.photos, [f"{i}.png" for i in range(5)])
        restorer = ToyRestorer(16).eval()
        restore_faces(paths[:: 1 if batch > 1 else -1], place.begun, restorer, batch=batch)
        results.append([place.output(name) for name in place.written()])
    assert all(np.array_equal(a, b) for result in results[1:] for a, b in zip(result, results[0], strict=True))


def test_progress_adds_up_to_every_picture(place: Place) -> None:
    told: list[float] = []

    @contextmanager
    def progress(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        assert (label, total, start) == ("negative", 12, 0)
        yield told.append

    def work(items: list[Item], advance: Advance) -> Tensor:
        for _ in range(3):
            advance(len(items) / 4)  # says less than it did
        return Work()(items, advance)

    make_a_mess(place.photos)
    stage = Stage("negative", work, 16, 2)
    run_stage(stage, list_images(place.photos), replace(place.begun, progress=progress))
    assert sum(told) == pytest.approx(12)


# The stages that are built on it


def test_aligned_photos_are_brought_to_the_faces_size(place: Place) -> None:
    save_pictures(place.photos, ["a.jpg", "b.png"], size=24)
    Image.new("RGB", (30, 20)).save(place.photos / "wide.png")
    entries = take_aligned(list_images(place.photos), place.begun, size=16)
    assert statuses(entries) == {"a.jpg": "done", "b.png": "done", "wide.png": "failed"}
    assert "cut it to a square first" in entries[2].reason
    assert {entry.stage for entry in entries} == {"faces"}
    assert place.output("a.png").shape == (16, 16, 3)


def test_a_face_of_the_right_size_is_not_touched(place: Place) -> None:
    save_pictures(place.photos, ["a.png"])
    take_aligned(list_images(place.photos), place.begun, size=16)
    assert np.array_equal(place.output("a.png"), levels(0))


def test_another_size_is_another_face(place: Place) -> None:
    save_pictures(place.photos, ["a.png"], size=32)
    for size in (16, 24):
        take_aligned(list_images(place.photos), place.begun, size=size)
        assert place.output("a.png").shape == (size, size, 3)


def test_restored_is_what_the_restorer_says(place: Place) -> None:
    save_pictures(place.photos, ["a.png"], size=32)
    restorer = ToyRestorer(16).eval()
    with torch.no_grad():
        restorer.decoder.weight.mul_(30)
    entries = restore_faces(list_images(place.photos), place.begun, restorer, stage="pretrained")
    assert [entry.stage for entry in entries] == ["pretrained"]
    face = load_item(place.photos / "a.png", 16).pixels[None]
    restored = restore_batch(face, restorer)
    assert np.array_equal(place.output("a.png"), to_bytes(restored[0]))
    assert float(restored.abs().max()) == 1.0, "clamped"
    assert not restored.requires_grad


def test_another_restorer_restores_again(place: Place) -> None:
    save_pictures(place.photos, ["a.png"])
    seen = []
    for seed, key in ((0, "one"), (1, "one"), (1, "other")):
        restorer = ToyRestorer(16, seed=seed).eval()
        restore_faces(list_images(place.photos), place.begun, restorer, key=key)
        seen.append(place.output("a.png"))
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_levels_of_the_toys_are_pictures() -> None:
    assert from_bytes(levels(0)).shape == (3, 16, 16)
