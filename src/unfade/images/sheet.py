"""A contact sheet: pictures side by side in one picture."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unfade.images.files import from_bytes, to_bytes
from unfade.images.filters import resize

GAP = 6  # pixels between pictures
TITLE = 26  # pixels above each column


def sheet(columns: Sequence[tuple[str, Sequence[Tensor]]], *, side: int = 192) -> Tensor:
    """One picture (3, H, W) of titled columns; every entry is (3, h, w) in [-1, 1] and is resized to `side`.

    Raises ValueError when the columns are of different lengths.
    """
    heights = {len(pictures) for _, pictures in columns}
    if len(heights) != 1:
        raise ValueError(f"The columns hold {sorted(heights)} pictures; all must hold the same number.")
    rows = heights.pop()
    page = torch.ones(3, TITLE + rows * (side + GAP), len(columns) * (side + GAP) - GAP)
    for x, (_, pictures) in enumerate(columns):
        for y, picture in enumerate(pictures):
            top, left = TITLE + y * (side + GAP), x * (side + GAP)
            page[:, top : top + side, left : left + side] = resize(picture.cpu().float(), side, side).clamp(-1, 1)
    return _titled(page, [title for title, _ in columns], side)


def _titled(page: Tensor, titles: Sequence[str], side: int) -> Tensor:
    image = Image.fromarray(to_bytes(page))
    draw = ImageDraw.Draw(image)
    for x, title in enumerate(titles):
        draw.text((x * (side + GAP) + side // 2, TITLE // 2), title, "black", ImageFont.load_default(16), anchor="mm")
    return from_bytes(np.asarray(image))
