"""What the header of a JPEG XL says; Pillow's plugin decodes the whole picture first, and to 8 bits."""

import struct
from dataclasses import dataclass
from typing import IO

from unfade.images.spliced import file_size, read_at

CODESTREAM, CONTAINER = b"\xff\n", b"\0\0\0\x0cJXL \r\n\x87\n"
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of width to height, numbered from 1
WIDTHS_OF_NUMBERS = (9, 13, 18, 30)  # bits
MOST_BOXES = 1000


@dataclass(frozen=True)
class JxlHeader:
    """The header of a codestream."""

    width: int  # px
    height: int
    bits: int  # of a sample


def jxl_header(file: IO[bytes]) -> JxlHeader | None:
    """The header (ISO/IEC 18181-1, SizeHeader and ImageMetadata); None for any other file and one that is cut off."""
    try:
        start = 0 if read_at(file, 0, 2) == CODESTREAM else _codestream(file)
        if start is None or read_at(file, start, 2) != CODESTREAM:
            return None
        bits = _Bits(read_at(file, start + 2, min(32, file_size(file) - start - 2)))
        return JxlHeader(*_size(bits), _depth(bits))
    except (ValueError, struct.error):
        return None


def _size(bits: "_Bits") -> tuple[int, int]:
    small = bits.take(1)
    height = 8 * (bits.take(5) + 1) if small else bits.number()
    ratio = bits.take(3)
    if ratio:
        across, down = RATIOS[ratio - 1]
        return height * across // down, height
    return (8 * (bits.take(5) + 1) if small else bits.number()), height


def _depth(bits: "_Bits") -> int:
    """The bits of a sample, from the part after the size; 8 where that begins with what is not read here."""
    is_default = bits.take(1)
    if is_default:
        return 8
    has_more = bits.take(1)
    if has_more:
        bits.take(3)  # orientation
        if any(bits.take(1) for _ in range(3)):  # another intrinsic size, a preview, an animation
            return 8
    is_float = bits.take(1)
    which = bits.take(2)
    if is_float:
        return (32, 16, 24)[which] if which < 3 else bits.take(6) + 1
    return (8, 10, 12)[which] if which < 3 else bits.take(6) + 1


def _codestream(file: IO[bytes]) -> int | None:
    """The offset of the codestream in a container; None for any other file."""
    if read_at(file, 0, 12) != CONTAINER:
        return None
    place = 12
    for _ in range(MOST_BOXES):
        size, kind = struct.unpack(">I4s", read_at(file, place, 8))
        head = 8
        if size == 1:
            (size,), head = struct.unpack(">Q", read_at(file, place + 8, 8)), 16
        if kind in (b"jxlc", b"jxlp"):
            return place + head + (4 if kind == b"jxlp" else 0)
        if size < head:
            return None
        place += size
    return None


class _Bits:
    """A reader of bits, the lowest of each byte first."""

    def __init__(self, content: bytes):
        self._rest = int.from_bytes(content, "little")

    def take(self, count: int) -> int:
        value = self._rest & ((1 << count) - 1)
        self._rest >>= count
        return value

    def number(self) -> int:
        return self.take(WIDTHS_OF_NUMBERS[self.take(2)]) + 1
