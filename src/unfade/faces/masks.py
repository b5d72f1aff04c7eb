"""The mask of the face in an aligned crop, by a parsing network: hat, neck and background are not pasted back."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.devices import device_of
from unfade.faces.align import antialiased
from unfade.nets.parsenet import BACKGROUND, ParseNet
from unfade.zoo.load import Loaded, load_network

Mask = Callable[[Tensor], Tensor]  # (3, S, S) in [-1, 1] to (1, S, S) in 0..1
PARSED = 512  # px, side of the faces that the published ParseNet was trained on


def loaded_mask(spec: str | Path = "parsenet", *, device: torch.device | str = "cpu") -> Loaded[Mask]:
    """The mask function of a parsing network, from a name in the table of weights or an imported file.

    Threads may share it. Raises UnknownModel, which says how to get the file, or BadCheckpoint for a file that is
    damaged or holds another network.
    """
    loaded = load_network(spec, "parser", device=device)
    return replace(loaded, network=partial(parsing_mask, loaded.network.requires_grad_(False)))


@torch.no_grad()
def parsing_mask(parsenet: ParseNet, face: Tensor) -> Tensor:
    """The face without hat, neck, clothes and background in a crop (3, S, S) in [-1, 1]: (1, S, S) in 0..1.

    As published for 512 px: the mask is blurred twice by a Gaussian of 11 px and is 0 within 10 px of the border.
    """
    device = device_of(parsenet)
    classes = parsenet.parse(antialiased(face.float(), PARSED)[None].to(device))[0].cpu()
    inside = (~torch.isin(classes, torch.tensor(BACKGROUND))).float().numpy()
    for _ in range(2):
        inside = cv2.GaussianBlur(inside, (101, 101), 11)
    middle = torch.from_numpy(inside)[None, 10:-10, 10:-10]
    return antialiased(F.pad(middle, (10, 10, 10, 10)), face.shape[-1]).clamp(0, 1)
