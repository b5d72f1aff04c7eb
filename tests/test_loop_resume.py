"""A run that was stopped and goes on from its checkpoint equals one that was not, bit for bit."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toys import (
    EFFECTS,
    LOOP,
    Stopped,
    ToyAdversary,
    ToyObjective,
    one_thread,
    same_state,
    state_of,
    toy_batches,
    toy_distance,
    toy_model,
    trained,
)
from unfade.errors import BadCheckpoint, DiskFull, OutputConflict
from unfade.training.loop import train
from unfade.training.objective import Objective


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with one_thread():
        yield


def outcome(objective: Objective, checkpoint: Path | None, **options: object) -> tuple[object, ...]:
    """Everything that a run leaves behind."""
    model = toy_model()
    history = train(
        model,
        objective,
        options.pop("batches", toy_batches),
        LOOP,
        checkpoint=checkpoint,
        validate=toy_distance,
        **options,
    )
    return state_of(model), {k: v for k, v in objective.state_dict().items() if isinstance(v, Tensor)}, history


def equal(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return same_state(one[0], other[0]) and same_state(one[1], other[1]) and one[2] == other[2]


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[object, ...]:
    return outcome(ToyAdversary(), None)


@pytest.mark.parametrize("stop", [0, 2, 3, 5, 10, 11, 12])
def test_a_run_stopped_while_a_batch_is_made(tmp_path: Path, uninterrupted: tuple[object, ...], stop: int) -> None:
    def broken(step: int) -> tuple[Tensor, ...]:
        if step == stop:
            raise Stopped
        return toy_batches(step)

    with pytest.raises(Stopped):
        outcome(ToyAdversary(), tmp_path / "c", batches=broken)
    assert equal(outcome(ToyAdversary(), tmp_path / "c"), uninterrupted)


class StopsAfter(ToyAdversary):
    """Raises in the middle of a step: after some of its micro-batches, or before the critic's own step."""

    def __init__(self, passes: int, where: str) -> None:
        super().__init__()
        self.left, self.where = passes, where

    def after_backward(self) -> None:
        super().after_backward()
        self.left -= 1
        if self.left == 0 and self.where == "after_backward":
            raise Stopped

    def after_step(self) -> None:
        if self.left <= 0 and self.where == "after_step":
            raise Stopped
        super().after_step()


@pytest.mark.parametrize("where", ["after_backward", "after_step"])
@pytest.mark.parametrize("passes", [1, 9, 16, 25])
def test_a_run_stopped_in_the_middle_of_a_step(
    tmp_path: Path, uninterrupted: tuple[object, ...], passes: int, where: str
) -> None:
    with pytest.raises(Stopped):
        outcome(StopsAfter(passes, where), tmp_path / "c")
    assert equal(outcome(ToyAdversary(), tmp_path / "c"), uninterrupted)


def test_a_run_stopped_again_and_again(tmp_path: Path, uninterrupted: tuple[object, ...]) -> None:
    for _ in range(3):
        with pytest.raises(Stopped):
            outcome(StopsAfter(7, "after_step"), tmp_path / "c")
    assert equal(outcome(ToyAdversary(), tmp_path / "c"), uninterrupted)


def test_a_run_stopped_while_its_checkpoint_is_written(
    tmp_path: Path, uninterrupted: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state: dict[str, object], file: object) -> None:
        if state["step"] == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(state, file)

    real = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskFull, match="free some space and run again"):
        outcome(ToyAdversary(), tmp_path / "c")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert equal(outcome(ToyAdversary(), tmp_path / "c"), uninterrupted)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path, uninterrupted: tuple[object, ...]) -> None:
    outcome(ToyAdversary(), tmp_path / "c")
    before = (tmp_path / "c").read_bytes()

    def never(step: int) -> tuple[Tensor, ...]:
        raise AssertionError(f"step {step} was done already")

    assert equal(outcome(ToyAdversary(), tmp_path / "c", batches=never), uninterrupted)
    assert (tmp_path / "c").read_bytes() == before


def test_a_run_may_be_made_longer_while_the_rate_is_constant(tmp_path: Path) -> None:
    short = replace(LOOP, schedule="trapezoid", steps=6)
    long = replace(short, steps=15, checkpoint_every=4, validate_every=7)

    def broken(step: int) -> tuple[Tensor, ...]:
        if step == 4:
            raise Stopped
        return toy_batches(step)

    with pytest.raises(Stopped):
        train(toy_model(), ToyObjective(), broken, short, checkpoint=tmp_path / "c")
    assert same_state(trained(long, checkpoint=tmp_path / "c"), trained(long))


# Checkpoints that do not fit


@pytest.mark.parametrize("name", sorted(EFFECTS.keys() - {"steps"} | {"batch", "micro_batch"}))
def test_other_settings_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "c"
    trained(replace(LOOP, steps=1), checkpoint=path)
    before = path.read_bytes()
    other = replace(LOOP, **EFFECTS.get(name, {name: 1}))
    found, wanted = ((list(v) if isinstance(v, tuple) else v) for v in (getattr(LOOP, name), getattr(other, name)))
    with pytest.raises(OutputConflict) as caught:
        trained(other, checkpoint=path)
    assert str(caught.value).startswith(f"{path} was made with {name} = {found}, now it is {wanted}; ")
    assert path.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    trained(replace(LOOP, steps=1), checkpoint=path)
    content = path.read_bytes()
    for broken in (b"", content[:100], content[: len(content) // 2], content[:-30], b"not a checkpoint"):
        path.write_bytes(broken)
        with pytest.raises(BadCheckpoint, match="is damaged") as caught:
            trained(checkpoint=path)
        assert str(caught.value).startswith(str(path))
        assert path.read_bytes() == broken


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "c")
    with pytest.raises(BadCheckpoint, match="is not a checkpoint"):
        trained(checkpoint=tmp_path / "c")


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trained(replace(LOOP, steps=1), checkpoint=tmp_path / "c")
    other = toy_model()
    other.encoder = nn.Conv2d(3, 4, 5, padding=2)
    with pytest.raises(BadCheckpoint, match=r"another architecture: encoder\.weight is of shape \(4, 3, 3, 3\)"):
        train(other, ToyObjective(), toy_batches, LOOP, checkpoint=tmp_path / "c")
