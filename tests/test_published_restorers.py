"""Image-level restorers from published files: GFPGAN, and SwinIR in the paper's shape under its published keys."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from adapt_settings import small
from recorded import fill_module, manifest, picture
from tiny_models import RESTORER, write_faces
from unfade.errors import BadCheckpoint, BadInput
from unfade.nets.gfpgan import GFPGAN, NOT_IN_FORWARD, GFPGANConfig
from unfade.nets.swinir import SwinIR, SwinIRConfig
from unfade.nets.vqfr import NOT_IN_FORWARD as VQFR_NOT_IN_FORWARD
from unfade.nets.vqfr import VQFR, VQFRConfig
from unfade.recipes.adapt import adapt
from unfade.restorers.image_level import (
    GFPGANRestorer,
    ImageObjective,
    SwinIRRestorer,
)
from unfade.restorers.load import RESTORERS, head_of, load_restorer, save_restorer
from unfade.restorers.vqfr import VQFRRestorer
from unfade.store.checkpoints import read_weights

TINY = GFPGANConfig(size=32, style_features=8, narrow=1 / 64, mapping_layers=2)


def tiny_gfpgan() -> GFPGANRestorer:
    return GFPGANRestorer(fill_module(GFPGAN(TINY))).eval()


def write_published(path: Path, net: torch.nn.Module, architecture: str, config: dict[str, object]) -> None:
    """A file as the import of a published one leaves it: the published keys and a header."""
    state = {key: value.clone() for key, value in net.state_dict().items()}
    save_file(state, path, {"architecture": architecture, "config": json.dumps(config)})


@torch.no_grad()
def test_gfpgan_comes_back_from_its_file_under_published_keys(tmp_path: Path) -> None:
    restorer, face = tiny_gfpgan(), picture(32, 32, 1)
    save_restorer(tmp_path / "g.safetensors", restorer)
    assert read_weights(tmp_path / "g.safetensors").state.keys() == restorer.net.state_dict().keys()
    again = load_restorer(tmp_path / "g.safetensors")
    assert isinstance(again, GFPGANRestorer)
    assert again.net.config == TINY
    assert (again.size, head_of(tmp_path / "g.safetensors").architecture) == (32, "gfpgan")
    assert torch.equal(again(face), restorer(face))
    assert torch.equal(again(face), restorer.net(face, noise=restorer.net.stylegan_decoder.noises()))


def test_a_published_gfpgan_is_built_from_its_size_alone(tmp_path: Path) -> None:
    with torch.device("meta"):
        restorer = RESTORERS["gfpgan"]({"size": 512})
    assert restorer.net.config == GFPGANConfig()
    assert restorer.stored.state_dict().keys() == manifest("manifest_gfpganv1clean_c2")["keys"].keys()
    with pytest.raises(BadInput, match="colour"):
        RESTORERS["gfpgan"]({"size": 512, "colour": 1})


def test_what_gfpgan_does_not_use_does_not_learn() -> None:
    restorer, face = tiny_gfpgan().train(), picture(32, 32, 1)
    objective = restorer.objective()
    assert isinstance(objective, ImageObjective)
    sum(objective(restorer, face, picture(32, 32, 2)).values()).backward()
    learns = {id(p) for p in restorer.trainable()}
    for name, parameter in restorer.net.named_parameters():
        assert (id(parameter) in learns) == (parameter.grad is not None) == (not name.startswith(NOT_IN_FORWARD)), name


def test_gfpgan_is_adapted(models: tuple[Path, Path], tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 2)
    save_restorer(tmp_path / "g.safetensors", tiny_gfpgan())
    done = adapt(tmp_path / "photos", tmp_path / "run", small(tmp_path / "g.safetensors", models[1]), aligned=True)
    before, after = tiny_gfpgan().net.state_dict(), read_weights(done.restorer).state
    assert before.keys() == after.keys()
    kept = {key for key in before if torch.equal(before[key], after[key])}
    assert kept == {key for key in before if key.startswith((*NOT_IN_FORWARD, "stylegan_decoder.noises"))}


@torch.no_grad()
def test_a_published_swinir_is_read_as_it_is_and_keeps_its_keys(tmp_path: Path) -> None:
    net, face = fill_module(SwinIR(RESTORER)).eval(), picture(32, 32, 1)
    config = SwinIRRestorer(net, 32).config() | {"size": 32}
    write_published(tmp_path / "s.safetensors", net, "swinir", config)
    restorer = load_restorer(tmp_path / "s.safetensors")
    assert torch.equal(restorer(face), SwinIRRestorer(net, 32)(face))
    save_restorer(tmp_path / "again.safetensors", restorer)
    assert read_weights(tmp_path / "again.safetensors").state.keys() == net.state_dict().keys()
    save_restorer(tmp_path / "own.safetensors", SwinIRRestorer(net, 32))  # as `unfade train` writes it
    assert torch.equal(load_restorer(tmp_path / "own.safetensors")(face), restorer(face))


def test_a_published_swinir_is_of_the_papers_shape() -> None:
    with torch.device("meta"):
        restorer = RESTORERS["swinir"]({"size": 512})
    assert restorer.net.config == SwinIRConfig()
    expected = manifest("manifest_swinir_paper")["keys"]
    assert {key: list(value.shape) for key, value in restorer.net.state_dict().items()} == {
        key: shape for key, (shape, *_) in expected.items()
    }


def test_a_published_swinir_is_adapted_under_its_keys(models: tuple[Path, Path], tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 2)
    net = fill_module(SwinIR(RESTORER))
    config = SwinIRRestorer(net, 32).config() | {"size": 32}
    write_published(tmp_path / "s.safetensors", net, "swinir", config)
    settings = small(tmp_path / "s.safetensors", models[1])
    done = adapt(tmp_path / "photos", tmp_path / "run", settings, aligned=True)
    assert read_weights(done.restorer).state.keys() == net.state_dict().keys()
    restored = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "restored").iterdir()}
    adapt(tmp_path / "photos", tmp_path / "run", settings, aligned=True)
    assert {path: path.stat().st_mtime_ns for path in restored} == restored


def test_other_keys_are_refused(tmp_path: Path) -> None:
    net = fill_module(GFPGAN(TINY))
    del net.final_linear
    write_published(tmp_path / "g.safetensors", net, "gfpgan", tiny_gfpgan().config() | {"size": 32})
    with pytest.raises(BadCheckpoint, match=r"final_linear\.bias is missing in the file"):
        load_restorer(tmp_path / "g.safetensors")


TINY_VQFR = VQFRConfig(size=32, channels=32, channel_mult=(1, 1), res_blocks=1, codes=16, code_channels=32)


@torch.no_grad()
def test_vqfr_comes_back_from_its_file_and_takes_a_fidelity(tmp_path: Path) -> None:
    restorer, face = VQFRRestorer(fill_module(VQFR(TINY_VQFR))).eval(), picture(32, 32, 1)
    save_restorer(tmp_path / "v.safetensors", restorer)
    assert read_weights(tmp_path / "v.safetensors").state.keys() == restorer.net.state_dict().keys()
    assert (restorer.fidelity, load_restorer(tmp_path / "v.safetensors").fidelity) == (1.0, 1.0)
    again = load_restorer(tmp_path / "v.safetensors", fidelity=0.0)  # above 0 it needs torchvision
    assert isinstance(again, VQFRRestorer)
    assert again.net.config == TINY_VQFR
    assert torch.equal(again(face), restorer.net(face, 0.0))
    with pytest.raises(BadInput, match="fidelity"):
        again.set_fidelity(1.5)
    learning = {id(value) for value in again.trainable()}
    assert {name.split(".")[0] for name, value in again.net.named_parameters() if id(value) not in learning} == {
        name.split(".")[0] for name in VQFR_NOT_IN_FORWARD
    }
