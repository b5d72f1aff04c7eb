"""Masks of a parsing network: where they come from, and that only the face goes back into the photo."""

from pathlib import Path

import numpy as np
import pytest
import torch

import unfade.recipes.sources
from marked import Place, load
from recorded import fill_module
from tiny_models import write_faces
from unfade.errors import BadCheckpoint, UnknownModel
from unfade.faces.masks import loaded_mask, parsing_mask
from unfade.nets.parsenet import ParseNet, ParseNetConfig
from unfade.recipes.adapt import adapt
from unfade.recipes.sources import masking_for
from unfade.stages.restore_photos import Parts
from unfade.store.checkpoints import save_weights

Models = tuple[Path, Path]
TINY = ParseNetConfig(width=4, widest=8, halvings=2, blocks=1)


def saved(path: Path) -> ParseNet:
    network = fill_module(ParseNet(TINY)).eval()
    save_weights(path, network, architecture="parsenet", config=vars(TINY), dtype=torch.float32)
    return network


def test_a_mask_from_a_file_is_the_networks(tmp_path: Path) -> None:
    network, face = saved(tmp_path / "mine.safetensors"), torch.rand(3, 32, 32) * 2 - 1
    assert torch.equal(loaded_mask(tmp_path / "mine.safetensors").network(face), parsing_mask(network, face))


def test_another_network_is_refused(tmp_path: Path, models: Models) -> None:
    with pytest.raises(BadCheckpoint, match=r"holds a restorer \(swinir\), not a parser"):
        loaded_mask(models[0])
    with pytest.raises(UnknownModel, match="unfade models pull parsenet"):
        masking_for("parsenet")


def test_without_the_weights_nothing_is_masked_unless_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    assert masking_for(None).mask is None
    assert masking_for("none").identity == {}
    saved(tmp_path / "parsenet.safetensors")
    found = masking_for(None)
    assert found.mask is not None
    assert found.identity.keys() == {"mask"}


def test_where_the_mask_is_0_the_photo_stays(tmp_path: Path) -> None:
    left = torch.cat([torch.ones(1, 32, 16), torch.zeros(1, 32, 16)], 2)
    results = {}
    for name, mask in {"whole": None, "half": lambda face: left, "none": lambda face: torch.zeros(1, 32, 32)}.items():
        place = Place(tmp_path / name)
        photo = place.save("a.png", (40, 20, 20))
        place.run(parts=Parts(mask=mask))
        results[name] = load(place.out / "a.png")
    assert np.array_equal(results["none"], load(photo))
    changed = {name: int((result != load(photo)).sum()) for name, result in results.items()}
    assert 0 < changed["half"] < changed["whole"]


def test_adapt_and_restore_take_it(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def asked(spec: object, *, device: str) -> object:
        seen.append(spec)
        raise KeyboardInterrupt

    write_faces(tmp_path / "faces", 1)
    monkeypatch.setattr(unfade.recipes.adapt, "masking_for", asked)
    with pytest.raises(KeyboardInterrupt):
        adapt(tmp_path / "faces", tmp_path / "out", mask="mine")
    assert seen == ["mine"]
