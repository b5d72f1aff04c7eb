"""The stage that degrades clean faces: each face has its own draw, whatever its company."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from toys import levels, save_pictures
from unfade.degradations.blind import BLIND_PRESETS, blind, draw_blind
from unfade.degradations.camera import CAMERA_PRESETS
from unfade.errors import BadInput
from unfade.images.files import from_bytes, read_image, to_bytes
from unfade.stages.degrade import KINDS, PRESETS, Degradation, blind_degradation, camera_degradation, degrade_faces
from unfade.stages.items import load_item
from unfade.store.runs import Entry, Journal

SIZE = 32


class Draws:
    """A degradation that remembers the first number of every draw and changes nothing."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self, truth: Tensor, rng: np.random.Generator) -> Tensor:
        self.numbers.append(int(rng.integers(2**40)))
        return truth


def degraded(truth: list[Path], out: Path, degradation: Degradation, **options: object) -> list[Entry]:
    return degrade_faces(truth, out, degradation, journal=Journal(out / "journal.jsonl"), **options)


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: to_bytes(read_image(path)) for path in sorted(folder.glob("*.png"))}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_faces_become_degraded_faces_of_the_same_size(tmp_path: Path, kind: str) -> None:
    preset = PRESETS[kind][0]
    truth = save_pictures(tmp_path / "truth", ["a.png", "b.jpg"], size=SIZE)
    entries = degraded(truth, tmp_path / "out", KINDS[kind](preset, None))
    assert [(e.stage, e.item, e.status, e.output) for e in entries] == [
        ("degraded", "a.png", "done", "a.png"),
        ("degraded", "b.jpg", "done", "b.png"),
    ]
    for name, picture in pictures(tmp_path / "out").items():
        assert picture.shape == (SIZE, SIZE, 3)
        assert not np.array_equal(picture, levels("ab".index(name[0]), SIZE))


@pytest.mark.parametrize("kind", KINDS)
def test_a_face_does_not_depend_on_its_company(tmp_path: Path, kind: str) -> None:
    degradation = KINDS[kind](PRESETS[kind][0], None)
    truth = save_pictures(tmp_path / "truth", ["a.png", "b.png", "c.png"], size=SIZE)
    degraded(truth, tmp_path / "all", degradation)
    degraded(truth[::-1], tmp_path / "backwards", degradation)
    for path in truth:
        degraded([path], tmp_path / "alone", degradation)
    everything = pictures(tmp_path / "all")
    assert same(everything, pictures(tmp_path / "backwards"))
    assert same(everything, pictures(tmp_path / "alone"))


def test_draws_follow_from_seed_and_content(tmp_path: Path) -> None:
    truth = save_pictures(tmp_path / "truth", ["a.png", "b.png"])
    truth += save_pictures(tmp_path / "truth", ["like a.png"])
    first, again, other = Draws(), Draws(), Draws()
    degraded(truth, tmp_path / "1", first, seed=1)
    degraded(truth, tmp_path / "2", again, seed=1)
    degraded(truth, tmp_path / "3", other, seed=2)
    assert first.numbers == again.numbers
    assert first.numbers[2] == first.numbers[0]
    assert len({*first.numbers, *other.numbers}) == 4
    assert first.numbers[0] == np.random.default_rng(load_item(truth[0], None).seed(1, "degrade")).integers(2**40)


def test_a_second_run_degrades_nothing(tmp_path: Path) -> None:
    truth = save_pictures(tmp_path / "truth", ["a.png"])
    draws = Draws()
    for key, times in (("blind", 1), ("blind", 1), ("camera", 2)):
        degraded(truth, tmp_path / "out", draws, key=key)
        assert len(draws.numbers) == times


def test_faces_are_brought_to_size_first(tmp_path: Path) -> None:
    truth = save_pictures(tmp_path / "truth", ["a.png"], size=64)
    sizes = []

    def degradation(image: Tensor, rng: np.random.Generator) -> Tensor:
        sizes.append(tuple(image.shape))
        return image

    degraded(truth, tmp_path / "small", degradation, size=SIZE)
    degraded(truth, tmp_path / "as it is", degradation)
    assert sizes == [(3, SIZE, SIZE), (3, 64, 64)]
    assert [pictures(tmp_path / out)["a.png"].shape[0] for out in ("small", "as it is")] == [SIZE, 64]


def test_a_face_too_small_for_the_camera_fails_alone(tmp_path: Path) -> None:
    truth = save_pictures(tmp_path / "truth", ["big.png"], size=64)
    truth += save_pictures(tmp_path / "truth", ["small.png"], size=16)
    entries = degraded(truth, tmp_path / "out", camera_degradation(scale=16))
    assert [entry.status for entry in entries] == ["done", "failed"]
    assert entries[1].reason.startswith("small.png: ")


# The kinds


def drawn(degradation: Degradation, size: int = 128) -> list[Tensor]:
    truth = from_bytes(levels(1, size))
    return [degradation(truth, np.random.default_rng(seed)) for seed in range(2)]


@pytest.mark.parametrize(("kind", "presets"), [("blind", BLIND_PRESETS), ("camera", CAMERA_PRESETS)])
def test_presets_differ_as_their_settings_do(kind: str, presets: dict[str, object]) -> None:
    results = {name: torch.stack(drawn(KINDS[kind](name, None))) for name in PRESETS[kind]}
    for one, other in itertools.combinations(presets, 2):
        assert torch.equal(results[one], results[other]) == (presets[one] == presets[other])


@pytest.mark.parametrize("size", [32, 128])
def test_scale_is_the_ratio_at_any_size(size: int) -> None:
    for scale in (1, 2, 8):
        expected = []
        for seed in range(2):
            draw = draw_blind(np.random.default_rng(seed), size=size)
            expected.append(blind(from_bytes(levels(1, size)), replace(draw, ratio=scale)))
        assert all(map(torch.equal, drawn(blind_degradation(scale=scale), size), expected))


@pytest.mark.parametrize("make", [blind_degradation, camera_degradation])
def test_scale_has_an_effect(make: Callable[..., Degradation]) -> None:
    results = [drawn(make(scale=scale))[0] for scale in (None, 2, 8)]
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(results, 2))


@pytest.mark.parametrize("make", [blind_degradation, camera_degradation])
def test_no_scale_below_one(make: Callable[..., Degradation]) -> None:
    with pytest.raises(BadInput, match="at least 1, got 0"):
        drawn(make(scale=0))


def test_a_preset_is_the_settings_of_that_name() -> None:
    for name, settings in BLIND_PRESETS.items():
        truth = from_bytes(levels(1, SIZE))
        expected = blind(truth, draw_blind(np.random.default_rng(3), size=SIZE, settings=settings))
        assert torch.equal(blind_degradation(name)(truth, np.random.default_rng(3)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_preset_is_answered_with_the_known_ones(kind: str) -> None:
    with pytest.raises(BadInput) as caught:
        KINDS[kind]("heavy", None)
    assert str(caught.value) == f"There is no preset named heavy; there are: {', '.join(PRESETS[kind])}."
