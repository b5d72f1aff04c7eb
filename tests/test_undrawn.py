"""Networks that a file fills are built without drawing numbers first, and nothing of the draws is missed."""

from pathlib import Path

import pytest
import torch
from torch import nn

from networks import B32
from unfade.diffusion.load import load_prior
from unfade.nets.unet import UNet
from unfade.restorers.load import load_restorer
from unfade.training.modes import undrawn

Models = tuple[Path, Path]


def test_nothing_is_drawn_and_constants_are_set() -> None:
    before = torch.get_rng_state()
    with undrawn():
        _, norm, linear, _ = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 4), nn.Embedding(3, 4)
        nn.init.trunc_normal_(linear.weight)
        nn.init.kaiming_normal_(tensor=linear.weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(norm.weight, torch.ones(4))
    assert nn.Linear(4, 4).weight.std() > 0
    assert not torch.equal(torch.get_rng_state(), before), "outside, numbers are drawn"


@pytest.mark.parametrize("name", ["small-restorer", "small-swinir"])
def test_every_number_of_a_restorer_comes_from_its_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_restorer(name, device="cpu").state_dict()
    monkeypatch.setattr("unfade.zoo.load.undrawn", lambda: torch.random.fork_rng())
    drawn = load_restorer(name, device="cpu")
    assert all(torch.equal(value, found[key]) for key, value in drawn.state_dict().items())
    buffers = dict(load_restorer(name, device="cpu").named_buffers())
    assert all(torch.equal(value, buffers[key]) for key, value in drawn.named_buffers())


def test_every_number_of_a_prior_comes_from_its_file(models: Models) -> None:
    before = torch.get_rng_state()
    prior = load_prior(models[1], device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.isfinite(value).all() for value in prior.state_dict().values())
    with undrawn():
        assert UNet(B32).state_dict().keys() == prior.unet.state_dict().keys()
