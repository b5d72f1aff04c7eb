"""The U-Net: parity with guided-diffusion, the published keys, `patch`, and loading from a file."""

import copy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from networks import B32, filled_unet
from recorded import arrays, manifest, noise
from unfade.diffusion.load import load_prior
from unfade.errors import BadCheckpoint, UnknownModel
from unfade.nets.unet import UNet, UNetConfig, timestep_embedding
from unfade.store.checkpoints import save_weights

A64 = UNetConfig(
    size=64, channels=32, channel_mult=(1, 2, 2, 4), res_blocks=(1, 1, 2, 1), attention_sizes=(16, 8), head_channels=32
)
UPDOWN32 = replace(B32, resblock_updown=True)
FFHQ256 = UNetConfig(256, 128, (1, 1, 2, 2, 4, 4), (1,) * 6, (16,), 64, resblock_updown=True)
CONFIGS = {
    "difface_ffhq512_unet": UNetConfig(),
    "dr2_ffhq256_unet": FFHQ256,
    "unet_a64": A64,
    "unet_b32": B32,
    "dr2_unet_b32_updown": UPDOWN32,
}
WITH_ATTENTION = ["input_blocks.3.1", "middle_block.1", "output_blocks.0.1", "output_blocks.1.1"]  # of B32
PARITY = {"atol": 3e-5, "rtol": 0}


def on_meta(config: UNetConfig) -> UNet:
    """The network without its numbers."""
    with torch.device("meta"):
        return UNet(config)


@pytest.fixture(scope="module")
def b32() -> UNet:
    return filled_unet()


@pytest.mark.parametrize("name", CONFIGS)
def test_keys_and_shapes_are_the_published_ones(name: str) -> None:
    state = [[key, list(value.shape), "float32"] for key, value in on_meta(CONFIGS[name]).state_dict().items()]
    assert state == manifest(name)["tensors"]


@pytest.mark.parametrize(("config", "count", "keys"), [(UNetConfig(), 159_788_454, 630), (FFHQ256, 93_563_910, 362)])
def test_parameters_of_the_published_priors(config, count: int, keys) -> None:
    net = on_meta(config)
    assert sum(p.numel() for p in net.parameters()) == count
    assert len(net.state_dict()) == keys


@torch.no_grad()
@pytest.mark.parametrize("name", ["unet_b32", "dr2_unet_b32_updown"])
def test_output_is_the_published_one(name: str) -> None:
    golden = {key: torch.from_numpy(value) for key, value in arrays(name).items()}
    torch.testing.assert_close(filled_unet(CONFIGS[name])(golden["x"], golden["t"]), golden["y"], **PARITY)


@torch.no_grad()
def test_output_with_several_heads_and_levels_is_the_published_one() -> None:
    golden, net = arrays("unet_a64"), filled_unet(A64)
    x, t = noise("unet_a64/x", (4, 3, 64, 64)), torch.from_numpy(golden["t"])
    y = net(x, t)
    torch.testing.assert_close(y[2:], torch.from_numpy(golden["y"]), **PARITY)
    torch.testing.assert_close(y[:2, :, 1::4, 2::4], torch.from_numpy(golden["y_s4_t0_t3"]), **PARITY)
    features = net.encode(x[2:3], net.embed(t[2:3]))
    magnitudes = torch.stack([level.double().abs().mean() for level in features])
    torch.testing.assert_close(magnitudes, torch.from_numpy(golden["input_block_absmean_t599"]), **PARITY)


@torch.no_grad()
def test_a_step_between_two_is_the_published_one(b32: UNet) -> None:
    golden = {key: torch.from_numpy(value) for key, value in arrays("unet_b32").items()}
    torch.testing.assert_close(b32(golden["x"][:1], golden["t_float"]), golden["y_float"], **PARITY)


@pytest.mark.parametrize("width", [32, 33, 128, 320])
def test_timestep_embedding_is_the_published_one(width: int) -> None:
    golden = arrays("timestep_embedding")
    embedding = timestep_embedding(torch.from_numpy(golden["t"]), width)
    # A frequency in float32 is a unit in the last place off on some processors, and t multiplies what is off.
    allowed = 1e-6 + 2**-24 * golden["t"][:, None]
    assert np.all(np.abs(embedding.numpy() - golden[f"dim{width}"]) <= allowed)


@torch.no_grad()
def test_images_of_a_batch_do_not_mix(b32: UNet) -> None:
    x, t = noise("batch", (3, 3, 32, 32)), torch.tensor([5, 300, 999])
    alone = torch.cat([b32(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(b32(x, t), alone, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("learned", "channels"), [(True, 6), (False, 3)])
def test_patches_are_folded_in_and_out(learned: bool, channels: int) -> None:
    net = filled_unet(replace(B32, size=64, patch=2, learned_variance=learned))
    assert net.input_blocks[0][0].weight.shape[1] == 3 * 4
    assert net.out[2].weight.shape[0] == channels * 4
    x = noise("patch", (2, 3, 64, 64))
    t = torch.tensor([0, 999])
    assert net(x, t).shape == (2, channels, 64, 64)
    assert [tuple(level.shape[2:]) for level in net.encode(x, net.embed(t))] == [(32, 32)] * 2 + [(16, 16)] * 2


@torch.no_grad()
def test_the_detail_is_a_correction_that_starts_as_nothing_and_sees_across_blocks() -> None:
    plain = filled_unet(replace(B32, size=64, patch=2))
    net = UNet(replace(plain.config, detail=4))
    net.load_state_dict({**net.state_dict(), **plain.state_dict()})
    x, t = noise("detail", (2, 3, 64, 64)), torch.tensor([0, 999])
    assert torch.equal(net(x, t), plain(x, t))
    net.detail.mix[2].weight.normal_(generator=torch.Generator().manual_seed(0))
    correction = net(x, t) - plain(x, t)
    assert correction.shape == (2, 6, 64, 64)
    assert correction.abs().mean() > 1e-3
    single = x.clone()
    single[0, :, 31, 31] += 1  # in the corner of its block: only a layer at full resolution carries it to the next
    h = torch.zeros(2, 32, 32, 32)
    change = (net.detail(single, h) - net.detail(x, h)).abs().amax((0, 1)) > 0
    assert change.nonzero().min(0).values.tolist() == [29, 29]
    assert change.nonzero().max(0).values.tolist() == [33, 33]


@torch.no_grad()
def test_patches_keep_their_place() -> None:
    net = filled_unet(replace(B32, size=64, patch=2))
    x, t = noise("place", (1, 3, 64, 64)), torch.tensor([100])
    moved = x.clone()
    moved[..., 40:, 40:] += 1
    change = (net.encode(moved, net.embed(t))[0] - net.encode(x, net.embed(t))[0]).abs().sum(1)[0]
    assert change[19:, 19:].min() > 0  # 40 / 2, and one pixel of the 3 x 3 convolution
    change[19:, 19:] = 0
    assert change.max() == 0


@pytest.mark.parametrize("config", [UNetConfig(), FFHQ256, A64, B32, replace(B32, size=64, patch=2)])
def test_level_ends_are_the_last_blocks_of_each_resolution(config) -> None:
    net = on_meta(config)
    x, t = torch.zeros(1, 3, config.size, config.size, device="meta"), torch.zeros(1, device="meta")
    sides = [level.shape[-1] for level in net.encode(x, net.embed(t))]
    last = {side: i for i, side in enumerate(sides)}
    assert config.level_ends == tuple(last.values())
    levels = range(len(config.channel_mult))
    assert list(last) == [(config.size // config.patch) >> level for level in levels]


def test_attention_is_where_the_settings_say() -> None:
    blocks = [name for name, module in on_meta(UNetConfig()).named_modules() if name.endswith("proj_out")]
    assert len(blocks) == 22
    for change, places in (({"attention_sizes": ()}, ["middle_block.1"]), ({"size": 64, "patch": 2}, WITH_ATTENTION)):
        keys = on_meta(replace(B32, **change)).state_dict()  # sides are those of the feature maps, patches folded
        assert [key.removesuffix(".qkv.weight") for key in keys if key.endswith("qkv.weight")] == places


@torch.no_grad()
def test_a_fresh_network_predicts_nothing() -> None:
    assert not UNet(B32)(noise("fresh", (1, 3, 32, 32)), torch.tensor([500])).any()


def test_every_parameter_learns(b32: UNet) -> None:
    net = copy.deepcopy(b32).requires_grad_(True)
    net(noise("learn", (1, 3, 32, 32)), torch.tensor([500])).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


@pytest.mark.parametrize("wrong", [{"res_blocks": (1,)}, {"size": 33}, {"size": 34, "patch": 2}])
def test_impossible_shapes_are_refused(wrong: dict[str, int] | dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"levels|halved"):
        replace(B32, **wrong)


def saved(path: Path, net: UNet, *, architecture: str = "unet", dtype: torch.dtype = torch.float32, **config) -> Path:
    save_weights(path, net, architecture=architecture, config={**asdict(net.config), **config}, dtype=dtype)
    return path


def output(net: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return net(noise("saved", (1, 3, 32, 32)), torch.tensor([40]))


def test_a_prior_is_what_was_saved(tmp_path: Path, b32: UNet) -> None:
    for spec in (saved(tmp_path / "prior.safetensors", b32), tmp_path):  # a file, or the folder of a run
        prior = load_prior(spec)
        assert prior.unet.config == b32.config
        assert prior.size == 32
        assert not prior.unet.training
        assert not any(p.requires_grad for p in prior.parameters())
        assert all(
            torch.equal(ours, saved) for ours, saved in zip(prior.unet.parameters(), b32.parameters(), strict=True)
        )
        torch.testing.assert_close(output(prior.unet), output(b32), atol=1e-5, rtol=0)  # laid out otherwise in memory


def test_a_prior_saved_in_half_precision_is_close(tmp_path: Path, b32: UNet) -> None:
    half = load_prior(saved(tmp_path / "half.safetensors", b32, dtype=torch.float16))
    assert all(p.dtype == torch.float32 for p in half.parameters())
    torch.testing.assert_close(output(half.unet), output(b32), atol=2e-2, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "swinir"}, r"holds a restorer \(swinir\), not a prior"),
        ({"res_blocks": (1, 2)}, "of another architecture"),
        ({"channels": 64}, "of another architecture"),
        ({"colour": 1}, "cannot be built"),
        ({"res_blocks": (1, 2, 3)}, "cannot be built"),
    ],
)
def test_weights_of_another_kind_are_refused(tmp_path: Path, b32: UNet, change, message: str) -> None:
    with pytest.raises(BadCheckpoint, match=f"^{tmp_path}.*{message}"):
        load_prior(saved(tmp_path / "other.safetensors", b32, **change))


def test_damaged_weights_are_refused(tmp_path: Path, b32: UNet) -> None:
    path = saved(tmp_path / "cut.safetensors", b32)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadCheckpoint, match="not a readable safetensors file"):
        load_prior(path)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownModel, match="small-prior"):
        load_prior("no-such-prior")
