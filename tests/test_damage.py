"""The estimate of damage: what it is measured against, and that it orders faces rightly."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recorded import picture
from unfade.degradations.camera import CAMERA_PRESETS, camera, draw_camera
from unfade.images.files import read_image
from unfade.images.finding import list_images
from unfade.nets.damage import (
    REGION,
    DamageNet,
    all_statistics,
    inner,
    lost_octaves,
    octaves,
    octaves_drowned_by,
    statistics,
)
from unfade.recipes.adapt_settings import SAMPLES
from unfade.restorers.load import one_step_of_prior


@pytest.fixture(scope="module")
def net() -> DamageNet:
    return one_step_of_prior().damage


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return torch.stack([read_image(path) for path in list_images(SAMPLES / "truth")[:16]])


def test_octaves_add_up_to_the_picture() -> None:
    image = picture(64, 64, 1)
    total = image.mean((2, 3), keepdim=True).expand_as(image)
    for i, detail in enumerate(octaves(image, 6)):
        total = total + detail.repeat_interleave(2**i, 2).repeat_interleave(2**i, 3)
    torch.testing.assert_close(total, image, atol=1e-5, rtol=0)


def test_nothing_is_lost_of_the_truth_and_all_of_nothing() -> None:
    image = picture(64, 64, 2)
    grey = image.mean((2, 3), keepdim=True).expand_as(image)
    assert float(lost_octaves(image, image)) == 0
    assert float(lost_octaves(grey, image)) == pytest.approx(1, abs=1e-4)


def test_halving_loses_exactly_the_finest_octave() -> None:
    image = picture(64, 64, 3)
    halved = image - next(iter(octaves(image)))
    assert float(lost_octaves(halved, image)) == pytest.approx(1 / 5, abs=1e-4)


def test_more_noise_drowns_more() -> None:
    drowned = octaves_drowned_by(torch.tensor([0.0, 0.01, 0.1, 1.0, 100.0]))
    assert drowned[0] == 0
    assert drowned[-1] == 1
    assert bool((drowned.diff() > 0).all())


def test_noise_drowns_as_much_of_real_faces_as_it_says(truth: Tensor) -> None:
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    for deviation in (0.05, 0.2, 0.6):
        found = lost_octaves(truth + deviation * noise, truth).mean()
        assert float(found) == pytest.approx(float(octaves_drowned_by(torch.tensor(deviation))), abs=0.06)


def test_clean_faces_are_taken_for_clean(net: DamageNet, truth: Tensor) -> None:
    assert float(net(truth).median()) < 0.03


def test_the_regions_are_parts_of_the_inner_face_row_by_row() -> None:
    face = inner(picture(128, 128, 4))
    _, regions = all_statistics(face)
    across = face.shape[3] // REGION
    assert regions.shape[:2] == (1, across * face.shape[2] // REGION)
    for number in range(regions.shape[1]):
        top, left = REGION * (number // across), REGION * (number % across)
        torch.testing.assert_close(regions[:, number], statistics(face[..., top : top + REGION, left : left + REGION]))


def test_what_is_around_a_face_does_not_count(net: DamageNet, truth: Tensor) -> None:
    around = damaged(truth, "noise", 2)
    inner(around).copy_(inner(truth))
    assert torch.equal(net(around), net(truth))


@pytest.mark.parametrize("fleck", [-1.0, 1.0])
def test_a_fleck_does_not_hide_a_blurred_face(net: DamageNet, truth: Tensor, fleck: float) -> None:
    blurred = damaged(truth, "blur", 1)
    blurred[..., 30:36, 40:46] = fleck
    assert float(net(blurred).mean()) > 4 * float(net(truth).mean())


@pytest.mark.parametrize("way", ["blur", "noise", "camera"])
def test_stronger_damage_of_one_kind_is_seen_as_stronger(net: DamageNet, truth: Tensor, way: str) -> None:
    found = [float(net(damaged(truth, way, strength)).mean()) for strength in range(3)]
    true = [float(lost_octaves(damaged(truth, way, strength), truth).mean()) for strength in range(3)]
    assert found == sorted(found)
    assert true == sorted(true)
    assert float(net(truth).mean()) < found[0]


def damaged(truth: Tensor, way: str, strength: int) -> Tensor:
    """Three strengths of each way."""
    if way == "blur":
        small = torch.nn.functional.interpolate(truth, scale_factor=1 / 2 ** (strength + 1), mode="area")
        return torch.nn.functional.interpolate(small, size=truth.shape[-2:], mode="bilinear")
    if way == "noise":
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
        return (truth + (0.05, 0.2, 0.5)[strength] * noise).clamp(-1, 1)
    settings = CAMERA_PRESETS[("mild", "moderate", "severe")[strength]]
    rng = np.random.default_rng(0)
    return torch.stack([camera(face, draw_camera(rng, size=128, settings=settings)) for face in truth])


def test_it_depends_on_no_other_face_of_the_batch(net: DamageNet, truth: Tensor) -> None:
    together = net(truth)
    alone = torch.cat([net(face[None]) for face in truth])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
