"""Weights for other programs: the published keys and shapes, the same pictures, and one sentence for what cannot be."""

import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from recorded import fill_module, picture
from tiny_codeformer import codeformer, tiny_codeformer
from tiny_models import RESTORER
from unfade.errors import BadInput
from unfade.hosts.export import export
from unfade.hosts.settings import ENDINGS, LEVEL, ExportSettings
from unfade.hosts.weights import CONTAINERS, FEATURES, ONLY, widened
from unfade.nets.codeformer import CodeFormer
from unfade.nets.gfpgan import GFPGAN, GFPGANConfig
from unfade.nets.swinir import SwinIR, SwinIRConfig
from unfade.restorers.image_level import GFPGANRestorer, SwinIRRestorer
from unfade.restorers.load import load_restorer, loaded_restorer, save_restorer
from unfade.store.checkpoints import read_card, sha256_of
from unfade.store.foreign import read_foreign
from unfade.zoo.convert import import_files, recognise
from unfade.zoo.models import MODELS

__all__ = ["codeformer"]

Models = tuple[Path, Path]
SPANDREL = ExportSettings(to="spandrel")
PUBLISHED = ExportSettings(to="published")
NARROW = SwinIRConfig(**{**asdict(RESTORER), "depths": RESTORER.depths, "upsample_features": 8})


def narrow() -> SwinIRRestorer:
    """With 8 channels in its tail, where spandrel builds 64."""
    return fill_module(SwinIRRestorer(SwinIR(NARROW), 32)).eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_restorer(tmp_path / "narrow.safetensors", narrow())
    return tmp_path / "narrow.safetensors"


@torch.no_grad()
def test_channels_of_zeros_change_no_picture() -> None:
    restorer, face = narrow().double(), picture(32, 32, 1).double()
    wide = widened(restorer, FEATURES).double()
    assert wide.net.config.upsample_features == 64
    assert (wide(face) - restorer(face)).abs().max() <= 1e-14, "sums of zeros, in another order"
    assert not wide.net.conv_hr.weight[8:].any(), "nothing but zeros is new"
    assert not wide.net.conv_hr.weight[:, 8:].any()


@torch.no_grad()
def test_what_spandrel_takes(file: Path, tmp_path: Path) -> None:
    done = export(file, tmp_path / "out.safetensors", SPANDREL)
    assert done.checked.difference <= 1e-5
    with safe_open(done.path, "pt") as opened:
        keys, header = set(opened.keys()), opened.metadata()
    assert {"conv_first.1.weight", "conv_last.weight"} <= keys
    assert not [key for key in keys if key.startswith("net.")]
    assert (header["template"], header["size"], header["restorer_sha256"]) == ("ffhq", "32", sha256_of(file))
    face = picture(32, 32, 2)
    assert (load_restorer(done.path)(face) - narrow()(face)).abs().max() <= 1e-5
    again = export(file, tmp_path / "again.safetensors", SPANDREL)
    assert sha256_of(again.path) == sha256_of(done.path)


def test_without_spandrel_the_extra_is_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    done = export(file, tmp_path / "out.safetensors", SPANDREL)
    assert done.checked.by == "unfade"
    assert "spandrel itself was not asked" in done.checked.notes[0]


@pytest.mark.host
@pytest.mark.skipif(not find_spec("spandrel"), reason="the extra `archs` is not installed: pip install unfade[archs]")
def test_spandrel_builds_the_built_in_one(tmp_path: Path) -> None:
    done = export("small-swinir", tmp_path / "small.safetensors", SPANDREL)
    assert "spandrel" in done.checked.by
    assert done.checked.difference <= 1e-4


@torch.no_grad()
def test_the_files_of_their_authors(codeformer: Path, file: Path, tmp_path: Path) -> None:
    for path, own, container in ((codeformer, tiny_codeformer(), "params_ema"), (file, narrow(), "")):
        done = export(path, tmp_path / f"{path.stem}.pth", PUBLISHED)
        assert done.checked.difference <= 1e-6
        content = torch.load(done.path, weights_only=True)
        state = content[container] if container else content
        assert state.keys() == own.net.state_dict().keys()
        assert all(torch.equal(state[key], value) for key, value in own.net.state_dict().items())
    found = recognise(read_foreign(tmp_path / "narrow.pth"), [tmp_path / "narrow.pth"])
    assert (found.architecture, found.config["upsample_features"]) == ("swinir", 8)


def test_half_the_file(file: Path, tmp_path: Path) -> None:
    whole = export(file, tmp_path / "whole.pth", PUBLISHED)
    half = export(file, tmp_path / "half.pth", ExportSettings(to="published", dtype="float16"))
    assert half.path.stat().st_size < 0.75 * whole.path.stat().st_size
    assert 0 < half.checked.difference <= LEVEL
    assert all(not v.is_floating_point() or v.dtype == torch.float16 for v in read_foreign(half.path).values())


@pytest.mark.host
@pytest.mark.skipif(not find_spec("spandrel"), reason="the extra `archs` is not installed: pip install unfade[archs]")
@pytest.mark.parametrize(("name", "family"), [("gfpgan", "GFPGAN"), ("codeformer", "CodeFormer")])
def test_spandrel_takes_the_published_layout(name: str, family: str, tmp_path: Path) -> None:
    """All keys and shapes of the whole network, in the file of its authors."""
    import spandrel

    if name == "codeformer":
        extra = pytest.importorskip("spandrel_extra_arches")
        spandrel.MAIN_REGISTRY.add(*extra.EXTRA_REGISTRY, ignore_duplicates=True)
    with torch.device("meta"):
        network = (GFPGAN if name == "gfpgan" else CodeFormer)(ONLY[name])  # type: ignore[arg-type]
    state = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in network.state_dict().items()}
    torch.save({CONTAINERS[name]: state}, tmp_path / "whole.pth")
    found = spandrel.ModelLoader().load_from_file(tmp_path / "whole.pth")
    assert found.architecture.id == family


def test_what_cannot_be_written(codeformer: Path, models: Models, tmp_path: Path) -> None:
    small = GFPGANRestorer(GFPGAN(GFPGANConfig(size=16, narrow=1 / 64, style_features=8, mapping_layers=1)))
    save_restorer(tmp_path / "gfpgan.safetensors", small)
    for spec in (codeformer, tmp_path / "gfpgan.safetensors"):
        with pytest.raises(BadInput, match="does not know this shape of a"):
            export(spec, tmp_path / "out.safetensors", SPANDREL)
    with pytest.raises(BadInput, match="does not know a one_step: export it `to` onnx"):
        export("small-restorer", tmp_path / "out.safetensors", SPANDREL)
    with pytest.raises(BadInput, match="No other program reads the weights of a one_step"):
        export("small-restorer", tmp_path / "out.pth", PUBLISHED)
    for to in ("spandrel", "published"):
        with pytest.raises(BadInput, match=f"must end in {ENDINGS[to]}"):
            export(models[0], tmp_path / "out.onnx", ExportSettings(to=to))
    assert not list(tmp_path.glob("out.*"))
    assert CONTAINERS.keys().isdisjoint({"one_step", "onnx"})


def test_the_licence_goes_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    file = export("small-swinir", tmp_path / "mine.safetensors", SPANDREL).path
    licence = MODELS["small-swinir"].licence
    assert loaded_restorer(file, device="cpu").licence == licence, "what is adapted from it gets the same"
    done = import_files([file], name="mine")
    assert loaded_restorer("mine", device="cpu").licence == read_card(done.path)["licence"] == licence
    assert done.notes[0].endswith(f"it names the licence {licence}")
