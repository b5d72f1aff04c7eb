"""GFPGAN v1 clean: parity with the published network, its noise, its parts, and its small versions."""

import pytest
import torch

from recorded import arrays, fill_module, manifest, picture, subsampled
from unfade.errors import BadInput
from unfade.nets.gfpgan import GFPGAN, NOT_IN_FORWARD, GFPGANConfig
from unfade.nets.stylegan import ModulatedConv, steered

TINY = GFPGANConfig(size=16, style_features=8, narrow=1 / 64, mapping_layers=2)


@pytest.fixture(scope="module")
def published():
    """The image, the encoding and what is derived from it, of the filled network on the recorded face."""
    net = fill_module(GFPGAN()).eval()
    seen = []
    net.stylegan_decoder.style_conv1.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        encoding = net.encode(picture(512, 512, 11))
        values = {f"rgb{k}": image for k, image in enumerate(net.pyramid(encoding))}
        values["condition_scale6"] = net.condition_scale[6](encoding.features[6])
        values["style_code"] = encoding.styles.flatten(1)
        values["out"] = net.decode(encoding)
    return values | {"style_conv1": seen[0]}


@pytest.fixture
def tiny():
    return fill_module(GFPGAN(TINY)).eval()


def test_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = GFPGAN()
    expected = manifest("manifest_gfpganv1clean_c2")
    state = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in net.state_dict().items()
    }
    assert state == {key: value[:2] for key, value in expected["keys"].items()}
    assert list(state) == list(expected["keys"])
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("out", 5e-4), ("style_code", 5e-5), ("condition_scale6", 5e-5), ("style_conv1", 5e-5)]
    + [(f"rgb{k}", 5e-5) for k in range(7)],
)
def test_output_is_the_published_one(published, name: str, tolerance: float) -> None:
    golden, values = arrays("gfpganv1clean"), published[name]
    assert list(values.shape) == golden[f"{name}.shape"].tolist()
    sampled = subsampled(values, golden, name)
    torch.testing.assert_close(sampled, torch.from_numpy(golden[f"{name}.vals"]), atol=tolerance, rtol=0)


@torch.no_grad()
def test_noise_is_the_stored_one_unless_given(tiny: GFPGAN) -> None:
    face = picture(16, 16, 3)
    stored = tiny(face)
    assert torch.equal(tiny(face), stored)
    assert torch.equal(tiny(face, noise=tiny.stylegan_decoder.noises()), stored)
    silent = [torch.zeros(1, 1, side, side) for side in tiny.noise_sides]
    assert not torch.allclose(tiny(face, noise=silent), stored, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("k", range(5))
def test_every_noise_map_has_an_effect(tiny: GFPGAN, k) -> None:
    face, noise = picture(16, 16, 3), tiny.stylegan_decoder.noises()
    changed = [map_ + (i == k) for i, map_ in enumerate(noise)]
    assert not torch.allclose(tiny(face, noise=changed), tiny(face), atol=1e-3)


@torch.no_grad()
def test_each_face_of_a_batch_is_restored_alone(tiny: GFPGAN) -> None:
    faces = picture(16, 16, 3, count=3)
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(3, 1, side, side, generator=generator) for side in tiny.noise_sides]
    alone = [tiny(faces[i : i + 1], noise=[map_[i : i + 1] for map_ in noise]) for i in range(3)]
    torch.testing.assert_close(tiny(faces, noise=noise), torch.cat(alone), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_forward_is_decode_of_encode(tiny: GFPGAN) -> None:
    face = picture(16, 16, 3)
    encoding = tiny.encode(face)
    assert torch.equal(tiny(face), tiny.decode(encoding))
    assert encoding.styles.shape == (1, 6, 8)
    assert [image.shape[-1] for image in tiny.pyramid(encoding)] == [8, 16]
    assert [scale.shape for scale, _ in tiny.conditions(encoding)] == [x.shape for x in encoding.features]


def test_unused_parts_are_the_ones_without_a_gradient(tiny: GFPGAN) -> None:
    tiny(picture(16, 16, 3)).square().mean().backward()
    unused = {name for name, p in tiny.named_parameters() if p.grad is None}
    assert unused == {name for name, _ in tiny.named_parameters() if name.startswith(NOT_IN_FORWARD)}


@torch.no_grad()
def test_normalised_convolution_keeps_the_deviation() -> None:
    conv, generator = ModulatedConv(32, 64, 8, kernel=3), torch.Generator().manual_seed(0)
    x = torch.randn(2, 32, 64, 64, generator=generator)
    style = 30 * torch.randn(2, 8, generator=generator)
    assert conv.normalised(x, style)[..., 1:-1, 1:-1].std() == pytest.approx(1, abs=0.05)


@torch.no_grad()
def test_modulation_equals_scaling_each_images_weights() -> None:
    conv, generator = ModulatedConv(3, 5, 4, kernel=3), torch.Generator().manual_seed(0)
    x, style = torch.randn(2, 3, 6, 6, generator=generator), torch.randn(2, 4, generator=generator)
    for i in range(2):
        weight = conv.weight[0] * conv.modulation(style)[i].view(1, 3, 1, 1)
        plain = torch.nn.functional.conv2d(x[i : i + 1], weight, padding=1)
        torch.testing.assert_close(conv(x, style)[i : i + 1], plain)
        weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        plain = torch.nn.functional.conv2d(x[i : i + 1], weight, padding=1)
        torch.testing.assert_close(conv.normalised(x, style)[i : i + 1], plain)


def test_steering_leaves_the_first_half_alone() -> None:
    x = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    result = steered(x, torch.full((2, 3, 4, 4), 2.0), torch.full((2, 3, 4, 4), 0.5))
    assert torch.equal(result[:, :3], x[:, :3])
    assert torch.equal(result[:, 3:], 2 * x[:, 3:] + 0.5)


def test_autocast_trains(tiny: GFPGAN) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        tiny(picture(16, 16, 3)).float().mean().backward()
    assert tiny.conv_body_first.weight.grad.isfinite().all()


@pytest.mark.parametrize("fields", [{"size": 500}, {"size": 4}, {"size": 16, "narrow": 1 / 512}])
def test_impossible_shapes_are_refused(fields) -> None:
    with pytest.raises(BadInput):
        GFPGANConfig(**fields)


def test_another_size_is_refused(tiny: GFPGAN) -> None:
    with pytest.raises(BadInput, match="restores 16 px faces"):
        tiny(torch.zeros(1, 3, 16, 32))


def test_another_number_of_noise_maps_is_refused(tiny: GFPGAN) -> None:
    with pytest.raises(BadInput, match="5 noise maps, not 1"):
        tiny(torch.zeros(1, 3, 16, 16), noise=[torch.zeros(1, 1, 4, 4)])
