"""PSNR, SSIM and their colour-matched variants against the golden numbers, and the bootstrap interval."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recorded import arrays, picture
from unfade.metrics.bootstrap import bootstrap_interval
from unfade.metrics.reference import matched, psnr, ssim

GOLDEN = arrays("metrics_psnr_ssim")


def as_image(levels: np.ndarray) -> Tensor:
    return torch.from_numpy(levels.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


TRUTH = as_image(GOLDEN["gt_u8"])


def close(restored: Tensor, truth: Tensor, expected: np.ndarray) -> None:
    got = [psnr(restored, truth).item(), ssim(restored, truth).item()]
    assert got == pytest.approx(list(expected), abs=1e-5)


@pytest.mark.parametrize("which", ["a", "b"])
def test_equals_the_published_numbers(which: str) -> None:
    restored = as_image(GOLDEN[f"restored_{which}_u8"])
    aligned = matched(restored, TRUTH)
    close(restored, TRUTH, GOLDEN[f"{which}_raw"])
    close(aligned, TRUTH, GOLDEN[f"{which}_matched"])
    close(aligned[..., 4:-4, 4:-4], TRUTH[..., 4:-4, 4:-4], GOLDEN[f"{which}_matched_crop4"])


@pytest.mark.parametrize("which", ["a", "b"])
def test_matched_image_equals_the_published_one(which: str) -> None:
    aligned = matched(as_image(GOLDEN[f"restored_{which}_u8"]), TRUTH)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose((aligned + 1) / 2, GOLDEN[f"{which}_matched_image_float_rgb"], rtol=0, atol=1e-6)


def test_identical_images_are_infinitely_good() -> None:
    image = picture(24, 20, 1, count=2)
    for restored in (image, matched(image, image)):
        assert psnr(restored, image).tolist() == [math.inf, math.inf]
        assert ssim(restored, image).tolist() == pytest.approx([1, 1], abs=1e-12)


def test_known_error_gives_known_decibels() -> None:
    truth = torch.zeros(1, 3, 12, 12)
    assert psnr(truth + 2 / 255, truth).item() == pytest.approx(20 * math.log10(255), abs=1e-5)  # off by one level


def test_a_batch_gives_what_single_images_give() -> None:
    restored, truth = picture(24, 20, 1, count=3), picture(24, 20, 5, count=3)
    for metric in (psnr, ssim):
        singles = [metric(a[None], b[None]).item() for a, b in zip(restored, truth, strict=True)]
        assert metric(restored, truth).dtype == torch.float64
        assert metric(restored, truth).tolist() == pytest.approx(singles, abs=1e-12)


def test_matching_undoes_a_change_of_colour_and_contrast() -> None:
    truth = picture(24, 20, 1)
    shifted = truth * torch.tensor([0.5, 0.8, 1.2]).view(1, 3, 1, 1) + 0.1
    assert psnr(shifted, truth).item() < 25
    assert psnr(matched(shifted, truth), truth).item() > 100


def test_matching_a_flat_channel_gives_the_mean_and_no_nan() -> None:
    truth = picture(24, 20, 1)
    aligned = matched(torch.full_like(truth, 0.3), truth)
    torch.testing.assert_close(aligned, truth.double().mean((2, 3), keepdim=True).expand_as(truth))


@pytest.mark.parametrize("function", [psnr, ssim, matched])
@pytest.mark.parametrize("shape", [(1, 3, 24, 21), (2, 3, 24, 20), (3, 24, 20)])
def test_other_shapes_are_refused(function, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        function(torch.zeros(shape), torch.zeros(1, 3, 24, 20))


def test_ssim_refuses_images_below_its_window() -> None:
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval(rng.normal(5, 2, 40), rng=rng, level=0.9, draws=200) for _ in range(200)]
    assert 0.8 < sum(low <= 5 <= high for low, high in intervals) / 200 < 0.97


def test_interval_depends_on_generator_level_and_draws() -> None:
    values = np.random.default_rng(3).normal(size=30)

    def interval(seed: int = 0, **settings: float) -> tuple[float, float]:
        return bootstrap_interval(values, rng=np.random.default_rng(seed), **settings)

    low, high = interval()
    assert interval() == (low, high) != interval(seed=1)
    assert low < interval(level=0.5)[0] < values.mean() < interval(level=0.5)[1] < high
    assert interval(draws=50) != (low, high)


def test_interval_of_constants_single_values_and_infinities() -> None:
    assert bootstrap_interval([3.0], rng=np.random.default_rng(0)) == (3, 3)
    low, high = bootstrap_interval([20.0, math.inf], rng=np.random.default_rng(0))
    assert (low, high) == (20, math.inf)


@pytest.mark.parametrize(
    ("values", "settings"), [([], {}), ([math.nan], {}), ([1.0], {"level": 1.0}), ([1.0], {"draws": 0})]
)
def test_interval_refuses_what_has_no_mean(values: list[float], settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        bootstrap_interval(values, rng=np.random.default_rng(0), **settings)
