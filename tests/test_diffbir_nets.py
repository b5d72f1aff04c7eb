"""The networks of DiffBIR: parity with the published code, the published keys, what zero convolutions mean."""

import pytest
import torch
from torch import Tensor, nn

from recorded import arrays, fill_module, manifest
from tiny_diffbir import TINY, tiny_diffbir
from unfade.nets.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from unfade.nets.diffbir import DiffBIR, DiffBIRConfig
from unfade.nets.latent_unet import ControlNet, LatentUNet, LatentUNetConfig
from unfade.nets.text_encoder import TextEncoder, TextEncoderConfig

PARITY = {"atol": 5e-5, "rtol": 0}
PARTS = {
    "diffbir_head_unet": (lambda: LatentUNet(LatentUNetConfig()), 865_910_724),
    "diffbir_head_controlnet": (lambda: ControlNet(LatentUNetConfig()), 363_153_280),
    "diffbir_head_vae": (lambda: AutoencoderKL(AutoencoderKLConfig()), 83_653_863),
    "diffbir_head_clip": (lambda: nn.ModuleDict({"model": TextEncoder(TextEncoderConfig())}), 354_032_641),
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in arrays("diffbir_v1_tiny_nets").items()}


@pytest.fixture(scope="module")
def tiny() -> DiffBIR:
    return tiny_diffbir()


@pytest.mark.parametrize("name", PARTS)
def test_keys_shapes_and_parameters_are_the_published_ones(name: str) -> None:
    build, count = PARTS[name]
    with torch.device("meta"):
        net = build()
    state = sorted([key, list(value.shape), "float32"] for key, value in net.state_dict().items())
    assert state == sorted(manifest(name)["tensors"])
    assert sum(p.numel() for p in net.parameters()) == count == manifest(name)["n_params"]


def test_the_whole_is_the_published_model_without_its_text_encoder() -> None:
    assert sum(count for _, count in PARTS.values()) == 1_666_750_508
    with torch.device("meta"):
        net = DiffBIR(DiffBIRConfig())
    assert sum(p.numel() for p in net.parameters()) == 1_312_717_867 == 1_666_750_508 - 354_032_641
    published = {key: shape for key, shape, _ in manifest("diffbir_v1_tiny")["tensors"]}
    ours = {key: list(value.shape) for key, value in DiffBIR(TINY).state_dict().items()}
    assert {key: published.get(key) for key in ours if key != "empty_prompt"} == {
        key: shape for key, shape in ours.items() if key != "empty_prompt"
    }


@torch.no_grad()
@pytest.mark.parametrize("t", [0, 500, 999])
def test_noise_with_and_without_control_is_the_published_one(tiny: DiffBIR, golden: dict[str, Tensor], t: int) -> None:
    steps, text = torch.tensor([t]), golden["ctx"]
    control = tiny.control_model(golden["x"], golden["hint"], steps, text)
    means = torch.stack([h.double().abs().mean() for h in control])
    torch.testing.assert_close(means, golden[f"t{t}.control_absmean"], **PARITY)
    torch.testing.assert_close(control[-1], golden[f"t{t}.control_last"], **PARITY)
    unet = tiny.model["diffusion_model"]
    torch.testing.assert_close(unet(golden["x"], steps, text), golden[f"t{t}.eps_nocontrol"], **PARITY)
    torch.testing.assert_close(unet(golden["x"], steps, text, control), golden[f"t{t}.eps"], **PARITY)


@torch.no_grad()
def test_the_autoencoder_is_the_published_one(tiny: DiffBIR, golden: dict[str, Tensor]) -> None:
    mean, log_variance = tiny.first_stage_model.encode(golden["img"])
    torch.testing.assert_close(mean, golden["vae_mean"], **PARITY)
    torch.testing.assert_close(log_variance, golden["vae_logvar"], **PARITY)
    assert torch.equal(tiny.encode(golden["img"])[1], (0.5 * log_variance).exp() * 0.18215)
    torch.testing.assert_close(tiny.first_stage_model.decode(mean), golden["vae_dec_of_mode"], **PARITY)
    torch.testing.assert_close(tiny.picture(tiny.encode(golden["img"])[0]), golden["vae_dec_of_mode"], **PARITY)


@torch.no_grad()
def test_the_hint_is_the_published_one(golden: dict[str, Tensor]) -> None:
    """Recorded with other weights than the autoencoder's, of which the published encoder of the hint is a copy."""
    net = DiffBIR(TINY)
    fill_module(net.first_stage_model, "cond_encoder.")
    torch.testing.assert_close(net.encode(golden["img"])[0], golden["cond_latent"], **PARITY)


@torch.no_grad()
def test_a_fresh_control_changes_nothing_and_a_filled_one_does(tiny: DiffBIR, golden: dict[str, Tensor]) -> None:
    steps, text, unet = torch.tensor([500]), golden["ctx"], tiny.model["diffusion_model"]
    free = unet(golden["x"], steps, text)
    fresh = ControlNet(TINY.unet)(golden["x"], golden["hint"], steps, text)
    assert torch.equal(unet(golden["x"], steps, text, fresh), free)
    assert not torch.equal(tiny(golden["x"], steps, golden["hint"]), tiny(golden["x"], steps, -golden["hint"]))


@torch.no_grad()
def test_each_latent_of_a_batch_is_alone(tiny: DiffBIR, golden: dict[str, Tensor]) -> None:
    z, hint, steps = (torch.cat([a, b]) for a, b in ((golden["x"], -golden["x"]), (golden["hint"], golden["x"]),
                                                     (torch.tensor([3]), torch.tensor([700]))))  # fmt: skip
    together = tiny(z, steps, hint)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], tiny(z[i : i + 1], steps[i : i + 1], hint[i : i + 1]))


def test_a_side_that_its_latent_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="A side of 500 is not 8 times that of its latent"):
        DiffBIRConfig(size=500)
    with pytest.raises(ValueError, match="channel_mult has 4 levels but res_blocks 1"):
        LatentUNetConfig(res_blocks=(1,))


TEXT = TextEncoderConfig(vocabulary=100, length=9, width=64, layers=3, head_channels=16)


@torch.no_grad()
def test_a_token_knows_those_before_it_and_the_last_layer_is_not_used() -> None:
    net = fill_module(TextEncoder(TEXT)).eval()
    tokens = torch.randint(100, (1, 9), generator=torch.Generator().manual_seed(0))
    before = net(tokens)
    tokens[0, 5] += 1
    changed = (net(tokens) != before).any(-1)[0]
    assert changed.tolist() == [False] * 5 + [True] * 4
    empty = net.empty()
    assert torch.equal(empty, net(torch.tensor([[98, 99, *[0] * 7]])))
    nn.init.zeros_(net.transformer.resblocks[2].mlp.c_proj.weight)
    assert torch.equal(net.empty(), empty)


@torch.no_grad()
def test_the_text_encoder_is_a_stack_of_the_usual_layers() -> None:
    net = fill_module(TextEncoder(TEXT)).eval()
    h = net.token_embedding(torch.tensor([[98, 99, *[0] * 7]])) + net.positional_embedding
    for block in net.transformer.resblocks[:-1]:
        usual = nn.TransformerEncoderLayer(64, 4, 256, 0, "gelu", batch_first=True, norm_first=True).eval()
        for theirs, ours in ((usual.self_attn, block.attn), (usual.norm1, block.ln_1), (usual.norm2, block.ln_2),
                             (usual.linear1, block.mlp.c_fc), (usual.linear2, block.mlp.c_proj)):  # fmt: skip
            theirs.load_state_dict(ours.state_dict())
        h = usual(h, nn.Transformer.generate_square_subsequent_mask(9))
    torch.testing.assert_close(net.empty(), net.ln_final(h), atol=1e-5, rtol=0)
