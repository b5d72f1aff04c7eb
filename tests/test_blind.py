"""Eq. 9: the published numbers, and what a draw promises."""

import json
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recorded import arrays, image_u8, picture
from unfade.degradations import blind as stages
from unfade.degradations.blind import (
    BLIND_PRESETS,
    BlindDraw,
    BlindSettings,
    blind,
    blind_pair,
    blur_kernel,
    downsampled_size,
    draw_blind,
    scaled_kernel_size,
    scaled_ratio,
)
from unfade.degradations.colour import COLOUR
from unfade.errors import BadInput

PLAIN = BlindDraw(
    kernel="iso",
    kernel_size=41,
    sigma_x=0.1,
    sigma_y=0.1,
    theta=0.0,
    beta=1.0,
    ratio=1.0,
    noise=0.0,
    quality=100,
    shift=(0.0, 0.0, 0.0),
    grey=False,
    grey_truth=False,
    noise_seed=0,
)


def draws(count: int, *, size: int = 512, settings: BlindSettings = BLIND_PRESETS["swinir"]):
    rng = np.random.default_rng(7)
    return [draw_blind(rng, size=size, settings=settings) for _ in range(count)]


def recorded_face():
    """The picture and the draw of blind_swinir_a, its random numbers in the published order."""
    sigma_x, sigma_y, theta, ratio, noise, _, quality, _ = (
        float(u) for u in arrays("blind_swinir_a")["uniform_draws_in_order"]
    )
    draw = replace(
        PLAIN,
        kernel="aniso",
        sigma_x=sigma_x,
        sigma_y=sigma_y,
        theta=theta,
        ratio=ratio,
        noise=noise,
        quality=int(quality),
    )
    return torch.from_numpy(image_u8(128, 128, 21).astype(np.float32) / 255).permute(2, 0, 1) * 2 - 1, draw


def recorded_kernels():
    golden = arrays("blind_kernels")
    return [(spec, golden[f"kernel_{i:02d}"]) for i, spec in enumerate(golden["specs"].tolist())]


@pytest.mark.parametrize(("spec", "kernel"), recorded_kernels(), ids=[spec for spec, _ in recorded_kernels()])
def test_kernels_are_the_published_ones(spec, kernel) -> None:
    kind, size, *numbers = spec.split("|")
    sigma_x, sigma_y, theta, beta = (float(number) for number in numbers)
    if kind.endswith("_iso") or kind == "iso":
        sigma_y, theta = sigma_x, 0.0
    draw = replace(PLAIN, kernel=kind, kernel_size=int(size), sigma_x=sigma_x, sigma_y=sigma_y, theta=theta, beta=beta)
    np.testing.assert_allclose(blur_kernel(draw), kernel, rtol=0, atol=1e-12)


def test_every_stage_is_the_published_one() -> None:
    golden = arrays("blind_swinir_a")
    truth, draw = recorded_face()
    bgr = truth.flip(0).permute(1, 2, 0).add(1).div(2).numpy()
    np.testing.assert_allclose(stages.blur(bgr, draw), golden["blurred_bgr"], rtol=0, atol=1e-5)
    assert downsampled_size(128, 128, draw.ratio) == tuple(golden["down_size_wh"])
    small = stages.resize(golden["blurred_bgr"], downsampled_size(128, 128, draw.ratio))
    np.testing.assert_allclose(small, golden["downsampled_bgr"], rtol=0, atol=1e-6)
    noisy = stages.add_noise(small, draw, golden["standard_normal"])
    np.testing.assert_allclose(noisy * 255, golden["jpeg_input_bgr_255"], rtol=0, atol=1e-4)
    coded = stages.jpeg(noisy, draw.quality)
    np.testing.assert_allclose(coded * 255, golden["jpeg_decoded_bgr_u8"], rtol=0, atol=1.001)
    large = stages.resize(golden["jpeg_decoded_bgr_u8"] / np.float32(255), (128, 128))
    np.testing.assert_allclose(large, golden["upsampled_bgr"], rtol=0, atol=1e-6)


def test_the_whole_is_the_published_one() -> None:
    golden = arrays("blind_swinir_a")
    truth, draw = recorded_face()
    levels = (blind(truth, draw, normal=golden["standard_normal"]) + 1) / 2 * 255
    np.testing.assert_allclose(levels.permute(1, 2, 0).numpy(), golden["lq_u8_rgb"], rtol=0, atol=1.001)


def test_separable_blur_is_the_full_one() -> None:
    image = picture(64, 64, 3)[0].permute(1, 2, 0).numpy()
    round_kernel = replace(PLAIN, sigma_x=4.0, sigma_y=4.0)
    full = stages.blur(image, replace(round_kernel, kernel="aniso"))
    np.testing.assert_allclose(stages.blur(image, round_kernel), full, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [17, 64, 128])
def test_a_draw_is_the_whole_recipe(size: int) -> None:
    truth = picture(size, size, 5)[0]
    for draw in draws(4, size=size):
        again = BlindDraw(**json.loads(json.dumps(asdict(draw))))
        assert again == draw
        face = blind(truth, draw)
        assert face.shape == truth.shape
        assert face.dtype == torch.float32
        assert torch.equal(face, blind(truth, again))


def test_oblong_pictures_keep_their_shape() -> None:
    truth = picture(40, 96, 2)[0]
    assert blind(truth, replace(PLAIN, ratio=100.0)).shape == truth.shape
    assert downsampled_size(96, 40, 100.0) == (1, 1)


def test_the_result_is_on_the_8_bit_grid() -> None:
    levels = (blind(picture(64, 64, 4)[0], draws(1, size=64)[0]) + 1) / 2 * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


def test_the_mildest_draw_changes_little() -> None:
    truth = picture(64, 64, 1)[0]
    smooth = blind(truth, replace(PLAIN, sigma_x=3.0, sigma_y=3.0))  # JPEG's 4:2:0 needs smooth colours
    assert (blind(smooth, PLAIN) - smooth).abs().mean() < 2 / 255 * 2


def test_draws_stay_in_their_ranges() -> None:
    settings = BLIND_PRESETS["codeformer-stage2"]
    for draw in draws(200, settings=settings):
        for value, (low, high) in (
            (draw.sigma_x, settings.sigma),
            (draw.sigma_y, settings.sigma),
            (draw.ratio, settings.ratio),
            (draw.noise, settings.noise),
            (draw.quality, settings.quality),
        ):
            assert low <= value <= high


def test_probabilities_are_the_settings() -> None:
    many = draws(3000, settings=replace(BLIND_PRESETS["gfpgan"], grey_probability=0.2))
    assert abs(sum(draw.kernel == "iso" for draw in many) / 3000 - 0.5) < 0.04
    assert abs(sum(any(draw.shift) for draw in many) / 3000 - 0.3) < 0.04
    assert abs(sum(bool(draw.colour) for draw in many) / 3000 - 0.3) < 0.04
    assert abs(sum(draw.grey for draw in many) / 3000 - 0.2) < 0.04
    assert all(draw.sigma_x == draw.sigma_y for draw in many if draw.kernel == "iso")


@pytest.mark.parametrize("preset", sorted(BLIND_PRESETS))
def test_pixel_ranges_scale_with_the_face(preset: str) -> None:
    settings = BLIND_PRESETS[preset]
    for large, small in zip(
        draws(50, settings=settings), draws(50, size=128, settings=settings), strict=True
    ):  # the same random numbers
        assert small.sigma_x == pytest.approx(large.sigma_x / 4)
        assert small.kernel_size == 11
        assert (small.noise, small.quality) == (large.noise, large.quality)
    low, high = scaled_ratio(settings.ratio, 1 / 4)
    assert 128 / high == 512 / settings.ratio[1]  # the smallest face keeps its number of pixels
    assert low == min(settings.ratio[0], max(1.0, settings.ratio[0] / 4))


@given(st.floats(0.5, 8), st.floats(1, 8), st.floats(1 / 64, 4))
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_scaled_ratio_is_never_empty_nor_starts_to_enlarge(low, width: int, scale) -> None:
    scaled_low, scaled_high = scaled_ratio((low, low * width), scale)
    assert scaled_low <= scaled_high
    assert scaled_low >= min(low, 1.0)


def test_scaling_by_one_changes_nothing() -> None:
    assert scaled_ratio((0.8, 32.0), 1.0) == (0.8, 32.0)
    assert scaled_kernel_size(41, 1.0) == 41
    assert scaled_kernel_size(41, 1 / 64) == 3


OTHER = {
    "kernels": ("iso", "plateau_aniso"),
    "kernel_probabilities": (0.01, 0.99),
    "kernel_size": 21,
    "sigma": (1.0, 3.0),
    "beta": (1.0, 2.0),
    "ratio": (2.0, 3.0),
    "noise": (30.0, 40.0),
    "quality": (5.0, 10.0),
    "jitter_probability": 1.0,
    "jitter_shift": 5.0,
    "colour_probability": 1.0,
    "brightness": (1.6, 1.7),
    "contrast": (1.6, 1.7),
    "saturation": (1.6, 1.7),
    "hue": (0.3, 0.4),
    "grey_probability": 1.0,
    "grey_truth": True,
    "reference_size": 128,
}


@pytest.mark.parametrize("name", [field.name for field in fields(BlindSettings)])
def test_every_setting_has_an_effect(name: str) -> None:
    base = BlindSettings(
        kernels=("iso", "generalized_aniso"),
        jitter_probability=0.5,
        colour_probability=0.5,
        grey_probability=0.5,
        grey_truth=False,
    )
    changed = replace(base, **{name: OTHER[name]})
    truth = picture(64, 64, 6)[0]
    pairs = [[blind_pair(truth, draw) for draw in draws(12, size=64, settings=one)] for one in (base, changed)]
    assert any(
        not torch.equal(a, b) for one, other in zip(*pairs, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "aniso", "sigma_y": 4.0},
        {"kernel_size": 3, "sigma_x": 3.0, "sigma_y": 3.0},
        {"sigma_x": 2.0, "kernel": "aniso"},
        {"ratio": 3.0},
        {"noise": 10.0},
        {"quality": 20},
        {"shift": (20.0, 0.0, 0.0)},
        {"grey": True},
        {"colour": (("brightness", 0.8),)},
        {"colour": (("contrast", 0.8),)},
        {"colour": (("saturation", 0.5),)},
        {"colour": (("hue", 0.1),)},
    ],
    ids=str,
)
def test_every_drawn_parameter_has_an_effect(change) -> None:
    truth = picture(32, 32, 8)[0]
    assert not torch.equal(blind(truth, replace(PLAIN, **change)), blind(truth, PLAIN))


def test_the_noise_seed_is_the_noise() -> None:
    truth, noisy = picture(32, 32, 8)[0], replace(PLAIN, noise=10.0)
    assert not torch.equal(blind(truth, noisy), blind(truth, replace(noisy, noise_seed=1)))


def test_the_shift_is_in_rgb_order() -> None:
    flat = torch.zeros(3, 16, 16)
    change = blind(flat, replace(PLAIN, shift=(20.0, 0.0, -10.0))) - blind(flat, PLAIN)
    torch.testing.assert_close(change.mean(dim=(1, 2)) * 255 / 2, torch.tensor([20.0, 0.0, -10.0]), atol=0.6, rtol=0)


def test_a_grey_face_has_a_grey_truth_only_where_the_draw_says_so() -> None:
    truth = picture(32, 32, 9)[0]
    face, same = blind_pair(truth, replace(PLAIN, grey=True))
    assert torch.equal(face[0], face[1])
    assert torch.equal(same, truth)
    _, grey = blind_pair(truth, replace(PLAIN, grey=True, grey_truth=True))
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    torch.testing.assert_close(grey, (truth * weights).sum(0, keepdim=True).expand(3, -1, -1), atol=1e-3, rtol=0)


def test_what_cannot_be_degraded_is_refused() -> None:
    with pytest.raises(BadInput, match="one picture"):
        blind(picture(16, 16, 1), PLAIN)
    with pytest.raises(BadInput, match="normal numbers"):
        blind(picture(16, 16, 1)[0], PLAIN, normal=np.zeros((4, 4, 3)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kernels": ("box", "iso")},
        {"kernel_probabilities": (0.5, 0.4)},
        {"kernels": ("iso",)},
        {"kernel_size": 40},
        {"sigma": (0.0, 1.0)},
        {"ratio": (4.0, 1.0)},
        {"quality": (30.0, 101.0)},
        {"noise": (-1.0, 1.0)},
        {"brightness": (-0.5, 1.0)},
        {"hue": (-0.6, 0.1)},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(wrong) -> None:
    with pytest.raises(BadInput):
        BlindSettings(**wrong)


# GFPGAN's colour jitter


def test_a_colour_draw_goes_through_json() -> None:
    settings = replace(BLIND_PRESETS["gfpgan"], colour_probability=1.0)
    for draw in draws(5, settings=settings):
        again = BlindDraw(**json.loads(json.dumps(asdict(draw))))
        assert again == draw
        assert hash(again) == hash(draw)
        truth = picture(32, 32, 3)[0]
        assert torch.equal(blind(truth, again), blind(truth, draw))


def test_every_order_is_drawn_and_every_amount_is_within_its_range() -> None:
    settings = replace(BLIND_PRESETS["gfpgan"], colour_probability=1.0)
    many = draws(1000, settings=settings)
    assert len({tuple(name for name, _ in draw.colour) for draw in many}) == 24
    for name in COLOUR:
        amounts = [dict(draw.colour)[name] for draw in many]
        low, high = getattr(settings, name)
        assert low <= min(amounts) < low + 0.02
        assert high - 0.02 < max(amounts) <= high


def test_colour_takes_as_many_draws_whatever_comes_out() -> None:
    after = []
    for probability in (0.0, 1.0):
        rng = np.random.default_rng(3)
        for _ in range(20):
            draw_blind(rng, size=64, settings=BlindSettings(colour_probability=probability))
        after.append(rng.bit_generator.state)
    assert after[0] == after[1]


def test_only_gfpgan_changes_colours() -> None:
    assert {name for name, settings in BLIND_PRESETS.items() if settings.colour_probability} == {"gfpgan"}


def test_the_order_of_the_steps_counts() -> None:
    truth = picture(32, 32, 4)[0]
    steps = (("brightness", 1.4), ("contrast", 0.6))
    one, other = (blind(truth, replace(PLAIN, colour=order)) for order in (steps, steps[::-1]))
    assert not torch.equal(one, other)


def test_a_third_of_a_turn_makes_red_green() -> None:
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 16, 16)
    green = blind(red, replace(PLAIN, colour=(("hue", 1 / 3),)))
    torch.testing.assert_close(green.mean(dim=(1, 2)), torch.tensor([-1.0, 1.0, -1.0]), atol=0.03, rtol=0)
