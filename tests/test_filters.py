"""Resampling and the low-pass filter: parity with ILVR's, and what a low-pass filter must do."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recorded import arrays, noise, picture
from unfade.errors import BadInput
from unfade.images.filters import fit_square, low_pass, resize, without_grid

PARITY = {"atol": 2e-6, "rtol": 0}
FACTORS = [2, 4, 8, 16, 32]


@pytest.mark.parametrize(("size", "factor"), [(32, 4), (32, 8), (64, 8), (64, 16)])
def test_matrices_are_the_published_ones(size: int, factor: int) -> None:
    golden, small = arrays("lpf_ilvr_matrices"), size // factor
    down, up = resize(torch.eye(size), small, size), resize(torch.eye(small), size, small)
    torch.testing.assert_close(down, torch.from_numpy(golden[f"{size}.N{factor}.A_down"]), **PARITY)
    torch.testing.assert_close(up, torch.from_numpy(golden[f"{size}.N{factor}.B_up"]), **PARITY)


@pytest.mark.parametrize("factor", FACTORS)
def test_low_pass_is_the_published_one(factor: int) -> None:
    golden, image = arrays("lpf_ilvr_64"), picture(64, 64, 7)
    down = resize(image, 64 // factor, 64 // factor)
    torch.testing.assert_close(down, torch.from_numpy(golden[f"64.N{factor}.img.down"]), **PARITY)
    torch.testing.assert_close(low_pass(image, factor), torch.from_numpy(golden[f"64.N{factor}.img.lp"]), **PARITY)


@pytest.mark.parametrize("factor", FACTORS)
def test_enlarging_is_the_published_one(factor: int) -> None:
    golden = arrays("lpf_ilvr_64")
    up = resize(torch.from_numpy(golden[f"64.N{factor}.noise.down"]), 64, 64)
    torch.testing.assert_close(up, torch.from_numpy(golden[f"64.N{factor}.noise.lp"]), **PARITY)


def test_low_pass_is_shrinking_and_enlarging() -> None:
    image = picture(48, 64, 1)
    torch.testing.assert_close(low_pass(image, 8), resize(resize(image, 6, 8), 48, 64))


def test_low_pass_is_linear() -> None:
    a, b = picture(32, 32, 1), noise("linear", (1, 3, 32, 32))
    combined = low_pass(2 * a - 3 * b, 4)
    torch.testing.assert_close(combined, 2 * low_pass(a, 4) - 3 * low_pass(b, 4), atol=1e-5, rtol=0)


def test_low_pass_is_not_idempotent() -> None:
    once = low_pass(picture(32, 32, 1), 4)
    assert (low_pass(once, 4) - once).abs().max() > 1e-2


def test_low_pass_keeps_the_mean_of_a_flat_image_and_little_of_noise() -> None:
    flat, draw = torch.full((1, 3, 64, 64), 0.3), noise("white", (1, 3, 64, 64))
    torch.testing.assert_close(low_pass(flat, 16), flat)
    assert low_pass(draw, 16).std() < 0.1 * draw.std()


def test_low_pass_by_one_is_the_identity() -> None:
    image = picture(32, 32, 1)
    torch.testing.assert_close(low_pass(image, 1), image)


def test_images_of_a_batch_and_their_channels_do_not_mix() -> None:
    image = picture(32, 48, 3, count=2)
    alone = torch.stack([torch.stack([low_pass(c[None, None], 4)[0, 0] for c in one]) for one in image])
    torch.testing.assert_close(low_pass(image, 4), alone)


@pytest.mark.parametrize(("shape", "factor"), [((16, 16), 16), ((32, 16), 16), ((16, 32), 16), ((30, 32), 4)])
def test_a_side_that_cannot_shrink_is_refused(shape: tuple[int, ...], factor: int) -> None:
    with pytest.raises(ValueError, match=f"cannot be low-passed by {factor}"):
        low_pass(torch.zeros(1, 3, *shape), factor)


def test_gradients_go_through() -> None:
    image = picture(32, 32, 1).requires_grad_()
    low_pass(image, 8).sum().backward()
    torch.testing.assert_close(image.grad.sum(), torch.tensor(float(image.numel())))


def test_the_precision_of_the_networks_does_not_reach_the_filters() -> None:
    image = picture(64, 64, 7)
    plain = low_pass(image, 8), resize(image, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = low_pass(image, 8), resize(image, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


@settings(max_examples=30, deadline=None)
@given(source=st.integers(1, 40), result=st.integers(1, 40), value=st.floats(-1, 1))
def test_resizing_keeps_a_flat_image_flat(source, result, value: float) -> None:
    resized = resize(torch.full((1, 1, source, source), value, dtype=torch.float64), result, result)
    torch.testing.assert_close(resized, torch.full((1, 1, result, result), value, dtype=torch.float64))


def test_resizing_mirrors_with_the_image() -> None:
    image = picture(32, 32, 1)
    torch.testing.assert_close(resize(image.flip(3), 20, 44), resize(image, 20, 44).flip(3), atol=1e-6, rtol=0)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    image = picture(32, 40, 1)
    torch.testing.assert_close(resize(image, 32, 40), image)


def test_fit_square_brings_to_the_size_and_leaves_what_fits() -> None:
    image = picture(32, 32, 1)[0]
    assert fit_square(image, 32, Path("a.png")) is image
    torch.testing.assert_close(fit_square(image, 16, Path("a.png")), resize(image, 16, 16))


def test_fit_square_refuses_another_shape_and_names_the_file() -> None:
    with pytest.raises(BadInput, match=r"^holiday\.png is 40 x 32 pixels"):
        fit_square(torch.zeros(3, 32, 40), 32, Path("holiday.png"))


GRID = torch.tensor([[0.01, -0.03], [0.0, 0.02]]).repeat(16, 16)


def test_a_grid_over_a_picture_is_taken_off_and_the_rest_stays() -> None:
    image = without_grid(picture(32, 32, 2, count=2), 2)
    torch.testing.assert_close(without_grid(image + GRID, 2), image, atol=1e-6, rtol=0)
    torch.testing.assert_close(without_grid(image + 0.1, 2), image + 0.1, atol=1e-6, rtol=0)
    torch.testing.assert_close(without_grid(image + GRID, 2).mean((2, 3)), image.mean((2, 3)), atol=1e-6, rtol=0)


def test_each_picture_and_each_colour_has_its_own_grid() -> None:
    image = without_grid(picture(32, 32, 2, count=2), 2)
    strength = torch.tensor([[1.0, 0.0, -2.0], [0.5, 3.0, 0.0]])[:, :, None, None]
    torch.testing.assert_close(without_grid(image + strength * GRID, 2), image, atol=1e-6, rtol=0)


def test_single_pixels_have_no_grid() -> None:
    image = picture(32, 32, 2)
    assert without_grid(image, 1) is image
