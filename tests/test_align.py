"""From landmarks to aligned faces: parity, exact geometry, mirrored borders and no aliasing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from published import published_crop
from recorded import arrays, image_u8
from unfade.errors import BadInput
from unfade.faces.align import (
    TEMPLATE,
    bounds,
    crop,
    inverse,
    onto,
    scale_of,
    scaled,
    to_template,
)
from unfade.images.photo import Photo


def similarity(scale: float, degrees: float, x: float = 0.0, y: float = 0.0):
    """Px of the face per px of the photo, turned about its origin, then moved."""
    a, b = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    return np.array([(a, -b, x), (b, a, y)])


def centred(scale: float, degrees: float, photo: Photo, size: int):
    """The middle of the photo in the middle of the face."""
    matrix = similarity(scale, degrees)
    middle = np.array([(photo.width - 1) / 2, (photo.height - 1) / 2])
    matrix[:, 2] = (size - 1) / 2 - matrix[:, :2] @ middle
    return matrix


def mapped(matrix: np.ndarray, points):
    return np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]


def levels(image):
    return ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("number", range(4))
def test_the_published_similarity_and_crop(number: int) -> None:
    golden = arrays("face_align")
    matrix = to_template(golden["landmarks"][number], 512)
    np.testing.assert_allclose(matrix, golden[f"affine_{number}"], atol=2e-4)
    np.testing.assert_allclose(inverse(matrix), golden[f"inverse_{number}"], atol=2e-4)
    if f"crop_every4_bgr_{number}" in golden:  # the set with the outlier has none
        face = levels(published_crop(Photo(image_u8(300, 400, 31)), matrix, 512))[::4, ::4, ::-1]
        assert np.abs(face.astype(int) - golden[f"crop_every4_bgr_{number}"]).max() <= 2


@pytest.mark.parametrize("size", [64, 128, 512])
def test_a_similarity_is_found_again_in_spite_of_one_bad_landmark(size: int) -> None:
    rng = np.random.default_rng(size)
    for scale, degrees in ((0.1, 0), (1.7, 33), (8, -170)):
        truth = similarity(scale, degrees, *rng.uniform(-300, 300, 2))
        points = mapped(inverse(truth), TEMPLATE * size / 512)
        np.testing.assert_allclose(to_template(points, size), truth, rtol=1e-4, atol=0.02)
        points[2] += 40 / scale
        np.testing.assert_allclose(to_template(points, size), truth, rtol=1e-4, atol=0.02)


@pytest.mark.parametrize("points", [np.ones((5, 2)), np.full((5, 2), np.nan), np.zeros((4, 2))])
def test_no_similarity_is_bad_input(points) -> None:
    with pytest.raises(BadInput, match="leave it out"):
        to_template(points, 512)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_whole_step_moves_pixels_and_mirrors_the_border(depth: type) -> None:
    pixels = image_u8(40, 50, 3).astype(depth) * (257 if depth is np.uint16 else 1)
    face = crop(Photo(pixels), similarity(1, 0, 5, 7), 64)
    wanted = np.pad(pixels, ((7, 20), (5, 20), (0, 0)), mode="symmetric")[:64, :64] / np.iinfo(depth).max
    assert face.dtype == torch.float32
    torch.testing.assert_close(face, torch.from_numpy(wanted).permute(2, 0, 1).float() * 2 - 1, atol=1e-5, rtol=0)


def test_a_face_mostly_outside_is_mirrored() -> None:
    pixels = image_u8(30, 60, 3)
    face = crop(Photo(pixels), similarity(1, 0, 25, 0), 30)
    wanted = np.pad(pixels, ((0, 0), (25, 0), (0, 0)), mode="symmetric")[:, :30]
    assert np.array_equal(levels(face), wanted)


@pytest.mark.parametrize("degrees", [0, 17, 45])
@pytest.mark.parametrize("shrinking", [1.5, 2, 2.7, 7.3])
def test_a_fine_checkerboard_becomes_grey(shrinking: float, degrees: int) -> None:
    checks = (np.indices((400, 400)).sum(0) % 2 * 255).astype(np.uint8)
    photo = Photo(np.repeat(checks[..., None], 3, 2))
    matrix = centred(1 / shrinking, degrees, photo, 32)
    matrix[:, 2] += 0.2
    assert crop(photo, matrix, 32).std() < 0.03
    assert crop(photo, matrix, 32).mean().abs() < 0.01
    assert published_crop(photo, matrix, 32).square().mean() > 0.02


@pytest.mark.parametrize("shrinking", [1.3, 2.6, 6])
def test_a_shrunk_face_is_the_mean_of_many_samples(shrinking: float) -> None:
    photo = Photo(image_u8(300, 300, 5))
    matrix = centred(1 / shrinking, 20, photo, 32)
    fine = crop(photo, onto(matrix, 8), 256)
    difference = (crop(photo, matrix, 32) - F.avg_pool2d(fine[None], 8)[0]).abs()
    assert difference.mean() < 0.02
    assert difference.max() < 0.2


def test_enlarged_photo_same_face() -> None:
    photo = Photo(smooth := image_u8(60, 80, 5) // 4 + 90)
    photo.levels = smooth.repeat(4, 0).repeat(4, 1)
    matrix = similarity(1.2, 10, -20, -15)
    torch.testing.assert_close(crop(photo, scaled(matrix, 4), 32), crop(Photo(smooth), matrix, 32), atol=0.12, rtol=0)


@pytest.mark.parametrize("factor", [2, 4])
def test_scaled_keeps_borders_where_they_are(factor: int) -> None:
    matrix = similarity(0.8, 25, 3, -9)
    points = np.array([(-0.5, -0.5), (10, 20), (99.5, 49.5)])
    enlarged = (points + 0.5) * factor - 0.5
    np.testing.assert_allclose(mapped(scaled(matrix, factor), enlarged), mapped(matrix, points), atol=1e-9)
    assert scale_of(scaled(matrix, factor)) == pytest.approx(0.8 / factor)


def test_bounds_are_those_of_the_square() -> None:
    assert bounds(similarity(0.5, 0, -10, -20), 32) == pytest.approx((19, 39, 83, 103))
    left, top, right, bottom = bounds(similarity(1, 45), 32)
    assert right - left == pytest.approx(32 * 2**0.5)
    assert bottom - top == pytest.approx(32 * 2**0.5)
