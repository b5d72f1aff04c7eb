"""The blend of results with their inputs: its ends are exact, its middle lies between, and it is remembered."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from adapt_settings import small
from tiny_models import write_faces
from toys import ToyRestorer
from unfade.errors import BadInput, OutputConflict
from unfade.faces.restoring import blend
from unfade.images.files import read_image
from unfade.jobs.runs import open_run
from unfade.recipes.adapt import adapt
from unfade.recipes.restore import RestoreSettings, restore
from unfade.restorers.load import load_restorer
from unfade.stages.restore import choices, restore_batch, restore_faces
from unfade.store.checkpoints import read_card, read_weights

Models = tuple[Path, Path]
values = st.floats(-1, 1, width=32)
strengths = st.floats(0, 1)


def pixel(value: float) -> Tensor:
    return torch.full((1, 3, 2, 2), value)


@given(face=values, restored=values)
def test_the_ends_are_exact(face: float, restored: float) -> None:
    assert torch.equal(blend(pixel(face), pixel(restored), 0.0), pixel(face))
    assert torch.equal(blend(pixel(face), pixel(restored), 1.0), pixel(restored))


@given(face=values, restored=values, strength=strengths)
def test_the_middle_lies_between_and_is_the_mean_of_both(face: float, restored: float, strength: float) -> None:
    mixed = float(blend(pixel(face), pixel(restored), strength)[0, 0, 0, 0])
    assert min(face, restored) - 1e-6 <= mixed <= max(face, restored) + 1e-6
    assert mixed == pytest.approx(strength * restored + (1 - strength) * face, abs=1e-6)


@given(seed=st.integers(0, 2**31), strength=strengths)
def test_a_restorer_of_any_weights_is_blended(seed: int, strength: float) -> None:
    restorer = ToyRestorer(16, seed=seed % 97).eval()
    face = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    found = restore_batch(face, restorer, strength=strength)
    assert torch.equal(found, blend(face, restore_batch(face, restorer), strength))
    assert torch.equal(restore_batch(face, restorer, strength=0.0), face)
    assert found.abs().max() <= 1


def test_files_at_the_ends(models: Models, tmp_path: Path) -> None:
    photos = write_faces(tmp_path / "photos", 2)
    results = {}
    for strength in (0.0, 0.5, 1.0):
        entries = restore(
            tmp_path / "photos", tmp_path / str(strength), models[0], RestoreSettings(strength=strength), aligned=True
        )
        assert [entry.status for entry in entries] == ["done", "done"]
        results[strength] = read_image(tmp_path / str(strength) / photos[0].name)
    restore(tmp_path / "photos", tmp_path / "unsaid", models[0], aligned=True)
    assert torch.equal(results[0.0], read_image(photos[0]))
    assert torch.equal(results[1.0], read_image(tmp_path / "unsaid" / photos[0].name))
    assert ((results[0.0] + results[1.0]) / 2 - results[0.5]).abs().max() <= 2.01 / 255


def test_a_strength_of_0_does_not_make_faces_hardly_degraded(tmp_path: Path) -> None:
    """Their results equal them because that was asked for, so the note about clean faces would be wrong."""
    photos, restorer = write_faces(tmp_path / "photos", 2), ToyRestorer(16).eval()
    same = ToyRestorer(16).eval()
    same.forward = lambda face: face  # type: ignore[method-assign]
    for name, each, strength, notes in (("a", restorer, 0.0, 0), ("b", same, 0.0, 0), ("c", same, 1.0, 1)):
        with open_run(tmp_path / name, {}) as run:
            done = restore_faces(photos, run, each, strength=strength)
        assert [len(entry.notes) for entry in done] == [notes, notes]


def test_another_strength_is_another_result(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 1)
    restore(tmp_path / "photos", tmp_path / "out", models[0], RestoreSettings(strength=0.5), aligned=True)
    with pytest.raises(OutputConflict, match=r"strength = 0\.5, now it is 0\.25"):
        restore(tmp_path / "photos", tmp_path / "out", models[0], RestoreSettings(strength=0.25), aligned=True)
    keys = {choices_key(tmp_path / str(s), models, tmp_path / "photos", s) for s in (0.1, 0.2, 1.0)}
    assert len(keys) == 3
    restorer = load_restorer(models[0])
    assert choices(restorer) == {}, "a full strength is not mentioned, so that older runs go on"
    assert choices(restorer, 0.5) == {"strength": 0.5}


def choices_key(out: Path, models: Models, photos: Path, strength: float) -> str:
    (entry,) = restore(photos, out, models[0], RestoreSettings(strength=strength), aligned=True)
    return entry.key


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan")])
def test_a_strength_outside_is_refused_before_anything_is_written(wrong: float, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 1)
    with pytest.raises(BadInput, match=r"strength must lie in 0\.\.1"):
        restore(tmp_path / "photos", tmp_path / "out", models[0], RestoreSettings(strength=wrong), aligned=True)
    with pytest.raises(BadInput, match=r"strength must lie in 0\.\.1"):
        replace(small(*models), strength=wrong)
    assert not (tmp_path / "out").exists()


def test_adaptation_blends_in_its_last_step_only(models: Models, tmp_path: Path) -> None:
    photos = write_faces(tmp_path / "photos", 2)
    settings = small(*models)
    loop = replace(settings.finetune.loop, steps=2)
    settings = replace(settings, finetune=replace(settings.finetune, loop=loop))
    for strength in (1.0, 0.0):
        adapt(tmp_path / "photos", tmp_path / str(strength), replace(settings, strength=strength), aligned=True)
    whole, none = tmp_path / "1.0", tmp_path / "0.0"
    for name in ("pretrained", "targets"):
        for path in (whole / name).iterdir():
            assert path.read_bytes() == (none / name / path.name).read_bytes()
    first, second = (read_weights(run / "restorer.safetensors").state for run in (whole, none))
    assert all(torch.equal(first[key], second[key]) for key in first)
    cards = [read_card(run / "restorer.safetensors") for run in (whole, none)]
    assert cards[0]["fingerprint"] == cards[1]["fingerprint"], "the restorer does not depend on it"
    for photo in photos:
        assert torch.equal(read_image(none / "restored" / photo.name), read_image(photo))
    assert json.loads((none / "run.json").read_text())["settings"]["adapt"]["strength"] == 0.0
    with pytest.raises(OutputConflict, match="strength"):
        adapt(tmp_path / "photos", none, settings, aligned=True)


def test_fidelity_is_refused_where_there_is_none(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 1)
    with pytest.raises(BadInput, match=r"The fidelity of a swinir cannot be set, got 0\.5: leave `fidelity` out"):
        restore(tmp_path / "photos", tmp_path / "out", models[0], RestoreSettings(fidelity=0.5), aligned=True)
    with pytest.raises(BadInput, match="fidelity of a swinir cannot be set"):
        adapt(tmp_path / "photos", tmp_path / "out", replace(small(*models), fidelity=0.5), aligned=True)
    assert not (tmp_path / "out").exists()
