"""LPIPS is made of two published files: they are imported once, together, and then used by name."""

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recorded import arrays, fill_module, picture
from unfade.cli import main
from unfade.errors import BadCheckpoint, BadInput, UnknownModel
from unfade.evaluation.evaluate import LOADED
from unfade.nets.lpips import ALEXNET, LPIPS, trunk_keys
from unfade.store.checkpoints import sha256_of
from unfade.zoo.convert import import_files
from unfade.zoo.load import load_network
from unfade.zoo.models import MODELS
from unfade.zoo.published import Download


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    filled = fill_module(LPIPS()).state_dict()
    vgg16 = {theirs: filled[ours] for ours, theirs in trunk_keys().items()} | {"classifier.0.bias": torch.zeros(2)}
    heads = {key: torch.from_numpy(np.asarray(value)) for key, value in arrays("lpips_vgg_heads").items()}
    files = [tmp_path / "vgg16.pth", tmp_path / "heads.pth"]
    for content, file in zip((vgg16, heads), files, strict=True):
        torch.save(content, file)
    downloads = tuple(Download(file.name, sha256_of(file)) for file in files)
    monkeypatch.setitem(MODELS, "lpips-vgg", replace(MODELS["lpips-vgg"], downloads=downloads))
    return files


@pytest.mark.parametrize("order", [1, -1])
def test_imported_weights_are_the_published_ones(
    published: list[Path], order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownModel, match="unfade models import"):
        load_network("lpips-vgg", "perceptual")
    monkeypatch.setattr(sys, "argv", ["unfade", "models", "import", *map(str, published[::order]), "--quiet"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    network = load_network("lpips-vgg", "perceptual").network
    image, other = picture(64, 64, 1), picture(64, 64, 2)
    assert network(image, image).item() == 0
    assert network(image, other).item() > 0
    want = torch.load(published[1], weights_only=True)["lin0.model.1.weight"]
    for key in ("lin0.model.1.weight", "lins.0.model.1.weight"):
        assert torch.equal(network.state_dict()[key], want)


def test_other_files_are_refused(published: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"lpips-vgg is made of 2 file\(s\), vgg16\.pth and heads\.pth; got 1\."):
        import_files(published[:1])
    with pytest.raises(BadCheckpoint, match=f"is a file of sha256 {sha256_of(published[0])}, but"):
        import_files([published[1], published[1]])
    torch.save(torch.load(published[0], weights_only=True) | {"more": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="is one of the 2 files of lpips; give all of them"):
        import_files([tmp_path / "other.pth"], name="mine")
    with pytest.raises(BadInput, match="too, like the file before it"):
        import_files([tmp_path / "other.pth"] * 2, name="mine")
    assert not (tmp_path / "weights").exists()


def test_nothing_is_executed(published: list[Path], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(BadCheckpoint, match="more than plain weights"):
        import_files([tmp_path / "trap.pth"], name="mine")
    assert not (tmp_path / "sprung").exists()


def test_the_smaller_network_is_imported_from_its_own_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    filled = fill_module(LPIPS(ALEXNET)).state_dict()
    heads = {
        key.removeprefix("heads."): torch.from_numpy(v) for key, v in arrays("lpips_alex").items() if "heads" in key
    }
    alexnet = {theirs: filled[ours] for ours, theirs in trunk_keys(ALEXNET).items()}
    files = [tmp_path / "alexnet.pth", tmp_path / "heads.pth"]
    for content, file in zip((alexnet, heads), files, strict=True):
        torch.save(content, file)
    downloads = tuple(Download(file.name, sha256_of(file)) for file in files)
    monkeypatch.setitem(MODELS, "lpips-alex", replace(MODELS["lpips-alex"], downloads=downloads))
    assert import_files(files).architecture == "lpips-alex"
    score = LOADED["lpips_alex"]("cpu")
    assert score(picture(64, 64, 1), picture(64, 64, 2)).item() > 0
    with pytest.raises(UnknownModel):
        load_network("lpips-vgg", "perceptual")
