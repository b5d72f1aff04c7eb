"""The one-step family: a prior's network as a restorer, what its step does, and that it learns and is stored."""

import copy
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from networks import B32, FOLDED32
from recorded import fill_module, picture
from unfade.diffusion.load import load_prior
from unfade.diffusion.prior import DiffusionPrior
from unfade.errors import BadCheckpoint, BadInput
from unfade.nets.damage import DamageNet
from unfade.nets.unet import PREDICTS, UNet
from unfade.restorers.image_level import ImageLossSettings
from unfade.restorers.load import load_restorer, one_step_of_prior, save_restorer
from unfade.restorers.one_step import OneStepRestorer, OneStepSettings, doubled
from unfade.training.loop import LoopSettings, train

FIXED = OneStepSettings(fixed=200)


def tiny(settings: OneStepSettings = FIXED, **network: object) -> OneStepRestorer:
    return fill_module(OneStepRestorer(UNet(replace(B32, **network)), DamageNet(), settings)).eval()


def faces(count: int = 3, size: int = 32) -> Tensor:
    return torch.cat([picture(size, size, 7 + i) for i in range(count)])


def change(restorer: OneStepRestorer, face: Tensor) -> float:
    with torch.no_grad():
        return float((restorer(face) - face).square().mean().sqrt())


@pytest.mark.parametrize("predicts", PREDICTS)
def test_it_is_one_prediction_of_the_prior_without_noise(predicts: str) -> None:
    restorer, face = tiny(predicts=predicts), faces()
    prior = DiffusionPrior(restorer.net, 32, spacing="1000", predicts=predicts)
    with torch.no_grad():
        wanted = prior.denoise(float(prior.schedule.alpha_bar[200]) ** 0.5 * face, 200).x0
        torch.testing.assert_close(restorer(face).clamp(-1, 1), wanted, atol=2e-5, rtol=0)


def test_with_the_true_noise_it_gives_the_truth_back() -> None:
    restorer, truth = tiny(), faces()
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    restorer.net.forward = lambda x, t: noise  # type: ignore[method-assign]
    t = torch.tensor([10, 200, 390])
    spread = (1 / restorer.alpha_bars[t] - 1).sqrt()[:, None, None, None]
    torch.testing.assert_close(restorer.predict(truth + spread * noise, t), truth, atol=1e-5, rtol=0)


def test_higher_fidelity_keeps_more_of_the_face() -> None:
    restorer, face = tiny(), faces()
    kept = []
    for fidelity in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0):
        restorer.set_fidelity(fidelity)
        kept.append(change(restorer, face))
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < 0.02
    with pytest.raises(BadInput, match=r"fidelity must lie in 0\.\.1"):
        restorer.set_fidelity(1.5)


def test_the_step_follows_the_damage() -> None:
    restorer = tiny(OneStepSettings(highest=100))
    t = restorer.entry(torch.tensor([0.0, 0.1, 0.4, 0.8, 1.0]))
    assert t[0] == 0
    assert t.tolist() == sorted(t.tolist())
    assert t[-1] == 100


def test_at_the_matching_step_noise_drowns_as_much_as_the_damage_took() -> None:
    restorer = one_step_of_prior()
    damage = torch.tensor([0.1, 0.3, 0.6])
    t = restorer.entry(damage)
    torch.testing.assert_close(restorer.drowned[t], restorer.settings.part * damage, atol=0.01, rtol=0)


def test_a_clean_face_comes_back_bit_for_bit() -> None:
    restorer, face = tiny(OneStepSettings()), faces(2, 128)
    restorer.size = 128
    restorer.damage.forward = lambda seen: torch.tensor([0.01, 0.4])  # type: ignore[method-assign]
    with torch.no_grad():
        restored = restorer(face)
    assert torch.equal(restored[0], face[0])
    assert not torch.equal(restored[1], face[1])


def test_at_a_low_fidelity_no_face_counts_as_clean() -> None:
    restorer, face = tiny(OneStepSettings(fidelity=0.25)), faces(2, 128)
    restorer.size = 128
    restorer.damage.forward = lambda seen: torch.tensor([0.01, 0.4])  # type: ignore[method-assign]
    torch.testing.assert_close(restorer.estimated_damage(face), torch.tensor([0.16, 0.4]))
    with torch.no_grad():
        assert not torch.equal(restorer(face)[0], face[0])
    restorer.set_fidelity(0.75)
    torch.testing.assert_close(restorer.estimated_damage(face), torch.tensor([0.01, 0.4]))


@pytest.mark.parametrize("fidelity", [0.0, 0.25, 0.3])
def test_at_the_fidelities_that_are_recommended_every_face_is_restored_wholly(fidelity: float) -> None:
    restorer = tiny(OneStepSettings(fidelity=fidelity))
    restorer.size = 128
    restorer.damage.forward = lambda seen: torch.zeros(len(seen))  # type: ignore[method-assign]
    damage = restorer.estimated_damage(faces(2, 128))
    assert restorer.share(damage).tolist() == [1, 1]
    assert bool((restorer.entry(damage) > 0).all())


def test_a_nearly_clean_face_is_changed_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result follows the damage without a jump: from the face itself to what the network says."""
    restorer, face = tiny(OneStepSettings()), faces(5, 128)
    restorer.size = 128
    monkeypatch.setattr(restorer, "predict", lambda face, t: face - 1)
    restorer.damage.forward = lambda seen: torch.tensor([0.0, 0.04, 0.055, 0.1, 1.0])  # type: ignore[method-assign]
    changed = (face - restorer(face)).mean((1, 2, 3))
    torch.testing.assert_close(changed, torch.tensor([0.0, 0.0, 0.25, 1.0, 1.0]))
    assert torch.equal(restorer(face)[:2], face[:2])
    with pytest.raises(BadInput, match="`damaged` to be larger than `clean`"):
        OneStepSettings(clean=0.2)


def test_refinement_is_seeded_by_the_face_and_changes_texture() -> None:
    restorer, face = tiny(), faces()
    with torch.no_grad():
        smooth = restorer(face)
        restorer.set_refine(2)
        refined, again, alone = restorer(face), restorer(face), restorer(face[1:2])
    assert torch.equal(refined, again)
    torch.testing.assert_close(refined[1:2], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(refined, smooth, atol=1e-3)
    with pytest.raises(BadInput, match="refinements must be one of"):
        restorer.set_refine(4)


def test_training_never_refines() -> None:
    restorer, face = tiny(replace(FIXED, refine=3)), faces()
    plain = tiny()
    torch.testing.assert_close(restorer.train()(face), plain(face))


def test_it_stays_in_the_faster_layout(tmp_path: Path) -> None:
    restorer = tiny()
    save_restorer(tmp_path / "it.safetensors", restorer)
    again = load_restorer(tmp_path / "it.safetensors", device="cpu")
    for one in (restorer, again, again.train(), copy.deepcopy(again)):
        weight = one.get_parameter("net.input_blocks.1.0.in_layers.2.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last)


def test_it_learns_and_the_estimate_of_damage_does_not() -> None:
    restorer, face = tiny(), faces(4)
    before = copy.deepcopy(restorer.state_dict())
    restorer.requires_grad_(False)
    for parameter in restorer.trainable():
        parameter.requires_grad_(True)
    target = face.flip(-1)
    objective = restorer.objective(ImageLossSettings(perceptual_weight=0, gan_weight=0))
    loop = LoopSettings(steps=6, batch=4, micro_batch=2, learning_rate=1e-3)
    history = train(restorer, objective, lambda step: (face, target), loop)
    assert history.losses[-1]["l1"] > 0
    changed = {key for key, value in restorer.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith("net.") for key in changed)


def test_a_file_gives_the_same_restorer_back(tmp_path: Path) -> None:
    restorer, face = tiny(replace(FIXED, refine=1, fidelity=0.6)), faces()
    save_restorer(tmp_path / "r.safetensors", restorer)
    loaded = load_restorer(tmp_path / "r.safetensors")
    assert isinstance(loaded, OneStepRestorer)
    assert asdict(loaded.settings) == asdict(restorer.settings)
    with torch.no_grad():
        assert torch.equal(loaded(face), restorer(face))
    assert load_restorer(tmp_path / "r.safetensors", refine=0, fidelity=0.5).refine == 0


def test_priors_and_restorers_are_not_taken_for_each_other(tmp_path: Path, models: tuple[Path, Path]) -> None:
    save_restorer(tmp_path / "r.safetensors", tiny())
    with pytest.raises(BadCheckpoint, match="holds a one_step, not a prior"):
        load_prior(tmp_path / "r.safetensors")
    with pytest.raises(BadCheckpoint, match=r"holds a prior \(unet\), not a restorer"):
        load_restorer(models[1])


def test_any_prior_can_become_one_and_stays_as_it_was(models: tuple[Path, Path]) -> None:
    restorer = one_step_of_prior(models[1])
    assert restorer.size == 32
    assert restorer.net.config == FOLDED32
    assert any(parameter.requires_grad for parameter in restorer.net.parameters())
    assert not any(parameter.requires_grad for parameter in restorer.damage.parameters())


@pytest.mark.parametrize(
    ("field", "value"), [("fidelity", -0.1), ("refine", 5), ("highest", 1000), ("fixed", 500), ("part", 0)]
)
def test_bad_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(BadInput):
        OneStepSettings(**{field: value})


@pytest.mark.parametrize("patch", [1, 2])
def test_a_doubled_restorer_begins_as_the_one_for_half_the_size(patch: int, tmp_path: Path) -> None:
    restorer, face = tiny(OneStepSettings(), patch=patch), faces()
    large, t = doubled(restorer), torch.tensor([50, 150, 300])
    enlarged = F.interpolate(face, scale_factor=2)
    assert (large.size, large.net.config.patch) == (64, 2 * patch)
    with torch.no_grad():
        changed = large.predict(enlarged, t) - enlarged
        torch.testing.assert_close(F.avg_pool2d(changed, 2), restorer.predict(face, t) - face, atol=1e-4, rtol=1e-4)
    assert torch.equal(large.drowned, restorer.drowned), "the same degradation enters at the same step"
    save_restorer(tmp_path / "large.safetensors", large)
    again = load_restorer(tmp_path / "large.safetensors", device="cpu")
    with torch.no_grad():
        assert torch.equal(again(enlarged), large.eval()(enlarged))


def test_a_doubled_restorer_leaves_clean_faces_alone() -> None:
    restorer = doubled(one_step_of_prior())
    face = faces(2, 256)
    restorer.damage.forward = lambda seen: torch.tensor([0.01, 0.4])  # type: ignore[method-assign]
    with torch.no_grad():
        restored = restorer.eval()(face)
    assert torch.equal(restored[0], face[0])
    assert not torch.equal(restored[1], face[1])
