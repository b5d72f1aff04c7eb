"""VQFR: parity with the published network, what fidelity and bending mean, and its small versions."""

import os
import sys
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recorded import arrays, fill_module, manifest, picture, subsampled
from unfade.errors import BadInput, UnfadeError
from unfade.nets import vqfr
from unfade.nets.vqfr import NOT_IN_FORWARD, VQFR, DeformableConv, Encoder, ResBlock, VQFRConfig, names
from unfade.nets.vqgan import ResBlock as ResBlockOfVQGAN

TINY = VQFRConfig(
    size=32, channels=32, channel_mult=(1, 2, 2), res_blocks=1, codes=16, code_channels=8, input_channels=4
)
FACE = picture(32, 32, 3)


def torchvision_works() -> bool:
    """Whether there is one, and one built for this torch."""
    try:
        from torchvision import ops  # noqa: F401
    except (ImportError, RuntimeError, OSError):
        return False
    return True


full_size = pytest.mark.skipif(not os.environ.get("UNFADE_FULL_SIZE"), reason="minutes: set UNFADE_FULL_SIZE=1")
with_torchvision = pytest.mark.skipif(not torchvision_works(), reason="needs torchvision: pip install 'unfade[vqfr]'")


def tap_by_tap(x: Tensor, shifts: Tensor, weights: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """The deformable 3x3 convolution from its definition: for each tap a bilinear sample, weighted."""
    (b, _, h, w), groups = x.shape, weights.shape[1] // 9
    result = torch.zeros_like(x) if bias is None else bias[:, None, None].expand_as(x)
    rows, columns = torch.arange(h)[:, None], torch.arange(w)
    shifts, weights = shifts.reshape(b * groups, 9, 2, h, w), weights.view(b * groups, 9, 1, h, w)
    for tap in range(9):
        row, column = rows + tap // 3 - 1 + shifts[:, tap, 0], columns + tap % 3 - 1 + shifts[:, tap, 1]
        where = torch.stack([2 * column / (w - 1) - 1, 2 * row / (h - 1) - 1], -1)
        read = F.grid_sample(x.reshape(b * groups, -1, h, w), where, align_corners=True) * weights[:, tap]
        result = result + F.conv2d(read.view_as(x), kernel[:, :, tap // 3, tap % 3, None, None])
    return result


@pytest.fixture
def bending(monkeypatch: pytest.MonkeyPatch):
    """The main branch of tiny networks, without torchvision too."""
    monkeypatch.setattr(vqfr, "deform_conv2d", tap_by_tap)


@pytest.fixture
def tiny() -> VQFR:
    return fill_module(VQFR(TINY)).eval()


def assert_recorded(found, name: str, atol: float):
    golden = arrays("vqfr_v2")
    assert list(found.shape) == golden[f"{name}.shape"].tolist()
    sampled = subsampled(found, golden, name)
    torch.testing.assert_close(sampled, torch.from_numpy(golden[f"{name}.vals"]), atol=atol, rtol=0)


def test_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = VQFR()
    expected = manifest("manifest_vqfr_v2")
    state = {key: [list(value.shape), str(value.dtype)[6:]] for key, value in net.state_dict().items()}
    assert state == {key: value[:2] for key, value in expected["keys"].items()}
    assert list(state) == list(expected["keys"])
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


@torch.no_grad()
def test_codes_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = VQFR()
    net.encoder = fill_module(Encoder(net.config), "encoder.").eval()
    net.feat2index = fill_module(net.feat2index.to_empty(device="cpu"), "feat2index.")
    latent = net.encode(picture(512, 512, 11))
    logits = net.logits(latent)
    assert_recorded(latent, "enc_feat", atol=1e-4)
    assert_recorded(logits, "quant_logit", atol=1e-4)
    golden = arrays("vqfr_v2")
    best = logits[0].topk(2).values
    torch.testing.assert_close(best[:, 0] - best[:, 1], torch.from_numpy(golden["index_margin"]), atol=1e-4, rtol=0)
    sure = golden["index_margin"] > 1e-3
    assert sure.sum() > 200
    assert (logits.argmax(2)[0].numpy() == golden["index"])[sure].all()


@full_size
@with_torchvision
@torch.no_grad()
def test_faces_are_the_published_ones() -> None:
    net, golden, shifts = fill_module(VQFR()).eval(), arrays("vqfr_v2"), []
    for warp in net.main_branch.align_func_dict.values():
        warp.dcn.conv_offset.register_forward_hook(lambda module, inputs, found: shifts.append(found.chunk(3, 1)[:2]))
    face = picture(512, 512, 11)
    codes = net.predict_codes(face)
    assert (codes[0].numpy() == golden["index"])[golden["index_margin"] > 1e-3].all()
    textures = net.textures(codes)
    main = net.main_branch(textures, net.inpfeat_extraction(face))
    assert [torch.cat(s).abs().mean().item() for s in shifts] == pytest.approx(golden["dcn_offset_absmean"], abs=1e-6)
    assert_recorded(net.decode_textures(codes), "texture_dec", atol=5e-4)
    for fidelity in (1, 0.5, 0):
        assert_recorded(net.decoder.image(textures[-1] + fidelity * main), f"main_dec_f{fidelity}", atol=5e-4)
    assert_recorded(net(face), "main_dec_f1", atol=5e-4)


@torch.no_grad()
@pytest.mark.usefixtures("bending")
@pytest.mark.parametrize(
    ("fidelity", "mean", "deviation", "corner"),
    [(0, -0.00266, 0.57044, 0.36449), (0.5, -0.00355, 0.57981, 0.40693), (1, -0.00585, 0.58783, 0.41255)],
)
def test_tiny_faces_are_those_of_the_day_of_parity(
    tiny: VQFR, fidelity: float, mean: float, deviation: float, corner: float
) -> None:
    """Numbers of our own, taken when the full network agreed with the published one: a quick watch on every part."""
    restored = tiny(FACE, fidelity)
    found = [restored.mean().item(), restored.std().item(), restored[0, 0, 0, 0].item()]
    assert found == pytest.approx([mean, deviation, corner], abs=1e-4)


@torch.no_grad()
@with_torchvision
def test_torchvision_bends_as_defined() -> None:
    x, guide = torch.randn(2, 2, 64, 12, 9, generator=torch.Generator().manual_seed(0))
    net = fill_module(DeformableConv(64, 4))
    found = net(x, guide)
    shifts, weights = net.conv_offset(guide).split([72, 36], 1)
    assert shifts.abs().max() > 1
    torch.testing.assert_close(found, tap_by_tap(x, shifts, weights.sigmoid(), net.weight, net.bias), atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("bend", [tap_by_tap, pytest.param(vqfr.deform_conv2d, marks=with_torchvision)])
def test_a_new_layer_is_half_a_convolution_until_it_shifts(monkeypatch: pytest.MonkeyPatch, bend) -> None:
    monkeypatch.setattr(vqfr, "deform_conv2d", bend)
    x, guide = torch.randn(2, 1, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    net = DeformableConv(32, 4)
    plain = F.conv2d(x, net.weight, padding=1)
    bias = net.bias[:, None, None]
    torch.testing.assert_close(net(x, guide), 0.5 * plain + bias, atol=1e-5, rtol=0)
    net.conv_offset.bias[0:72:2] = 1  # every tap reads one row further down
    torch.testing.assert_close(net(x, guide)[:, :, :-2], (0.5 * plain + bias)[:, :, 1:-1], atol=1e-5, rtol=0)
    net.conv_offset.bias[72:] = -100  # no tap counts
    torch.testing.assert_close(net(x, guide), bias.expand_as(x))


@torch.no_grad()
@pytest.mark.usefixtures("bending")
def test_fidelity_zero_is_the_codebook_alone(tiny: VQFR) -> None:
    codes = tiny.predict_codes(FACE)
    assert torch.equal(tiny(FACE, 0), tiny.decode_textures(codes))
    assert torch.equal(tiny.decode(codes, FACE, fidelity=0), tiny.decode(codes, FACE.flip(2), fidelity=0))
    assert torch.equal(tiny(FACE), tiny(FACE, 1.0))
    faces = [tiny.decode(codes, FACE, fidelity=fidelity) for fidelity in (0, 0.5, 1)]
    assert all((a - b).abs().max() > 1e-2 for a, b in pairwise(faces))
    assert not torch.allclose(faces[2], tiny.decode(codes, FACE.flip(2)), atol=1e-2)


@torch.no_grad()
@pytest.mark.usefixtures("bending")
def test_each_face_of_a_batch_is_restored_alone(tiny: VQFR) -> None:
    faces = picture(32, 32, 3, count=3)
    alone = torch.cat([tiny(face[None]) for face in faces])
    torch.testing.assert_close(tiny(faces), alone, atol=2e-5, rtol=0)


@torch.no_grad()
def test_shapes_of_the_parts(tiny: VQFR) -> None:
    faces = picture(32, 32, 3, count=2)
    latent = tiny.encode(faces)
    assert latent.shape == (2, 8, 8, 8)
    assert tiny.logits(latent).shape == (2, 64, 16)
    codes = tiny.predict_codes(faces)
    assert torch.equal(codes, tiny.logits(latent).argmax(2))
    assert [tuple(t.shape) for t in tiny.textures(codes)] == [(2, 64, 8, 8), (2, 64, 16, 16), (2, 32, 32, 32)]
    assert names(TINY) == ["Level_4", "Level_2", "Level_1"]


@pytest.mark.usefixtures("bending")
def test_all_but_the_choice_of_codes_learns_from_the_image(tiny: VQFR) -> None:
    tiny(FACE, 0.5).square().mean().backward()
    unused = {name for name, parameter in tiny.named_parameters() if parameter.grad is None}
    assert unused == {name for name, _ in tiny.named_parameters() if name.startswith(NOT_IN_FORWARD)}


def test_choosing_codes_learns_from_the_logits(tiny: VQFR) -> None:
    F.cross_entropy(tiny.logits(tiny.encode(FACE)).flatten(0, 1), torch.arange(64) % 16).backward()
    learned = {name for name, parameter in tiny.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, _ in tiny.named_parameters() if name.startswith(NOT_IN_FORWARD)}


@torch.no_grad()
def test_residual_blocks_are_those_of_the_vqgan() -> None:
    ours, theirs = fill_module(ResBlock(32, 64)), ResBlockOfVQGAN(32, 64)
    theirs.load_state_dict(
        {key.replace("residual_func", "conv_out"): value for key, value in ours.state_dict().items()}
    )
    x = torch.randn(1, 32, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))


@torch.no_grad()
def test_without_torchvision_it_says_what_to_install(tiny: VQFR, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    assert tiny(FACE, 0).shape == FACE.shape
    with pytest.raises(UnfadeError, match=r"needs a torchvision that fits torch .*: pip install 'unfade\[vqfr\]'\."):
        tiny(FACE, 0.5)


@torch.no_grad()
def test_bad_input_is_named(tiny: VQFR) -> None:
    codes = tiny.predict_codes(FACE)
    for call in (tiny, tiny.encode, lambda face: tiny.decode(codes, face)):
        with pytest.raises(BadInput, match=r"restores faces of \(3, 32, 32\), got \(3, 16, 16\)"):
            call(picture(16, 16, 3))
    for fidelity in (-0.1, 1.1, float("nan")):
        with pytest.raises(BadInput, match=r"fidelity must lie in 0\.\.1"):
            tiny(FACE, fidelity)
    with pytest.raises(BadInput, match="size divisible by 32, not 500"):
        VQFRConfig(size=500)
    with pytest.raises(BadInput, match="multiples of 32"):
        VQFRConfig(channels=48)
    with pytest.raises(BadInput, match="deformable groups"):
        VQFRConfig(channels=32, deformable_groups=5)


@torch.no_grad()
@pytest.mark.usefixtures("bending")
@pytest.mark.parametrize(
    "config",
    [
        VQFRConfig(size=16, channels=32, channel_mult=(1,), res_blocks=2, codes=4, code_channels=4),
        VQFRConfig(size=16, channels=32, channel_mult=(1, 1), codes=4, code_channels=4, deformable_groups=1),
    ],
)
def test_other_shapes_work(config) -> None:
    net = fill_module(VQFR(config)).eval()
    assert net(picture(16, 16, 3)).shape == (1, 3, 16, 16)
    assert net.encode(picture(16, 16, 3)).shape[-1] == config.grid
