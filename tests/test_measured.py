"""What a fitted degradation is said to do: what was done to a folder, within a stated tolerance."""

import math
from collections.abc import Callable

import cv2
import pytest
import torch
from torch import Tensor

from unfade.degradations.fitted import FittedDegradation, blur, fit
from unfade.degradations.matching import at_contrast_of, matched
from unfade.degradations.measured import SHARPEST, Damage, damage_of, frequencies, response_of
from unfade.images.files import from_bytes, read_image, to_bytes
from unfade.images.filters import resize
from unfade.images.finding import list_images
from unfade.images.tone import to_grey
from unfade.recipes.adapt_settings import SAMPLES

COUNT = 20
FULL = 2 * math.sqrt(2 * math.log(2))  # width at half maximum of a Gaussian over its sigma
Damaging = Callable[[Tensor], Tensor]


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return torch.stack([read_image(path) for path in list_images(SAMPLES / "truth")[:COUNT]])


def white(like: Tensor, levels: float, seed: int = 0) -> Tensor:
    """Noise of a standard deviation in grey levels."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)) * (levels / 127.5)


def gaussian(images: Tensor, across: float, down: float | None = None) -> Tensor:
    """Blurred by sigmas in px, borders mirrored."""
    radius = math.ceil(4 * max(across, down or across))
    place = torch.arange(-radius, radius + 1)
    lines = [torch.exp(-(place**2) / (2 * sigma**2)) for sigma in (down or across, across)]
    kernel = lines[0][:, None] * lines[1]
    return blur(images, (kernel / kernel.sum()).expand(len(images), 3, -1, -1))


def of(truth: Tensor, damaging: Damaging) -> Damage:
    return damage_of(fit(damaging(truth).clamp(-1, 1), truth))


@pytest.mark.parametrize(("sigma", "tolerance"), [(1.0, 0.08), (2.0, 0.06), (3.0, 0.1)])
def test_the_width_of_a_blur(truth: Tensor, sigma: float, tolerance: float) -> None:
    found = of(truth, lambda faces: gaussian(faces, sigma) + white(faces, 2.5)).blur
    assert found.width == pytest.approx(FULL * sigma, rel=tolerance)
    assert found.widest < 1.1 * found.across
    assert found.photos[1] == pytest.approx(FULL * sigma, rel=tolerance)
    assert found.photos[2] < 1.15 * found.photos[0]


def test_a_blur_of_one_channel(truth: Tensor) -> None:
    found = of(truth, lambda faces: torch.cat([gaussian(faces, 2.5)[:, :1], gaussian(faces, 1.5)[:, 1:]], 1)).blur
    assert found.channels == pytest.approx([2.5 * FULL, 1.5 * FULL, 1.5 * FULL], rel=0.1)


def test_a_blur_in_one_direction(truth: Tensor) -> None:
    found = of(truth, lambda faces: gaussian(faces, 2.0, 0.7)).blur
    assert min(found.angle, 180 - found.angle) < 8
    assert found.widest == pytest.approx(2.0 * FULL, rel=0.15)
    assert found.across == pytest.approx(0.7 * FULL, rel=0.25)


@pytest.mark.parametrize(("falling", "angle"), [(True, 135), (False, 45)])
def test_the_angle_is_anticlockwise_from_horizontal(truth: Tensor, falling: bool, angle: int) -> None:
    line = torch.eye(7) / 7  # falls from the left to the right, as rows are counted downwards
    kernel = line if falling else line.flip(1)
    found = of(truth, lambda faces: blur(faces, kernel.expand(len(faces), 3, -1, -1))).blur
    assert found.angle == pytest.approx(angle, abs=8)
    assert found.widest > 3 * found.across


@pytest.mark.parametrize("factor", [2, 4])
def test_a_reduction(truth: Tensor, factor: int) -> None:
    def damaging(faces: Tensor) -> Tensor:
        return resize(resize(faces, 128 // factor, 128 // factor), 128, 128)

    assert of(truth, damaging).blur.scale == pytest.approx(factor, rel=0.1)


def test_photos_of_two_kinds(truth: Tensor) -> None:
    half = COUNT // 2

    def damaging(faces: Tensor) -> Tensor:
        sharp, soft = gaussian(faces[:half], 1.0), gaussian(faces[half:], 3.0)
        return torch.cat([sharp + white(sharp, 5), soft + white(soft, 15)])

    found = of(truth, damaging)
    assert found.blur.photos[0] == pytest.approx(FULL * 1.0, rel=0.15)
    assert found.blur.photos[2] == pytest.approx(FULL * 3.0, rel=0.15)
    assert found.noise.photos[2] / found.noise.photos[0] == pytest.approx(3, rel=0.25)


@pytest.mark.parametrize("levels", [6.0, 13.0, 25.0])
def test_white_noise(truth: Tensor, levels: float) -> None:
    found = of(truth, lambda faces: faces + white(faces, levels)).noise
    for place in (found.dark, found.middle, found.bright, found.photos[1]):
        assert place == pytest.approx(levels, rel=0.12)
    assert found.grain == pytest.approx(1.0, abs=0.1)
    assert found.correlation == pytest.approx(0, abs=0.15)
    assert len(found.levels) == 8


def test_noise_that_grows_with_brightness(truth: Tensor) -> None:
    found = of(truth, lambda faces: faces + (faces + 1.5) / 2 * white(faces, 20)).noise
    assert found.dark == pytest.approx(20 * 0.44, rel=0.2)  # 3/16 of the way from black to white, in each channel
    assert found.bright == pytest.approx(20 * 1.06, rel=0.2)


@pytest.mark.parametrize("sigma", [1.0, 1.5])
def test_coarse_noise(truth: Tensor, sigma: float) -> None:
    grains = gaussian(white(truth, 127.5), sigma)
    found = of(truth, lambda faces: faces + grains / grains.std() * 0.1).noise
    assert found.grain == pytest.approx(FULL * math.sqrt(2) * sigma, rel=0.12)
    assert found.middle == pytest.approx(12.75, rel=0.1)


def test_noise_along_rows(truth: Tensor) -> None:
    found = of(truth, lambda faces: faces + gaussian(white(faces, 40), 2.0, 0.3)).noise
    assert found.rows > 2.5 * found.columns


def test_grey_noise(truth: Tensor) -> None:
    found = of(truth, lambda faces: faces + white(faces[:, :1], 13).expand_as(faces)).noise
    assert found.correlation == pytest.approx(1, abs=0.05)
    assert found.middle == pytest.approx(13, rel=0.1)


def test_photos_without_damage(truth: Tensor) -> None:
    found = of(truth, lambda faces: faces)
    assert found.blur.width < 1.4
    assert found.noise.middle < 3.0
    assert found.contrast == pytest.approx((1, 1, 1), abs=0.02)
    assert found.blocks == pytest.approx(1, abs=0.05)
    assert (found.photos, found.grey, found.size) == (COUNT, 0, 128)


def test_grey_photos_are_counted(truth: Tensor) -> None:
    photos = torch.cat([to_grey(truth[:5]), truth[5:]])
    assert damage_of(fit(photos, truth)).grey == 5


@pytest.mark.parametrize(("quality", "least"), [(20, 1.8), (50, 1.4), (80, 1.2)])
def test_blocks(truth: Tensor, quality: int, least: float) -> None:
    def damaging(faces: Tensor) -> Tensor:
        files = [
            cv2.imencode(".jpg", to_bytes(face)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for face in faces
        ]
        return torch.stack([from_bytes(cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1]) for file in files])

    blocks = of(truth, damaging).blocks
    assert blocks is not None
    assert blocks > least
    moved = of(truth, lambda faces: damaging(faces.roll(3, 3)).roll(-3, 3)).blocks
    assert moved is not None
    assert moved < blocks - 0.1, "borders elsewhere are not counted"


def test_a_correction_counts_too(truth: Tensor) -> None:
    """A restorer that knows all faces and shows that the photos have less contrast, and detail, than was fitted."""
    clean = torch.stack([read_image(path) for path in list_images(SAMPLES / "drawn")[:COUNT]])

    def attempt(photos: Tensor) -> Tensor:
        return truth if len(photos) == COUNT and torch.equal(photos, seen) else shown

    seen = (gaussian(truth, 2.0) * torch.tensor([0.6, 0.8, 1.0]).view(3, 1, 1)).clamp(-1, 1)
    point = torch.zeros(COUNT, 3, 3, 3)
    point[..., 1, 1] = 1
    fitted = FittedDegradation(point, white(truth, 127.5), torch.full((8,), 0.02))
    assert damage_of(fitted).blur.width == SHARPEST
    shown = at_contrast_of(truth, clean)
    found = damage_of(matched(fitted, seen, clean, attempt))
    assert found.contrast == pytest.approx((0.6, 0.8, 1.0), rel=0.1)
    assert found.blur.width == pytest.approx(2.0 * FULL, rel=0.1)


def test_the_response_of_a_known_blur(truth: Tensor) -> None:
    gains = response_of(fit(gaussian(truth, 1.5), truth))
    expected = torch.exp(-2 * (math.pi * 1.5 * frequencies()) ** 2)
    assert gains.shape == (3, len(frequencies()))
    assert (gains - expected).abs()[:, :60].max() < 0.1
