"""A photo is grey, toned or coloured by its pixels, not by its file; and a tone can be given to other pixels."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from drawn import coloured
from unfade.images.files import from_bytes
from unfade.images.filters import resize
from unfade.images.photo import Photo
from unfade.images.tone import BLUE, GREEN, RED, grey_where, tone_of


def scene(size: int = 256, noise: float = 4) -> np.ndarray:
    """Grey: a vignette, a few shapes, grain. (size, size) in [0, 1]."""
    y, x = np.mgrid[:size, :size] / size
    grey = 0.9 - 0.8 * np.hypot(x - 0.5, y - 0.6)
    grey[np.hypot(x - 0.4, y - 0.4) < 0.15] = 0.75
    grey[np.hypot(x - 0.4, y - 0.45) < 0.04] = 0.1
    grey[y > 0.85] *= 0.5
    return (grey + np.random.default_rng(1).normal(0, noise / 255, grey.shape)).clip(0, 1)


TONINGS = {
    "grey": lambda g: (g, g, g),
    "sepia that clips": lambda g: (1.351 * g, 1.203 * g, 0.937 * g),  # the matrix of every photo program
    "sepia": lambda g: (g**0.8, g, g**1.35),
    "cyanotype": lambda g: (g**1.6, 0.1 + 0.9 * g, 0.3 + 0.65 * g),
    "split": lambda g: (g + 0.08 * g**2, g, g + 0.12 * (1 - g) ** 2),
    "faded": lambda g: (0.3 + 0.6 * g, 0.22 + 0.65 * g, 0.2 + 0.5 * g),
}


def toned(name: str, grey: np.ndarray) -> np.ndarray:
    return np.rint(np.stack(TONINGS[name](grey), -1).clip(0, 1) * 255).astype(np.uint8)


def jpeg(levels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.array(image)


def luma(pixels: torch.Tensor) -> torch.Tensor:
    return RED * pixels[0] + GREEN * pixels[1] + BLUE * pixels[2]


@pytest.mark.parametrize("name", TONINGS)
@pytest.mark.parametrize("quality", [None, 95, 60, 30])
@pytest.mark.parametrize("size", [96, 256, 700])
def test_toned_photos_have_a_tone(name: str, quality: int | None, size: int) -> None:
    levels = toned(name, scene(size))
    assert tone_of(Photo(levels if quality is None else jpeg(levels, quality))) is not None


@pytest.mark.parametrize("name", TONINGS)
def test_a_tone_gives_the_photo_its_colours_back(name: str) -> None:
    levels = toned(name, scene(noise=2))
    tone = tone_of(Photo(levels))
    assert tone is not None
    pixels = from_bytes(levels)
    grey = luma(pixels).expand(3, -1, -1)
    assert (tone.apply(grey) - pixels).abs().mean() < 1.5 / 127.5


def test_a_print_that_yellowed_and_bleached_unevenly_is_toned() -> None:
    levels, y = toned("sepia", scene()).astype(float), np.linspace(0.7, 1.3, 256)[:, None, None]
    grey = levels.mean(2, keepdims=True)
    assert tone_of(Photo((grey + (levels - grey) * y).clip(0, 255).astype(np.uint8))) is not None


@pytest.mark.parametrize("name", ["grey", "sepia", "faded"])
@pytest.mark.parametrize("colour", [(190, 40, 50), (40, 90, 190), (60, 130, 60), (214, 160, 130)])
def test_one_coloured_thing_makes_a_coloured_photo(name: str, colour: tuple[int, int, int]) -> None:
    levels = toned(name, scene())
    levels[150:200, 60:106] = colour  # 3.5 % of the area
    assert tone_of(Photo(jpeg(levels, 80))) is None


def test_coloured_photos_have_none() -> None:
    y, x = np.mgrid[:128, :128]
    gradients = np.stack([x * 2, y * 2, 255 - x - y], -1).astype(np.uint8)
    faint = np.stack([118 + x // 6, 128 + 0 * x, 118 + y // 6], -1).astype(np.uint8)
    for levels in (coloured(128), gradients, faint):
        assert tone_of(Photo(levels)) is None


def test_a_coat_of_a_brightness_of_its_own_is_no_toning() -> None:
    levels = np.rint(np.repeat(0.6 + 0.4 * scene()[..., None], 3, -1) * 255).astype(np.uint8)
    levels[100:150, 100:150] = (200, 20, 30)
    assert tone_of(Photo(levels)) is None


@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank_photos_and_single_pixels_are_grey(value: int) -> None:
    for size in (1, 50):
        tone = tone_of(Photo(np.full((size, size, 3), value, np.uint8)))
        assert tone is not None
        assert (max(map(abs, tone.red)), max(map(abs, tone.blue))) == (0, 0)


def test_16_bits_are_no_different() -> None:
    assert tone_of(Photo(toned("sepia", scene()).astype(np.uint16) * 257)) is not None


def test_the_tone_of_a_grey_photo_makes_grey_exactly() -> None:
    tone = tone_of(Photo(toned("grey", scene())))
    assert tone is not None
    out = tone.apply(from_bytes(coloured(32)))
    assert torch.equal(out[0], out[1])
    assert torch.equal(out[0], out[2])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(TONINGS)), st.integers(0, 999))
def test_luma_is_kept_and_the_range_too(name: str, seed: int) -> None:
    tone = tone_of(Photo(toned(name, scene(96))))
    assert tone is not None
    pixels = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    out = tone.apply(pixels)
    assert out.abs().max() <= 1 + 1e-6
    assert torch.allclose(luma(out), luma(pixels), atol=1e-5)
    assert torch.equal(tone.apply(torch.stack([pixels, pixels]))[1], out), "a batch will do"


def test_what_is_made_of_a_grey_face_is_grey() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(1, 1, 48, 48, generator=generator) * 2 - 1
    faces = resize(torch.cat([one.expand(1, 3, 48, 48), one + torch.tensor([0.02, 0, 0]).view(1, 3, 1, 1)]), 32, 32)
    made = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    result = grey_where(faces, made)
    assert torch.equal(result[0, 0], result[0, 1])
    assert torch.equal(result[0, 0], result[0, 2])
    expected = (made[0] * torch.tensor([RED, GREEN, BLUE]).view(3, 1, 1)).sum(0)
    torch.testing.assert_close(result[0, 0], expected)
    assert torch.equal(result[1], made[1])
