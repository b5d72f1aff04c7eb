"""The U-Net discriminator: parity with the published one."""

import pytest
import torch

from recorded import arrays, fill_module, manifest, picture
from unfade.nets.discriminator import UNetDiscriminatorSN


@pytest.mark.parametrize(("name", "features"), [("unet_discriminator_sn", 64), ("unet_discriminator_sn_16", 16)])
def test_keys_are_the_published_ones(name: str, features: int) -> None:
    net = UNetDiscriminatorSN(features)
    expected = manifest(f"manifest_{name}")
    state = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in net.state_dict().items()
    }
    assert state == {key: value[:2] for key, value in expected["keys"].items()}
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


@torch.no_grad()
def test_output_is_the_published_one() -> None:
    golden, net = arrays("unet_discriminator_sn"), fill_module(UNetDiscriminatorSN()).train()
    face = picture(512, 512, 31)[:, :, :256, :256]
    first = net(face)
    assert list(first.shape) == golden["pred_train_step1.shape"].tolist()
    stride = int(golden["pred_train_step1.stride"])
    for values, name in ((first, "train_step1"), (net.eval()(face), "eval")):
        expected = torch.from_numpy(golden[f"pred_{name}.vals"])
        torch.testing.assert_close(values.flatten()[::stride], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(net.conv1.weight_u, torch.from_numpy(golden["u_conv1_after"]), atol=1e-5, rtol=0)


def test_power_iteration_stops_in_eval_mode() -> None:
    net, face = UNetDiscriminatorSN(8).eval(), torch.zeros(1, 3, 16, 16)
    before = net.conv1.weight_u.clone()
    net(face)
    assert torch.equal(net.conv1.weight_u, before)
    net.train()(face)
    assert not torch.equal(net.conv1.weight_u, before)


def test_autocast_trains() -> None:
    net = UNetDiscriminatorSN(8)
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.zeros(1, 3, 16, 16)).float().mean().backward()
    assert all(p.grad is not None for p in net.parameters())
