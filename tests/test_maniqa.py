"""MANIQA: keys, scores of crops, and the mean over a picture.

The golden numbers are those of MANIQA() of pyiqa 0.1.7 in float64, filled from its keys, on one `picture` in [0, 1] as
its only crop: at 24 channels and 64 px, and once (`full`) as published. The manifest lists its state dict. Filled
weights drive the channel attention to its limits, so that float32 agrees to three digits only. Its code is not here.
"""

import os

import pytest
import torch
from torch import Tensor

from recorded import arrays, fill_module, manifest, picture
from unfade.errors import BadInput
from unfade.metrics.no_reference import COLUMNS, ROWS, CroppedManiqa, corners_of
from unfade.nets.maniqa import MANIQA, MANIQAConfig, maniqa_state

GOLDEN = arrays("maniqa")
SMALL = MANIQAConfig(size=64, width=24, heads=3, hidden=32)


@pytest.fixture(scope="module")
def net() -> MANIQA:
    return fill_module(MANIQA(SMALL)).eval()


def test_keys_are_the_published_ones_without_those_of_no_use() -> None:
    with torch.device("meta"):
        ours = {key: value.shape for key, value in MANIQA().state_dict().items()}
    published = {key: torch.empty(shape, device="meta") for key, shape in manifest("manifest_maniqa")["tensors"]}
    assert {key: value.shape for key, value in maniqa_state(published).items()} == ours
    left_out = {key.split(".")[1] for key in published.keys() - ours.keys()}
    assert left_out == {"blocks", "norm", "head", "downsample"}
    assert {f"vit.blocks.{n}.norm1.bias" in ours for n in range(10)} == {True}


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in GOLDEN if not name.startswith("full")])
def test_scores_are_those_of_pyiqa(net: MANIQA, name: str) -> None:
    scale, seed = name.rsplit(".", 1)
    score = net.double()(picture(64, 64, int(seed)).double(), scale=float(scale))
    net.float()
    assert score.item() == pytest.approx(GOLDEN[name].item(), rel=2e-6)


@pytest.mark.skipif(not os.environ.get("UNFADE_FULL_SIZE"), reason="half a minute: set UNFADE_FULL_SIZE=1")
@torch.no_grad()
def test_the_published_size_scores_as_pyiqa() -> None:
    whole = fill_module(MANIQA()).eval().double()
    score = whole(picture(224, 224, 73).double())
    assert score.item() == pytest.approx(GOLDEN["full.0.8.73"].item(), rel=2e-5)


@torch.no_grad()
def test_a_batch_is_its_crops_and_the_scale_matters(net: MANIQA) -> None:
    net.double()
    batch = picture(64, 64, 1, count=3).double()
    alone = torch.cat([net(one[None]) for one in batch])
    torch.testing.assert_close(net(batch), alone)
    assert (net(batch, scale=0.13) - alone).abs().min() > 1e-3
    net.float()


@torch.no_grad()
def test_nothing_is_left_on_another_device() -> None:
    score = CroppedManiqa(MANIQA(SMALL), scale=0.8).to("meta")
    assert score(torch.zeros(2, 3, 70, 90, device="meta")).shape == (2,)


def test_other_sizes_are_refused(net: MANIQA) -> None:
    with pytest.raises(BadInput, match=r"crops \(B, 3, 64, 64\), not \(1, 3, 32, 64\)"):
        net(torch.zeros(1, 3, 32, 64))
    with pytest.raises(BadInput, match="multiple of 32 px, not 100"):
        MANIQAConfig(size=100)


class Mean(MANIQA):
    """Says how bright a crop is, and remembers how many it saw at once."""

    def __init__(self) -> None:
        super().__init__(SMALL)
        self.seen: list[int] = []

    def forward(self, crop: Tensor, *, scale: float = 0.8) -> Tensor:
        self.seen.append(len(crop))
        return crop.mean((1, 2, 3)) * scale


def test_a_picture_is_the_mean_of_crops_all_over_it() -> None:
    score = CroppedManiqa(Mean(), scale=0.5)
    ramp = torch.linspace(-1, 1, 264)[:, None].expand(264, 164).expand(2, 3, 264, 164).clone()
    ramp[1] += 0.5
    tops = corners_of(200, ROWS)
    assert (tops, corners_of(100, COLUMNS)) == ([25, 75, 125, 175], [10, 30, 50, 70, 90])
    expected = torch.stack([ramp[:, :, top : top + 64].mean((1, 2, 3)) for top in tops]).mean(0) * 0.5
    torch.testing.assert_close(score(ramp), expected)
    assert sum(score.net.seen) == 2 * ROWS * COLUMNS  # type: ignore[arg-type]


def test_a_picture_of_one_crop_is_seen_once_and_a_smaller_one_is_refused() -> None:
    score = CroppedManiqa(Mean(), scale=1.0)
    torch.testing.assert_close(score(picture(64, 64, 1)), picture(64, 64, 1).mean((1, 2, 3)))
    assert score.net.seen == [1]
    with pytest.raises(BadInput, match="crops of 64 x 64 pixels, but this picture has 70 x 60"):
        score(torch.zeros(1, 3, 60, 70))
