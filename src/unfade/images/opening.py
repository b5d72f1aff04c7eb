"""Opening a picture file with Pillow: refused in one sentence where it cannot be read, and never with a warning."""

import importlib
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, UnidentifiedImageError, features

from unfade.errors import UnreadableImage

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, RuntimeError, struct.error)  # as Pillow says it
STUMBLED = (TypeError, KeyError, AttributeError, OverflowError, ZeroDivisionError)  # as it does over odd headers
TURNS = {  # EXIF orientation: what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
FILMS = ("GIF", "WEBP", "PNG", "AVIF")  # several pages of a TIFF or MPO are not a film
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
SMALL = 4_000_000  # pixels that are harmless whatever the file claims
SPARSEST = 2_000  # pixels per byte of the emptiest real picture; a wholly flat WebP has about 600


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The decoded picture, not turned; whatever Pillow says against it, here or in the block, is one sentence.

    Raises UnreadableImage, its message starting with the path: for a file that is damaged, no picture, or an
    animation, and before anything is allocated for one of more than twice `Image.MAX_IMAGE_PIXELS`, 179 megapixels:
    enough for a scan of 100 and, at 4 bytes a pixel, for a machine of 2 GB.
    """
    try:
        # an open file, not its path: by path, Pillow maps and so garbles a turned TIFF
        with HUSH, path.open("rb") as file, _loaded(path, file) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"{path} has too many pixels; make it smaller first ({error}).") from error
    except MemoryError as error:
        raise UnreadableImage(f"{path} needs more memory than there is; make it smaller first.") from error
    except DAMAGED as error:
        raise UnreadableImage(_what_is_wrong(path, error)) from error


def _loaded(path: Path, file: IO[bytes]) -> Image.Image:
    try:
        image = Image.open(file, formats=readable_kinds())
        _refuse_animation(path, image)
        _refuse_bomb(path, image)
        image.load()
    except STUMBLED as error:
        raise ValueError(str(error)) from error
    return image


@lru_cache
def readable_kinds() -> tuple[str, ...]:
    """Pillow's names of what is read. Not all that Pillow knows: a renamed PostScript file would start a program."""
    kinds = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")  # a JPEG may turn out an MPO
    with HUSH:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError:
            return (*kinds, "AVIF")
    return (*kinds, "AVIF", "HEIF")


def upright(image: Image.Image) -> Image.Image:
    """Not ImageOps.exif_transpose: that encodes all other tags again, and fails where a camera wrote odd ones."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DAMAGED:  # the pixels are sound all the same
        turn = None
    return image if turn is None else image.transpose(turn)


def mode_name(mode: str) -> str:
    """Pillow's name of a mode in words."""
    return {"L": "grey", "1": "black and white", "P": "palette", "PA": "palette"}.get(mode, mode)


def _refuse_animation(path: Path, image: Image.Image) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format in FILMS:
        raise UnreadableImage(f"{path} is an animation of {frames} frames; save the frame you want as a PNG.")


def _refuse_bomb(path: Path, image: Image.Image) -> None:
    size = path.stat().st_size
    if image.width * image.height > max(SMALL, SPARSEST * size):
        raise UnreadableImage(
            f"{path} claims {image.width:,} x {image.height:,} pixels in {size:,} bytes; get the file again from its "
            "source."
        )


def _what_is_wrong(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:  # the system's; Pillow's own have no number
        return f"{path} cannot be opened ({error.strerror}); check that it is there and may be read."
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
    if head[4:8] != b"ftyp":
        return None
    if head[8:] in HEIC_BRANDS and "HEIF" not in readable_kinds():
        return f"{path} is a HEIC picture; get the package pillow-heif to read it (pip install pillow-heif)."
    if head[8:] in (b"avif", b"avis") and not features.check("avif"):
        return f"{path} is an AVIF picture; get a Pillow that is built with AVIF (pip install --upgrade pillow)."
    return None


class _Hush:
    """Nothing that Pillow warns of in here is heard; counted, for `catch_warnings` alone is not safe in threads."""

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
