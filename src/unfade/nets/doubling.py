"""A U-Net for images twice as large, which begins with what a trained one knows.

Its layers see the same layout, in blocks of pixels that are twice as large. Only the first and last layers have to
learn the finer octave; the correction at full resolution begins as nothing.
"""

from dataclasses import replace

import torch

from unfade.nets.unet import UNet

DETAIL = 32  # channels of its correction at full resolution, which draws the finest octave


def doubled(small: UNet) -> UNet:
    """A network of twice the size that maps images to what `small` maps them to at half the size, enlarged.

    Where `small` predicts noise, it predicts that of the means of 2 x 2 pixels, and their details as those of the clean
    image, at first none.
    """
    config = small.config
    patch = 2 * config.patch
    predicts = "details" if config.predicts == "eps" else config.predicts
    net = UNet(replace(config, size=2 * config.size, patch=patch, detail=DETAIL, predicts=predicts))
    state = {name: value for name, value in small.state_dict().items() if not name.startswith("detail.")}
    within = torch.arange(patch) // 2  # from a row of a new block to that of an old one
    place = (within[:, None] * config.patch + within).flatten()
    first, last = "input_blocks.0.0.weight", "out.2"
    state[first] = state[first].unflatten(1, (3, -1))[:, :, place].flatten(1, 2) / 4
    for name in (f"{last}.weight", f"{last}.bias"):
        state[name] = state[name].unflatten(0, (config.out_channels, -1))[:, place].flatten(0, 1)
    net.load_state_dict(state, strict=False)  # the correction is new
    return net
