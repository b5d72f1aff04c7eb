"""A degradation fitted to pairs: kernels and noise that are known come out, and new pairs are like the old."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recorded import picture
from unfade.degradations.fitted import FittedDegradation, blur, fit, fitted_kernels
from unfade.errors import BadInput

SIZE = 64


@pytest.fixture(scope="module")
def targets() -> Tensor:
    """Sixteen pictures with detail at all frequencies."""
    images = torch.cat([picture(SIZE, SIZE, 40 + i) for i in range(16)])
    texture = 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + texture).clamp(-1, 1)


def kernel(centre: float, left: float = 0.0) -> Tensor:
    """A plus of five pixels, one arm of which may be heavier."""
    plus = torch.zeros(3, 3)
    plus[1, 1], plus[0, 1], plus[2, 1], plus[1, 0], plus[1, 2] = centre, 1, 1, 1 + left, 1
    return (plus / plus.sum()).expand(1, 3, 3, 3)


def noise(like: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def test_a_known_blur_is_found_and_the_right_way_round(targets: Tensor) -> None:
    true = kernel(2.0, left=3.0)
    found = fitted_kernels(blur(targets, true.expand(16, -1, -1, -1)), targets)
    middle = found.shape[-1] // 2
    inner = found[..., middle - 1 : middle + 2, middle - 1 : middle + 2]
    assert (inner - true).abs().max() < 0.06
    assert found.sum((2, 3)).sub(1).abs().max() < 1e-5


def test_jumps_at_the_borders_are_no_detail(targets: Tensor) -> None:
    """Pictures that are light on one side and dark on the other, much blurred: no cross is in the kernel."""
    slope, wide = torch.linspace(-0.3, 0.3, SIZE), torch.exp(-torch.arange(-4.0, 5).square() / 4)
    true = (wide[:, None] * wide / wide.sum() ** 2).expand(16, 3, 9, 9)
    lit = (0.5 * targets + slope + slope[:, None]).clamp(-1, 1)
    found = fitted_kernels(blur(lit, true), lit)
    edge = (found.shape[-1] - 9) // 2
    wrong = found - F.pad(true, (edge,) * 4)
    assert wrong[..., edge + 4, :].abs().mean() < 0.003
    assert wrong[..., edge + 4].abs().mean() < 0.003


def test_blur_is_convolution(targets: Tensor) -> None:
    point = torch.zeros(1, 3, 9, 9)
    point[..., 4, 4] = 1
    assert torch.allclose(blur(point, kernel(2.0, left=3.0))[..., 3:6, 3:6], kernel(2.0, left=3.0))


def test_the_strength_of_noise_is_found_at_each_brightness(targets: Tensor) -> None:
    lights = torch.linspace(-0.95, 0.95, 16).view(16, 1, 1, 1)
    flat = lights.expand(16, 3, SIZE, SIZE) + 0.01 * noise(targets, 3)
    found = fit(flat + (0.05 + 0.1 * (lights + 1)) * noise(targets), flat).strengths
    assert found[1] == pytest.approx(0.05 + 0.1 * 0.375, rel=0.25)
    assert found[6] == pytest.approx(0.05 + 0.1 * 1.625, rel=0.25)
    assert bool((found.diff() > 0).all())


def test_new_faces_are_damaged_like_the_photos(targets: Tensor) -> None:
    photos = (blur(targets, kernel(1.0).expand(16, -1, -1, -1)) + 0.15 * noise(targets)).clamp(-1, 1)
    degradation, rng = fit(photos, targets), np.random.default_rng(0)
    assert degradation.size == SIZE
    made = torch.stack([degradation.damaged(face, rng) for face in targets])
    error, wanted = (made - targets).square().mean().sqrt(), (photos - targets).square().mean().sqrt()
    assert float(error) == pytest.approx(float(wanted), rel=0.15)
    fine = [F.avg_pool2d(image, 2).sub(0).std() / image.std() for image in (made, photos)]
    assert float(fine[0]) == pytest.approx(float(fine[1]), rel=0.1)


def test_it_follows_from_the_generator(targets: Tensor) -> None:
    degradation = fit(targets + 0.1 * noise(targets), targets)
    one, again = (degradation.damaged(targets[0], np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, degradation.damaged(targets[0], np.random.default_rng(8)))


def test_photos_without_damage_give_no_damage(targets: Tensor) -> None:
    degradation = fit(targets, targets)
    made = degradation.damaged(targets[0], np.random.default_rng(0))
    assert (made - targets[0]).abs().mean() < 0.03


def test_flat_pictures_give_numbers() -> None:
    flat = torch.zeros(6, 3, 32, 32)
    assert fit(flat, flat).damaged(flat[0], np.random.default_rng(0)).isfinite().all()


@pytest.mark.parametrize("count", [0, 2])
def test_pairs_have_one_shape(targets: Tensor, count: int) -> None:
    with pytest.raises(BadInput, match="target of the same shape"):
        fit(targets[:count], targets[: count and 3])


def test_its_parts_fit_together(targets: Tensor) -> None:
    found: FittedDegradation = fit(targets, targets)
    assert found.kernels.shape[:2] == found.noise.shape[:2] == (16, 3)
    assert found.kernels.shape[2] % 2 == 1
