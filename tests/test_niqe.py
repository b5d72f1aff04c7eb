"""NIQE: recorded features and scores, and how noise and blur change them.

The golden numbers are those of pyiqa 0.1.7 in float64 (`niqe`, and `compute_feature` of three blocks of numpy's
default generator with seed 0, the second times its size), with the pristine parameters that come with unfade.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from recorded import arrays, picture
from unfade.errors import BadInput
from unfade.images.files import read_image
from unfade.images.finding import list_images
from unfade.metrics.no_reference import FEATURES, Niqe, asymmetric_gaussian, block_features, normalised, shape_features
from unfade.recipes.adapt_settings import SAMPLES
from unfade.store.checkpoints import read_card, read_weights
from unfade.zoo.load import load_network
from unfade.zoo.models import MODELS, path_of

GOLDEN = arrays("niqe")


@pytest.fixture(scope="module")
def niqe() -> Niqe:
    network = load_network("niqe-pristine", "quality").network
    assert isinstance(network, Niqe)
    return network


@pytest.fixture(scope="module")
def faces() -> Tensor:
    return torch.stack([read_image(path) for path in list_images(SAMPLES / "truth")[:12]])


@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "features"])
def test_scores_are_those_of_pyiqa(niqe: Niqe, name: str) -> None:
    size, seed = name.split(".")
    height, width = map(int, size.split("x"))
    assert niqe(picture(height, width, int(seed))).item() == pytest.approx(GOLDEN[name].item(), abs=5e-5)


def test_features_are_those_of_pyiqa() -> None:
    blocks = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 1, 96, 96)))
    blocks[1] *= blocks[1].abs()
    torch.testing.assert_close(
        shape_features(blocks, 96)[:, 0], torch.from_numpy(GOLDEN["features"]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("shape", "scale"), [(1.0, 0.5), (2.0, 2**0.5)])
def test_known_distributions_are_recognised(shape: float, scale: float) -> None:
    """Laplace's has shape 1, the normal distribution shape 2; half of each side is scaled by hand."""
    rng = np.random.default_rng(1)
    draw = rng.laplace(scale=0.5, size=(1, 800, 800)) if shape == 1 else rng.standard_normal((1, 800, 800))
    found, left, right = asymmetric_gaussian(torch.from_numpy(draw))
    assert [found.item(), left.item(), right.item()] == pytest.approx([shape, scale, scale], rel=0.01)
    _, left, right = asymmetric_gaussian(torch.from_numpy(np.where(draw < 0, draw * 3, draw)))
    assert (left / right).item() == pytest.approx(3, rel=0.01)


def test_pictures_are_normalised_locally() -> None:
    flat = torch.full((1, 1, 20, 20), 77.0, dtype=torch.float64)
    assert normalised(flat).abs().max() < 1e-6
    noise = torch.from_numpy(np.random.default_rng(2).normal(100, 40, (1, 1, 96, 96)))
    torch.testing.assert_close(normalised(noise + 30), normalised(noise), atol=1e-9, rtol=0)
    assert 0.8 < normalised(noise).std() < 1  # the window holds the pixel itself


def test_it_grows_with_noise_and_with_blur(niqe: Niqe, faces: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(faces.shape, generator=generator)
    noisy = [niqe(faces + amount * noise).mean().item() for amount in (0, 0.1, 0.2, 0.4)]
    assert noisy == sorted(noisy)
    blurred = [niqe(torch.nn.functional.avg_pool2d(faces, k, 1, k // 2)).mean().item() for k in (1, 3, 5, 7)]
    assert blurred == sorted(blurred)


def test_a_batch_is_its_pictures(niqe: Niqe) -> None:
    batch = picture(200, 300, 5, count=3)
    assert block_features(batch).shape == (3, 6, FEATURES)
    torch.testing.assert_close(niqe(batch), torch.cat([niqe(one[None]) for one in batch]))


def test_only_whole_blocks_are_looked_at_and_flat_ones_left_out(niqe: Niqe) -> None:
    image = picture(200, 200, 5)
    changed = image.clone()
    changed[..., 192 + 3 :, :] = 0  # beyond the window of the last pixel of a block
    assert niqe(changed).item() == niqe(image).item()
    image[..., :96, :96] = 0.5
    assert niqe(image).isfinite()
    assert niqe(torch.zeros(1, 3, 96, 96)).isnan()


def test_nothing_is_left_on_another_device() -> None:
    luma = torch.zeros(2, 1, 192, 96, device="meta", dtype=torch.float64)
    assert shape_features(normalised(luma), 96).shape == (2, 2, FEATURES // 2)


def test_small_pictures_are_refused(niqe: Niqe) -> None:
    with pytest.raises(BadInput, match="blocks of 96 x 96 pixels, but this picture has 200 x 95"):
        niqe(torch.zeros(1, 3, 95, 200))


def test_its_numbers_come_along_in_full_precision() -> None:
    state = read_weights(path_of(MODELS["niqe-pristine"])).state
    assert {value.dtype for value in state.values()} == {torch.float64}
    assert torch.linalg.eigvalsh(state["covariance"]).min() > 0
    assert state["mean"][0].item() == pytest.approx(2.60131368)
    card = read_card(path_of(MODELS["niqe-pristine"]))
    assert card["licence"] == MODELS["niqe-pristine"].licence == "LIVE"
