"""The size of a JPEG XL from its header; Pillow's plugin decodes the whole picture before it reports the size."""

import struct
from typing import IO

from unfade.images.spliced import file_size, read_at

CODESTREAM, CONTAINER = b"\xff\n", b"\0\0\0\x0cJXL \r\n\x87\n"
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of width to height, numbered from 1
WIDTHS_OF_NUMBERS = (9, 13, 18, 30)  # bits
MOST_BOXES = 1000


def jxl_size(file: IO[bytes]) -> tuple[int, int] | None:
    """Width and height in px (ISO/IEC 18181-1, SizeHeader); None for any other file and one that is cut off."""
    try:
        start = 0 if read_at(file, 0, 2) == CODESTREAM else _codestream(file)
        if start is None or read_at(file, start, 2) != CODESTREAM:
            return None
        bits = _Bits(read_at(file, start + 2, min(12, file_size(file) - start - 2)))
        small = bits.take(1)
        height = 8 * (bits.take(5) + 1) if small else bits.number()
        ratio = bits.take(3)
        if ratio:
            across, down = RATIOS[ratio - 1]
            return height * across // down, height
        return (8 * (bits.take(5) + 1) if small else bits.number()), height
    except (ValueError, struct.error):
        return None


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
