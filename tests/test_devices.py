"""What is kept on a device, what is brought there, and what happens when it is full."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import unfade.cli
from toy_stage import Place, negative
from toys import LOOP, ToyObjective, ToyRestorer, save_pictures, toy_batches, toy_model
from unfade.devices import constant, is_out_of_memory, room_in_memory
from unfade.errors import BadInput, OutOfMemory
from unfade.faces.chips import chips_of
from unfade.images.filters import low_pass
from unfade.images.wavelets import with_colours_of
from unfade.jobs.outputs import Outputs
from unfade.jobs.run_stage import Item, all_of, attempted
from unfade.progress import Advance
from unfade.stages.background import tiled
from unfade.stages.restore_photos import in_batches
from unfade.training.loader import brought
from unfade.training.loop import train

FULL = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.20 GiB is free."
)


# What is kept


def test_constants_are_kept_for_each_type() -> None:
    like = torch.zeros(2, dtype=torch.float64)
    assert constant(like, 0.5, 3.0).tolist() == [0.5, 3.0]
    assert constant(like, 0.5, 3.0) is constant(like, 0.5, 3.0)
    assert constant(like, 0.5, 3.0).dtype == torch.float64 != constant(like.float(), 0.5, 3.0).dtype


@pytest.mark.parametrize("kept", [lambda x: low_pass(x, 3), chips_of, lambda x: with_colours_of(x, x * x)])
def test_what_an_inference_keeps_serves_a_training(kept: Any) -> None:
    """Tensors that are made in inference mode cannot be part of a gradient."""
    with torch.inference_mode():
        kept(torch.zeros(1, 3, 222, 222))
    face = torch.zeros(1, 3, 222, 222, requires_grad=True)
    kept(face).square().sum().backward()
    assert face.grad is not None


class Seen:
    """Stands in for a tensor that is brought to a device."""

    def to(self, device: torch.device, *, non_blocking: bool) -> bool:
        return non_blocking


@pytest.mark.parametrize(("device", "waits"), [("cuda:1", False), ("mps", True), ("cpu", True)])
def test_only_from_pinned_memory_is_a_batch_brought_without_waiting(device: str, waits: bool) -> None:
    assert brought((Seen(),), torch.device(device)) == (not waits,)  # type: ignore[arg-type,comparison-overlap]


# What does not fit


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FULL, True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (BadInput("This picture is out of memory cards."), False),
    ],
)
def test_running_out_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_sentence_says_what_to_do() -> None:
    with pytest.raises(OutOfMemory) as caught, room_in_memory("set `device` to cpu"):
        raise FULL
    said = "The memory is too small (CUDA out of memory. Tried to allocate 2.00 GiB); set `device` to cpu."
    assert str(caught.value) == said
    assert caught.value.__cause__ is FULL
    with pytest.raises(ValueError, match="other"), room_in_memory("set `device` to cpu"):
        raise ValueError("other")


class Small:
    """Doubles items, at most `most` together."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, [0]

    def __call__(self, items: list[Tensor]) -> Tensor:
        self.asked.append(len(items))
        if len(items) > self.most:
            raise FULL
        return 2 * torch.stack(items)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    work, items = Small(2), [torch.full((), float(i)) for i in range(7)]
    assert [float(result) for result in attempted(work, items) if isinstance(result, Tensor)] == [
        0, 2, 4, 6, 8, 10, 12,
    ]  # fmt: skip
    assert work.asked == [0, 7, 4, 2, 2, 3, 2, 1]
    assert len(all_of(Small(1), items)) == len([*in_batches([*torch.zeros(5, 1, 2, 2)], lambda x: x, 2)]) + 2


def test_an_item_that_does_not_fit_alone_fails() -> None:
    (found,) = attempted(Small(0), [torch.zeros(())])
    assert isinstance(found, OutOfMemory)
    with pytest.raises(OutOfMemory):
        all_of(Small(0), [torch.zeros(())] * 2)


def test_a_stage_goes_on_with_less_memory(tmp_path: Path) -> None:
    place, small = Place(tmp_path), {"b.png"}

    def work(items: list[Item], advance: Advance) -> Tensor:
        if len(items) > 1 or items[0].name in small:
            raise FULL
        return -torch.stack([item.pixels for item in items])

    save_pictures(place.photos, ["a.png", "b.png", "c.png"])
    entries = place.run(work)
    assert [entry.status for entry in entries] == ["done", "failed", "done"]
    assert entries[1].reason == (
        "b.png: The memory is too small (CUDA out of memory. Tried to allocate 2.00 GiB); close other programs that "
        "use the device, or set `device` to cpu."
    )
    assert (place.output("c.png") == negative(2)).all()


def test_a_network_beside_the_restorer_that_does_not_fit_is_not_blamed_on_the_photo(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (path,) = save_pictures(place.photos, ["a.png"])
    outputs = Outputs("restored", place.begun)
    with outputs.alone("a.png", path):
        raise FULL
    (entry,) = outputs.entries(["a.png"])
    assert entry.reason.startswith(f"{path}: The memory is too small (CUDA out of memory.")
    assert entry.reason.endswith("or set `device` to cpu.")


def test_tiles_of_a_background_are_halved_too() -> None:
    from test_background import Same, photo_of, region

    class Narrow(Same):
        def __call__(self, image: Tensor) -> Tensor:
            if len(image) > 1:
                raise FULL
            return super().__call__(image)

    photo = photo_of(64, 200)
    assert torch.equal(region(tiled(photo, Narrow(), 1)), region(tiled(photo, Same(), 1)))


def test_a_training_says_which_setting_to_lower() -> None:
    class Large(ToyRestorer):
        def forward(self, face: Tensor) -> Tensor:
            raise FULL

    with pytest.raises(OutOfMemory, match="start again with a smaller `micro_batch`, or set `device` to cpu"):
        train(Large(8), ToyObjective(), toy_batches, LOOP)
    assert toy_model()(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 8, 8), "others do not mind"


def test_the_command_line_says_it_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(words: list[str]) -> None:
        raise FULL

    def broken(words: list[str]) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr("sys.argv", ["unfade", "restore"])
    monkeypatch.setattr(unfade.cli, "drop_output", lambda: None)
    monkeypatch.setattr(unfade.cli, "_refuse_empty", full)
    with pytest.raises(SystemExit) as end:
        unfade.cli.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("The memory is too small (CUDA out of memory.")
    assert said.endswith("or set --device to cpu.\n")
    monkeypatch.setattr(unfade.cli, "_refuse_empty", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        unfade.cli.main()
