"""bfloat16 where it is wanted and the device computes in it."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from unfade import precision
from unfade.precision import autocast, has_bf16

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    has_bf16.cache_clear()
    yield
    has_bf16.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"arm_bf16": True}, True),
        ({"avx512_vnni": True}, False),
        ({}, True),  # it cannot be asked
    ],
)
def test_a_processor_is_asked(capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bf16(CPU) is expected


def test_a_graphics_card_is_asked_for_the_real_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: including_emulation)
    assert not has_bf16(torch.device("cuda"))


def test_each_card_is_asked_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    current = [0]

    @contextmanager
    def made_current(device: torch.device) -> Iterator[None]:
        current.append(device.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", made_current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: current[-1] == 0)
    assert [has_bf16(torch.device("cuda", index)) for index in (0, 1)] == [True, False]


def test_an_older_torch_and_other_devices_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_bf16(CPU)
    assert has_bf16(torch.device("mps"))


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_it_takes_the_wish_and_the_device(wanted: bool, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: there)
    a = torch.ones(2, 2)
    with autocast(CPU, bf16=wanted):
        assert (a @ a).dtype == (torch.bfloat16 if wanted and there else torch.float32)
