"""LPIPS: parity with the published distance (VGG16 trunk filled from its keys, the published linear heads)."""

import pytest
import torch

from recorded import arrays, fill_module, manifest, picture
from unfade.errors import BadCheckpoint
from unfade.nets.lpips import ALEXNET, LPIPS, lpips_state, trunk_keys


@pytest.fixture(scope="module")
def published() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Stand-ins for the two published files: torchvision's vgg16 and the linear heads."""
    filled = fill_module(LPIPS()).state_dict()
    vgg16 = {theirs: filled[ours] for ours, theirs in trunk_keys().items()} | {"classifier.0.weight": torch.zeros(1)}
    return vgg16, {key: torch.from_numpy(value) for key, value in arrays("lpips_vgg_heads").items()}


@pytest.fixture(scope="module")
def lpips(published: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]) -> LPIPS:
    net = LPIPS()
    net.load_state_dict(lpips_state(*published))
    return net


def test_keys_are_the_published_ones(lpips: LPIPS) -> None:
    expected = manifest("manifest_lpips_vgg")
    state = {key: list(value.shape) for key, value in lpips.state_dict().items()}
    assert state == {key: value[0] for key, value in expected["keys"].items()}
    assert sum(p.numel() for p in lpips.parameters()) == expected["n_params"]


@torch.no_grad()
def test_distances_are_the_published_ones(lpips: LPIPS) -> None:
    golden = {key: torch.from_numpy(arrays("finetune_swinir_step")[key]) for key in ("lq", "gt", "lpips_each")}
    distances = lpips(golden["lq"] * 2 - 1, golden["gt"] * 2 - 1)
    torch.testing.assert_close(distances, golden["lpips_each"], atol=1e-6, rtol=0)


@torch.no_grad()
def test_distances_of_alexnet_are_torchmetrics() -> None:
    """Recorded with torchmetrics' LPIPS, torchvision's AlexNet filled from its keys, and the published heads."""
    golden = arrays("lpips_alex")
    heads = {key.removeprefix("heads."): torch.from_numpy(v) for key, v in golden.items() if key != "distances"}
    net = fill_module(LPIPS(ALEXNET))
    filled = net.state_dict()
    alexnet = {theirs: filled[ours] for ours, theirs in trunk_keys(ALEXNET).items()}
    net.load_state_dict(lpips_state(alexnet, heads, ALEXNET))
    distances = net(picture(64, 64, 1, count=2), picture(64, 64, 2, count=2))
    torch.testing.assert_close(distances, torch.from_numpy(golden["distances"]), atol=1e-6, rtol=0)
    assert distances.min() > 0.02


def test_equal_images_have_no_distance_and_a_finite_gradient(lpips: LPIPS) -> None:
    face = picture(32, 32, 3, count=2).requires_grad_()
    distance = lpips(face, picture(32, 32, 3, count=2))
    assert torch.equal(distance, torch.zeros(2))
    distance.sum().backward()
    assert face.grad is not None
    assert face.grad.isfinite().all()
    assert not any(p.requires_grad for p in lpips.parameters())


def test_a_missing_tensor_is_named(published: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]) -> None:
    vgg16, heads = published
    with pytest.raises(BadCheckpoint, match=r"lin0\.model\.1\.weight"):
        lpips_state(vgg16, {})
    with pytest.raises(BadCheckpoint, match=r"features\.0\.weight"):
        lpips_state({}, heads)
