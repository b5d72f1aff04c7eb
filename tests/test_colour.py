"""Brightness, contrast, saturation and hue: their definitions, and what each leaves alone."""

import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recorded import picture
from unfade.degradations.colour import COLOUR, brightness, contrast, hue, saturation


def small_picture(seed: int = 1):
    return np.ascontiguousarray(picture(12, 9, seed)[0].permute(1, 2, 0).add(1).div(2).numpy())


@given(st.integers(0, 50))
@hypothesis_settings(max_examples=20, deadline=None)
def test_neutral_amounts_change_nothing(seed: int) -> None:
    image = small_picture(seed)
    for change, neutral in ((brightness, 1), (contrast, 1), (saturation, 1), (hue, 0), (hue, 1), (hue, -1)):
        np.testing.assert_allclose(change(image, neutral), image, rtol=0, atol=1e-5)


@given(st.sampled_from(sorted(COLOUR)), st.floats(-0.5, 0.5))
@hypothesis_settings(max_examples=40, deadline=None)
def test_changes_stay_in_range_and_grey_stays_grey(name: str, amount) -> None:
    amount = amount if name == "hue" else 3 * abs(amount)
    image = small_picture()
    changed = COLOUR[name](image, amount)
    assert changed.dtype == np.float32
    assert changed.shape == image.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    grey = COLOUR[name](np.repeat(image[..., :1], 3, axis=2), amount)
    np.testing.assert_allclose(grey, grey[..., :1].repeat(3, axis=2), rtol=0, atol=1e-6)
    if name in ("saturation", "hue"):  # the weights of grey add up to 0.9999
        np.testing.assert_allclose(grey[..., 0], image[..., 0], rtol=0, atol=2e-4)


def test_colours_change_as_torchvision_defines_it() -> None:
    pixels = np.array([[[0.2, 0.4, 0.6], [0.8, 0.1, 0.3]]], dtype=np.float32)  # two pixels, B, G, R
    first, second = 0.2989 * 0.6 + 0.587 * 0.4 + 0.114 * 0.2, 0.2989 * 0.3 + 0.587 * 0.1 + 0.114 * 0.8  # their greys
    mean = (first + second) / 2
    for changed, by_hand in (
        (brightness(pixels, 1.5), [[[0.3, 0.6, 0.9], [1.0, 0.15, 0.45]]]),
        (contrast(pixels, 0.5), pixels / 2 + mean / 2),
        (contrast(pixels, 0.0), np.full((1, 2, 3), mean)),
        (saturation(pixels, 0.0), [[[first] * 3, [second] * 3]]),
        (saturation(pixels, 0.5), pixels / 2 + np.array([first, second])[None, :, None] / 2),
    ):
        np.testing.assert_allclose(changed, by_hand, rtol=0, atol=1e-6)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.05, 1 / 3, 0.5])
def test_hue_turns_as_in_the_standard_library(turn: float) -> None:
    image = small_picture()
    expected = np.empty_like(image)
    for place in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*image[place][::-1])
        expected[place] = colorsys.hsv_to_rgb((h + turn) % 1, s, v)[::-1]
    np.testing.assert_allclose(hue(image, turn), expected, rtol=0, atol=1e-5)
