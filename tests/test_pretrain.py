"""Pre-training that goes on from a model: where it starts, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from networks import B32
from tiny_models import RESTORER, write_faces
from unfade.errors import BadCheckpoint, UnknownModel
from unfade.recipes.pretrain import PRIOR_LOOP, RESTORER_LOOP, PriorRecipe, RestorerRecipe, pretrain_prior
from unfade.recipes.pretrain import pretrain_restorer as restorer_training
from unfade.store.checkpoints import read_card, read_weights

Models = tuple[Path, Path]
STILL = {"steps": 1, "batch": 2, "micro_batch": 2, "learning_rate": 0.0, "final_learning_rate": 0.0, "bf16": False}
PRIOR = PriorRecipe(replace(B32, detail=4), replace(PRIOR_LOOP, **STILL))
RESTORER_RECIPE = RestorerRecipe(RESTORER, size=32, loop=replace(RESTORER_LOOP, **STILL))


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a trained model is stored."""
    return {key: value.half().float() if value.is_floating_point() else value for key, value in state.items()}


def test_a_prior_goes_on_from_another_and_what_it_lacks_starts_fresh(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    out = tmp_path / "prior.safetensors"
    pretrain_prior(tmp_path / "faces", out, replace(PRIOR, start=models[1]))
    before, after = half(read_weights(models[1]).state), read_weights(out).state
    assert all(torch.equal(after[key], before[key]) for key in before)
    fresh = after.keys() - before.keys()
    assert fresh
    assert all(key.startswith("detail.") for key in fresh)
    assert read_card(out)["recipe"]["start"] == str(models[1])
    pretrain_prior(tmp_path / "faces", tmp_path / "new.safetensors", PRIOR)
    new = read_weights(tmp_path / "new.safetensors").state
    assert any(not torch.equal(new[key], after[key]) for key in before)
    assert read_card(tmp_path / "new.safetensors")["recipe"]["start"] is None


def test_a_restorer_goes_on_from_another(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    out = tmp_path / "restorer.safetensors"
    restorer_training(tmp_path / "faces", out, replace(RESTORER_RECIPE, start=models[0]))
    before, after = half(read_weights(models[0]).state), read_weights(out).state
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_model_of_another_shape_is_refused(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    wrong = replace(PRIOR, network=replace(B32, channels=64), start=models[1])
    with pytest.raises(BadCheckpoint, match="another architecture"):
        pretrain_prior(tmp_path / "faces", tmp_path / "prior.safetensors", wrong)
    with pytest.raises(BadCheckpoint, match="another architecture"):
        pretrain_prior(tmp_path / "faces", tmp_path / "prior.safetensors", replace(PRIOR, start=models[0]))
    with pytest.raises(UnknownModel, match="small-prior"):
        pretrain_prior(tmp_path / "faces", tmp_path / "prior.safetensors", replace(PRIOR, start="nothing"))
