"""SwinIR: parity with the published network, any size, and its constants."""

import copy
from dataclasses import replace

import pytest
import torch

from recorded import arrays, fill_module, manifest, picture
from unfade.errors import BadInput
from unfade.nets.swinir import SMALL, SwinIR, SwinIRConfig, drop_rates
from unfade.nets.windows import shift_mask

TINY = SwinIRConfig(img_size=16, embed_dim=24, depths=(2, 2), heads=2, unshuffle=4, upscale=4, drop_path=0.0)
CONSTANTS = ("attn_mask", "relative_position_index")


@pytest.fixture(scope="module")
def net() -> SwinIR:
    return fill_module(SwinIR(TINY)).eval()


@pytest.mark.parametrize(("name", "config"), [("paper", SwinIRConfig()), ("tiny", TINY)])
def test_keys_are_the_published_ones(name: str, config) -> None:
    with torch.device("meta"):
        net = SwinIR(config)
    expected = manifest(f"manifest_swinir_{name}")
    state = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in net.state_dict().items()
    }
    assert state == {key: value[:2] for key, value in expected["keys"].items()}
    assert list(state) == list(expected["keys"])
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


@torch.no_grad()
def test_output_is_the_published_one(net: SwinIR) -> None:
    golden = arrays("swinir_tiny")
    torch.testing.assert_close(net(torch.from_numpy(golden["x"])), torch.from_numpy(golden["out"]), atol=2e-5, rtol=0)


@torch.no_grad()
def test_another_size_gets_its_own_masks(net: SwinIR) -> None:
    face = (picture(96, 64, 12) + 1) / 2
    expected = torch.from_numpy(arrays("swinir_tiny")["out_96x64"])
    torch.testing.assert_close(net(face), expected, atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("stage", ["conv_first", "layer0", "norm"])
def test_stages_are_the_published_ones(net: SwinIR, stage: str) -> None:
    golden, seen = arrays("swinir_tiny"), []
    module = net.layers[0] if stage == "layer0" else net.get_submodule(stage)
    handle = module.register_forward_hook(lambda _m, _x, out: seen.append(out))
    net(torch.from_numpy(golden["x"]))
    handle.remove()
    expected = torch.from_numpy(golden[stage])
    torch.testing.assert_close(seen[0].reshape(expected.shape), expected, atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("size", [(72, 104), (1, 1), (33, 5)])
def test_any_size_comes_back(net: SwinIR, size: tuple[int, ...]) -> None:
    assert net(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))).shape == (1, 3, *size)


@torch.no_grad()
def test_padding_mirrors(net: SwinIR) -> None:
    face = torch.rand(1, 3, 50, 64, generator=torch.Generator().manual_seed(0))
    mirrored = torch.nn.functional.pad(face, (0, 0, 0, 14), mode="reflect")
    assert torch.equal(net(face), net(mirrored)[..., :50, :])


@torch.no_grad()
def test_a_batch_equals_single_images(net: SwinIR) -> None:
    faces = (picture(64, 64, 5, count=3) + 1) / 2
    torch.testing.assert_close(net(faces), torch.cat([net(face[None]) for face in faces]), atol=2e-6, rtol=0)


@torch.no_grad()
def test_autocast_is_close(net: SwinIR) -> None:
    face = torch.from_numpy(arrays("swinir_tiny")["x"])
    with torch.autocast("cpu", torch.bfloat16):
        half = net(face)
    assert half.dtype == torch.float32
    assert (half - net(face)).abs().max() < 0.05


def test_constants_may_be_missing_or_of_another_size(net: SwinIR) -> None:
    state = net.state_dict()
    assert sum(key.endswith("attn_mask") for key in state) == 2
    bare = {key: value for key, value in state.items() if not key.endswith(CONSTANTS)}
    loaded = copy.deepcopy(SwinIR(TINY))
    loaded.load_state_dict(bare)
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    wide = SwinIR(replace(TINY, img_size=32))
    before = dict(state)
    wide.load_state_dict(state)
    assert state == before  # the caller's dictionary is not touched
    assert wide.layers[0].residual_group.blocks[1].attn_mask.shape == (16, 64, 64)


def test_shift_mask_hides_opposite_borders() -> None:
    mask = shift_mask(8, 4, 4)  # two windows below each other; columns meet across the border in both
    assert mask.shape == (2, 16, 16)
    assert mask[0, 0, 1] == 0
    assert mask[0, 0, 2] == -100  # left half and right half of a row
    assert mask[0, 0, 12] == 0  # the first window is whole in height
    assert mask[1, 0, 12] == -100
    assert torch.equal(mask, mask.transpose(1, 2))


def test_stochastic_depth_acts_in_training_only() -> None:
    assert drop_rates(replace(TINY, drop_path=0.3)) == [pytest.approx([0, 0.1]), pytest.approx([0.2, 0.3])]
    face = (picture(64, 64, 5) + 1) / 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fill_module(SwinIR(replace(TINY, drop_path=0.9)))
        assert not torch.equal(net(face), net(face))
        assert torch.equal(net.eval()(face), net(face))


def test_every_parameter_learns(net: SwinIR) -> None:
    net = copy.deepcopy(net).train()
    net(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_small_fits_the_package() -> None:
    with torch.device("meta"):
        net = SwinIR(SMALL)
    assert sum(p.numel() for p in net.parameters()) <= 2_000_000
    assert sum(2 * value.numel() for value in net.state_dict().values()) < 6_000_000  # bytes in float16


@pytest.mark.parametrize("wrong", [{"upscale": 3}, {"heads": 5}, {"img_size": 20}])
def test_impossible_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="must be"):
        replace(TINY, **wrong)
