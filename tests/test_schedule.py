"""The noise schedule and its respacing: parity with Improved DDPM, and the steps the paper names."""

from itertools import pairwise

import numpy as np
import pytest

from recorded import arrays
from unfade.diffusion.schedule import Schedule, linear_betas, respaced, steps_of_noise

SPACINGS = {"full1000": "1000", "r250": "250", "ddim250": "ddim250", "r100": "100", "r50": "50", "r20": "20"}
TABLES = {
    "betas": "betas",
    "alphas_cumprod": "alpha_bar",
    "alphas_cumprod_prev": "alpha_bar_prev",
    "posterior_variance": "posterior_variance",
    "posterior_log_variance_clipped": "posterior_log_variance",
    "posterior_mean_coef1": "x0_weight",
    "posterior_mean_coef2": "xt_weight",
}
MAPS = ["1000", "500", "200", "25", "10", "15,20,30", "ddim200", "ddim100", "ddim50", "ddim25"]


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return arrays("schedules_iddpm")


@pytest.mark.parametrize("name", SPACINGS)
def test_tables_are_the_published_ones(golden: dict[str, np.ndarray], name: str) -> None:
    schedule = respaced(SPACINGS[name])
    assert list(schedule.t_model) == golden[f"{name}.timestep_map"].tolist()
    for theirs, ours in TABLES.items():
        np.testing.assert_allclose(getattr(schedule, ours), golden[f"{name}.{theirs}"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("spacing", MAPS)
def test_steps_kept_are_the_published_ones(golden: dict[str, np.ndarray], spacing: str) -> None:
    assert list(respaced(spacing).t_model) == golden[f"map.{spacing}"].tolist()


def test_the_papers_steps() -> None:
    kept = respaced("250").t_model
    assert (kept[0], kept[90], kept[149], kept[150], kept[249]) == (0, 361, 598, 602, 999)
    assert respaced("ddim250").t_model == tuple(range(0, 1000, 4))


@pytest.mark.parametrize("count", [2, 3, 7, 64, 251, 333, 499, 501, 997, 999, 1000])
def test_any_number_of_steps_runs_from_first_to_last(count: int) -> None:
    kept = respaced(str(count)).t_model
    assert len(respaced(str(count))) == len(kept) == count
    assert (kept[0], kept[-1]) == (0, 999)
    assert all(a < b for a, b in pairwise(kept))


def test_sections_have_their_own_density() -> None:
    kept = respaced("10,20,30").t_model
    thirds = [sum(low <= t < high for t in kept) for low, high in ((0, 334), (334, 667), (667, 1000))]
    assert thirds == [10, 20, 30]


def test_one_step_has_a_finite_variance() -> None:
    schedule = respaced("1")
    assert schedule.t_model == (0,)
    assert np.isfinite(schedule.posterior_log_variance).all()


def test_respacing_keeps_the_noise_level_of_the_steps() -> None:
    full = np.cumprod(1 - linear_betas())
    schedule = respaced("250")
    np.testing.assert_allclose(schedule.alpha_bar, full[list(schedule.t_model)], rtol=1e-12)


def test_the_posterior_of_the_clean_image_is_exact_at_the_first_step() -> None:
    schedule = respaced("50")
    assert schedule.x0_weight[0] == pytest.approx(1)
    assert schedule.xt_weight[0] == schedule.posterior_variance[0] == 0


def test_schedules_of_equal_steps_are_equal() -> None:
    assert respaced("100") == Schedule(respaced("100").t_model)
    assert respaced("100") != respaced("50")


@pytest.mark.parametrize("spacing", ["0", "1001", "-5", "400,10,10", "ddim300", "ddim0", "many"])
def test_impossible_spacings_are_refused(spacing: str) -> None:
    with pytest.raises(ValueError, match=r"steps|invalid literal"):
        respaced(spacing)


@pytest.mark.parametrize("times", [0.5, 1.0, 2.0, 4.0])
def test_steps_of_stronger_noise(times: float) -> None:
    """The noise there is the first that is strong enough; the step before is too weak."""
    noise = np.sqrt(1 / np.cumprod(1 - linear_betas()) - 1)
    found = np.array(steps_of_noise(times))
    assert (found.shape, found[0]) == ((1000,), 0), "step 0 stands for no noise"
    inside, earlier = found < 999, found > 0
    inside[0] = earlier[0] = False
    assert (noise[found[inside]] >= times * noise[inside]).all()
    assert (noise[found[earlier] - 1] < times * noise[earlier]).all()
    assert times != 1 or found.tolist() == list(range(1000))
