"""The reverse loop: parity with whole published chains, and the identities between the methods."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from networks import CountingNoise, fake_prior, tiny_prior
from recorded import arrays, meta, noise, picture
from unfade.diffusion.guidance import DifFace, Guidance, LowFrequency, Noise
from unfade.diffusion.prior import DiffusionPrior, Step
from unfade.diffusion.sampler import UPDATES, ImageNoise, ddim, ddpm, sample
from unfade.images.filters import low_pass

PARITY = {"atol": 5e-5, "rtol": 0}
CHAINS = {
    "dtbfr_chain_r20_s12_e7_N4": "ddpm",
    "dtbfr_chain_r20_s6_e0_N4": "ddpm",
    "difface_ddpm_r20_s8": "ddpm",
    "difface_ddim20_s8_eta05": "ddim-eta0.5",
}


@pytest.fixture(scope="module")
def prior() -> DiffusionPrior:
    return tiny_prior()


def golden(name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in arrays(name).items() if key != "meta"}


class RecordedNoise:
    """The draws of a published chain, in the order of its calls."""

    def __init__(self, name: str):
        self.name, self.draws = name, 0

    def __call__(self, like: Tensor) -> Tensor:
        draw = noise(f"{self.name}/{self.draws}", tuple(like.shape))
        self.draws += 1
        return draw


class Watched:
    """An update that keeps what it saw: index, step of the network, x_t, x0 and what it returned."""

    def __init__(self, name: str):
        self.update, self.seen = UPDATES[name](), []

    def __call__(self, prior: DiffusionPrior, step: Step, noise: Noise):
        x_prev = self.update(prior, step, noise)
        self.seen.append((step.t, prior.schedule.t_model[step.t], step.x_t, step.x0, x_prev))
        return x_prev


@pytest.mark.parametrize("name", CHAINS)
def test_whole_chains_are_the_published_ones(prior: DiffusionPrior, name: str) -> None:
    expected, about = golden(name), meta(name)
    restored = expected["x0"] if "x0" in expected else expected["y0_01"] * 2 - 1
    guidance: Guidance = DifFace(restored, about["start"])
    if about.get("N"):
        guidance = LowFrequency(restored, about["start"], about["reg_end"], about["N"])
    draws, update = RecordedNoise(about["noise_name"]), Watched(CHAINS[name])
    final = sample(prior.respaced(about["respacing"]), guidance, draws, restored, update=update)
    index, t_model, x_t, x0, x_prev = zip(*update.seen, strict=True)

    assert list(index) == list(reversed(range(about["start"])))
    if "timestep_orig" in expected:
        assert list(t_model) == expected["timestep_orig"].tolist()
        torch.testing.assert_close(torch.cat(x_t), expected["x_in"], **PARITY)
        torch.testing.assert_close((final.clamp(-1, 1) + 1) / 2, expected["final_01"], **PARITY)
    else:
        torch.testing.assert_close(x_t[0], expected["y_start"], **PARITY)
        torch.testing.assert_close(final, expected["x_out"][-1:], **PARITY)
    torch.testing.assert_close(torch.cat(x0), expected["pred_xstart"], **PARITY)
    torch.testing.assert_close(torch.cat(x_prev), expected["x_out"], **PARITY)


@pytest.mark.parametrize("i", range(4))
def test_one_step_is_the_published_one(prior: DiffusionPrior, i) -> None:
    expected = {key: value[i : i + 1] for key, value in golden("difface_p_mean_variance_r250").items()}
    wide, t = prior.respaced("250"), int(expected["t"])
    step = wide.denoise(expected["x"], t)
    ours = {
        "mean": ddpm(wide, step, torch.zeros_like),
        "log_variance": step.log_variance,
        "variance": step.log_variance.exp(),
        "pred_xstart": step.x0,
        "pred_noise": step.eps,
    }
    for name, value in ours.items():
        torch.testing.assert_close(value, expected[name], atol=3e-5, rtol=0, msg=f"{name} at t = {t}")


@pytest.mark.parametrize("t", [0, 1, 90, 150, 249])
def test_denoising_with_the_true_noise_gives_the_clean_image(t: int) -> None:
    x0, draw = picture(32, 32, 1, count=2), noise("true", (2, 3, 32, 32))
    prior = fake_prior(lambda x, t_model: draw)
    step = prior.denoise(prior.q_sample(x0, t, draw), t)
    torch.testing.assert_close(step.x0, x0, atol=1e-4, rtol=0)
    assert torch.equal(step.eps, draw)


def test_noising_to_before_the_first_step_changes_nothing() -> None:
    x0 = picture(32, 32, 1)
    assert torch.equal(fake_prior().q_sample(x0, -1, noise("none", (1, 3, 32, 32))), x0)


def test_noising_keeps_the_variance_of_white_images() -> None:
    draws = [noise(name, (1, 3, 64, 64)) for name in ("white", "noise")]
    for t in (0, 100, 249):
        assert float(fake_prior().q_sample(draws[0], t, draws[1]).std()) == pytest.approx(1, abs=0.03)


def test_the_network_is_given_the_original_step() -> None:
    prior = fake_prior()
    for t in (0, 149, 249):
        prior.denoise(torch.zeros(1, 3, 32, 32), t)
    assert prior.unet.asked == [0, 598, 999]


def test_without_a_learned_variance_the_posteriors_is_taken() -> None:
    prior, x = fake_prior(), torch.zeros(1, 3, 32, 32)
    for t in (1, 249):
        schedule, step = prior.schedule, prior.denoise(x, t)
        assert math.exp(step.log_variance) == pytest.approx(schedule.posterior_variance[t])
        drawn = ddpm(prior, step, torch.ones_like) - ddpm(prior, step, torch.zeros_like)
        torch.testing.assert_close(drawn, torch.full_like(x, schedule.posterior_variance[t] ** 0.5))


def test_a_learned_variance_lies_between_its_bounds() -> None:
    def variance(fraction: float) -> Tensor:
        prior = fake_prior(lambda x, t: torch.cat([x, torch.full_like(x, fraction)], 1))
        return prior.denoise(x, 100).log_variance.exp()

    schedule, x = fake_prior().schedule, torch.zeros(1, 3, 32, 32)
    torch.testing.assert_close(variance(-1), torch.full_like(x, schedule.posterior_variance[100]))
    torch.testing.assert_close(variance(1), torch.full_like(x, schedule.betas[100]))


def test_the_predicted_image_is_clamped_and_the_noise_is_not() -> None:
    step = fake_prior(lambda x, t: -9 * x).denoise(noise("large", (1, 3, 32, 32)), 200)
    assert step.x0.abs().max() == 1
    assert step.eps.abs().max() > 9


def test_the_papers_setting_draws_noise_211_times() -> None:
    draws, restored = CountingNoise(), picture(32, 32, 1)
    prior, steps = fake_prior(), []
    sample(prior, LowFrequency(restored, 150, 90, 16), draws, restored, after_step=lambda: steps.append(draws.draws))
    assert draws.draws == 1 + 150 + 60
    assert len(steps) == len(prior.unet.asked) == 150
    assert (prior.unet.asked[0], prior.unet.asked[-1]) == (598, 0)
    assert steps[0] == 3  # start, step, reference
    assert steps[-1] - steps[-2] == 1


@pytest.mark.parametrize("free_from", [8, 9, 20])
def test_low_frequencies_never_swapped_is_difface(prior: DiffusionPrior, free_from: int) -> None:
    restored = picture(32, 32, 1)
    ours = sample(prior, LowFrequency(restored, 8, free_from, 4), CountingNoise(), restored)
    assert torch.equal(ours, sample(prior, DifFace(restored, 8), CountingNoise(), restored))


def test_the_last_step_is_free() -> None:
    restored = picture(32, 32, 1)
    runs = [sample(tiny_prior(), LowFrequency(restored, 3, free, 4), CountingNoise(), restored) for free in (0, 1)]
    assert torch.equal(*runs)


def test_guidance_that_corrects_nothing_is_plain_sampling(prior: DiffusionPrior) -> None:
    @dataclass(frozen=True)
    class Nothing(Guidance):
        """Overrides every hook and changes nothing, under differentiation."""

        differentiable = True

        def correct_x0(self, step: Step):
            return step.x0 + 0

        def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise):
            (gradient,) = torch.autograd.grad(step.x0.sum(), step.x_t)
            return x_prev + 0 * gradient

    like, seen = torch.zeros(1, 3, 32, 32), Watched("ddpm")
    plain = sample(prior, Guidance(), CountingNoise(), like, update=seen)
    assert [index for index, *_ in seen.seen] == list(reversed(range(20)))
    guided = sample(prior, Nothing(), CountingNoise(), like)
    assert torch.equal(guided, plain)
    assert not guided.requires_grad
    assert torch.equal(seen.seen[0][2], CountingNoise()(like))  # it starts from pure noise


def test_a_corrected_x0_is_what_the_update_gets(prior: DiffusionPrior) -> None:
    @dataclass(frozen=True)
    class Fixed(Guidance):
        image: Tensor

        def correct_x0(self, step: Step):
            return self.image

    image = picture(32, 32, 1)
    final = sample(prior, Fixed(image), CountingNoise(), image)
    torch.testing.assert_close(final, image)  # at t = 0 the mean of the posterior is x0


def test_by_one_the_low_pass_replaces_all(prior: DiffusionPrior) -> None:
    restored, draw = picture(32, 32, 1), noise("reference", (1, 3, 32, 32))
    step = prior.denoise(noise("state", (1, 3, 32, 32)), 10)
    guidance = LowFrequency(restored, 12, 0, 1)
    x_prev = guidance.correct_x_prev(prior, step, noise("sampled", (1, 3, 32, 32)), lambda like: draw)
    torch.testing.assert_close(x_prev, prior.q_sample(restored, 9, draw), atol=1e-5, rtol=0)


def test_only_low_frequencies_are_swapped(prior: DiffusionPrior) -> None:
    restored, draw = picture(32, 32, 1), noise("reference", (1, 3, 32, 32))
    before = noise("sampled", (1, 3, 32, 32))
    step = prior.denoise(noise("state", (1, 3, 32, 32)), 10)
    after = LowFrequency(restored, 12, 7, 4).correct_x_prev(prior, step, before, lambda like: draw)
    wanted = low_pass(prior.q_sample(restored, 9, draw), 4)
    torch.testing.assert_close(after - wanted, before - low_pass(before, 4))
    free = replace(step, t=6)
    assert LowFrequency(restored, 12, 7, 4).correct_x_prev(prior, free, before, lambda like: draw) is before


def test_difface_starts_one_level_above_its_first_step(prior: DiffusionPrior) -> None:
    restored, draw = picture(32, 32, 1), noise("start", (1, 3, 32, 32))
    guidance = DifFace(restored, 8)
    assert guidance.timesteps(20) == [7, 6, 5, 4, 3, 2, 1, 0]
    start = guidance.start(prior, 7, lambda like: draw, restored)
    assert torch.equal(start, prior.q_sample(restored, 8, draw))


@pytest.mark.parametrize("begin", [0, -1, 20, 150])
def test_a_start_outside_the_schedule_is_refused(prior: DiffusionPrior, begin: int) -> None:
    with pytest.raises(ValueError, match=r"must lie in 1\.\.19"):
        sample(prior, DifFace(picture(32, 32, 1), begin), CountingNoise(), picture(32, 32, 1))


def test_ddim_without_eta_draws_no_noise(prior: DiffusionPrior) -> None:
    restored, draws = picture(32, 32, 1), CountingNoise()
    sample(prior, DifFace(restored, 8), draws, restored, update=ddim)
    assert draws.draws == 1


def test_ddim_with_the_true_noise_walks_back_to_the_clean_image() -> None:
    x0, draw = picture(32, 32, 1), noise("true", (1, 3, 32, 32))
    prior = fake_prior(lambda x, t: draw, "20")
    steps: list[Tensor] = []

    def update(prior: DiffusionPrior, step: Step, noise: Noise):
        steps.append(step.x_t)
        return ddim(prior, step, noise)

    class Exact(DifFace):
        def start(self, prior: DiffusionPrior, t: int, noise: Noise, like: Tensor):
            return prior.q_sample(self.restored, t, draw)

    final = sample(prior, Exact(x0, 12), CountingNoise(), x0, update=update)
    torch.testing.assert_close(final, x0, atol=1e-5, rtol=0)
    for t, x_t in zip(reversed(range(12)), steps, strict=True):
        torch.testing.assert_close(x_t, prior.q_sample(x0, t, draw), atol=1e-5, rtol=0)


def test_updates_differ(prior: DiffusionPrior) -> None:
    restored = picture(32, 32, 1)
    results = [
        sample(prior, DifFace(restored, 8), CountingNoise(), restored, update=make()) for make in UPDATES.values()
    ]
    assert all((a - b).abs().max() > 1e-2 for i, a in enumerate(results) for b in results[:i])


def test_the_noise_of_an_image_does_not_depend_on_its_batch() -> None:
    like = torch.zeros(3, 3, 8, 8)
    together, reversed_, alone = ImageNoise([5, 6, 7]), ImageNoise([7, 6, 5]), ImageNoise([6])
    for _ in range(3):
        draw = together(like)
        assert torch.equal(draw, reversed_(like).flip(0))
        assert torch.equal(draw[1:2], alone(like[:1]))


def test_noise_is_standard_normal_and_never_the_same() -> None:
    first, second = (
        draw for noise in [ImageNoise([1, 2])] for draw in (noise(torch.zeros(2, 3, 64, 64)) for _ in "ab")
    )
    assert float(first.mean()) == pytest.approx(0, abs=0.02)
    assert float(first.std()) == pytest.approx(1, abs=0.02)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    assert torch.equal(ImageNoise([1, 2])(torch.zeros(2, 3, 64, 64)), first)


def test_noise_leaves_torchs_own_generator_alone() -> None:
    before = torch.get_rng_state()
    ImageNoise([1])(torch.zeros(1, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_of_another_size_than_the_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        ImageNoise([1, 2])(torch.zeros(3, 3, 8, 8))
