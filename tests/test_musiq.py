"""MUSIQ: keys, scores of pictures of any shape, and what does not change them.

The golden numbers are those of MUSIQ() of pyiqa 0.1.7, filled from its keys, on `picture`s in [0, 1]; the manifest
lists its state dict. Nothing of its code is here.
"""

import pytest
import torch

from recorded import arrays, fill_module, manifest, picture
from unfade.errors import BadInput
from unfade.nets.musiq import MUSIQ, MUSIQConfig, StandardisedConv, cut

GOLDEN = arrays("musiq")
SMALL = MUSIQConfig(hidden=24, mlp=32, heads=2, layers=2, patch=8, grid=4, longer_sides=(16, 24), width=32)


@pytest.fixture(scope="module")
def net() -> MUSIQ:
    return fill_module(MUSIQ()).eval()


@pytest.fixture(scope="module")
def small() -> MUSIQ:
    return fill_module(MUSIQ(SMALL)).eval()


def test_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = MUSIQ()
    keys = [[key, list(value.shape)] for key, value in net.state_dict().items()]
    assert sorted(keys) == sorted(manifest("manifest_musiq")["tensors"])
    assert sum(p.numel() for p in net.parameters()) == 27_125_825


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in GOLDEN if not name.endswith("cls")])
def test_scores_are_those_of_pyiqa(net: MUSIQ, name: str) -> None:
    size, seed = name.split(".")
    height, width = map(int, size.split("x"))
    assert net(picture(height, width, int(seed))).item() == pytest.approx(GOLDEN[name].item(), abs=1e-5)


@torch.no_grad()
def test_the_token_that_is_scored_is_pyiqas(net: MUSIQ) -> None:
    seen: list[torch.Tensor] = []
    with net.head.register_forward_pre_hook(lambda module, given: seen.append(given[0])):
        net(picture(64, 64, 64))
    torch.testing.assert_close(seen[0][0], torch.from_numpy(GOLDEN["64x64.64.cls"]), atol=2e-5, rtol=0)


@torch.no_grad()
def test_a_batch_is_its_pictures(small: MUSIQ) -> None:
    batch = picture(20, 30, 1, count=3)
    alone = torch.cat([small(one[None]) for one in batch])
    assert len({round(score, 3) for score in alone.tolist()}) == 3
    torch.testing.assert_close(small(batch), alone)


def test_places_are_shares_of_the_picture() -> None:
    patches, places = cut(picture(16, 64, 1), SMALL)
    assert patches.shape == (1, 16, 3, 8, 8)
    assert places.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 8, 8, 9, 9, 10, 10, 11, 11]
    assert torch.equal(patches[0, 9], picture(16, 64, 1)[0, :, 8:, 8:16])
    filled, _ = cut(picture(8, 12, 1), SMALL)  # 4 missing columns, 2 on each side, are grey
    assert filled[0, 0, :, :, :2].abs().max() == filled[0, 1, :, :, -2:].abs().max() == 0
    assert torch.equal(filled[0, 0, :, :, 2:], picture(8, 12, 1)[0, :, :, :6])


@torch.no_grad()
def test_every_scale_and_place_matters(small: MUSIQ) -> None:
    before = small(picture(24, 24, 1))
    for table in (small.transformer_encoder.scaleembed_input, small.transformer_encoder.posembed_input):
        rows = next(table.parameters()).view(-1, SMALL.hidden)
        for row in rows[: SMALL.scales]:
            kept = row.clone()
            row[0] += 1
            assert not torch.equal(small(picture(24, 24, 1)), before)
            row.copy_(kept)


@torch.no_grad()
def test_filters_are_standardised() -> None:
    layer = fill_module(StandardisedConv(3, 4, 3))
    image = picture(9, 9, 1)
    before = layer(image)
    layer.weight.mul_(3).add_(1)
    torch.testing.assert_close(layer(image), before, atol=1e-3, rtol=0)


@torch.no_grad()
def test_nothing_is_left_on_another_device() -> None:
    net = MUSIQ(SMALL).to("meta")
    assert net(torch.zeros(2, 3, 20, 30, device="meta")).shape == (2,)


def test_a_line_of_pixels_is_refused(small: MUSIQ) -> None:
    with pytest.raises(BadInput, match="400 x 2 pixels"):
        small(torch.zeros(1, 3, 2, 400))
