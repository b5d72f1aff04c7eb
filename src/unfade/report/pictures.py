"""The pictures of a page: the page embeds a small version of each and links to the full one."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from unfade.images.files import read_image, to_bytes

SIDES = ((600, 128), (1800, 96))  # (most pictures on a page, longer side of the small versions in px)
SMALLEST_SIDE = 64  # px, for pages with more pictures: 8,000 of them are about 8 MB of text
QUALITY = 60  # of the small versions, which are shown until the full ones are loaded


@dataclass(frozen=True)
class Picture:
    """A picture as a page shows it."""

    small: bytes  # an encoded picture
    address: str = ""  # of the full one, relative to the page and quoted; "": there is none, the small one is all
    width: int = 1  # px, of the full one
    height: int = 1


def picture_of(path: Path, folder: Path, side: int = SIDES[0][1]) -> Picture:
    """The picture of a file for a page in `folder`, its small one at most `side` px wide and high.

    The file is one that browsers show: a PNG, a JPEG or a WebP. Raises UnreadableImage.
    """
    pixels = read_image(path)
    height, width = pixels.shape[-2:]
    buffer = io.BytesIO()
    small = Image.fromarray(to_bytes(pixels))
    small.thumbnail((side, side))
    small.save(buffer, "WEBP", quality=QUALITY, method=6)
    return Picture(buffer.getvalue(), address_of(path, folder), width, height)


def side_for(pictures: int) -> int:
    """The longer side, in px, of the small versions on a page with this many pictures, which limits the page's size."""
    return next((side for most, side in SIDES if pictures <= most), SMALLEST_SIDE)


def address_of(path: Path, folder: Path) -> str:
    """The address of a file for a page in `folder`, whatever its name; empty where no relative address exists.

    The bytes of the name are quoted, so quotes, newlines, "#" and "%" stay part of it.
    """
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # another drive of Windows
        return ""
    return quote(os.fsencode(Path(relative).as_posix()))


def change_between(before: Path, after: Path) -> float:
    """The mean absolute difference of two pictures of one size, in levels of 0..255. Raises UnreadableImage."""
    return float((read_image(after) - read_image(before)).abs().mean() * 127.5)
