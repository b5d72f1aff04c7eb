"""The landmark network: keys, heat maps and distances."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from recorded import arrays, fill_module, manifest, picture
from unfade.evaluation.evaluate import LOADED
from unfade.metrics.landmarks import LandmarkDistance, decode
from unfade.nets.fan import FAN, FANConfig
from unfade.store.checkpoints import save_weights


@pytest.fixture(scope="module")
def net() -> FAN:
    """Five points and two hourglasses, so that the second sees the first one's boundary."""
    return fill_module(FAN(FANConfig(landmarks=5, hourglasses=2))).eval()


def test_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = FAN().state_dict()
    assert sorted([key, list(value.shape)] for key, value in state.items()) == sorted(
        manifest("fan_manifest")["tensors"]
    )


@torch.no_grad()
def test_maps_are_those_of_facexlib(net: FAN) -> None:
    """Recorded with facexlib 0.3.0, filled from its keys; the maps reach 59."""
    maps = net((picture(256, 256, 1) + 1) / 2)
    assert maps.shape == (1, 5, 64, 64)
    expected = torch.from_numpy(arrays("fan")["maps"])
    torch.testing.assert_close(maps[:, :, 3::8, 5::8], expected, atol=2e-4, rtol=0)


def test_the_boundary_of_the_hourglass_before_matters(net: FAN) -> None:
    x, maps = torch.rand(1, 256, 64, 64), torch.rand(1, 6, 64, 64)
    second = net.get_submodule("m1")
    with torch.no_grad():
        seen = second(x, maps)
        assert torch.equal(second(x, torch.cat([0 * maps[:, :-1], maps[:, -1:]], 1)), seen)
        assert not torch.equal(second(x, -maps), seen)


def test_a_face_that_moves_by_a_pixel_of_the_map_has_moved_by_eight() -> None:
    class Still(FAN):
        def __init__(self) -> None:
            super().__init__(FANConfig(landmarks=1, hourglasses=1, depth=1))

        def forward(self, face: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(face[:, :1], 4)

    one, other = torch.full((2, 1, 3, 512, 512), -1.0)
    one[..., 80:88, 80:88], other[..., 80:88, 104:112] = 1, 1
    distance = LandmarkDistance(Still())(one, other)
    torch.testing.assert_close(distance, torch.tensor([24.0], dtype=torch.float64))


def test_it_is_a_metric_once_its_weights_are_there(net: FAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    weights = tmp_path / "awing-fan.safetensors"
    save_weights(weights, net, architecture="awing-fan", config=asdict(net.config), dtype=torch.float32)
    score = LOADED["lmd"]("cpu")
    one, other = picture(128, 128, 1), picture(128, 128, 2)
    assert score(one, one).item() == 0
    expected = (decode(net(seen(one))) - decode(net(seen(other)))).norm(dim=2).mean() * 8
    torch.testing.assert_close(score(one, other)[0], expected)


def seen(face: torch.Tensor) -> torch.Tensor:
    levels = ((face + 1) * 127.5).round()
    return (torch.nn.functional.interpolate(levels, (256, 256), mode="bilinear") + 0.5).floor() / 255
