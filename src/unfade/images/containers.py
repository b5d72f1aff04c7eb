"""PNG and TIFF files written here, since Pillow cannot write RGB of 16 bits.

Samples are (H, W, C), uint8 or uint16: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
"""

import struct
import zlib
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from unfade.images.metadata import PREFIX, describing_tags
from unfade.images.photo import Levels

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
UP = 2  # the PNG filter that stores the difference of each byte from the byte above
EFFORT = 3  # zlib's level, 0 to 9; 6 takes twice as long for 2 % of size
STRIP = 1 << 20  # bytes of one strip of a TIFF, before compression
INCH = 0.0254  # metres
DEFLATE, DIFFERENCES, TOGETHER, STRAIGHT_ALPHA = 8, 2, 1, 2  # values of TIFF tags


def png(
    samples: Levels,
    exif: bytes,
    xmp: bytes,
    icc: bytes,
    dpi: tuple[float, float] | None,
    *,
    texts: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG file, with the metadata before the pixels as the standard requires (PNG 3, Sec. 5.6).

    `texts` are names and contents of text chunks, written unchanged.
    """
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, PNG_COLOURS[channels], 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / INCH) for value in dpi), 1)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(PREFIX)))
    if xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    chunks += [*texts, (b"IDAT", zlib.compress(_rows_of_differences(samples), EFFORT)), (b"IEND", b"")]
    return PNG_START + b"".join(_chunk(name, content) for name, content in chunks)


def tiff(
    samples: Levels, exif: bytes, xmp: bytes, icc: bytes, dpi: tuple[float, float] | None, *, iptc: bytes = b""
) -> bytes:
    """A TIFF file, little-endian, Deflate with horizontal differences (TIFF 6.0, Sec. 14)."""
    if samples.shape[-1] == 2 and samples.dtype == np.uint16:
        samples = samples.take([0, 0, 0, 1], axis=-1)  # Pillow, like many programs, reads no 16-bit grey with alpha
    height, width, channels = samples.shape
    rows = max(1, STRIP // (width * channels * samples.itemsize))
    strips = [_strip(samples[top : top + rows]) for top in range(0, height, rows)]
    sizes = tuple(map(len, strips))
    tags = ImageFileDirectory_v2()
    if exif:
        described = Image.Exif()
        described.load(exif)
        for tag, value in describing_tags(described).items():
            tags[tag] = value
    tags[256], tags[257], tags[258] = width, height, (8 * samples.itemsize,) * channels
    tags[259], tags[317], tags[284] = DEFLATE, DIFFERENCES, TOGETHER
    tags[262], tags[277] = (1 if channels < 3 else 2), channels
    tags[278], tags[273], tags[279] = rows, (0, *accumulate(sizes[:-1])), sizes  # offsets from the directory's end
    if channels in (2, 4):
        tags[338] = STRAIGHT_ALPHA
    if dpi:
        tags[282], tags[283], tags[296] = *dpi, 2
    if xmp:
        tags[700] = xmp
    if icc:
        tags[34675] = icc
    if iptc:
        tags[33723] = iptc
    return b"".join([b"II*\0", struct.pack("<I", 8), tags.tobytes(8), *strips])


def _rows_of_differences(samples: Levels) -> bytes:
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(len(samples), -1).view(np.uint8)
    filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered.tobytes()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _strip(samples: Levels) -> bytes:
    differences = samples.astype(samples.dtype.newbyteorder("<"))
    differences[:, 1:] -= samples[:, :-1]
    return zlib.compress(differences.tobytes(), EFFORT)
