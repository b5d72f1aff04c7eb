"""The stage that fine-tunes on (face, target) pairs: which pairs, which batches, and that it can be stopped."""

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from toys import (
    Alive,
    Stopped,
    ToyAdversary,
    ToyObjective,
    ToyRestorer,
    levels,
    one_thread,
    same_state,
    save_pictures,
    state_of,
)
from unfade.degradations.fitted import fit
from unfade.errors import BadInput
from unfade.images.files import from_bytes
from unfade.stages.finetune import FinetuneSettings, Pair, became_worse, degraded, finetune, pairs_of, split
from unfade.training.loop import History, LoopSettings
from unfade.training.objective import Objective

LOOP = LoopSettings(
    steps=6, batch=4, micro_batch=2, learning_rate=1e-2, checkpoint_every=2, validate_every=3, seed=1, ema=0.9
)
SETTINGS = FinetuneSettings(LOOP)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with one_thread():
        yield


class Watching(ToyObjective):
    """Knows faces, targets and clean faces by their content, and can stop at a forward pass."""

    def __init__(self, stop: int = 0) -> None:
        super().__init__()
        self.stop = stop

    def forward(self, model: nn.Module, *batch: Tensor) -> dict[str, Tensor]:
        terms = super().forward(model, *batch)
        if len(self.seen) == self.stop:
            raise Stopped
        return terms

    def shown(self, part: int) -> list[tuple[int, bool]]:
        """(seed, mirrored) of everything that was shown as the given part of the batch."""
        return [known(image) for batch in self.seen for image in batch[part]]


def known(image: Tensor) -> tuple[int, bool]:
    for seed in (*range(40), *range(100, 140), *range(200, 240)):
        if torch.equal(image, from_bytes(levels(seed))):
            return seed, False
        if torch.equal(image.flip(-1), from_bytes(levels(seed))):
            return seed, True
    raise AssertionError("a picture that is in none of the folders")


def make_pairs(folder: Path, count: int) -> list[Pair]:
    """Faces with the seeds 0, 1, ... and their targets with 100, 101, ..."""
    names = [f"{i:02}.png" for i in range(count)]
    faces, targets = (
        save_pictures(folder / name, names, first_seed=first) for name, first in (("faces", 0), ("targets", 100))
    )
    return [Pair(*each) for each in zip(faces, targets, strict=True)]


def tuned(
    pairs: list[Pair], settings: FinetuneSettings = SETTINGS, objective: Objective | None = None, **options: object
) -> tuple[ToyRestorer, History]:
    restorer = ToyRestorer()
    history = finetune(restorer, pairs, objective=objective or ToyObjective(), settings=settings, **options)
    return restorer, history


# Which pairs


def test_faces_are_paired_by_stem(tmp_path: Path) -> None:
    save_pictures(tmp_path / "faces", ["c.png", "a.jpg", "b.png", "x.png"])
    save_pictures(tmp_path / "targets", ["a.png", "b.png", "c.png", "y.png"])
    assert pairs_of(tmp_path / "faces", tmp_path / "targets") == [
        Pair(tmp_path / "faces" / face, tmp_path / "targets" / target)
        for face, target in (("a.jpg", "a.png"), ("b.png", "b.png"), ("c.png", "c.png"))
    ]


def test_no_pair_at_all(tmp_path: Path) -> None:
    save_pictures(tmp_path / "faces", ["a.png"])
    save_pictures(tmp_path / "targets", ["b.png"])
    with pytest.raises(BadInput, match="make targets from these faces first"):
        pairs_of(tmp_path / "faces", tmp_path / "targets")
    with pytest.raises(BadInput, match="is not a folder"):
        pairs_of(tmp_path / "faces", tmp_path / "nowhere")


def named(*names: str) -> list[Pair]:
    return [Pair(Path("faces") / name, Path("targets") / name) for name in names]


def test_the_split_takes_every_pair_once() -> None:
    pairs = named(*(f"{i}.png" for i in range(30)))
    learned, watched = split(pairs, 0.1, seed=0)
    assert len(watched) == 3
    assert sorted(learned + watched, key=pairs.index) == pairs
    assert learned == sorted(learned, key=pairs.index)


def test_the_split_is_stable() -> None:
    """It follows from names and seed: not from the order, and a face more or less does not reshuffle it."""
    pairs = named(*(f"{i}.png" for i in range(30)))
    _, watched = split(pairs, 0.1, seed=0)
    assert set(split(pairs[::-1], 0.1, seed=0)[1]) == set(watched)
    moved = [Pair(Path("elsewhere") / pair.face.name, pair.target) for pair in pairs]
    assert [pair.face.name for pair in split(moved, 0.1, seed=0)[1]] == [pair.face.name for pair in watched]
    fewer = [pair for pair in pairs if pair not in split(pairs, 0.9, seed=0)[0]]
    assert set(watched) >= set(split(fewer, 0.1, seed=0)[1])
    assert any(set(split(pairs, 0.1, seed=seed)[1]) != set(watched) for seed in (1, 2))


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(5, 0.5, 0), (6, 0.1, 2), (10, 0.1, 2), (10, 0.0, 0), (40, 0.25, 10)]
)
def test_how_many_are_held_out(count: int, share: float, expected: int) -> None:
    learned, watched = split(named(*map(str, range(count))), share, seed=0)
    assert (len(learned), len(watched)) == (count - expected, expected)


def test_a_restorer_that_became_worse_gets_its_old_weights_back(tmp_path: Path) -> None:
    pairs, before = make_pairs(tmp_path, 12), ToyRestorer().state_dict()
    wild = replace(SETTINGS, loop=replace(LOOP, learning_rate=50.0, ema=0.0))
    worse, history = tuned(pairs, wild)
    assert became_worse(history)
    assert all(torch.equal(value, before[name]) for name, value in worse.state_dict().items())
    better, history = tuned(pairs)
    assert not became_worse(history)
    assert not all(torch.equal(value, before[name]) for name, value in better.state_dict().items())


def test_became_worse_weighs_every_measure_by_its_change() -> None:
    def rows(l1: float, perceptual: float) -> History:
        before = {"step": 0.0, "held_out_l1": 0.1, "held_out_perceptual": 0.4}
        return History([], [before, {"step": 9.0, "held_out_l1": l1, "held_out_perceptual": perceptual}])

    assert not became_worse(rows(0.1, 0.4))
    assert not became_worse(rows(0.11, 0.3))  # 10 % worse, 25 % better
    assert became_worse(rows(0.13, 0.38))
    assert became_worse(rows(math.nan, 0.1))
    assert not became_worse(History())


# What is learned from


def test_held_out_pairs_are_watched_and_never_learned_from(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, 12)
    _, watched = split(pairs, 0.25, seed=1)
    held_out = {pairs.index(pair) for pair in watched}
    for share, missing in ((0.25, held_out), (0.0, set())):
        objective = Watching()
        settings = replace(SETTINGS, hold_out=share)
        _, history = tuned(pairs, settings, objective)
        assert {seed for seed, _ in objective.shown(0)} == set(range(12)) - missing
        assert bool(history.validations) == bool(missing)


def test_a_face_comes_with_its_own_target(tmp_path: Path) -> None:
    objective = Watching()
    tuned(make_pairs(tmp_path, 5), replace(SETTINGS, flip=True), objective)
    assert [(seed + 100, mirrored) for seed, mirrored in objective.shown(0)] == objective.shown(1)
    assert len(objective.shown(0)) == LOOP.steps * LOOP.batch
    assert {len(batch) for batch in objective.seen} == {2}


def test_batch_is_the_number_of_pairs_in_a_step(tmp_path: Path) -> None:
    for batch in (3, 8):
        objective = Watching()
        tuned(make_pairs(tmp_path, 5), replace(SETTINGS, loop=replace(LOOP, batch=batch, micro_batch=8)), objective)
        assert [len(faces) for faces, _ in objective.seen] == [batch] * LOOP.steps


def test_flip_mirrors_about_half(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, 5)
    mirrored = {}
    for on in (False, True):
        objective = Watching()
        tuned(pairs, replace(SETTINGS, flip=on), objective)
        mirrored[on] = sum(turned for _, turned in objective.shown(0))
    assert mirrored[False] == 0
    assert 6 <= mirrored[True] <= 18  # of 24


def test_real_faces_are_shown_beside_the_pairs(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, 5)
    real = save_pictures(tmp_path / "real", [f"{i}.png" for i in range(7)], first_seed=200)
    objective, without = Watching(), Watching()
    tuned(pairs, objective=objective, real=real)
    tuned(pairs, objective=without)
    assert {seed for seed, _ in objective.shown(2)} == set(range(200, 207))
    assert len(objective.shown(2)) == len(objective.shown(0))
    assert objective.shown(0) == without.shown(0), "clean faces do not change which pairs come when"


def test_every_pair_is_learned_from_equally_often(tmp_path: Path) -> None:
    objective = Watching()
    tuned(make_pairs(tmp_path, 8), replace(SETTINGS, hold_out=0), objective)
    shown = [seed for seed, _ in objective.shown(0)]
    assert all(shown.count(seed) == 3 for seed in range(8))


# What comes of it


def test_frozen_parts_stay_and_the_rest_learns(tmp_path: Path) -> None:
    before = state_of(ToyRestorer())
    after = state_of(tuned(make_pairs(tmp_path, 5))[0])
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"encoder"}


def test_what_was_not_trainable_before_is_when_it_should_be(tmp_path: Path) -> None:
    restorer = ToyRestorer().requires_grad_(False)
    finetune(restorer, make_pairs(tmp_path, 5), objective=ToyObjective(), settings=SETTINGS)
    assert [name for name, value in restorer.named_parameters() if value.requires_grad] == [
        "encoder.weight",
        "encoder.bias",
    ]


def test_scores_of_the_held_out_pairs(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, 12)
    _, watched = split(pairs, 0.1, seed=1)
    restorer, history = tuned(pairs, distance=lambda a, b: (a - b).square().mean((1, 2, 3)))
    assert [row["step"] for row in history.validations] == [0, 3, 6]
    seeds = [pairs.index(pair) for pair in watched]
    with torch.no_grad():
        restored = restorer.eval()(torch.stack([from_bytes(levels(seed)) for seed in seeds])).clamp(-1, 1)
    difference = restored - torch.stack([from_bytes(levels(seed + 100)) for seed in seeds])
    assert history.validations[-1]["held_out_l1"] == pytest.approx(difference.abs().mean().item() / 2, rel=1e-5)
    assert history.validations[-1]["held_out_perceptual"] == pytest.approx(difference.square().mean().item(), rel=1e-5)
    _, plain = tuned(pairs)
    assert "held_out_perceptual" not in plain.validations[-1]


def test_held_out_pictures_are_not_all_in_memory_as_floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, counts = Alive(from_bytes), list[int]()
    monkeypatch.setattr("unfade.training.batches.from_bytes", alive)

    def distance(one: Tensor, other: Tensor) -> Tensor:
        counts.append(len(alive.made))
        return (one - other).square().mean((1, 2, 3))

    tuned(make_pairs(tmp_path, 20), replace(SETTINGS, hold_out=0.5), distance=distance)
    assert max(counts[:10]) <= 3  # before the first step, when no batch is being made


CHANGED = {
    "loop": {"loop": replace(LOOP, seed=5)},
    "flip": {"flip": True},
    "hold_out": {"hold_out": 0.5},
    "redegraded": {"redegraded": 1.0},
}


@pytest.mark.parametrize("name", CHANGED)
def test_each_setting_changes_the_result(tmp_path: Path, name: str) -> None:
    pairs = make_pairs(tmp_path, 12)
    one, other = (state_of(tuned(pairs, settings)[0]) for settings in (SETTINGS, replace(SETTINGS, **CHANGED[name])))
    assert not same_state(one, other)


def test_no_setting_is_left_out() -> None:
    assert CHANGED.keys() == {field.name for field in fields(FinetuneSettings)}


@pytest.mark.parametrize("stop", [1, 4, 7, 12])
def test_a_stopped_run_equals_one_that_was_not(tmp_path: Path, stop: int) -> None:
    pairs = make_pairs(tmp_path, 12)
    real = save_pictures(tmp_path / "real", ["a.png", "b.png"], first_seed=200)
    settings = replace(SETTINGS, flip=True)
    whole, history = tuned(pairs, settings, real=real)
    checkpoint = tmp_path / "finetune.training"
    with pytest.raises(Stopped):
        tuned(pairs, settings, Watching(stop), real=real, checkpoint=checkpoint)
    resumed, resumed_history = tuned(pairs, settings, real=real, checkpoint=checkpoint)
    assert same_state(state_of(resumed), state_of(whole))
    assert resumed_history == history


def test_an_adversarial_run_goes_on_too(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, 12)
    whole = ToyAdversary()
    restorer, _ = tuned(pairs, SETTINGS, whole)
    checkpoint = tmp_path / "finetune.training"
    tuned(pairs, replace(SETTINGS, loop=replace(LOOP, steps=2, learning_rate=1e-2)), checkpoint=tmp_path / "other")
    with pytest.raises(Stopped):
        tuned(pairs, SETTINGS, _stopping_adversary(5), checkpoint=checkpoint)
    again = ToyAdversary()
    resumed, _ = tuned(pairs, SETTINGS, again, checkpoint=checkpoint)
    assert same_state(state_of(resumed), state_of(restorer))
    assert same_state(state_of(again.critic), state_of(whole.critic))


def _stopping_adversary(step: int) -> ToyAdversary:
    class Stopping(ToyAdversary):
        steps = 0

        def after_step(self) -> None:
            self.steps += 1
            if self.steps == step:
                raise Stopped
            super().after_step()

    return Stopping()


def test_a_face_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, 3)
    pairs[1].target.write_bytes(b"gone")
    with pytest.raises(Exception, match=r"targets/01\.png is not a picture"):
        tuned(pairs)


@pytest.mark.parametrize("share", [-0.1, 0.6, 1.0])
def test_more_than_half_is_not_held_out(share: float) -> None:
    with pytest.raises(BadInput, match="hold out must lie in"):
        FinetuneSettings(hold_out=share)


def test_targets_damaged_anew_decide_where_a_degradation_was_fitted(tmp_path: Path) -> None:
    _, history = tuned(make_pairs(tmp_path, 12), replace(SETTINGS, redegraded=1.0))
    assert history.validations[0].keys() == {"step", "held_out_l1", "redegraded_l1"}
    before = {"step": 0.0, "held_out_l1": 0.1, "redegraded_l1": 0.2}
    assert not became_worse(History([], [before, {"step": 9.0, "held_out_l1": 0.2, "redegraded_l1": 0.15}]))
    assert became_worse(History([], [before, {"step": 9.0, "held_out_l1": 0.05, "redegraded_l1": 0.25}]))


def test_clean_faces_are_grey_where_the_photos_are() -> None:
    colour = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grey = colour[:1].expand(3, -1, -1)
    damage = fit(colour[None], colour[None] * 0.5)
    face, truth = degraded(colour, grey, damage, np.random.default_rng(0))
    assert truth.std(0).max() < 1e-6
    assert face.std(0).max() < 1e-6
    face, truth = degraded(colour, colour, damage, np.random.default_rng(0))
    assert torch.equal(truth, colour)
    assert face.std(0).max() > 0.1


def test_too_few_pairs_are_learned_from_as_they_are(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path, 5)
    one, other = (state_of(tuned(pairs, replace(SETTINGS, redegraded=share))[0]) for share in (0.0, 1.0))
    assert same_state(one, other)


def clean_faces(folder: Path, count: int) -> list[Path]:
    """Clean faces with the seeds 200, 201, ..."""
    return save_pictures(folder / "clean", [f"{i:02}.png" for i in range(count)], first_seed=200)


def test_clean_faces_are_damaged_in_place_of_targets(tmp_path: Path) -> None:
    """All but those that are watched are learned from, each under its own truth, and no target is."""
    objective, clean = Watching(), clean_faces(tmp_path, 8)
    _, history = tuned(make_pairs(tmp_path, 12), replace(SETTINGS, redegraded=1.0), objective, clean=clean)
    assert {seed for seed, _ in objective.shown(1)} == {202, 203, 204, 205, 206, 207}
    assert "redegraded_l1" in history.validations[0]


def test_half_of_the_faces_may_be_photos(tmp_path: Path) -> None:
    objective, clean = Watching(), clean_faces(tmp_path, 8)
    tuned(make_pairs(tmp_path, 12), replace(SETTINGS, redegraded=0.5), objective, clean=clean)
    seeds = [seed for seed, _ in objective.shown(1)]
    assert 0 < sum(seed >= 200 for seed in seeds) < len(seeds)


def test_one_clean_face_is_learned_from_and_not_watched(tmp_path: Path) -> None:
    objective, clean = Watching(), clean_faces(tmp_path, 1)
    _, history = tuned(make_pairs(tmp_path, 12), replace(SETTINGS, redegraded=1.0), objective, clean=clean)
    assert {seed for seed, _ in objective.shown(1)} == {200}
    assert history.validations[0].keys() == {"step", "held_out_l1"}


def test_a_stopped_run_on_clean_faces_goes_on(tmp_path: Path) -> None:
    pairs, settings = make_pairs(tmp_path, 12), replace(SETTINGS, redegraded=0.5, flip=True)
    clean, checkpoint = clean_faces(tmp_path, 5), tmp_path / "finetune.training"
    whole, history = tuned(pairs, settings, clean=clean)
    with pytest.raises(Stopped):
        tuned(pairs, settings, Watching(7), clean=clean, checkpoint=checkpoint)
    resumed, resumed_history = tuned(pairs, settings, clean=clean, checkpoint=checkpoint)
    assert same_state(state_of(resumed), state_of(whole))
    assert resumed_history == history
