"""VQGAN: parity with the published autoencoder, and the identities of codes."""

import os

import pytest
import torch

from recorded import arrays, fill_module, manifest, picture, subsampled
from unfade.errors import BadInput
from unfade.nets.vqgan import VQAutoEncoder, VQGANConfig, VQGANDiscriminator

TINY = VQGANConfig(size=32, channels=32, channel_mult=(1, 1, 2), res_blocks=2, attention_sizes=(8,), codes=16)
full_size = pytest.mark.skipif(not os.environ.get("UNFADE_FULL_SIZE"), reason="minutes: set UNFADE_FULL_SIZE=1")


@pytest.fixture(scope="module")
def net() -> VQAutoEncoder:
    return fill_module(VQAutoEncoder(TINY)).eval()


def filled_as_published() -> VQAutoEncoder:
    """Weights under other names than CodeFormer's, but the same codebook."""
    net = fill_module(VQAutoEncoder(), "vqgan.")
    fill_module(net.quantize, "quantize.")
    return net.eval()


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    with torch.no_grad():
        net = filled_as_published()
        z = net.encoder(picture(512, 512, 21))
        codes = net.quantize.nearest(z)
        return {
            "z": z,
            "indices": codes,
            "codebook_feat": net.quantize.lookup(codes),
            "codebook_loss": net.quantize.loss(z, codes),
            "mean_distance": net.quantize.distances(z).mean(),
        }


@pytest.mark.parametrize(("name", "make"), [("code1024", VQAutoEncoder), ("discriminator", VQGANDiscriminator)])
def test_keys_are_the_published_ones(name: str, make) -> None:
    with torch.device("meta"):
        net = make()
    expected = manifest(f"manifest_vqgan_{name}")
    state = {key: [list(value.shape), str(value.dtype)[6:]] for key, value in net.state_dict().items()}
    assert state == {key: value[:2] for key, value in expected["keys"].items()}
    assert list(state) == list(expected["keys"])
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


@pytest.mark.parametrize(("name", "atol"), [("z", 1e-4), ("codebook_feat", 1e-6)])
def test_latent_is_the_published_one(published: dict[str, torch.Tensor], name: str, atol: float) -> None:
    golden = arrays("codeformer_vqgan_encode")
    assert list(published[name].shape) == golden[f"{name}.shape"].tolist()
    found = subsampled(published[name], golden, name)
    torch.testing.assert_close(found, torch.from_numpy(golden[f"{name}.vals"]), atol=atol, rtol=0)


def test_codes_are_the_published_ones(published: dict[str, torch.Tensor]) -> None:
    golden = arrays("codeformer_vqgan_encode")
    clear = torch.from_numpy(golden["dist_margin"]) > 1e-3
    assert clear.float().mean() > 0.9
    assert torch.equal(published["indices"][0][clear], torch.from_numpy(golden["indices"]).long()[clear])


@pytest.mark.parametrize("name", ["codebook_loss", "mean_distance"])
def test_scalars_are_the_published_ones(published: dict[str, torch.Tensor], name: str) -> None:
    assert float(published[name]) == pytest.approx(float(arrays("codeformer_vqgan_encode")[name]), rel=1e-5)


@full_size
@torch.no_grad()
def test_reconstruction_is_the_published_one(published: dict[str, torch.Tensor]) -> None:
    golden = arrays("codeformer_vqgan_encode")
    found = subsampled(filled_as_published().decode(published["indices"]), golden, "recon")
    torch.testing.assert_close(found, torch.from_numpy(golden["recon.vals"]), atol=5e-4, rtol=0)


@torch.no_grad()
def test_looking_up_a_code_and_naming_it_gives_it_back(net: VQAutoEncoder) -> None:
    codes = torch.arange(64).remainder(16).roll(5)[None]
    assert torch.equal(net.quantize.nearest(net.quantize.lookup(codes)), codes)


@torch.no_grad()
def test_distances_are_those_of_the_definition(net: VQAutoEncoder) -> None:
    z = torch.randn(2, 256, 8, 8, generator=torch.Generator().manual_seed(0))
    cells = z.permute(0, 2, 3, 1).reshape(2, 64, 256)
    expected = torch.cdist(cells, net.quantize.embedding.weight[None].expand(2, -1, -1)).square()
    torch.testing.assert_close(net.quantize.distances(z), expected, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_forward_is_decoding_the_codes(net: VQAutoEncoder) -> None:
    face = picture(32, 32, 3, count=2)
    torch.testing.assert_close(net(face), net.decode(net.encode(face)), atol=1e-4, rtol=0)
    assert net(face).shape == face.shape


@torch.no_grad()
def test_a_batch_equals_single_images(net: VQAutoEncoder) -> None:
    faces = picture(32, 32, 3, count=3)
    torch.testing.assert_close(net(faces), torch.cat([net(face[None]) for face in faces]), atol=1e-4, rtol=0)


def test_the_gradient_passes_the_choice_of_codes(net: VQAutoEncoder) -> None:
    face = picture(32, 32, 3)
    z = net.encoder(face).detach()
    latent = net.quantize.lookup(net.quantize.nearest(z)).detach().requires_grad_()
    (straight,) = torch.autograd.grad(net.generator(latent).square().sum(), latent)
    weight = net.encoder.blocks[0].weight
    (expected,) = torch.autograd.grad(net.encoder(face), weight, straight)
    (found,) = torch.autograd.grad(net(face).square().sum(), weight)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_the_codebook_learns_and_the_latent_commits(net: VQAutoEncoder) -> None:
    z = torch.randn(1, 256, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    codes = net.quantize.nearest(z)
    apart = z - net.quantize.lookup(codes)
    loss = net.quantize.loss(z, codes)
    assert float(loss.detach()) == pytest.approx(1.25 * float(apart.detach().square().mean()), rel=1e-5)
    (pull,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(pull, 0.25 * 2 * apart.detach() / z.numel())
    entries = net.quantize.lookup(codes).detach()
    assert float(net.quantize.loss(entries, codes).detach()) == 0


@torch.no_grad()
def test_maps_are_those_of_their_level(net: VQAutoEncoder) -> None:
    face = picture(32, 32, 3, count=2)
    z, maps = net.encoder.with_maps(face, (8, 32))
    assert {size: list(found.shape) for size, found in maps.items()} == {32: [2, 32, 32, 32], 8: [2, 64, 8, 8]}
    assert torch.equal(z, net.encoder(face))


def test_published_maps_are_after_the_published_blocks() -> None:
    with torch.device("meta"):
        net = VQAutoEncoder()
    assert net.encoder.last_of_level == {512: 2, 256: 5, 128: 8, 64: 11, 32: 14, 16: 18}
    found = net.generator.first_of_level
    assert {size: found[size] for size in (32, 64, 128, 256)} == {32: 9, 64: 12, 128: 15, 256: 18}


@torch.no_grad()
def test_the_generator_takes_changes_at_a_level(net: VQAutoEncoder) -> None:
    z, seen = net.encoder(picture(32, 32, 3)), []
    assert torch.equal(net.generator(z, {16: lambda x: seen.append(x) or x}), net.generator(z))
    assert seen[0].shape == (1, 32, 16, 16)
    assert not torch.equal(net.generator(z, {16: lambda x: 2 * x}), net.generator(z))


@torch.no_grad()
def test_the_discriminator_judges_patches() -> None:
    assert VQGANDiscriminator(8).eval()(picture(64, 64, 1, count=2)).shape == (2, 1, 2, 2)
    assert VQGANDiscriminator(8, layers=2).eval()(picture(64, 64, 1, count=2)).shape == (2, 1, 14, 14)


@pytest.mark.parametrize("wrong", [{"size": 30}, {"channels": 48}])
def test_impossible_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="change"):
        VQGANConfig(**{"size": 32, "channel_mult": (1, 1, 2)} | wrong)
