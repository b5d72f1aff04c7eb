"""Pre-training that goes on from a model: where it starts, and what is refused."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import unfade.recipes.pretrain
from networks import B32, FOLDED32
from tiny_models import RESTORER, write_faces
from unfade.cli import app
from unfade.degradations.blind import BLIND_PRESETS
from unfade.diffusion.denoising import DenoisingSettings
from unfade.diffusion.load import load_prior
from unfade.errors import BadCheckpoint, BadInput, OutputConflict, UnknownModel
from unfade.nets.doubling import DETAIL
from unfade.nets.unet import UNet
from unfade.recipes.pretrain import (
    DOUBLED_PRIOR_RECIPE,
    PRIOR_LOOP,
    RESTORER_LOOP,
    PriorRecipe,
    RestorerRecipe,
    pretrain_prior,
)
from unfade.recipes.pretrain import pretrain_restorer as restorer_training
from unfade.recipes.training_record import thinned
from unfade.restorers.image_level import ImageLossSettings
from unfade.restorers.load import load_restorer, save_restorer
from unfade.restorers.one_step import OneStepRestorer, OneStepSettings
from unfade.store.checkpoints import read_card, read_weights
from unfade.training.loop import History

Models = tuple[Path, Path]
STILL = {"steps": 1, "batch": 2, "micro_batch": 2, "learning_rate": 0.0, "final_learning_rate": 0.0, "bf16": False}
PRIOR = PriorRecipe(replace(FOLDED32, detail=4), replace(PRIOR_LOOP, **STILL))
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


@pytest.mark.parametrize("change", ["pictures", "losses", "degradation", "model"])
def test_a_finished_training_does_not_pass_for_one_of_something_else(
    change: str, models: Models, tmp_path: Path
) -> None:
    write_faces(tmp_path / "faces", 2)
    start = tmp_path / "start.safetensors"
    start.write_bytes(models[0].read_bytes())
    recipe, out = replace(RESTORER_RECIPE, start=start), tmp_path / "restorer.safetensors"
    restorer_training(tmp_path / "faces", out, recipe)
    restorer_training(tmp_path / "faces", out, recipe)  # nothing is left to do
    card = read_card(out)
    if change == "pictures":
        write_faces(tmp_path / "faces", 1, first=5)
    elif change == "losses":
        recipe = replace(recipe, losses=ImageLossSettings(texture_weight=0.3, perceptual_weight=0, gan_weight=0))
    elif change == "degradation":
        recipe = replace(recipe, blind=BLIND_PRESETS["gfpgan"])
    else:
        start.write_bytes(out.read_bytes())
    with pytest.raises(OutputConflict, match="begun with other pictures, losses or models"):
        restorer_training(tmp_path / "faces", out, recipe)
    assert read_card(out) == card


def test_two_trainings_do_not_write_one_file(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    out = tmp_path / "prior.safetensors"

    @contextmanager
    def meanwhile(label: str, total: int, *, start: int = 0) -> Iterator[Callable[[float], None]]:
        with pytest.raises(
            OutputConflict, match=r"prior\.safetensors is being trained by another process; wait for it"
        ):
            pretrain_prior(tmp_path / "faces", out, replace(PRIOR, loop=replace(PRIOR.loop, seed=1)))
        yield lambda amount: None

    pretrain_prior(tmp_path / "faces", out, PRIOR, progress=meanwhile)
    assert read_card(out)["recipe"]["loop"]["seed"] == 0
    assert not [*tmp_path.glob(".*")]


def test_a_training_past_its_end_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    out, two = tmp_path / "prior.safetensors", replace(PRIOR, loop=replace(PRIOR.loop, steps=2))
    pretrain_prior(tmp_path / "faces", out, two)
    with pytest.raises(OutputConflict, match="is of step 2, but `steps` is 1"):
        pretrain_prior(tmp_path / "faces", out, PRIOR)


def test_a_restorer_goes_on_from_another(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    out = tmp_path / "restorer.safetensors"
    restorer_training(tmp_path / "faces", out, replace(RESTORER_RECIPE, start=models[0]))
    before, after = half(read_weights(models[0]).state), read_weights(out).state
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_one_step_restorer_is_doubled(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    small = OneStepRestorer(UNet(replace(B32, detail=4)))
    save_restorer(tmp_path / "small.safetensors", small)
    recipe = replace(RESTORER_RECIPE, doubled=True, start=tmp_path / "small.safetensors")
    restorer_training(tmp_path / "faces", tmp_path / "large.safetensors", recipe)
    large = load_restorer(tmp_path / "large.safetensors", device="cpu")
    assert large.size == 64
    inner = "net.middle_block.0.in_layers.2.weight"
    torch.testing.assert_close(large.state_dict()[inner], small.state_dict()[inner], atol=1e-3, rtol=1e-3)  # 16 bits
    for start in (None, models[0]):
        with pytest.raises(BadInput, match="Only a one-step restorer can be doubled"):
            restorer_training(tmp_path / "faces", tmp_path / "other.safetensors", replace(recipe, start=start))


def test_a_one_step_restorer_goes_on_at_its_own_size(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    small = OneStepRestorer(UNet(replace(B32, detail=4)), settings=OneStepSettings(highest=300))
    save_restorer(tmp_path / "small.safetensors", small)
    recipe = replace(RESTORER_RECIPE, start=tmp_path / "small.safetensors")
    restorer_training(tmp_path / "faces", tmp_path / "on.safetensors", recipe)
    on = load_restorer(tmp_path / "on.safetensors", device="cpu")
    assert isinstance(on, OneStepRestorer)
    assert on.settings == small.settings
    for name, value in small.state_dict().items():
        torch.testing.assert_close(on.state_dict()[name], value, atol=1e-3, rtol=1e-3)  # 16 bits


def test_a_prior_is_doubled(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    recipe = replace(DOUBLED_PRIOR_RECIPE, loop=PRIOR.loop, start=models[1])
    pretrain_prior(tmp_path / "faces", tmp_path / "large.safetensors", recipe)
    small, large = load_prior(models[1], device="cpu"), load_prior(tmp_path / "large.safetensors", device="cpu")
    assert (large.size, large.patch, large.unet.config.detail) == (64, 4, DETAIL)
    assert read_card(tmp_path / "large.safetensors")["recipe"]["network"]["size"] == 64
    inner = "middle_block.0.in_layers.2.weight"
    torch.testing.assert_close(large.unet.state_dict()[inner], small.unet.state_dict()[inner], atol=1e-3, rtol=1e-3)
    with pytest.raises(BadInput, match="can be doubled; name one as `start`"):
        pretrain_prior(tmp_path / "faces", tmp_path / "other.safetensors", replace(recipe, start=None))


def test_a_model_of_another_shape_is_refused(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    wrong = replace(PRIOR, network=replace(FOLDED32, channels=64), start=models[1])
    with pytest.raises(BadCheckpoint, match="another architecture"):
        pretrain_prior(tmp_path / "faces", tmp_path / "prior.safetensors", wrong)
    with pytest.raises(BadCheckpoint, match="another architecture"):
        pretrain_prior(tmp_path / "faces", tmp_path / "prior.safetensors", replace(PRIOR, start=models[0]))
    with pytest.raises(UnknownModel, match="small-prior"):
        pretrain_prior(tmp_path / "faces", tmp_path / "prior.safetensors", replace(PRIOR, start="nothing"))


def test_a_prior_that_predicts_v_is_trained_and_walked_as_such(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    recipe = replace(PRIOR, network=replace(B32, predicts="v"), denoising=DenoisingSettings(weighting="v"))
    out = tmp_path / "prior.safetensors"
    pretrain_prior(tmp_path / "faces", out, recipe)
    assert read_card(out)["recipe"]["denoising"]["weighting"] == "v"
    prior = load_prior(out).respaced("20")
    x_t, t = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), 12
    alpha_bar = float(prior.schedule.alpha_bar[t])
    v = prior.unet(x_t, torch.full((2,), prior.schedule.t_model[t]))[:, :3]
    expected = (alpha_bar**0.5 * x_t - (1 - alpha_bar) ** 0.5 * v).clamp(-1, 1)  # Salimans & Ho, Appendix D
    torch.testing.assert_close(prior.denoise(x_t, t).x0, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(BadInput, match="predicts v, not eps"):
        pretrain_prior(tmp_path / "faces", tmp_path / "other.safetensors", replace(PRIOR, network=B32, start=out))


def test_a_prior_that_folds_pixels_leaves_no_grid_of_them(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    out = tmp_path / "prior.safetensors"
    pretrain_prior(tmp_path / "faces", out, replace(PRIOR, network=replace(B32, patch=2)))
    prior = load_prior(out).respaced("20")
    with torch.no_grad():
        prior.unet.out[2].bias.copy_(torch.linspace(-0.5, 0.5, len(prior.unet.out[2].bias)))
    x0 = prior.denoise(torch.zeros(1, 3, 32, 32), 3).x0
    sets = torch.stack([x0[..., i::2, j::2].mean((2, 3)) for i in (0, 1) for j in (0, 1)])
    torch.testing.assert_close(sets, sets[:1].expand_as(sets), atol=1e-6, rtol=0)
    prior.patch = 1
    assert (prior.denoise(torch.zeros(1, 3, 32, 32), 3).x0 - x0).abs().max() > 1e-3


def test_the_paper_s_terms_are_there_and_repeatable(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    losses = ImageLossSettings(perceptual_weight=0.4, gan_weight=0.1, discriminator_features=4)
    loop = replace(RESTORER_RECIPE.loop, learning_rate=1e-3, warmup=0, steps=2)
    recipe = replace(RESTORER_RECIPE, loop=loop, losses=losses, prior=str(models[1]))
    histories = []
    for name in ("a", "b"):
        torch.manual_seed(len(histories))  # nothing may depend on it
        histories.append(restorer_training(tmp_path / "faces", tmp_path / f"{name}.safetensors", recipe))
    assert histories[0].losses[-1].keys() == {"step", "l1", "perceptual", "gan"}
    assert histories[0].losses == histories[1].losses
    plain = restorer_training(tmp_path / "faces", tmp_path / "c.safetensors", RESTORER_RECIPE)
    assert plain.losses[-1].keys() == {"step", "l1"}


def recipes_of(training: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The recipes with which a training is called from now on, instead of being done."""
    seen: list[Any] = []

    def record(faces: Path, out: Path, recipe: object, **rest: object) -> History:
        seen.append(recipe)
        return History()

    monkeypatch.setattr(unfade.recipes.pretrain, training, record)
    return seen


def test_the_flags_of_the_paper_s_terms_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = recipes_of("pretrain_restorer", monkeypatch)
    base = ["train", "restorer", str(tmp_path), "--out", str(tmp_path / "x.safetensors")]
    CliRunner().invoke(app, base)
    CliRunner().invoke(app, [*base, "--perceptual-weight", "0.4", "--gan-weight", "0.1", "--prior", "mine",
                                   "--discriminator-features", "16", "--texture-weight", "0.3"])  # fmt: skip
    CliRunner().invoke(app, [*base, "--from", "small-restorer", "--double"])
    CliRunner().invoke(app, [*base, "--from", "small-restorer-256"])
    assert [(r.doubled, bool(r.losses.texture_weight)) for r in seen[2:]] == [(True, True), (False, True)]
    del seen[2:]
    losses = [r.losses for r in seen]
    told = [(x.perceptual_weight, x.gan_weight, x.texture_weight, x.discriminator_features) for x in losses]
    assert [(*weights, r.prior) for weights, r in zip(told, seen, strict=True)] == [
        (0, 0, 0, 64, "small-prior"),
        (0.4, 0.1, 0.3, 16, "mine"),
    ]


@pytest.mark.parametrize(
    ("flag", "value", "way_out"),
    [("--prior", "mine", "--perceptual-weight"), ("--discriminator-features", "16", "--gan-weight")],
)
def test_flags_of_a_term_without_weight_are_refused(flag: str, value: str, way_out: str, tmp_path: Path) -> None:
    words = ["train", "restorer", str(tmp_path), "--out", str(tmp_path / "x.safetensors"), flag, value]
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, BadInput)
    assert re.fullmatch(rf"{flag} has no effect .*, or set {way_out}\.", str(error))


def test_the_flags_of_a_doubled_prior_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = recipes_of("pretrain_prior", monkeypatch)
    base = ["train", "prior", str(tmp_path), "--out", str(tmp_path / "x.safetensors"), "--from", "small-prior"]
    CliRunner().invoke(app, base)
    CliRunner().invoke(app, [*base, "--double"])
    assert [(recipe.doubled, recipe.start) for recipe in seen] == [(False, "small-prior"), (True, "small-prior")]
    assert seen[1] == replace(DOUBLED_PRIOR_RECIPE, start="small-prior")


@pytest.mark.parametrize("count", [0, 1, 7, 60, 61, 1000])
def test_a_curve_is_thinned_to_its_end(count: int) -> None:
    rows = list(range(count))
    kept = thinned(rows)
    assert len(kept) <= 60
    assert kept == sorted(kept)
    assert kept[-1:] == rows[-1:]
    assert kept == rows or count > 60
