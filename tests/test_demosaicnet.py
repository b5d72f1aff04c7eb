"""The learned demosaicing: the network's layout, its border, and exactness with the published weights."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recorded import arrays, fill_module, picture
from unfade.degradations import demosaic
from unfade.degradations.camera import CameraSettings, camera, draw_camera
from unfade.degradations.demosaic import DEMOSAIC, measured
from unfade.nets.demosaicnet import BayerDemosaicNet
from unfade.store.checkpoints import read_card
from unfade.zoo.models import MODELS, path_of

PUBLISHED_BYTES = 2_251_181


def tiny(seed: str = "") -> BayerDemosaicNet:
    return fill_module(BayerDemosaicNet(depth=2, width=6), seed).eval().requires_grad_(False)


def interpolating(network: BayerDemosaicNet) -> BayerDemosaicNet:
    """The same network, its residual switched off, its last layers the bilinear interpolation of each colour."""
    state = {key: torch.zeros_like(value) for key, value in network.state_dict().items()}
    green = torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    others = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    for channel, kernel in enumerate((others, green, others)):
        state["fullres_processor.post_conv.weight"][channel, channel] = kernel
        state["fullres_processor.output.weight"][channel, channel] = 1
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def mosaic_of(height: int, width: int, seed: int = 1) -> np.ndarray:
    return picture(height, width, seed)[0].mean(0).add(1).div(2).numpy()


def as_planes(mosaic: np.ndarray) -> Tensor:
    return torch.from_numpy(measured(mosaic)).permute(2, 0, 1)[None]


# The network


def test_the_numbers_fit_the_published_file(tmp_path: Path) -> None:
    state = BayerDemosaicNet().state_dict()
    count = sum(value.numel() for value in state.values())
    assert count == 560_886
    torch.save(state, tmp_path / "bayer.pth", _use_new_zipfile_serialization=False)
    assert abs((tmp_path / "bayer.pth").stat().st_size - PUBLISHED_BYTES) < 0.1 / 100 * PUBLISHED_BYTES
    shapes = {key: tuple(value.shape) for key, value in state.items() if key.endswith("weight")}
    assert len(state) == 2 * len(shapes) == 40
    assert shapes["main_processor.pack_mosaic.weight"] == (4, 3, 2, 2)
    assert shapes["main_processor.conv1.weight"] == (64, 4, 3, 3)
    assert shapes["main_processor.conv14.weight"] == (64, 64, 3, 3)
    assert shapes["main_processor.conv15.weight"] == (128, 64, 3, 3)
    assert shapes["residual_predictor.weight"] == (12, 64, 1, 1)
    assert shapes["upsampler.weight"] == (12, 1, 2, 2)
    assert shapes["fullres_processor.post_conv.weight"] == (64, 6, 3, 3)
    assert shapes["fullres_processor.output.weight"] == (3, 64, 1, 1)


def test_the_forward_pass_is_the_paper_s_step_by_step() -> None:
    network = tiny()
    state = network.state_dict()

    def layer(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    mosaic = as_planes(mosaic_of(20, 24))
    x = F.conv2d(mosaic, *layer("main_processor.pack_mosaic"), stride=2)  # four planes of half size
    x = F.relu(F.conv2d(x, *layer("main_processor.conv1"), padding=1))
    x = F.relu(F.conv2d(x, *layer("main_processor.conv2"), padding=1))
    residual = F.conv2d(x[:, :6] * x[:, 6:], *layer("residual_predictor"))
    upsampled = F.conv_transpose2d(residual, *layer("upsampler"), stride=2, groups=3)
    x = torch.cat([mosaic, upsampled], dim=1)
    x = F.relu(F.conv2d(x, *layer("fullres_processor.post_conv"), padding=1))
    expected = F.conv2d(x, *layer("fullres_processor.output"))
    assert torch.equal(network(mosaic), expected)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (17, 9), (16, 15)])
def test_odd_sides_are_continued_by_their_mirror_image(shape: tuple[int, int]) -> None:
    network, mosaic = tiny(), mosaic_of(*shape)
    whole = np.pad(mosaic, [(0, side % 2) for side in shape], mode="reflect")
    assert torch.equal(network(as_planes(mosaic)), network(as_planes(whole))[..., : shape[0], : shape[1]])


@pytest.mark.parametrize("shape", [(16, 16), (17, 16), (16, 15), (31, 17)])
def test_a_network_that_interpolates_is_the_bilinear_one(shape: tuple[int, int]) -> None:
    mosaic = mosaic_of(*shape)
    for network in (interpolating(BayerDemosaicNet(depth=2, width=6)), interpolating(BayerDemosaicNet(depth=3))):
        rgb = network(as_planes(mosaic))[0].permute(1, 2, 0).numpy()
        inside = np.s_[1:-1, 1:-1]  # at the border it sees zeros
        np.testing.assert_allclose(rgb[inside], DEMOSAIC["bilinear"](mosaic)[inside], rtol=0, atol=1e-6)


def test_a_shift_by_whole_tiles_shifts_the_result() -> None:
    network, mosaic = tiny(), as_planes(mosaic_of(40, 40))
    shifted = network(mosaic[..., 2:, 4:])
    torch.testing.assert_close(shifted[..., 6:-6, 6:-6], network(mosaic)[..., 8:-6, 10:-6], atol=1e-6, rtol=0)


def test_a_batch_is_its_pictures() -> None:
    network = tiny()
    mosaics = torch.cat([as_planes(mosaic_of(11, 14, seed)) for seed in range(3)])
    alone = torch.cat([network(one[None]) for one in mosaics])
    torch.testing.assert_close(network(mosaics), alone, atol=1e-6, rtol=0)


# Its weights


def test_the_published_weights_give_the_recorded_picture() -> None:
    """What the authors' own pipeline gave with the published file, border included."""
    golden = arrays("camera_iso3000_x4")
    rgb = DEMOSAIC["learned"](golden["mosaic_rgb"].sum(axis=2))
    assert (rgb.dtype, rgb.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_allclose(rgb, golden["demosaicnet_rgb"], rtol=0, atol=1e-6)


def test_the_recorded_pictures_have_our_pattern() -> None:
    planes = arrays("camera_iso3000_x4")["mosaic_rgb"]
    assert np.array_equal(measured(planes.sum(axis=2)), planes)


def test_the_card_names_the_published_file() -> None:
    card = read_card(path_of(MODELS["demosaic-bayer"]))
    assert card["licence"] == MODELS["demosaic-bayer"].licence == "MIT"
    assert (card["source_sha256"][:8], card["source_sha256"][-7:]) == ("a90f45c3", "21ff7d8")


def test_results_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    network = interpolating(BayerDemosaicNet())
    network.fullres_processor.output.bias.fill_(0.5)
    network.fullres_processor.output.weight.mul_(2)
    monkeypatch.setattr(demosaic, "_network", lambda: network)
    mosaic, inside = mosaic_of(12, 12), np.s_[1:-1, 1:-1]
    expected = (2 * DEMOSAIC["bilinear"](mosaic) + 0.5).clip(0, 1)
    np.testing.assert_allclose(DEMOSAIC["learned"](mosaic)[inside], expected[inside], rtol=0, atol=1e-6)


def photo(settings: CameraSettings) -> Tensor:
    draw = draw_camera(np.random.default_rng(0), size=64, settings=settings)
    return camera(picture(64, 64, 3)[0], draw)


def test_the_camera_uses_it_in_other_processes_too() -> None:
    here = photo(CameraSettings(demosaic="learned"))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        there = pool.submit(photo, CameraSettings(demosaic="learned")).result()
    torch.testing.assert_close(there, here, atol=1.01 / 127.5, rtol=0)  # sums depend on the number of threads
    assert not torch.equal(here, photo(CameraSettings()))
