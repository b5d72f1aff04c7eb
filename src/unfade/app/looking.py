"""The faces that `restore` finds in a photo, for a screen, with the numbers by which a `Choice` names them."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unfade.faces.detectors import Box
from unfade.images.decoding import read_photo
from unfade.images.files import refuse_clear, to_bytes, view
from unfade.recipes.restore import EVERY_FACE
from unfade.recipes.sources import FindSettings
from unfade.stages.photos import Choice, Finder

SIDE = 1200  # px, longer side of a photo as shown
USED, LEFT_OUT = "#22c55e", "#9ca3af"  # colours of boxes
Pixels = NDArray[np.uint8]  # (h, w, 3)


@dataclass(frozen=True, eq=False)
class Looked:
    """A photo as shown, and its faces."""

    pixels: Pixels
    boxes: tuple[Box, ...]  # in px of `pixels`, in the order in which a `Choice` counts

    def at(self, x: float, y: float) -> int | None:
        """The number of the smallest face whose box holds a point."""
        boxes = [(r - x0) * (b - y0) if x0 <= x <= r and y0 <= y <= b else np.inf for x0, y0, r, b in self.boxes]
        return int(np.argmin(boxes)) if min(boxes, default=np.inf) < np.inf else None

    def without(self, left_out: Collection[int]) -> str:
        """The other faces, as a `Choice` names them; "" if there is none."""
        return ",".join(str(face) for face in range(len(self.boxes)) if face not in left_out)

    def marked(self, left_out: Collection[int] = ()) -> Pixels:
        """The photo with numbered boxes, from 1; the boxes of faces that are left out are grey and crossed out."""
        image = Image.fromarray(self.pixels)
        draw, pen = ImageDraw.Draw(image), max(2, max(image.size) // 300)
        for i, (left, top, right, bottom) in enumerate(self.boxes):
            colour = LEFT_OUT if i in left_out else USED
            draw.rectangle((left, top, right, bottom), outline=colour, width=pen)
            if i in left_out:
                draw.line((left, top, right, bottom), colour, pen)
                draw.line((left, bottom, right, top), colour, pen)
            draw.rectangle((left, top, left + 8 * pen, top + 8 * pen), fill=colour)
            middle, font = (left + 4 * pen, top + 4 * pen), ImageFont.load_default(7 * pen)
            draw.text(middle, str(i + 1), "black", font, anchor="mm")
        return np.asarray(image)


@lru_cache(16)
def looked_at(path: Path, find: FindSettings = EVERY_FACE) -> Looked:
    """A photo with all faces that are found in it; kept, for a file that is not replaced. Raises UnreadableImage."""
    photo = read_photo(path)
    refuse_clear(photo, path)
    pixels = to_bytes(view(photo, SIDE))
    boxes = np.array([found.face.box for found in _finder(find)(path.name, photo)]).reshape(-1, 4)
    return Looked(pixels, tuple(map(tuple, boxes * pixels.shape[1] / photo.width)))


@cache
def _finder(find: FindSettings) -> Finder:
    return replace(find, choice=Choice()).loaded().finder(128)  # the size of crops, which are not made here
