"""StyleGAN2's discriminator: the published keys, and identities of its parts.

There is no golden output of the published network, only its manifest: that the arithmetic is the paper's is shown by
the identities below and by the network written out once more in plain operations.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from recorded import fill_module, manifest, picture
from unfade.errors import BadInput
from unfade.nets.stylegan_discriminator import (
    ActiveLinear,
    BiasedActivation,
    Blur,
    EqualConv,
    EqualLinear,
    ResBlock,
    StyleGANDiscriminator,
    StyleGANDiscriminatorConfig,
    with_deviation,
)
from unfade.zoo.architectures import ARCHITECTURES, shapes

SMALL = StyleGANDiscriminatorConfig(size=16, narrow=1 / 64)


def filled(config=SMALL):
    """Weights from their keys, at the unit variance that the equalised learning rate expects."""
    net = fill_module(StyleGANDiscriminator(config))
    for key, value in net.named_parameters():
        if key.endswith("weight"):
            value.data *= math.sqrt(value[0].numel())
    return net


def test_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = StyleGANDiscriminator()
    expected = manifest("manifest_stylegan2_discriminator_512_c1")
    state = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in net.state_dict().items()
    }
    assert state == {key: value[:2] for key, value in expected["keys"].items()}
    assert list(state) == list(expected["keys"])
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


@pytest.mark.parametrize(
    "config",
    [StyleGANDiscriminatorConfig(), SMALL]
    + [StyleGANDiscriminatorConfig(size, multiplier) for size in (64, 256, 1024) for multiplier in (1, 2)],
)
def test_its_shape_follows_from_its_tensors(config) -> None:
    with torch.device("meta"):
        state = StyleGANDiscriminator(config).state_dict()
    known = ARCHITECTURES["stylegan2-discriminator"]
    assert [name for name, other in ARCHITECTURES.items() if all(mark in state for mark in other.marks)] == [
        "stylegan2-discriminator"
    ]
    [found] = known.configs(state)
    assert StyleGANDiscriminatorConfig(**found) == config
    assert {k: v.shape for k, v in shapes(known, found).items()} == {k: v.shape for k, v in state.items()}


@torch.no_grad()
def test_it_is_the_network_of_the_paper() -> None:
    """Once more from Fig. 7 and App. B, with nothing of the module but its tensors."""
    net, image = filled(), picture(16, 16, 5, 4)
    w = net.state_dict()
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8

    def conv(x, key: str, **how):
        return F.conv2d(x, w[key] / math.sqrt(w[key][0].numel()), **how)

    def act(x, key: str):
        return math.sqrt(2) * F.leaky_relu(x + w[key].reshape(-1, *[1] * (x.ndim - 2)), 0.2)

    def blur(x, pad):
        rows = sum(
            tap * F.pad(x, (0, 0, pad, pad))[:, :, k : x.shape[2] + 2 * pad - 3 + k] for k, tap in enumerate(taps)
        )
        return sum(tap * F.pad(rows, (pad, pad))[..., k : x.shape[3] + 2 * pad - 3 + k] for k, tap in enumerate(taps))

    x = act(conv(image, "conv_body.0.0.weight"), "conv_body.0.1.bias")
    for k in (1, 2):
        name = f"conv_body.{k}."
        main = act(conv(x, name + "conv1.0.weight", padding=1), name + "conv1.1.bias")
        main = act(conv(blur(main, 2), name + "conv2.1.weight", stride=2), name + "conv2.2.bias")
        x = (main + conv(blur(x, 1), name + "skip.1.weight", stride=2)) / math.sqrt(2)
    deviation = (x.var(0, correction=0) + 1e-8).sqrt().mean()
    x = act(conv(F.pad(x, (0, 0, 0, 0, 0, 1), value=float(deviation)), "final_conv.0.weight", padding=1),
            "final_conv.1.bias")  # fmt: skip
    x = x.flatten(1) @ w["final_linear.0.weight"].T / math.sqrt(w["final_linear.0.weight"].shape[1])
    x = act(x, "final_linear.0.bias") @ w["final_linear.1.weight"].T / math.sqrt(8) + w["final_linear.1.bias"]
    torch.testing.assert_close(net(image), x, atol=1e-5, rtol=1e-5)
    assert x.std() > 1e-3, "the images are told apart"


@torch.no_grad()
@pytest.mark.parametrize("size", [8, 16, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_one_logit_for_each_image(size: int, count: int) -> None:
    net = StyleGANDiscriminator(StyleGANDiscriminatorConfig(size=size, narrow=1 / 64))
    assert net(picture(size, size, 1, count)).shape == (count, 1)


def test_weights_are_scaled_by_their_inputs() -> None:
    conv, linear = EqualConv(6, 4, 3), EqualLinear(6, 4)
    x = picture(8, 8, 1, 2).repeat(1, 2, 1, 1)
    torch.testing.assert_close(conv(x) * math.sqrt(6 * 9), F.conv2d(x, conv.weight, padding=1), atol=1e-5, rtol=1e-5)
    torch.nn.init.ones_(linear.bias)
    torch.testing.assert_close((linear(x[:, :, 0, 0]) - 1) * math.sqrt(6), x[:, :, 0, 0] @ linear.weight.T)
    assert 0.8 < EqualConv(64, 64, 3).weight.std() < 1.2, "stored at unit variance, whatever the layer's width"


def test_every_layer_keeps_the_power_of_its_input() -> None:
    x = torch.randn(2, 64, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    for layer in (torch.nn.Sequential(EqualConv(64, 64, 3), BiasedActivation(64)), ActiveLinear(32, 256)):
        assert 0.85 < layer(x).square().mean().sqrt() / x.square().mean().sqrt() < 1.15
    assert 0.3 < ResBlock(64, 64)(x).square().mean().sqrt() < 1.15, "the blur takes white noise away, not the block"


def test_activation_adds_its_bias_first() -> None:
    layer = BiasedActivation(2)
    layer.bias.data = torch.tensor([1.0, -3.0])
    values = layer(torch.full((1, 2, 1, 1), 2.0)).flatten() / math.sqrt(2)
    torch.testing.assert_close(values, torch.tensor([3.0, -0.2]))


def test_blur_keeps_constants_inside_and_pads_zeros() -> None:
    blurred = Blur(padding=2)(torch.full((2, 5, 8, 8), 0.7))
    assert blurred.shape == (2, 5, 9, 9)
    torch.testing.assert_close(blurred[:, :, 2:-2, 2:-2], torch.full((2, 5, 5, 5), 0.7))
    torch.testing.assert_close(blurred[0, 0, 4, :2], torch.tensor([0.35, 0.6125]))  # 4 / 8 and 7 / 8 of it


def test_blur_of_a_point_is_the_binomial_kernel() -> None:
    point = torch.zeros(1, 2, 7, 7)
    point[0, 1, 3, 3] = 64
    blurred = Blur(padding=2)(point)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    torch.testing.assert_close(blurred[0, 1, 2:6, 2:6], torch.outer(taps, taps))
    assert not blurred[0, 0].any(), "channels stay apart"
    assert blurred.sum() == 64


def test_blur_with_a_stride_is_every_other_pixel() -> None:
    x = picture(8, 8, 2)
    torch.testing.assert_close(Blur(padding=1, stride=2)(x), Blur(padding=1)(x)[..., ::2, ::2])


@torch.no_grad()
def test_neither_way_of_a_block_shifts_the_picture() -> None:
    """A mirrored picture under mirrored weights gives the mirrored result, of both ways and of their sum."""
    block, face = ResBlock(3, 4), picture(16, 16, 3)
    expected = [part(face).flip(-1) for part in (block, block.skip, block.conv2)]
    for layer in (block.conv1[0], block.conv2[1]):
        layer.weight.copy_(layer.weight.flip(-1))
    for part, values in zip((block, block.skip, block.conv2), expected, strict=True):
        torch.testing.assert_close(part(face.flip(-1)), values, atol=1e-5, rtol=1e-5)


def test_deviation_by_hand() -> None:
    x = torch.zeros(2, 2, 1, 2)
    x[0, 0], x[1, 0] = torch.tensor([[1.0, 5.0]]), torch.tensor([[3.0, 5.0]])
    x[1, 1] = torch.tensor([[0.0, 8.0]])
    out = with_deviation(x, 4)  # deviations 1, 0 in the first channel, 0, 4 in the second
    assert torch.equal(out[:, :2], x)
    torch.testing.assert_close(out[:, 2], torch.full((2, 1, 2), 1.25), atol=1e-4, rtol=0)


def test_every_second_of_eight_images_is_one_group() -> None:
    x = torch.zeros(8, 1, 1, 1)
    x[[0, 2], :] = 4.0  # of images 0, 2, 4, 6: deviation 2
    deviations = with_deviation(x, 4)[:, 1].flatten()
    torch.testing.assert_close(deviations, torch.tensor([2.0, 1e-4] * 4), atol=1e-6, rtol=1e-6)


def test_one_image_has_no_deviation() -> None:
    x = picture(4, 4, 1).requires_grad_()
    out = with_deviation(x, 4)
    torch.testing.assert_close(out[:, 3], torch.full((1, 4, 4), 1e-4))
    out.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("count", [5, 6, 7, 9])
def test_batches_that_do_not_divide_are_refused(count: int) -> None:
    with pytest.raises(BadInput, match=f"multiple of 4, not {count}"):
        filled()(torch.zeros(count, 3, 16, 16))


def test_images_meet_only_in_the_standard_deviation() -> None:
    net, faces = filled(), picture(16, 16, 1, 8).requires_grad_()
    [reach] = torch.autograd.grad(net(faces)[0].sum(), faces)
    touched = reach.flatten(1).abs().amax(1) > 0
    assert touched.tolist() == [True, False] * 4, "those of its group"
    alone = StyleGANDiscriminator(StyleGANDiscriminatorConfig(size=16, narrow=1 / 64, group=1))
    alone.load_state_dict(net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(alone(faces), torch.cat([alone(face) for face in faces.split(1)]))
        assert not torch.allclose(alone(faces), net(faces), atol=1e-4), "the group has an effect"


def test_every_parameter_learns() -> None:
    net, faces = filled(), picture(16, 16, 1, 4)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    F.softplus(-net(faces)).mean().backward()
    optimizer.step()
    assert [key for key, value in net.state_dict().items() if torch.equal(value, before[key])] == []


def test_gradient_penalty_reaches_the_weights() -> None:
    """R1 (App. B) differentiates the gradient once more; the last bias alone is not in it."""
    net, faces = filled(), picture(16, 16, 1, 4).requires_grad_()
    [gradient] = torch.autograd.grad(net(faces).sum(), faces, create_graph=True)
    gradient.square().sum((1, 2, 3)).mean().backward()
    without = [key for key, p in net.named_parameters() if key.endswith("weight") and not p.grad.abs().sum() > 0]
    assert without == []


def test_autocast_trains() -> None:
    net = filled()
    with torch.autocast("cpu", torch.bfloat16):
        net(picture(16, 16, 1, 4)).float().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("setting", [{"size": 12}, {"size": 4}, {"narrow": 1 / 1024}, {"group": 0}])
def test_impossible_shapes_are_refused(setting: str) -> None:
    with pytest.raises(BadInput):
        StyleGANDiscriminatorConfig(**setting)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 1, 16, 16), (3, 16, 16)])
def test_other_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="judges"):
        filled()(torch.zeros(shape))
