"""The texture distance: phases do not count; blur, flatness and regular patterns do."""

import pytest
import torch
from torch import Tensor

from unfade.images.filters import low_pass
from unfade.training.texture import texture_distance


def noise(seed: int, height: int = 64, width: int = 64) -> Tensor:
    return 0.2 * torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def pattern(period: float, height: int = 64, width: int = 64) -> Tensor:
    row = torch.cos(2 * torch.pi * torch.arange(width) / period)
    return 0.1 * row.expand(2, 3, height, width)


def test_an_image_has_its_own_texture() -> None:
    assert texture_distance(noise(0), noise(0)).tolist() == [0, 0]


def test_texture_may_lie_elsewhere() -> None:
    other = texture_distance(noise(1), noise(0))
    moved = texture_distance(noise(0).roll((5, 3), (2, 3)), noise(0))
    blurred = texture_distance(low_pass(noise(0), 2), noise(0))
    assert (moved < 1.2 * other).all()
    assert (blurred > 4 * other).all(), (blurred, other)


@pytest.mark.parametrize("period", [2.0, 3.4, 4.0])
def test_a_regular_pattern_is_not_the_texture_of_hair(period: float) -> None:
    with_pattern = texture_distance(0.1 * noise(1) + pattern(period), 0.1 * noise(0))
    assert (with_pattern > 1.5 * texture_distance(0.1 * noise(1), 0.1 * noise(0))).all()


def test_each_image_has_its_own_number_whatever_its_shape() -> None:
    image, other = noise(0, 32, 40), noise(1, 32, 40)
    both = texture_distance(image, other)
    assert both.shape == (2,)
    assert both[1] == pytest.approx(float(texture_distance(image[1:], other[1:])))


def test_faint_noise_in_flat_places_does_not_matter() -> None:
    flat = torch.zeros(1, 3, 64, 64)
    assert float(texture_distance(flat + noise(0)[:1] / 100, flat)) < 0.1  # half a level of 255


def test_it_tells_a_network_what_to_draw() -> None:
    drawn = (0.2 * noise(1)).requires_grad_()
    optimizer, wanted = torch.optim.Adam([drawn], 0.01), noise(0)
    before = float(texture_distance(drawn.detach(), wanted).mean())
    for _ in range(30):
        optimizer.zero_grad()
        texture_distance(drawn, wanted).mean().backward()
        optimizer.step()
    assert float(texture_distance(drawn.detach(), wanted).mean()) < before / 2
