"""CodeFormer: parity with the published network, and what fidelity and adain mean."""

import os
from dataclasses import replace

import pytest
import torch

from recorded import arrays, fill_module, manifest, picture, subsampled
from unfade.errors import BadInput
from unfade.nets.codeformer import CodeFormer, CodeFormerConfig, Fusion, Prediction, adaptive_instance_norm, statistics
from unfade.nets.vqgan import VQGANConfig

TINY = CodeFormerConfig(
    VQGANConfig(size=32, channels=32, channel_mult=(1, 1, 2), attention_sizes=(8,), codes=16, code_channels=8),
    dim=32,
    heads=4,
    layers=2,
    fusion_sizes=(16, 32),
)
full_size = pytest.mark.skipif(not os.environ.get("UNFADE_FULL_SIZE"), reason="minutes: set UNFADE_FULL_SIZE=1")


@pytest.fixture(scope="module")
def net() -> CodeFormer:
    return fill_module(CodeFormer(TINY)).eval()


@pytest.fixture(scope="module")
def published():
    return fill_module(CodeFormer()).eval()


@pytest.fixture(scope="module")
def seen(published: CodeFormer):
    with torch.no_grad():
        return published.predict_codes(picture(512, 512, 11))


def assert_recorded(found, name: str, atol: float):
    golden = arrays("codeformer_forward")
    assert list(found.shape) == golden[f"{name}.shape"].tolist()
    sampled = subsampled(found, golden, name)
    torch.testing.assert_close(sampled, torch.from_numpy(golden[f"{name}.vals"]), atol=atol, rtol=0)


def test_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = CodeFormer()
    expected = manifest("manifest_codeformer")
    state = {key: [list(value.shape), str(value.dtype)[6:]] for key, value in net.state_dict().items()}
    assert state == {key: value[:2] for key, value in expected["keys"].items()}
    assert list(state) == list(expected["keys"])
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


@pytest.mark.parametrize("name", ["logits", "lq_feat"])
def test_prediction_is_the_published_one(seen: Prediction, name: str) -> None:
    assert_recorded(getattr(seen, name), name, atol=1e-4)


@pytest.mark.parametrize(("size", "block"), [(256, 5), (128, 8), (64, 11), (32, 14)])
def test_maps_are_the_published_ones(seen: Prediction, size: int, block: int) -> None:
    assert_recorded(seen.maps[size], f"enc_block{block}", atol=1e-4)


def test_codes_are_the_published_ones(seen: Prediction) -> None:
    golden = arrays("codeformer_forward")
    clear = torch.from_numpy(golden["top2_margin"]) > 1e-3
    assert clear.float().mean() > 0.9
    assert torch.equal(seen.codes[0][clear], torch.from_numpy(golden["top_idx"]).long()[0][clear])


@torch.no_grad()
def test_restored_face_is_the_published_one(published: CodeFormer, seen: Prediction) -> None:
    restored = published.decode(seen.codes, fidelity=0.5, maps=seen.maps, style=seen.lq_feat)
    assert_recorded(restored, "out_w0.5_adain", atol=5e-4)


@full_size
@torch.no_grad()
@pytest.mark.parametrize(("name", "fidelity"), [("out_w0", 0), ("out_w0.5", 0.5), ("out_w1", 1)])
def test_fidelities_are_the_published_ones(published: CodeFormer, seen: Prediction, name: str, fidelity: float) -> None:
    assert_recorded(published.decode(seen.codes, fidelity=fidelity, maps=seen.maps), name, atol=5e-4)


@full_size
@torch.no_grad()
@pytest.mark.parametrize("block", [0, 2, 18])
def test_other_encoder_blocks_are_the_published_ones(published: CodeFormer, block: int) -> None:
    x = picture(512, 512, 11)
    for module in published.encoder.blocks[: block + 1]:
        x = module(x)
    assert_recorded(x, f"enc_block{block}", atol=1e-4)


@torch.no_grad()
def test_forward_is_predict_then_decode(net: CodeFormer) -> None:
    face = picture(32, 32, 3, count=2)
    seen = net.predict_codes(face)
    assert torch.equal(net(face), net.decode(seen.codes, fidelity=0.5, maps=seen.maps, style=seen.lq_feat))
    assert torch.equal(net(face, 1, adain=False), net.decode(seen.codes, fidelity=1, maps=seen.maps))
    assert seen.logits.shape == (2, 64, 16)
    assert net.encode(face).maps.keys() == {16, 32}


@torch.no_grad()
def test_a_batch_equals_single_faces(net: CodeFormer) -> None:
    faces = picture(32, 32, 3, count=3)
    torch.testing.assert_close(net(faces), torch.cat([net(face[None]) for face in faces]), atol=1e-4, rtol=0)


@torch.no_grad()
def test_every_choice_has_an_effect(net: CodeFormer) -> None:
    face = picture(32, 32, 3)
    results = [net(face, w, adain=adain) for w in (0, 0.5, 1) for adain in (False, True)]
    assert all(not torch.equal(a, b) for i, a in enumerate(results) for b in results[:i])


@torch.no_grad()
def test_at_fidelity_zero_only_the_codes_count(net: CodeFormer) -> None:
    one, other = (net.predict_codes(picture(32, 32, seed)) for seed in (3, 4))
    assert torch.equal(net.decode(one.codes, maps=other.maps), net.decode(one.codes))
    assert torch.equal(net(picture(32, 32, 3), 0, adain=False), net.decode(one.codes))


@torch.no_grad()
def test_fusion_is_linear_in_the_fidelity() -> None:
    fusion = fill_module(Fusion(32))
    seen, x = torch.randn(2, 1, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fusion(seen, 0, x), x)
    torch.testing.assert_close(fusion(seen, 1, x) - x, 4 * (fusion(seen, 0.25, x) - x), atol=1e-5, rtol=1e-5)


def test_fusion_sends_no_gradient_to_the_encoder(net: CodeFormer) -> None:
    face = picture(32, 32, 3)
    seen = net.predict_codes(face)
    restored = net.decode(seen.codes, fidelity=1, maps=seen.maps)
    gradients = torch.autograd.grad(restored.sum(), list(net.parameters()), allow_unused=True)
    taught = {
        name.split(".")[0]
        for (name, _), gradient in zip(net.named_parameters(), gradients, strict=True)
        if gradient is not None
    }
    assert taught == {"quantize", "generator", "fuse_convs_dict"}


@torch.no_grad()
def test_adain_gives_the_statistics_of_the_style() -> None:
    content, style = torch.randn(2, 2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    changed = adaptive_instance_norm(content, 3 * style + 1)
    for found, expected in zip(statistics(changed), statistics(3 * style + 1), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(adaptive_instance_norm(content, content), content)


@torch.no_grad()
def test_cells_know_their_place_by_the_position_embedding_alone(net: CodeFormer) -> None:
    z = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    turned = z.flatten(2).flip(2).reshape(z.shape)
    assert not torch.allclose(net.logits(turned), net.logits(z).flip(1), atol=1e-3)
    placeless = fill_module(CodeFormer(TINY)).eval()
    placeless.position_emb.zero_()
    torch.testing.assert_close(placeless.logits(turned), placeless.logits(z).flip(1), atol=1e-5, rtol=1e-5)


def test_wrong_input_is_refused(net: CodeFormer) -> None:
    codes = torch.zeros(1, 64, dtype=torch.long)
    with pytest.raises(BadInput, match=r"faces of \(3, 32, 32\), got \(3, 64, 64\)"):
        net(picture(64, 64, 3))
    with pytest.raises(BadInput, match=r"in 0\.\.1, got 1\.5"):
        net.decode(codes, fidelity=1.5)
    with pytest.raises(BadInput, match=r"maps of sides \[16, 32\]"):
        net.decode(codes, fidelity=0.5)


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(BadInput, match="heads"):
        replace(TINY, heads=5)
    with pytest.raises(BadInput, match=r"not \[64\]"):
        replace(TINY, fusion_sizes=(16, 64))
