"""ParseNet: parity with the published network, and its small versions."""

import pytest
import torch

from recorded import arrays, fill_module, manifest, picture, subsampled
from unfade.errors import BadInput
from unfade.nets.parsenet import ParseNet, ParseNetConfig

TINY = ParseNetConfig(classes=5, width=4, widest=8, halvings=2, blocks=1)


@pytest.fixture(scope="module")
def published():
    """Both heads of the filled network on the recorded face."""
    net = fill_module(ParseNet()).eval()
    with torch.no_grad():
        features = net.features(picture(512, 512, 11))
        return {"mask_logits": net.out_mask_conv(features), "img": net.out_img_conv(features)}


def test_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = ParseNet()
    expected = manifest("manifest_parsenet")
    state = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in net.state_dict().items()
    }
    assert state == {key: value[:2] for key, value in expected["keys"].items()}
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


@pytest.mark.parametrize("name", ["mask_logits", "img"])
def test_output_is_the_published_one(published, name: str) -> None:
    golden, values = arrays("parsenet"), published[name]
    assert list(values.shape) == golden[f"{name}.shape"].tolist()
    sampled = subsampled(values, golden, name)
    torch.testing.assert_close(sampled, torch.from_numpy(golden[f"{name}.vals"]), atol=5e-4, rtol=0)


def test_classes_are_the_published_ones(published) -> None:
    golden = arrays("parsenet")
    classes = published["mask_logits"].argmax(1)
    sampled = subsampled(classes, golden, "argmax_every_49")
    agree = sampled == torch.from_numpy(golden["argmax_every_49.vals"]).long()
    assert agree.float().mean() >= 0.999
    counts = torch.bincount(classes.flatten(), minlength=19)
    assert (counts - torch.from_numpy(golden["argmax_hist"])).abs().sum() <= 0.001 * classes.numel()


@torch.no_grad()
def test_shapes_of_a_small_network() -> None:
    net, face = fill_module(ParseNet(TINY)).eval(), picture(16, 24, 3, count=2)
    assert net(face).shape == (2, 5, 16, 24)
    assert net.picture(face).shape == face.shape
    assert torch.equal(net.parse(face), net(face).argmax(1))


def test_all_parts_learn() -> None:
    net = ParseNet(TINY)
    face = picture(16, 16, 3, count=2)
    (net(face).square().mean() + net.picture(face).square().mean()).backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("shape", [(1, 3, 18, 16), (1, 3, 16, 4)])
def test_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="multiples of 4 px"):
        ParseNet(TINY)(torch.zeros(shape))
