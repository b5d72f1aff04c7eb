"""The distance in the features of the prior's encoder."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from networks import B32, filled_unet
from recorded import noise, picture
from unfade.diffusion.features import PriorFeatures
from unfade.errors import BadInput
from unfade.images.filters import low_pass


@pytest.fixture(scope="module")
def features() -> PriorFeatures:
    return PriorFeatures(filled_unet())


@torch.no_grad()
def test_equal_faces_have_no_distance(features: PriorFeatures) -> None:
    face = picture(32, 32, 1, count=2)
    assert torch.equal(features(face, face), torch.zeros(2))


@torch.no_grad()
def test_the_distance_grows_with_the_damage(features: PriorFeatures) -> None:
    face = picture(32, 32, 1, count=2)
    distances = [features(low_pass(face, factor), face) for factor in (2, 4, 16)]
    assert (distances[0] > 0).all()
    assert (distances[1] > distances[0]).all()
    assert (distances[2] > distances[1]).all()
    assert (distances[2] < 4).all()  # of two unit vectors


@torch.no_grad()
def test_it_is_symmetric_and_one_value_per_image(features: PriorFeatures) -> None:
    a, b = picture(32, 32, 1, count=3), picture(32, 32, 5, count=3)
    together = features(a, b)
    assert together.shape == (3,)
    torch.testing.assert_close(features(b, a), together)
    alone = torch.cat([features(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_of_larger_images_a_square_of_the_prior_s_size_is_compared(features: PriorFeatures) -> None:
    moving, image = PriorFeatures(features.unet, shifted=True), picture(64, 80, 1)
    other = image.clone()
    other[..., :20] = 0  # seen from some places only
    with torch.no_grad():
        distances = [float(moving(image, other)) for _ in range(20)]
    assert min(distances) == 0 < max(distances)


def test_gradients_reach_the_first_face_only(features: PriorFeatures) -> None:
    face, target = picture(32, 32, 1).requires_grad_(), picture(32, 32, 2).requires_grad_()
    features(face, target).sum().backward()
    assert torch.isfinite(face.grad).all()
    assert face.grad.abs().max() > 0
    assert target.grad is None
    assert all(p.grad is None for p in features.parameters())


def test_following_the_gradient_brings_faces_nearer(features: PriorFeatures) -> None:
    face, target = picture(32, 32, 1).requires_grad_(), picture(32, 32, 2)
    before = features(face, target).sum()
    (gradient,) = torch.autograd.grad(before, face)
    with torch.no_grad():
        assert features(face - 0.005 * gradient.sign(), target).sum() < before


def test_the_priors_weights_are_frozen() -> None:
    unet = filled_unet().train().requires_grad_(True)
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    features = PriorFeatures(unet)
    assert not unet.training
    assert not any(p.requires_grad for p in features.parameters())
    features(picture(32, 32, 1).requires_grad_(), picture(32, 32, 2)).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())


@torch.no_grad()
def test_the_step_has_an_effect() -> None:
    a, b = picture(32, 32, 1), picture(32, 32, 2)
    assert float(PriorFeatures(filled_unet(), t_model=20)(a, b)) != float(
        PriorFeatures(filled_unet(), t_model=500)(a, b)
    )


@torch.no_grad()
def test_a_prior_on_patches_has_features_too() -> None:
    features = PriorFeatures(filled_unet(replace(B32, size=64, patch=2)))
    assert features(picture(64, 64, 1), picture(64, 64, 2)) > 0


def test_black_and_flat_faces_have_finite_gradients(features: PriorFeatures) -> None:
    face = torch.full((1, 3, 32, 32), -1.0, requires_grad=True)
    features(face, noise("flat", (1, 3, 32, 32))).sum().backward()
    assert torch.isfinite(face.grad).all()


def test_only_a_unet_has_these_features() -> None:
    with pytest.raises(BadInput, match="choose another perceptual term"):
        PriorFeatures(nn.Identity())
