"""The training loop: what a run is, and every setting has its effect."""

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toys import (
    EFFECTS,
    LOOP,
    SIZE,
    Stopped,
    ToyObjective,
    ToyRestorer,
    one_thread,
    same_state,
    state_of,
    toy_batches,
    toy_distance,
    toy_model,
    trained,
)
from unfade.errors import BadInput, Diverged
from unfade.training.ema import MovingAverage
from unfade.training.loop import LOG_EVERY, History, LoopSettings, cosine, halving, learning_rate, train, trapezoid
from unfade.training.modes import mode, seeded


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with one_thread():
        yield


def stop_inside(context: AbstractContextManager[None]) -> None:
    with context:
        raise Stopped


# What a run is


def test_training_learns() -> None:
    def learnable(step: int) -> tuple[Tensor, Tensor]:
        face, _ = toy_batches(step)
        return face, 0.3 * face

    model = ToyRestorer(SIZE, dropout=0.0)
    losses = train(model, ToyObjective(), learnable, replace(LOOP, steps=60)).curve("l2")
    assert losses[-1][1] < 0.5 * losses[0][1]


def test_losses_are_means_over_the_steps_between() -> None:
    seen: list[float] = []

    class Noted(ToyObjective):
        def forward(self, model: nn.Module, *batch: Tensor) -> dict[str, Tensor]:
            terms = super().forward(model, *batch)
            seen.append(terms["l2"].item())
            return terms

    history = train(toy_model(), Noted(), toy_batches, LOOP)
    assert [row["step"] for row in history.losses] == [LOG_EVERY, 13]
    assert history.losses[0]["l2"] == pytest.approx(sum(seen[:20]) / 20)
    assert history.losses[1]["l2"] == pytest.approx(sum(seen[20:]) / 6)
    assert history.curve("l2") == [(row["step"], row["l2"]) for row in history.losses]
    assert history.curve("nothing") == []


def test_validation_comes_when_it_is_due_and_at_the_end() -> None:
    modes: list[tuple[bool, bool]] = []

    def validate(model: nn.Module) -> dict[str, float]:
        modes.append((model.training, torch.is_grad_enabled()))
        return toy_distance(model)

    model = toy_model().eval()
    history = train(model, ToyObjective(), toy_batches, LOOP, validate=validate)
    assert [step for step, _ in history.curve("held_out")] == [5, 10, 13]
    assert modes == [(False, False)] * 3
    assert history.validations[-1]["held_out"] == pytest.approx(toy_distance(model)["held_out"], rel=1e-6)
    assert not model.training, "the mode is put back"


def test_nothing_outside_is_touched_and_nothing_outside_matters() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = trained()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same_state(trained(), first)


def test_every_step_and_every_seed_draws_its_own_numbers() -> None:
    drawn: list[float] = []

    class Drawing(ToyObjective):
        def forward(self, model: nn.Module, *batch: Tensor) -> dict[str, Tensor]:
            drawn.append(torch.rand(()).item())
            return super().forward(model, *batch)

    for seed in (1, 2):
        train(toy_model(), Drawing(), toy_batches, replace(LOOP, steps=3, seed=seed))
    assert len(set(drawn)) == len(drawn) == 12


def test_batches_are_asked_for_once_each_in_order() -> None:
    asked: list[int] = []

    def noted(step: int) -> tuple[Tensor, ...]:
        asked.append(step)
        return toy_batches(step)

    train(toy_model(), ToyObjective(), noted, LOOP)
    assert asked == list(range(13))


def test_progress_is_given_its_start(tmp_path: Path) -> None:
    told: list[object] = []

    @contextmanager
    def progress(label: str, total: int, *, start: int = 0) -> Iterator[Callable[[float], None]]:
        told.append((label, total, start))
        yield told.append

    trained(replace(LOOP, steps=2), checkpoint=tmp_path / "c", progress=progress, label="fine-tuning")
    trained(replace(LOOP, steps=5), checkpoint=tmp_path / "c", progress=progress)
    assert told == [("fine-tuning", 2, 0), 1, 1, ("training", 5, 2), 1, 1, 1]


# Every setting has an effect

ELSEWHERE = {"batch", "micro_batch", "compile", "checkpoint_every", "validate_every"}  # see the tests named after them


@pytest.mark.usefixtures("computes_in_bf16")
@pytest.mark.parametrize("name", EFFECTS)
def test_each_setting_changes_the_result(name: str) -> None:
    assert not same_state(trained(replace(LOOP, **EFFECTS[name])), trained())


def test_no_setting_is_left_out() -> None:
    assert EFFECTS.keys() | ELSEWHERE == {field.name for field in fields(LoopSettings)}


def test_a_compiled_model_learns_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Dynamo's own backend needs no C++ compiler; a run that began without goes on with it."""
    compiled = functools.partial(torch.compile, backend="eager")
    seen: list[nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda model: seen.append(model) or compiled(model))
    settings = replace(LOOP, compile=True)
    assert same_state(trained(settings), trained())
    assert [type(model) for model in seen] == [ToyRestorer]
    for name in ("a", "b"):
        trained(replace(LOOP, steps=5), checkpoint=tmp_path / name)
    assert same_state(trained(settings, checkpoint=tmp_path / "a"), trained(checkpoint=tmp_path / "b"))


def test_micro_batch_is_the_size_of_a_forward_pass() -> None:
    for micro, sizes in ((4, [4]), (3, [3, 1]), (2, [2, 2]), (1, [1] * 4)):
        objective = ToyObjective()
        trained(replace(LOOP, steps=1, micro_batch=micro), objective)
        assert [len(face) for face, _ in objective.seen] == sizes


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_accumulated_gradients_are_those_of_the_whole_batch(micro: int) -> None:
    """AdamW's first steps hide the scale of gradients, so that the clipped step is compared as well."""
    for clip in (0.0, 1e-3):
        settings = replace(LOOP, steps=3, clip=clip)
        whole = trained(replace(settings, micro_batch=4), dropout=0.0)
        parts = trained(replace(settings, micro_batch=micro), dropout=0.0)
        assert all(torch.allclose(parts[name], whole[name], atol=2e-6) for name in whole)


def test_the_gradient_does_not_grow_with_the_number_of_parts() -> None:
    norms = []
    for micro in (4, 3, 1):
        model = toy_model(0.0)
        train(model, ToyObjective(), toy_batches, replace(LOOP, steps=1, micro_batch=micro))
        norms.append(model.encoder.weight.grad.norm().item())
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)


def test_validate_every_and_checkpoint_every_change_no_weights(tmp_path: Path) -> None:
    often = replace(LOOP, validate_every=1, checkpoint_every=1)
    assert same_state(trained(often, checkpoint=tmp_path / "c", validate=toy_distance), trained())


def test_checkpoint_every(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    real = torch.save
    monkeypatch.setattr(torch, "save", lambda state, file: (saved.append(state["step"]), real(state, file)))
    trained(checkpoint=tmp_path / "c")
    assert saved == [3, 6, 9, 12, 13]


# The learning rate


def test_cosine_falls_from_one_rate_to_the_other() -> None:
    settings = LoopSettings(learning_rate=3.0, final_learning_rate=1.0)
    assert [cosine(settings, x) for x in (0, 0.5, 1)] == pytest.approx([3, 2, 1])
    assert cosine(settings, 0.25) == pytest.approx(2 + 0.5**0.5)


def test_halving_is_codeformer_s() -> None:
    settings = LoopSettings(learning_rate=8.0, steps=40_000, schedule="halving")
    steps = (0, 34_999, 35_000, 37_999, 38_000, 39_999)
    assert [learning_rate(settings, step) for step in steps] == [8, 8, 4, 4, 2, 2]
    assert halving(settings, 1.0) == 2


def test_trapezoid_is_constant_for_two_thirds() -> None:
    settings = LoopSettings(learning_rate=3.0, final_learning_rate=1.0)
    assert [trapezoid(settings, x) for x in (0, 0.5, 2 / 3, 5 / 6, 1)] == pytest.approx([3, 3, 3, 2, 1])


def test_warmup_rises_from_nothing() -> None:
    settings = LoopSettings(learning_rate=4.0, final_learning_rate=4.0, warmup=4)
    assert [learning_rate(settings, step) for step in range(6)] == pytest.approx([1, 2, 3, 4, 4, 4])


def test_the_defaults_are_the_papers() -> None:
    settings = LoopSettings()
    assert (settings.steps, settings.batch, settings.micro_batch) == (20_000, 16, 4)
    assert learning_rate(settings, 0) == pytest.approx(1e-4)
    assert learning_rate(settings, settings.steps) == pytest.approx(5e-6)


# Frozen parameters and the moving average


def test_frozen_parameters_stay_as_they_were() -> None:
    before, after = state_of(toy_model()), trained(replace(LOOP, weight_decay=0.5))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"encoder.weight", "encoder.bias"}


def test_the_average_is_the_running_one() -> None:
    network = nn.Linear(2, 1, bias=False)
    expected = network.weight.detach().clone()
    average = MovingAverage(network, 0.9)
    for step in range(3):
        nn.init.constant_(network.weight, float(step))
        average.update(network, step)
        expected = 0.9 * expected + 0.1 * step
    assert torch.allclose(average.state_dict()["weight"], expected)
    assert network.weight[0, 0].item() == 2.0


def test_a_ramped_average_forgets_the_start_sooner() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = MovingAverage(network, 0.9, ramp=True)
    nn.init.ones_(network.weight)
    average.update(network, 0)
    assert float(average.state_dict()["weight"]) == pytest.approx(0.9)  # decay (1 + 0) / (10 + 0)
    for step in (1000, 1001):
        before = float(average.state_dict()["weight"])
        average.update(network, step)
        assert 1 - float(average.state_dict()["weight"]) == pytest.approx(0.9 * (1 - before), rel=1e-3)


def test_applied_weights_are_taken_off_again() -> None:
    network = toy_model()
    average = MovingAverage(network, 0.9)
    start = state_of(network)
    nn.init.ones_(network.encoder.weight)
    with average.applied(network):
        assert same_state(state_of(network), start)
    assert bool((network.encoder.weight == 1).all())
    with pytest.raises(Stopped):
        stop_inside(average.applied(network))
    assert bool((network.encoder.weight == 1).all())


def test_the_average_is_what_is_validated_and_kept() -> None:
    scores: list[dict[str, Tensor]] = []
    model = toy_model()
    train(model, ToyObjective(), toy_batches, LOOP, validate=lambda m: scores.append(state_of(m)) or {"x": 0.0})
    assert same_state(scores[-1], state_of(model))
    last = trained(replace(LOOP, ema=0.0))
    assert not same_state(scores[-1], last)
    between = (state_of(model)["encoder.bias"] - state_of(toy_model())["encoder.bias"]).abs()
    assert bool((between < (last["encoder.bias"] - state_of(toy_model())["encoder.bias"]).abs() + 1e-3).all())


# Modes


def test_modes_are_put_back_each_as_it_was() -> None:
    one, other = nn.Dropout().train(), nn.Dropout().eval()
    with mode(True, one, other):
        assert (one.training, other.training) == (True, True)
    assert (one.training, other.training) == (True, False)
    with pytest.raises(Stopped):
        stop_inside(mode(False, one, other))
    assert (one.training, other.training) == (True, False)


def test_seeded_draws_are_the_same_and_leave_no_trace() -> None:
    before = torch.get_rng_state()
    draws = []
    for seed in (1, 1, 2):
        with seeded(torch.device("cpu"), seed):
            draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_history_is_plain_data() -> None:
    history = History([{"step": 1, "l2": 0.5}], [{"step": 1, "held_out": 0.25}])
    assert History(**copy.deepcopy(asdict(history))) == history
    assert history.curve("held_out") == [(1, 0.25)]


def test_a_diverged_run_says_so() -> None:
    def broken(step: int) -> tuple[Tensor, ...]:
        return tuple(part * float("nan") for part in toy_batches(step))

    with pytest.raises(Diverged, match=f"not a number at step {LOG_EVERY}.*lower `learning_rate`"):
        train(toy_model(), ToyObjective(), broken, replace(LOOP, steps=LOG_EVERY))


@pytest.mark.parametrize("name", ["steps", "batch", "micro_batch", "checkpoint_every", "validate_every"])
def test_settings_that_count_something_begin_at_one(name: str) -> None:
    with pytest.raises(BadInput, match=f"Expected `{name}` to be 1 or more, got 0"):
        replace(LOOP, **{name: 0})


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["learning_rate", "final_learning_rate", "weight_decay", "clip", "ema"])
def test_rates_are_numbers_from_zero_on(name: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"Expected `{name}` to be 0 or more, got {value}"):
        replace(LOOP, **{name: value})


def test_an_average_that_never_moves_and_an_unknown_schedule_are_refused() -> None:
    with pytest.raises(BadInput, match="Expected `ema` to be less than 1, got 1"):
        replace(LOOP, ema=1.0)
    with pytest.raises(BadInput, match="no schedule named linear; there are: cosine, trapezoid, halving"):
        replace(LOOP, schedule="linear")
