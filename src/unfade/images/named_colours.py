"""The colours that a file gives as numbers, wherever its format stores them."""

import struct
from typing import IO

from unfade.images.boxes import Boxed
from unfade.images.colours import SRGB, Colours, Point, by_code_points
from unfade.images.spliced import read_at
from unfade.images.tiff_pages import Page

WHITE_POINT, PRIMARY_CHROMATICITIES = 318, 319  # of a TIFF
CALIBRATED, EMBEDDED, LINKED = 0, b"DEBM", b"KNIL"  # colour space types of a BMP of version 4 or 5
V4, V5 = 108, 124  # bytes, sizes of a BMP's header
MOST_PROFILE = 1 << 24


def of_boxes(said: Boxed, notes: list[str]) -> Colours | None:
    """The colours of AVIF and HEIC."""
    if said.nclx is None:
        return None
    primaries, transfer, _ = said.nclx  # the decoder has applied matrix and range already
    colours = by_code_points(primaries, transfer)
    if colours is None:
        notes.append(f"colours of nclx {primaries}, {transfer} are not known, taken for sRGB")
    return colours


def of_tiff(page: Page) -> Colours | None:
    """The colours of a TIFF, by its tags for white and primaries; the curve is assumed to be sRGB's."""
    white, primaries = page.fractions(WHITE_POINT), page.fractions(PRIMARY_CHROMATICITIES)
    if len(white) != 2 or len(primaries) != 6:
        return None
    return _sound(list(zip(primaries[::2], primaries[1::2], strict=True)), (white[0], white[1]), SRGB)


def of_bmp(file: IO[bytes], notes: list[str]) -> tuple[Colours | None, bytes]:
    """The colours that a BMP's header gives, or the profile behind its pixels."""
    (size,) = struct.unpack("<I", read_at(file, 14, 4))
    header = read_at(file, 14, min(size, V5))
    if len(header) < V4:
        return None, b""
    kind = header[56:60]
    if kind == EMBEDDED and len(header) == V5:
        place, length = struct.unpack_from("<II", header, 112)
        if length <= MOST_PROFILE:
            return None, read_at(file, 14 + place, length)
    if kind in (EMBEDDED, LINKED):
        notes.append("colour profile that is not in the file or too large left out")
        return None, b""
    if struct.unpack("<I", kind)[0] != CALIBRATED:
        return None, b""
    ends = [number / 2**30 for number in struct.unpack_from("<9i", header, 60)]
    points = [(x / (x + y + z), y / (x + y + z)) for x, y, z in zip(*[iter(ends)] * 3, strict=True) if x + y + z > 0]
    gammas = [number / 65_536 for number in struct.unpack_from("<3I", header, 96)]
    if len(points) < 3 or min(gammas) <= 0:
        return None, b""
    white = tuple(sum(part) for part in zip(*zip(*[iter(ends)] * 3, strict=True), strict=True))
    return _sound(points, (white[0] / sum(white), white[1] / sum(white)), (sum(gammas) / 3,)), b""


def _sound(points: list[Point], white: Point, curve: tuple[float, ...]) -> Colours | None:
    if not all(0 < x < 1 and 0 < y < 1 for x, y in (*points, white)):
        return None
    red, green, blue = points
    return Colours((red, green, blue, white), curve)
