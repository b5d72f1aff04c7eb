"""The exact sample values of a TIFF page, where Pillow would misread them.

Pillow reads samples of 8 bits well. Deeper samples it truncates, inverts, or mixes up if each colour has a plane of its
own. So for these the file is presented to libtiff as a grey picture whose pixels are its bytes, and the bytes are
interpreted here (TIFF 6.0; Adobe Photoshop TIFF Technical Note 3 for floating point).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin
from PIL import __version__ as pillow

from unfade.errors import UnreadableImage
from unfade.images.spliced import file_size, read_at
from unfade.images.tiff_pages import Page, as_only_page

UNCOMPRESSED, JPEG = 1, 7
PACKED = (5, 8, 32773, 32946, 34925, 50000)  # LZW, Deflate, PackBits, Deflate by its old number, LZMA, Zstandard
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, INKS, CIE_LAB, ICC_LAB = 0, 1, 2, 5, 8, 9
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, INKS: 4, CIE_LAB: 3, ICC_LAB: 3}  # number of colour samples
YCBCR = 6
UNSAID = ("raw",) if int(pillow.split(".")[0]) < 13 else ()  # what Pillow tells libtiff of the compression
KNOWN_TO_PILLOW = {3: "a palette", YCBCR: "YCbCr"}
RAW = {32803: "a colour filter array", 34892: "linear raw"}
WORDS = {10: "ITU Lab", 32844: "LogL", 32845: "LogLuv", **KNOWN_TO_PILLOW}
UNSIGNED, SIGNED, FLOAT, UNTOLD = 1, 2, 3, 4  # SampleFormat
PREMULTIPLIED, STRAIGHT = 1, 2  # ExtraSamples
TOGETHER, IN_PLANES = 1, 2  # PlanarConfiguration
NO_PREDICTOR, DIFFERENCES, FLOAT_DIFFERENCES = 1, 2, 3
MOST_CHANNELS = 32
BLOCK = 1 << 24  # bits that are unpacked at a time
REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)[:, ::-1]).reshape(-1)
BITS, COMPRESSION, FILL_ORDER, STRIP_OFFSETS, PER_PIXEL, ROWS_PER_STRIP, STRIP_BYTES = 258, 259, 266, 273, 277, 278, 279
MOST_VALUE, PLANES, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 281, 284, 317, 322, 323, 324, 325
INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, DNG_VERSION, PHOTOMETRIC, ORIENTATION = 332, 338, 339, 50706, 262, 274
# tags about the meaning of the samples, which no longer apply when these are presented as bytes
MEANINGS = (280, 281, 284, 290, 291, 300, 301, 317, 320, 321, 332, 333, 334, 336, 338, 339, 340, 341, 530, 531, 532)


@dataclass(frozen=True)
class Samples:
    """Sample values, and everything that the file states about their meaning."""

    numbers: NDArray[Any]  # (H, W, C) unsigned integers, or floats
    photometric: int  # a key of COLOURS
    bits: int  # of one sample
    extras: tuple[int, ...]  # kinds of the channels after the colours; 0: unspecified
    most: int | None  # the largest possible value, if the file states it

    @property
    def colours(self) -> int:
        """How many of the C channels are colours."""
        return COLOURS[self.photometric]


@dataclass(frozen=True)
class _Layout:
    """The layout of a page's pixels in the file."""

    width: int
    height: int
    across: int  # tiles side by side; 1 for strips
    tile_width: int
    tile_height: int
    bits: int
    together: int  # samples of one pixel that are stored together
    planes: int

    @property
    def row(self) -> int:
        """Bytes of one row of a tile or strip."""
        return (self.tile_width * self.together * self.bits + 7) // 8

    @property
    def tiles(self) -> int:
        """Tiles or strips of one plane."""
        return self.across * -(-self.height // self.tile_height)


def needs_reading(page: Page) -> bool:
    """Whether a page is read here; False where Pillow reads its compression and colours correctly."""
    bits, said = set(page.numbers(BITS)) or {1}, page.number(PHOTOMETRIC, -1)
    if said in RAW or DNG_VERSION in page.entries:
        return True  # so that it is refused
    by_pillow = page.number(COMPRESSION, UNCOMPRESSED) not in (UNCOMPRESSED, *PACKED) or said in KNOWN_TO_PILLOW
    return not (by_pillow and bits <= {1, 2, 4, 8})


def bytes_of(page: Page) -> int:
    """The bytes of the page's pixels without compression. Raises ValueError for a size of 0."""
    layout = _layout(page)
    return layout.height * layout.across * layout.row * layout.planes


def read_samples(page: Page, path: Path) -> Samples:
    """The samples of a page. Raises UnreadableImage where their meaning is unknown, ValueError for damage."""
    _refuse_unknown(page, path)
    photometric = _photometric(page, path)
    layout = _layout(page)
    sample_format = page.number(SAMPLE_FORMAT, UNSIGNED)
    planes = [_numbers(page, path, layout, plane, sample_format) for plane in range(layout.planes)]
    numbers = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
    extra = numbers.shape[-1] - COLOURS[photometric]
    if extra < 0:
        raise ValueError(f"{numbers.shape[-1]} samples of {COLOURS[photometric]}")
    extras = (*page.numbers(EXTRA_SAMPLES), *[0] * extra)[:extra]
    if extra and EXTRA_SAMPLES not in page.entries:
        extras = (STRAIGHT, *extras[1:])  # old programs wrote alpha without declaring it
    most = page.number(MOST_VALUE, 0)
    stated = most if 0 < most < 2**layout.bits - 1 and not most & (most + 1) else None  # 255, 1023, ...: a depth
    return Samples(numbers, photometric, layout.bits, extras, stated)


def describing_image(page: Page) -> TiffImagePlugin.TiffImageFile:
    """An image with the metadata of the photo's page, which is not meant to be decoded."""
    shown: dict[int, tuple[int, ...] | None] = dict.fromkeys(MEANINGS)
    shown |= {BITS: (8,), COMPRESSION: (UNCOMPRESSED,), PHOTOMETRIC: (1,), PER_PIXEL: (1,), FILL_ORDER: (1,)}
    return TiffImagePlugin.TiffImageFile(as_only_page(page, shown))


def needs_libtiff(page: Page) -> bool:
    """Whether Pillow takes the page for RGB although it is YCbCr: without compression, it does not ask libtiff."""
    return page.number(PHOTOMETRIC, -1) == YCBCR and page.number(COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED


def image_by_libtiff(page: Page, source: IO[bytes]) -> ImageFile.ImageFile:
    """The page as libtiff decodes it, to RGB. Raises ValueError where it is cut off, which libtiff may pass over."""
    names = (TILE_OFFSETS, TILE_BYTES) if TILE_OFFSETS in page.entries else (STRIP_OFFSETS, STRIP_BYTES)
    if max(map(sum, zip(*map(page.numbers, names), strict=False)), default=0) > file_size(page.file):
        raise ValueError("its pixels lie behind its end")
    source.seek(0)
    return _ByLibtiff(source)


class _ByLibtiff(TiffImagePlugin.TiffImageFile):
    """A picture of 8 bits that libtiff decodes although it is not compressed."""

    def _setup(self) -> None:
        super()._setup()
        self.use_load_libtiff = True
        self._mode = "RGB"
        how = "RGBX", *UNSAID, False, self.tag_v2.offset
        self.tile = [ImageFile._Tile("libtiff", (0, 0, *self._tile_size), 0, how)]


def _refuse_unknown(page: Page, path: Path) -> None:
    bits, formats = set(page.numbers(BITS)) or {1}, set(page.numbers(SAMPLE_FORMAT)) or {UNSIGNED}
    compression, ink_set = page.number(COMPRESSION, UNCOMPRESSED), page.number(INK_SET, 1)
    why = f"{channels} channels" if (channels := page.number(PER_PIXEL, 1)) > MOST_CHANNELS else None
    if page.number(PHOTOMETRIC, 0) in RAW or DNG_VERSION in page.entries:
        raise UnreadableImage(f"{path} is a camera's raw file; convert it to TIFF, PNG or JPEG with a raw developer.")
    if len(bits) > 1 or len(formats) > 1:
        why = "colours of different depths"
    elif SIGNED in formats:
        why = "signed values, and does not define which is black and which is white"
    elif not formats <= {UNSIGNED, FLOAT, UNTOLD}:
        why = "complex numbers"
    elif not bits <= ({16, 32, 64} if FLOAT in formats else {*range(1, 33), 64}):
        why = f"samples of {min(bits)} bits"
    elif compression not in (UNCOMPRESSED, *PACKED):
        how = TiffImagePlugin.COMPRESSION_INFO.get(compression, str(compression))
        why = f"samples of {min(bits)} bits compressed as {how}"
    elif ink_set != 1:
        why = "inks other than CMYK"
    if why:
        raise UnreadableImage(f"{path} holds {why}; save it as a TIFF of 8 or 16 bits, uncompressed or with Deflate.")


def _photometric(page: Page, path: Path) -> int:
    """The photometric interpretation; where it is missing, libtiff's guess, which viewers follow."""
    guess = {3: RGB, 4: RGB}.get(page.number(PER_PIXEL, 1), BLACK_IS_ZERO)
    said = page.number(PHOTOMETRIC, guess)
    if said not in COLOURS:
        what = WORDS.get(said, f"the photometric interpretation {said}")
        bits = page.number(BITS, 1)
        raise UnreadableImage(f"{path} has {what} of {bits} bits; save it as RGB or grey, as a TIFF of 8 or 16 bits.")
    if said in (CIE_LAB, ICC_LAB) and set(page.numbers(BITS)) not in ({8}, {16}):
        raise UnreadableImage(f"{path} has Lab of {page.number(BITS, 1)} bits; save it as RGB with 8 or 16.")
    return said


def _layout(page: Page) -> _Layout:
    width, height = page.size
    samples, bits = page.number(PER_PIXEL, 1), page.number(BITS, 1)
    apart = page.number(PLANES, TOGETHER) == IN_PLANES
    together, planes = (1, samples) if apart else (samples, 1)
    tiled = TILE_OFFSETS in page.entries or TILE_WIDTH in page.entries
    tile_width = page.number(TILE_WIDTH, 0) if tiled else width
    tile_height = page.number(TILE_HEIGHT, 0) if tiled else min(height, page.number(ROWS_PER_STRIP, height))
    if not (tile_width and tile_height and together and planes):
        raise ValueError("a size of 0")
    return _Layout(width, height, -(-width // tile_width), tile_width, tile_height, bits, together, planes)


def _numbers(page: Page, path: Path, layout: _Layout, plane: int, sample_format: int) -> NDArray[Any]:
    """The samples of one plane, (H, W, C)."""
    rows = _rows(page, layout, plane)
    predictor = page.number(PREDICTOR, NO_PREDICTOR) if page.number(COMPRESSION, UNCOMPRESSED) in PACKED else 1
    if predictor not in (NO_PREDICTOR, DIFFERENCES, FLOAT_DIFFERENCES):
        raise UnreadableImage(f"{path} has the TIFF predictor {predictor}; save it again without one.")
    count = layout.tile_width * layout.together
    size = layout.bits // 8
    letter = "f" if sample_format == FLOAT else "u"
    if predictor == FLOAT_DIFFERENCES:
        parts = np.cumsum(rows.reshape(*rows.shape[:2], -1, layout.together), axis=2, dtype=np.uint8)
        grouped = parts.reshape(*rows.shape[:2], size, count).swapaxes(-1, -2)
        numbers = np.ascontiguousarray(grouped).view(f">{letter}{size}")[..., 0]
    elif layout.bits in (8, 16, 32, 64):
        numbers = rows.view(f"{page.order}{letter}{size}")
    else:
        if layout.bits == 24 and page.order == "<":
            rows = rows.reshape(*rows.shape[:2], count, 3)[..., ::-1].reshape(rows.shape)
        numbers = _unpacked(rows, count, layout.bits)
    numbers = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
    numbers = numbers.reshape(*rows.shape[:2], layout.tile_width, layout.together)
    if predictor == DIFFERENCES:
        whole = numbers.view(f"u{size}")
        numbers = np.cumsum(whole, axis=2, dtype=whole.dtype).view(numbers.dtype)
    joined = numbers.reshape(layout.height, layout.across * layout.tile_width, layout.together)
    return joined[:, : layout.width]


def _rows(page: Page, layout: _Layout, plane: int) -> NDArray[np.uint8]:
    """The bytes of a plane without their compression: (H, tiles across, bytes of a tile's row)."""
    tiled = TILE_OFFSETS in page.entries
    names = (TILE_OFFSETS, TILE_BYTES) if tiled else (STRIP_OFFSETS, STRIP_BYTES)
    own = slice(plane * layout.tiles, (plane + 1) * layout.tiles)
    offsets, sizes = (page.numbers(name)[own] for name in names)
    if len(offsets) < layout.tiles:
        raise ValueError(f"{len(offsets)} of {layout.tiles} strips or tiles")
    if page.number(COMPRESSION, UNCOMPRESSED) != UNCOMPRESSED:
        return _by_libtiff(page, layout, dict(zip(names, (offsets, sizes), strict=True)))
    if layout.height * layout.row > file_size(page.file):
        raise ValueError("its pixels lie behind its end")
    rows = np.empty((layout.height, layout.across, layout.row), np.uint8)
    for number, offset in enumerate(offsets):
        down, column = divmod(number, layout.across)
        part = rows[down * layout.tile_height : (down + 1) * layout.tile_height, column]
        raw = np.frombuffer(read_at(page.file, offset, part.size), np.uint8)
        part[:] = raw.reshape(part.shape)
    return REVERSED[rows] if page.number(FILL_ORDER, 1) == 2 else rows


def _by_libtiff(page: Page, layout: _Layout, places: dict[int, tuple[int, ...]]) -> NDArray[np.uint8]:
    """The bytes, decompressed by libtiff as a grey picture of 8 bits, since it supports every compression."""
    claimed, there = layout.height * layout.across * layout.row, sum(next(reversed(places.values())))
    if there > file_size(page.file):
        raise ValueError(f"{there:,} bytes of pixels lie behind its end")
    shown: dict[int, tuple[int, ...] | None] = dict.fromkeys((*MEANINGS, ORIENTATION))
    shown |= {256: (layout.across * layout.row,), BITS: (8,), PHOTOMETRIC: (1,), PER_PIXEL: (1,), **places}
    if TILE_OFFSETS in places:
        shown[TILE_WIDTH] = (layout.row,)
    with _Bytes(as_only_page(page, shown)) as image:
        rows = np.asarray(image)
    if rows.size != claimed:
        raise ValueError(f"{rows.size:,} of {claimed:,} bytes")
    return rows.reshape(layout.height, layout.across, layout.row)


class _Bytes(TiffImagePlugin.TiffImageFile):
    """A picture whose pixels are the bytes of another one, so Pillow's limit on pixels does not apply."""

    def load_prepare(self) -> None:
        self.im = Image.new(self.mode, self.size).im
        ImageFile.ImageFile.load_prepare(self)


def _unpacked(rows: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.uint32]:
    """Samples of any other depth up to 32 bits, most significant bit first; each row begins at a byte."""
    flat = rows.reshape(-1, rows.shape[-1])
    numbers = np.empty((len(flat), count), np.uint32)
    step = max(1, BLOCK // (rows.shape[-1] * 8))
    for top in range(0, len(flat), step):
        single = np.unpackbits(flat[top : top + step], axis=1)[:, : count * bits].reshape(-1, count, bits)
        part = numbers[top : top + step]
        part[:] = 0
        for place in range(bits):
            part <<= 1
            part |= single[..., place]
    return numbers.reshape(*rows.shape[:2], count)
