"""Opening a picture file with Pillow: a file that cannot be read is refused in one sentence, without warnings."""

import contextlib
import importlib
import math
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError, features

from unfade.errors import UnreadableImage
from unfade.images.boxes import Boxed, boxed
from unfade.images.geometry import Move
from unfade.images.jxl_header import jxl_header
from unfade.images.png_chunks import Chunks, chunks_of
from unfade.images.tiff_pages import BIG_ENDIAN_BIG, Page, Pages, as_only_page, pages_of
from unfade.images.tiff_samples import (
    Samples,
    bytes_of,
    describing_image,
    image_by_libtiff,
    needs_libtiff,
    needs_reading,
    read_samples,
)
from unfade.images.time_limit import limit_in

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, RuntimeError, struct.error)  # Pillow's errors
STUMBLED = (TypeError, KeyError, AttributeError, OverflowError, ZeroDivisionError)  # Pillow's errors for odd headers
TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {  # by EXIF orientation: makes the picture upright
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
FILMS = ("GIF", "WEBP", "PNG", "AVIF")  # several pages of a TIFF or MPO are not a film
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
JXL_STARTS = (b"\xff\n", b"\0\0\0\x0cJXL ")
MOST_BYTES = 8  # bytes per pixel allowed for a picture of the most pixels: four channels of 16 bits
JP2_COLOURS = (0, 12, 16, 17, 18)  # unspecified, CMYK, sRGB, grey, sYCC (ISO/IEC 15444-1 and -2)
SMALL = 4_000_000  # pixels up to which a picture is harmless, however few bytes the file has
LIMIT = "UNFADE_MEGAPIXELS"
FEW_GREYS = {"L;2": 85, "L;4": 17}  # Pillow's packings of grey of few bits, and the factor that brings them to 8
SPARSEST = 2_000  # pixels per byte of the emptiest real picture; a wholly flat WebP has about 600


@dataclass(frozen=True)
class Opened:
    """A picture file while it is open."""

    image: Image.Image  # decoded, unless there are `samples`; then only its metadata are used
    orientation: int  # EXIF's, 1 to 8: how the picture has to be turned
    samples: Samples | None = None  # the pixel values of a TIFF that Pillow would misread
    notes: tuple[str, ...] = ()  # what of the file is left out, in words
    turned: bool = False  # whether the orientation has been applied to the image
    page: Page | None = None  # the page of a TIFF
    chunks: Chunks | None = None  # the chunks of a PNG
    boxes: Boxed = Boxed()  # the boxes of AVIF, HEIC and JPEG 2000
    source: IO[bytes] | None = None  # the open file that Pillow read

    @property
    def turn(self) -> int:
        """The orientation that is still to be applied."""
        return 1 if self.turned else self.orientation

    @property
    def move(self) -> Move:
        """The move from the stored picture to the upright one. The HEIC reader has already applied the orientation."""
        orientation = (
            self.orientation if self.orientation in TURNS else self.image.info.get("original_orientation") or 1
        )
        before = self.page.size if self.page is not None else self.image.size
        is_quarter = orientation >= 5
        if is_quarter and self.orientation not in TURNS:
            before = before[::-1]
        return Move(orientation, before, before[::-1] if is_quarter else before)

    def again(self) -> ImageFile.ImageFile:
        """The image once more, not decoded yet; for those without `samples`."""
        assert self.source is not None
        self.source.seek(0)
        return Image.open(self.source, formats=readable_kinds())


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """The decoded picture, not turned; any error of Pillow, here or in the block, becomes one sentence.

    Raises UnreadableImage, whose message starts with the path, for a file that is damaged, not a picture, not a regular
    file (a pipe may never end) or an animation, and for a picture of more than `most_megapixels`, before anything is
    allocated for it.
    """
    most_megapixels()  # first: an invalid limit is not the file's fault
    try:
        refuse_endless(path)
        # an open file, not its path: by path, Pillow maps and so garbles a turned TIFF
        with HUSH, path.open("rb") as file:
            found = _opened(path, file)
            with found.image:
                yield found
    except Image.DecompressionBombError as error:
        raise _too_many(path) from error
    except MemoryError as error:
        raise UnreadableImage(f"{path} needs more memory than there is; make it smaller first.") from error
    except DAMAGED as error:
        raise UnreadableImage(_what_is_wrong(path, error)) from error


def most_megapixels() -> float:
    """The most megapixels that a picture may have: 178.9, enough for scans of over 100; 0.7 GB at 4 bytes per pixel.

    The environment variable UNFADE_MEGAPIXELS sets another number. Raises BadInput where it is not a number.
    """
    return limit_in(LIMIT, 178.9, "megapixels, like 400")


def _opened(path: Path, file: IO[bytes]) -> Opened:
    try:
        pages = pages_of(file)
        file.seek(0)
        return _opened_by_pillow(path, file) if pages is None else _opened_tiff(path, file, pages)
    except STUMBLED as error:
        raise ValueError(str(error)) from error


def _opened_by_pillow(path: Path, file: IO[bytes]) -> Opened:
    said = boxed(file)
    if said.enumerated not in JP2_COLOURS:
        raise UnreadableImage(f"{path} is a JPEG 2000 in an unsupported colour space; save it as RGB or grey.")
    if header := jxl_header(file):
        _refuse_size(path, header.width, header.height)
        said = replace(said, bits=header.bits)
    chunks = chunks_of(file)
    source = file if chunks is None else chunks.plain
    source.seek(0)
    image = _image(path, source)
    _refuse_animation(path, image)
    if image.format == "PNG":
        _scale_clear_value(image)
    image.load()
    if chunks is not None and chunks.exif:
        image.info.setdefault("exif", chunks.exif)
    notes = () if chunks is None else chunks.notes
    return Opened(image, _orientation(image), notes=notes, chunks=chunks, boxes=said, source=source)


def _scale_clear_value(image: ImageFile.ImageFile) -> None:
    """Pillow brings grey of 2 and 4 bits to 8, but not the value of it that the PNG declares to be transparent."""
    packing, clear = image.tile[0].args if image.tile else "", image.info.get("transparency")
    if packing in FEW_GREYS and isinstance(clear, int):
        image.info["transparency"] = FEW_GREYS[str(packing)] * clear


def _opened_tiff(path: Path, file: IO[bytes], pages: Pages) -> Opened:
    page, orientation = pages.described, pages.described.number(ExifTags.Base.Orientation, 1)
    which = "first" if pages.photo is pages.first else "largest"
    notes = (f"only the {which} of {pages.full} pictures in the file is kept",) if pages.full > 1 else ()
    if needs_reading(page):
        _refuse_size(path, *page.size)
        if bytes_of(page) > MOST_BYTES * most_megapixels() * 1e6:
            raise _too_many(path)
        return Opened(describing_image(page), orientation, read_samples(page, path), notes, page=page)
    source = file if pages.photo is pages.first else as_only_page(page, {})
    if needs_libtiff(page):
        _refuse_size(path, *page.size)
        image = image_by_libtiff(page, source)
    else:
        source.seek(0)
        image = _image(path, source)
    image.load()  # this also applies the orientation
    return Opened(image, orientation, None, notes, turned=True, page=page, source=source)


def _image(path: Path, file: IO[bytes]) -> ImageFile.ImageFile:
    """The image of a file, not decoded yet."""
    if LIMIT in os.environ and most_megapixels() * 1e6 > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
        Image.MAX_IMAGE_PIXELS = math.ceil(most_megapixels() * 5e5)  # Pillow refuses pictures of more than twice this
    image = Image.open(file, formats=readable_kinds())
    _refuse_size(path, image.width, image.height)
    return image


@lru_cache
def readable_kinds() -> tuple[str, ...]:
    """Pillow's names of the formats that are read; not all of Pillow's: a renamed PostScript would start a program."""
    kinds = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF"]  # a JPEG may turn out an MPO
    if features.check("jpg_2000"):
        kinds.append("JPEG2000")
    with HUSH:
        with contextlib.suppress(ImportError):
            importlib.import_module("pillow_heif").register_heif_opener()
            kinds.append("HEIF")
        with contextlib.suppress(ImportError):
            importlib.import_module("pillow_jxl")  # registers itself
            kinds.append("JXL")
    return tuple(kinds)


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, ...) turned as an EXIF orientation asks; any number outside 2..8 changes nothing."""
    turn = TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def mode_name(mode: str) -> str:
    """Pillow's name of a mode, in words."""
    return {"L": "grey", "1": "black and white", "P": "palette", "PA": "palette"}.get(mode, mode)


def _refuse_animation(path: Path, image: Image.Image) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format in FILMS:
        raise UnreadableImage(f"{path} is an animation of {frames} frames; save the frame you want as a PNG.")


def _refuse_size(path: Path, width: int, height: int) -> None:
    size = path.stat().st_size
    if width * height > max(SMALL, SPARSEST * size):
        raise UnreadableImage(
            f"{path} claims {width:,} x {height:,} pixels in {size:,} bytes; get the file again from its source."
        )
    if width * height > most_megapixels() * 1e6:
        raise _too_many(path)


def _too_many(path: Path) -> UnreadableImage:
    return UnreadableImage(
        f"{path} has more than the {most_megapixels():g} megapixels that are read, or too many channels; make it "
        f"smaller, or set the environment variable {LIMIT} to more where there is memory for it."
    )


def pixels_in(path: Path) -> int:
    """The number of pixels of a picture file, from its header alone; 0 for a file that cannot be read."""
    try:
        refuse_endless(path)
        with HUSH, path.open("rb") as file:
            pages = pages_of(file)
            if pages is not None:
                return pages.photo.size[0] * pages.photo.size[1]
            file.seek(0)
            with Image.open(file, formats=readable_kinds()) as image:
                return image.width * image.height
    except Exception:  # decoding the file later will report what is wrong
        return 0


def refuse_endless(path: Path) -> None:
    """Raise UnreadableImage for a pipe, socket or device, before it is opened: reading it may never end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UnreadableImage(f"{path} is a pipe, socket or device, not a file; save the picture as a file first.")


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8. ImageOps.exif_transpose would encode all tags again and fail where one is odd."""
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1  # its decoder has turned it, whatever EXIF says (ISO/IEC 18181-2)
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DAMAGED:  # the pixels are sound all the same
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def _what_is_wrong(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:  # the system's; Pillow's own have no number
        return f"{path} cannot be opened ({error.strerror}); check that it exists and can be read."
    size = path.stat().st_size
    if not size:
        return f"{path} is empty; get the file again from its source."
    if isinstance(error, UnidentifiedImageError):
        return _missing_decoder(path) or f"{path} is not a picture that can be read; convert it to PNG or JPEG."
    said = " ".join(str(error).split()).rstrip(".")
    return f"{path} is damaged or cut off ({size:,} bytes: {said}); get the file again from its source."


def _missing_decoder(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(12)
    if head.startswith(BIG_ENDIAN_BIG):
        return f"{path} is a BigTIFF in big-endian order; save it as a TIFF, or as a BigTIFF in little-endian order."
    if head.startswith(JXL_STARTS) and "JXL" not in readable_kinds():
        return f"{path} is a JPEG XL picture; get the package pillow-jxl-plugin to read it."
    if head[4:8] != b"ftyp":
        return None
    if head[8:] in HEIC_BRANDS and "HEIF" not in readable_kinds():
        return f"{path} is a HEIC picture; get the package pillow-heif to read it (pip install pillow-heif)."
    if head[8:] in (b"avif", b"avis") and not features.check("avif"):
        return f"{path} is an AVIF picture; get a Pillow that is built with AVIF (pip install --upgrade pillow)."
    return None


class _Hush:
    """Silences Pillow's warnings in the block. Entries are counted, as `catch_warnings` alone is not thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.filterwarnings("ignore", module="PIL")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before.__exit__(None, None, None)


HUSH = _Hush()
