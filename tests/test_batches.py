"""The order of training items follows from the step number; weights are exact shares of the epochs."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toys import levels, save_pictures
from unfade.errors import BadInput, UnreadableImage
from unfade.images.files import from_bytes
from unfade.images.filters import resize
from unfade.training.batches import Draw, Order, Pictures, find_training_pictures, flip


def drawn(order: Order, steps: int, batch: int) -> list[int]:
    return [draw.item for step in range(steps) for draw in order.step(step, batch)]


def epochs(order: Order, count: int) -> list[list[int]]:
    return [[draw.item for draw in order.step(epoch, order.epoch_length)] for epoch in range(count)]


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_without_weights_every_item_is_in_every_epoch_once(count: int, seed: int) -> None:
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs(Order([1.0] * count, seed=seed), 3))


@given(st.integers(1, 9), st.integers(1, 9))
def test_steps_tile_the_order(count: int, batch: int) -> None:
    order = Order([1.0] * count, seed=1)
    assert drawn(order, 6, batch) == drawn(order, 6 * batch, 1)
    draws = [draw for step in range(6) for draw in order.step(step, batch)]
    assert [draw.position for draw in draws] == list(range(6 * batch))
    assert [draw.epoch for draw in draws] == [position // count for position in range(6 * batch)]


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    assert Order([1.0] * 10, seed=1).step(70, 4) == [Order([1.0] * 10, seed=1).step(i, 4) for i in range(71)][70]


def test_the_order_depends_on_seed_and_epoch() -> None:
    first, second = epochs(Order([1.0] * 30, seed=1), 2)
    assert first != second
    assert epochs(Order([1.0] * 30, seed=1), 1) == [first]
    assert epochs(Order([1.0] * 30, seed=2), 1) != [first]
    assert first != sorted(first)


def test_items_of_weight_one_third_are_in_one_of_three_epochs() -> None:
    order = Order([1.0] * 30 + [1 / 3] * 30, seed=1)
    assert order.epoch_length == 40
    counts = Counter(item for epoch in epochs(order, 300) for item in epoch)
    assert all(counts[item] == 300 for item in range(30))
    assert all(70 < counts[item] < 130 for item in range(30, 60))
    assert sum(counts[item] for item in range(30, 60)) == 3000


@given(st.lists(st.floats(0.05, 3), min_size=1, max_size=30), st.integers(0, 1000))
def test_an_epoch_holds_each_item_as_its_weight_says(weights: list[float], seed: int) -> None:
    order = Order(weights, seed=seed)
    stretch = order.epoch_length / sum(weights)  # an epoch is a whole number of items
    counts = Counter(epochs(order, 1)[0])
    for item, weight in enumerate(weights):
        assert weight * stretch - 1 - 1e-9 < counts[item] < weight * stretch + 1 + 1e-9


def test_an_item_of_weight_nothing_is_never_drawn() -> None:
    assert {item for epoch in epochs(Order([1, 0, 1, 0], seed=3), 50) for item in epoch} == {0, 2}


# Pictures


def test_pictures_are_the_same_whether_they_are_kept(tmp_path: Path) -> None:
    paths = save_pictures(tmp_path, [f"{i}.png" for i in range(4)])
    for keep in (0, 2 * 3 * 16 * 16, 1 << 20):
        pictures = Pictures(paths, 16, keep=keep)
        assert len(pictures) == 4
        for i in range(4):
            assert torch.equal(pictures[i], from_bytes(levels(i)))


def test_as_many_are_kept_as_fit(tmp_path: Path) -> None:
    paths = save_pictures(tmp_path, [f"{i}.png" for i in range(3)])
    pictures = Pictures(paths, 16, keep=2 * 3 * 16 * 16)
    for path in paths:
        path.unlink()
    assert [pictures[i].shape for i in range(2)] == [(3, 16, 16)] * 2
    with pytest.raises(UnreadableImage):
        pictures[2]


def test_whether_files_will_be_read_again(tmp_path: Path) -> None:
    paths = save_pictures(tmp_path, ["0.png", "1.png"])
    assert [Pictures(paths, 16, keep=keep).all_kept for keep in (0, 3 * 16 * 16, 2 * 3 * 16 * 16)] == [
        False,
        False,
        True,
    ]


def test_pictures_are_brought_to_size(tmp_path: Path) -> None:
    picture = Pictures(save_pictures(tmp_path, ["a.png"], size=32), 16)[0]
    assert (picture - resize(from_bytes(levels(0, 32)), 16, 16).clamp(-1, 1)).abs().max() <= 0.5 / 127.5 + 1e-6


def test_pictures_name_the_file_that_will_not_do(tmp_path: Path) -> None:
    paths = save_pictures(tmp_path, ["a.png", "b.png"])
    paths[1].write_bytes(paths[1].read_bytes()[:100])
    with pytest.raises(UnreadableImage, match=r"b\.png"):
        Pictures(paths, 16)
    with pytest.raises(BadInput, match=r"wide\.png is 20 x 10"):
        Pictures(_wide(tmp_path / "wide.png"), 16)


def _wide(path: Path) -> list[Path]:
    from PIL import Image

    Image.new("RGB", (20, 10)).save(path)
    return [path]


def test_half_of_the_places_are_mirrored_and_always_the_same_ones() -> None:
    image = from_bytes(levels(1))
    draws = [Draw(0, 0, position) for position in range(400)]
    mirrored = [torch.equal(flip(image, draw, 5), image.flip(-1)) for draw in draws]
    same = [torch.equal(flip(image, draw, 5), image) for draw in draws]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 150 < sum(mirrored) < 250
    assert mirrored == [torch.equal(flip(image, Draw(9, 3, d.position), 5), image.flip(-1)) for d in draws]
    assert mirrored != [torch.equal(flip(image, draw, 6), image.flip(-1)) for draw in draws]


# Finding them


def test_pictures_below_a_folder_with_the_weight_of_theirs(tmp_path: Path) -> None:
    for folder in ("", "old", "old/scans", "new"):
        save_pictures(tmp_path / folder, ["b.png", "a.JPG"])
        (tmp_path / folder / ".hidden.png").touch()
        (tmp_path / folder / "notes.txt").touch()
    paths, weights = find_training_pictures(tmp_path, {"old": 0.5, "scans": 0.25})
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    expected = {"": 1.0, "new/": 1.0, "old/": 0.5, "old/scans/": 0.25}
    assert dict(zip(names, weights, strict=True)) == {
        f"{folder}{name}": weight for folder, weight in expected.items() for name in ("a.JPG", "b.png")
    }
    assert paths == sorted(paths)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no pictures"):
        find_training_pictures(tmp_path, {})
    with pytest.raises(BadInput, match="holds no pictures"):
        find_training_pictures(tmp_path / "nowhere", {})


def test_a_weight_for_nothing_is_refused(tmp_path: Path) -> None:
    save_pictures(tmp_path / "old", ["a.png"])
    with pytest.raises(BadInput, match="no folder named odl"):
        find_training_pictures(tmp_path, {"odl": 0.5})


def test_an_order_is_the_same_after_pickling() -> None:
    order = Order([1.0, 0.5, 0.5], seed=4)
    expected = [order.step(step, 4) for step in range(20)]
    assert [pickle.loads(pickle.dumps(order)).step(step, 4) for step in range(20)] == expected
    assert order.step(0, 4) == expected[0], "epochs that were forgotten are drawn again as they were"


def test_weights_are_plain_numbers() -> None:
    assert Order(np.ones(3).tolist(), seed=0).epoch_length == 3


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_share_is_refused(tmp_path: Path, weight: float) -> None:
    save_pictures(tmp_path / "a", ["1.png", "2.png"])
    with pytest.raises(BadInput, match=f"weight of a to be 0 or more, got {weight}"):
        find_training_pictures(tmp_path, {"a": weight})


def test_something_has_to_be_learned_from(tmp_path: Path) -> None:
    save_pictures(tmp_path / "a", ["1.png", "2.png"])
    with pytest.raises(BadInput, match=r"No picture below .+ has a weight above 0"):
        find_training_pictures(tmp_path, {"a": 0.0})
    save_pictures(tmp_path / "b", ["1.png"])
    assert find_training_pictures(tmp_path, {"a": 0.0})[1] == [0.0, 0.0, 1.0]
