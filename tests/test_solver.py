"""DPM-Solver++(2M): parity with the paper's formulas in float64, its order, and the constraint that goes with it."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from networks import CountingNoise, fake_prior, tiny_prior
from recorded import noise, picture
from unfade.diffusion.guidance import CleanLowFrequency, DifFace, Guidance, PGDiff
from unfade.diffusion.prior import DiffusionPrior, Step
from unfade.diffusion.sampler import UPDATES, DPMSolver, ImageNoise, Update, ddim, sample
from unfade.diffusion.schedule import linear_betas
from unfade.images.filters import low_pass
from unfade.stages.targets import TargetSettings, pseudo_target

MEAN, DEVIATION = 0.1, 0.15  # of the toy's data, far from the bounds of an image
ALPHA_BAR = (1 - linear_betas()).cumprod()
QUICK = TargetSettings(spacing="20", start=8, free_from=3, factor=4, update="dpm++")


def true_noise(x: Tensor, t_model: Tensor) -> Tensor:
    """What a perfect network says where clean pixels are independent and normal."""
    alpha_bar = float(ALPHA_BAR[int(t_model[0])])
    variance = alpha_bar * DEVIATION**2 + 1 - alpha_bar
    return math.sqrt(1 - alpha_bar) / variance * (x - math.sqrt(alpha_bar) * MEAN)


def exact(x: Tensor, start: int, end: int) -> Tensor:
    """The solution of the probability flow ODE from step `start` to step `end` of 1000, in closed form."""
    a, b = ALPHA_BAR[start], ALPHA_BAR[end]
    ratio = math.sqrt((b * DEVIATION**2 + 1 - b) / (a * DEVIATION**2 + 1 - a))
    return math.sqrt(b) * MEAN + ratio * (x - math.sqrt(a) * MEAN)


class Kept:
    """An update that keeps the state each step began with."""

    def __init__(self, update: Update):
        self.update, self.states = update, list[Tensor]()

    def __call__(self, prior: DiffusionPrior, step: Step, noise: Callable[[Tensor], Tensor]) -> Tensor:
        self.states.append(step.x_t)
        return self.update(prior, step, noise)


def error(update: Update, count: int) -> float:
    """At the last index, after `count` - 1 steps from pure noise."""
    kept = Kept(update)
    like = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    sample(
        fake_prior(true_noise, str(count)), Guidance(), lambda like: 0.5 * noise("start", like.shape), like, update=kept
    )
    return float((kept.states[-1] - exact(kept.states[0], 999, 0)).abs().mean())


def test_half_as_long_steps_leave_a_quarter_of_the_error() -> None:
    coarse, fine = error(DPMSolver(), 250), error(DPMSolver(), 500)
    assert coarse / fine == pytest.approx(4, rel=0.1)
    assert error(ddim, 250) / error(ddim, 500) == pytest.approx(2, rel=0.1)
    assert fine < 0.25 * error(ddim, 500)


def reference(prior: DiffusionPrior, x: np.ndarray, begin: int) -> np.ndarray:
    """Algorithm 2 of the paper as it is printed, in float64, with the data prediction of the toy."""
    alpha_bar = np.append(1.0, prior.schedule.alpha_bar)[begin::-1]
    told = prior.schedule.t_model[begin - 1 :: -1]
    alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    with np.errstate(divide="ignore"):
        lambdas = np.log(alpha / sigma)
    data: list[np.ndarray] = []
    for i, t in enumerate(told, 1):
        eps = true_noise(torch.from_numpy(x), torch.tensor([t])).numpy()
        data.append((x - sigma[i - 1] * eps) / alpha[i - 1])
        h = lambdas[i] - lambdas[i - 1]
        used = data[-1]
        if 1 < i < begin:
            r = (lambdas[i - 1] - lambdas[i - 2]) / h
            used = (1 + 1 / (2 * r)) * data[-1] - 1 / (2 * r) * data[-2]
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * (np.exp(-h) - 1) * used
    return x


@pytest.mark.parametrize(("spacing", "begin"), [("20", 20), ("10", 10), ("20", 6), ("20", 2), ("20", 1)])
def test_it_is_the_papers_algorithm(spacing: str, begin: int) -> None:
    class Whole(Guidance):
        def timesteps(self, num_steps: int) -> list[int]:
            return [*reversed(range(begin))]

    prior, start = fake_prior(true_noise, spacing), 0.2 * noise("start", (2, 3, 32, 32))
    ours = sample(prior, Whole(), lambda like: start, start, update=DPMSolver())
    torch.testing.assert_close(
        ours.double(), torch.from_numpy(reference(prior, start.double().numpy(), begin)), atol=1e-5, rtol=0
    )


def test_it_walks_back_to_the_clean_image_with_the_true_noise() -> None:
    x0, draw = picture(32, 32, 1), noise("true", (1, 3, 32, 32))
    final = sample(
        fake_prior(lambda x, t: draw, "20"), CleanLowFrequency(x0, 12, 20, 4), lambda like: draw, x0, update=DPMSolver()
    )
    torch.testing.assert_close(final, x0, atol=1e-5, rtol=0)


def test_every_walk_has_its_own() -> None:
    assert UPDATES["dpm++"]() is not UPDATES["dpm++"]()
    prior, restored = tiny_prior(), picture(32, 32, 1)
    runs = [sample(prior, DifFace(restored, 8), CountingNoise(), restored, update=UPDATES["dpm++"]()) for _ in "ab"]
    assert torch.equal(*runs)


def test_one_that_walked_before_begins_anew() -> None:
    prior, restored, used = tiny_prior(), picture(32, 32, 1), DPMSolver()
    runs = [sample(prior, DifFace(restored, 8), CountingNoise(), restored, update=used) for _ in "ab"]
    assert torch.equal(*runs)


def test_a_step_that_is_visited_again_stays_finite() -> None:
    guidance = PGDiff(lambda x, t: torch.zeros_like(x), repeats=2, band=(4, 15))
    final = sample(tiny_prior(), guidance, CountingNoise(), torch.zeros(1, 3, 32, 32), update=DPMSolver())
    assert torch.isfinite(final).all()


def test_noise_is_drawn_at_the_start_alone_and_for_each_image() -> None:
    face, attempt = picture(32, 32, 1, count=3), lambda face: face
    draws = CountingNoise()
    pseudo_target(face, attempt, tiny_prior(), draws, QUICK)
    assert draws.draws == 1
    together = pseudo_target(face, attempt, tiny_prior(), ImageNoise([4, 5, 6]), QUICK)
    alone = pseudo_target(face[1:2], attempt, tiny_prior(), ImageNoise([5]), QUICK)
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)


def test_low_frequencies_are_held_in_the_clean_image() -> None:
    prior, restored = tiny_prior(), picture(32, 32, 1)
    guidance = CleanLowFrequency(restored, 12, 7, 4)
    step = prior.denoise(noise("state", (1, 3, 32, 32)), 10)
    held = guidance.correct_x0(step)
    wanted = low_pass(restored, 4)
    torch.testing.assert_close(held - wanted, step.x0 - low_pass(step.x0, 4))
    x_prev = torch.zeros(1, 3, 32, 32)
    assert guidance.correct_x_prev(prior, step, x_prev, CountingNoise()) is x_prev
    for free in (6, 0):
        below = prior.denoise(noise("state", (1, 3, 32, 32)), free)
        assert guidance.correct_x0(below) is below.x0


def test_a_target_by_it_is_held_to_the_attempt() -> None:
    face, prior = picture(32, 32, 1), tiny_prior()
    target = pseudo_target(face, lambda face: face, prior, CountingNoise(), QUICK)
    held = CleanLowFrequency(face, 8, 3, 4)
    assert torch.equal(target, sample(prior, held, CountingNoise(), face, update=DPMSolver()).clamp(-1, 1))


def test_it_starts_at_the_level_that_the_network_is_given() -> None:
    prior, restored, draw = tiny_prior(), picture(32, 32, 1), noise("start", (1, 3, 32, 32))
    start = CleanLowFrequency(restored, 8, 0, 4).start(prior, 7, lambda like: draw, restored)
    assert torch.equal(start, prior.q_sample(restored, 7, draw))
