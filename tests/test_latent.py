"""Sampling in latents: DiffBIR's schedule, its guidance and its colours, against what the published code recorded."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from networks import Answers
from recorded import arrays, meta, noise, picture
from test_sampler import RecordedNoise, Watched, golden
from tiny_diffbir import tiny_diffbir
from unfade.diffusion.guidance import Guidance, RestorationGuidance
from unfade.diffusion.latent import LatentPrior, prior_given
from unfade.diffusion.prior import Step
from unfade.diffusion.sampler import ImageNoise, sample
from unfade.diffusion.schedule import respaced, scaled_linear_betas
from unfade.images.wavelets import coarse, with_colours_of

PARITY = {"atol": 5e-5, "rtol": 0}
CHAIN = "diffbir_v200_s10_mse_latent"
TABLES = {
    "betas": "betas",
    "alphas_cumprod": "alpha_bar",
    "posterior_variance": "posterior_variance",
    "posterior_mean_coef1": "x0_weight",
    "posterior_mean_coef2": "xt_weight",
    "timesteps": "t_model",
}


@pytest.mark.parametrize("steps", [50, 20, 8])
def test_the_schedule_is_the_published_one(steps: int) -> None:
    expected = arrays("schedules_diffbir")
    np.testing.assert_allclose(scaled_linear_betas(), expected["betas1000"], rtol=0, atol=1e-12)
    schedule = respaced(str(steps), scaled_linear_betas)
    for theirs, ours in TABLES.items():
        np.testing.assert_allclose(getattr(schedule, ours), expected[f"s{steps}.{theirs}"], rtol=0, atol=1e-12)
    prior = LatentPrior(Answers(lambda z, t: z), 32, spacing="250").respaced(str(steps))
    assert prior.schedule == schedule != respaced(str(steps))


def recorded_noise_in(hint: Tensor) -> Answers:
    """What stood in for the network when the chain was recorded."""
    return Answers(lambda z, t: 0.3 * z + 0.1 * hint + 0.01 * math.sin(int(t[0]) / 100))


def test_the_whole_guided_chain_is_the_published_one() -> None:
    expected, about = golden(CHAIN), meta(CHAIN)
    target = F.conv2d(F.avg_pool2d(expected["target"], 2), expected["enc_weight"])  # stood in for the autoencoder
    told = about["guidance"]
    guidance = RestorationGuidance(
        lambda noise: target,
        told["scale"],
        weight=3000,
        repeats=told["repeat"],
        band=(told["t_stop"], told["t_start"]),
    )
    prior = LatentPrior(recorded_noise_in(expected["c_img"]), 32, spacing=str(about["steps"]))
    draws, update = RecordedNoise(about["noise_name"]), Watched("ddpm")
    final = sample(prior, guidance, draws, expected["c_img"], update=update)
    index, t_model, z_t, _, _ = zip(*update.seen, strict=True)
    assert list(index) == expected["index"].tolist()
    assert list(t_model) == expected["t"].tolist()
    assert draws.draws == len(expected["noise"])
    torch.testing.assert_close(torch.cat(z_t), expected["x_in"], **PARITY)
    torch.testing.assert_close(final, expected["x_out"][-1:], **PARITY)


def test_the_gradient_is_the_published_one() -> None:
    """Recorded on a picture, with a scale of 1500; it is the same for a latent."""
    expected = golden("diffbir_v2_guidance_fn")
    guidance = RestorationGuidance(lambda noise: expected["target"], 1500, weight=1, repeats=1)
    prior = LatentPrior(Answers(lambda z, t: z), 32)
    step = Step(7, expected["pred"], expected["pred"], expected["pred"], 0.0)
    moved = guidance.correct_x_prev(prior, step, torch.zeros_like(expected["pred"]), ImageNoise([0]))
    torch.testing.assert_close(moved, expected["mse.grad"], **PARITY)


def test_no_scale_is_no_guidance_and_draws_nothing() -> None:
    def asked(noise: object) -> Tensor:
        raise AssertionError("nothing is drawn")

    prior = LatentPrior(Answers(lambda z, t: 0.3 * z), 32, spacing="10")
    like = torch.zeros(2, 4, 16, 16)
    free, guided = (sample(prior, g, ImageNoise([1, 2]), like) for g in (Guidance(), RestorationGuidance(asked)))
    assert torch.equal(free, guided)


@pytest.mark.parametrize("change", [{"scale": 0.5}, {"weight": 0.1}, {"repeats": 2}, {"band": (400, 600)}])
def test_every_setting_of_the_guidance_has_an_effect(change: dict[str, float]) -> None:
    target = noise("target", (2, 4, 16, 16))
    guidance = RestorationGuidance(lambda draw: target + 0.1 * draw(target), 100.0)
    assert set(vars(guidance)) == {"target_of", "scale", "weight", "repeats", "band"}
    prior, like = LatentPrior(Answers(lambda z, t: 0.3 * z), 32, spacing="10"), torch.zeros(2, 4, 16, 16)
    runs = [sample(prior, g, ImageNoise([1, 2]), like) for g in (guidance, replace(guidance, **change), Guidance())]
    near = [float((run - target).abs().mean()) for run in runs]
    assert near[0] != near[1]
    assert max(near[:2]) < near[2], "guided latents come nearer to the target"


@torch.no_grad()
def test_the_prior_of_a_batch_is_the_network_with_its_hint() -> None:
    net = tiny_diffbir()
    z, hint = noise("z", (2, 4, 16, 16)), noise("hint", (2, 4, 16, 16))
    prior = prior_given(net, hint, spacing="8")
    step = prior.denoise(z, 3)
    assert prior.size == 32
    assert torch.equal(step.eps, net(z, torch.full((2,), prior.schedule.t_model[3]), hint))
    assert step.x0.abs().max() > 1, "a latent is not clamped"
    torch.testing.assert_close(prior.q_sample(step.x0, 3, step.eps), z)
    assert isinstance(step.log_variance, float)


def test_a_picture_with_its_own_colours_is_itself() -> None:
    image = picture(32, 32, 1, count=2)
    assert torch.equal(with_colours_of(image, image), image)
    torch.testing.assert_close(coarse(torch.full((1, 3, 9, 7), 0.4)), torch.full((1, 3, 9, 7), 0.4))
    assert torch.equal(coarse(image, levels=0), image)


def test_colours_are_the_references_and_detail_is_the_pictures() -> None:
    image, reference = picture(96, 96, 1), picture(96, 96, 5) * 0.5 + 0.2
    mixed = with_colours_of(image, reference)
    torch.testing.assert_close(mixed - coarse(reference), image - coarse(image), atol=1e-5, rtol=0)
    assert (mixed.mean((2, 3)) - reference.mean((2, 3))).abs().max() < 0.02
    tinted = with_colours_of(image + torch.tensor([0.3, 0.0, -0.2]).view(1, 3, 1, 1), image)
    torch.testing.assert_close(tinted, image, atol=1e-5, rtol=0)


def test_the_low_band_is_what_all_levels_leave() -> None:
    """Of a point far from the border: the product of the five dilated splines, nothing beyond 31 px."""
    point = torch.zeros(1, 1, 129, 129)
    point[..., 64, 64] = 1
    low = coarse(point)[0, 0]
    line = np.ones(1)
    for level in range(5):
        taps = np.zeros(2 * 2**level + 1)
        taps[[0, 2**level, -1]] = 0.25, 0.5, 0.25
        line = np.convolve(line, taps)
    expected = torch.zeros(129)
    expected[33:96] = torch.from_numpy(line)
    torch.testing.assert_close(low, torch.outer(expected, expected), atol=1e-7, rtol=0)
