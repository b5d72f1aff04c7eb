"""Filters by rings of the spectrum, and a fitted degradation that is corrected by what a restorer makes of it."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recorded import picture
from unfade.degradations.fitted import FittedDegradation, fit
from unfade.degradations.matching import Curves, at_contrast_of, matched
from unfade.degradations.rings import by_ring, filtered, power, radii, rings_of, spectrum

SIZE, COUNT = 64, 24
STRENGTH = 0.05  # of noise


def faces(first: int) -> Tensor:
    """Pictures whose power falls with frequency."""
    images = torch.cat([picture(SIZE, SIZE, first + i) for i in range(COUNT)])
    falling = torch.tensor([3 / max(1.0, ring) for ring in rings_of(SIZE)]).expand(3, -1)
    texture = torch.randn(images.shape, generator=torch.Generator().manual_seed(first))
    return (0.5 * images + filtered(texture, falling)).clamp(-1, 1)


def noise(like: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(1000 + seed))


def falling_from(ring: float) -> Tensor:
    """Gains of a blur: 1 at the lowest frequencies, a half at `ring`."""
    return torch.tensor([1 / (1 + (r / ring) ** 2) for r in rings_of(SIZE)]).expand(3, -1)


# Rings


def test_gains_of_one_change_nothing_and_others_multiply() -> None:
    images = faces(3)[:2]
    ones = torch.ones(3, len(rings_of(SIZE)))
    assert torch.allclose(filtered(images, ones), images, atol=1e-5)
    assert torch.allclose(filtered(images, 0.5 * ones), 0.5 * images, atol=1e-5)
    assert torch.equal(filtered(images, ones)[1], filtered(images[1], ones))


@pytest.mark.parametrize(("cycles", "gain"), [(4, 0.8), (8, 0.2), (9, 0.6), (10, 1.0)])
def test_gains_are_interpolated_between_rings(cycles: int, gain: float) -> None:
    wave = torch.cos(2 * math.pi * cycles * torch.arange(SIZE) / SIZE).expand(1, 3, SIZE, SIZE)
    gains = torch.tensor([{4: 0.8, 8: 0.2, 10: 1.0, 12: 1.0}.get(int(ring), 0.0) for ring in rings_of(SIZE)]).expand(
        3, -1
    )
    inner = slice(SIZE // 4, -SIZE // 4)  # what is mirrored at the borders is another wave
    assert torch.allclose(filtered(wave, gains)[..., inner], gain * wave[..., inner], atol=0.12)


def test_white_noise_has_the_same_power_in_all_rings() -> None:
    found = by_ring(power(spectrum(noise(torch.empty(200, 3, SIZE, SIZE)))))[:, 1:]
    assert torch.allclose(found, torch.full_like(found, SIZE**2), rtol=0.12)


def test_radii_are_cycles_per_picture() -> None:
    found = radii(SIZE)
    assert (found[0, 0], found[0, 5], found[3, 4], found[-3, 4]) == (0, 5, 5, 5)
    assert rings_of(SIZE)[-1] >= found.max()


# Matching


def test_curves_of_photos_that_came_back_as_they_were() -> None:
    photos = faces(5)
    found = Curves.of(photos, photos)
    assert torch.allclose(found.response, torch.ones_like(found.response))
    assert found.rest.max() < 1e-6


def test_curves_find_a_blur_and_its_noise() -> None:
    true, blurred = faces(5), filtered(faces(5), falling_from(6))
    found = Curves.of(blurred + 0.1 * noise(true), true)
    assert torch.allclose(found.response[:, 1:9], falling_from(6)[:, 1:9].double(), atol=0.1)
    assert found.rest[:, 3:].mean() == pytest.approx(0.01 * SIZE**2, rel=0.1)


def test_clean_faces_get_the_contrast_of_the_results() -> None:
    clean = faces(7) * 0.5 + 0.2
    found = at_contrast_of((clean - 0.2) * 1.4, clean)
    assert torch.allclose(found.mean((2, 3)), clean.mean((2, 3)), atol=0.02)
    assert float(found.std((2, 3)).mean() / clean.std((2, 3)).mean()) == pytest.approx(1.4, rel=0.02)


def credulous(photos: Tensor) -> Tensor:
    """A restorer that knows every face, and takes a part of the damage for the face."""
    known = torch.cat([faces(1), faces(101)])
    truth = known[torch.cdist(photos.flatten(1), known.flatten(1)).argmin(1)]
    return (truth + 0.3 * (photos - truth)).clamp(-1, 1)


def mild(photos: Tensor) -> FittedDegradation:
    """White noise of half the strength, and no blur."""
    point = torch.zeros(len(photos), 3, 3, 3)
    point[..., 1, 1] = 1
    return FittedDegradation(point, noise(photos, 3), torch.full((8,), STRENGTH / 2))


def photos_of(truth: Tensor, seed: int) -> Tensor:
    return filtered(truth, falling_from(16)) + STRENGTH * noise(truth, seed)


def test_blur_and_noise_that_a_restorer_takes_for_the_face_are_given_back() -> None:
    photos, truth = photos_of(faces(1), 1), faces(101)
    corrected = matched(mild(photos), photos, truth, credulous)
    errors, wanted = [], Curves.of(photos_of(truth, 7), truth)
    for degradation in (mild(photos), corrected):
        rng = np.random.default_rng(0)
        found = Curves.of(torch.stack([degradation.damaged(face, rng) for face in truth]), truth)
        both = [(found.response, wanted.response), (found.rest, wanted.rest)]
        errors.append([float((a / b)[:, 3:12].log().abs().mean()) for a, b in both])
    assert errors[1][0] < 0.5 * errors[0][0]
    assert errors[1][1] < 0.4 * errors[0][1]
    again = matched(mild(photos), photos, truth, credulous)
    assert torch.equal(again.noise, corrected.noise)


def test_photos_without_damage_stay_without() -> None:
    clean = faces(9)
    found = matched(fit(clean, clean), clean, faces(30), lambda images: images)
    made = torch.stack([found.damaged(face, np.random.default_rng(0)) for face in clean])
    assert (made - clean).abs().mean() < 0.03
