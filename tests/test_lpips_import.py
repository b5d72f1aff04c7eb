"""Published LPIPS files are imported once, safely, and then used by name."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from recorded import arrays, fill_module, picture
from unfade.errors import BadCheckpoint, BadInput, UnknownModel
from unfade.nets.lpips import LPIPS, trunk_keys
from unfade.recipes.lpips import import_lpips, load_lpips


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    filled = fill_module(LPIPS()).state_dict()
    vgg16 = {theirs: filled[ours] for ours, theirs in trunk_keys().items()} | {"classifier.0.bias": torch.zeros(2)}
    heads = {key: torch.from_numpy(np.asarray(value)) for key, value in arrays("lpips_vgg_heads").items()}
    torch.save(vgg16, tmp_path / "vgg16.pth")
    torch.save(heads, tmp_path / "heads.pth")
    return [tmp_path / "vgg16.pth", tmp_path / "heads.pth"]


def test_imported_weights_are_the_published_ones(published: list[Path]) -> None:
    with pytest.raises(UnknownModel, match="unfade models import lpips-vgg"):
        load_lpips()
    import_lpips(published)
    network = load_lpips()
    image, other = picture(64, 64, 1), picture(64, 64, 2)
    assert network(image, image).item() == 0
    assert network(image, other).item() > 0
    want = torch.load(published[1], weights_only=True)["lin0.model.1.weight"]
    assert torch.equal(network.state_dict()["lin0.model.1.weight"], want)


def test_other_files_are_refused(published: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="two files"):
        import_lpips(published[:1])
    with pytest.raises(BadCheckpoint, match="in neither"):
        import_lpips([published[1], published[1]])


def test_nothing_is_executed(published: list[Path], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BadCheckpoint, match="not a file of plain weights"):
        import_lpips([tmp_path / "trap.pth", published[1]])
    assert not (tmp_path / "sprung").exists()
