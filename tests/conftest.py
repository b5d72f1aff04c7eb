import pytest
import torch
from hypothesis import settings

from command import run, run_models
from tiny_models import models
from unfade import devices, precision

__all__ = ["models", "run", "run_models"]

settings.register_profile("short", max_examples=30, deadline=None)
settings.load_profile("short")
torch.set_num_threads(1)  # the networks here are tiny: more threads would only wait for each other


@pytest.fixture(autouse=True)
def everything_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is a GPU: tests that want it name it."""
    monkeypatch.setattr(devices, "automatic", lambda: "cpu")


@pytest.fixture
def computes_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every device does, so that the setting has its effect on a processor without the instructions too."""
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
