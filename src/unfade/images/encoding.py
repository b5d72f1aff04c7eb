"""Photos written to files: format, compression and metadata are those of the file that was read."""

import io
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, features

from unfade.errors import BadInput
from unfade.images.colours import profile_as_of_grey
from unfade.images.containers import png, tiff
from unfade.images.exif_geometry import moved_exif
from unfade.images.finding import HEICS, JPEGS, JPEGS_2000, PLAIN
from unfade.images.geometry import Move
from unfade.images.photo import TO_8_BITS, Levels, Origin, Photo, over_white
from unfade.images.provenance import Provenance, with_provenance
from unfade.images.xmp_geometry import moved_packet

SUFFIXES_OF = {  # a new file gets the first
    "JPEG": tuple(suffix for suffix in JPEGS if suffix != ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "AVIF": (".avif",),
}
READ_ONLY = {
    **dict.fromkeys((".gif", *PLAIN, *JPEGS_2000), ".png"),
    **dict.fromkeys((*HEICS, ".jxl", ".mpo"), ".jpg"),
    ".avifs": ".avif",
}
SHORT_NAMES = {"JPG": "JPEG", "TIF": "TIFF"}
DEEP = ("PNG", "TIFF")  # formats that may have 16 bits
GREY = ("PNG", "TIFF", "JPEG", "BMP")  # formats that may have one channel
CLEAR = ("PNG", "TIFF", "WEBP", "AVIF")  # formats that may have an alpha channel
QUALITY = 95  # where the quality of the original file is unknown
CHROMA = ("4:4:4", "4:2:2", "4:2:0")  # by Pillow's numbers for JPEG
SEGMENT = 65_000  # largest EXIF or XMP block in a JPEG, bytes


def suffix_for(path: Path, kind: str | None) -> str:
    """The suffix of the result of `path`: its own where that fits the format, else the usual one of the format.

    `kind` is as for `encode_photo`. Raises BadInput for a format that is not written.
    """
    own = path.suffix
    if kind is None:
        return READ_ONLY.get(own.lower(), own)
    suffixes = SUFFIXES_OF[_known(kind)]
    return own if own.lower() in suffixes else suffixes[0]


def encode_photo(
    photo: Photo, *, kind: str | None = None, quality: int | None = None, provenance: Provenance | None = None
) -> bytes:
    """The bytes of a file of the photo with the metadata of its origin.

    `kind` is a format by Pillow's name ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF"); None is its origin's. A photo
    from a JPEG keeps its quantisation tables in a JPEG, unless `quality` (1 to 100) is given, and its subsampling; one
    from an AVIF keeps its subsampling in an AVIF. A photo from a file with one channel is written with one as long as
    its channels are equal. `lost_in` lists what the format cannot hold. Raises BadInput for a format that is not
    written.
    """
    kind = _known(kind or photo.origin.kind)
    samples, origin = _samples(photo, kind), _described(photo, provenance)
    origin = replace(origin, icc=_profile(origin.icc, samples))
    return ENCODERS[kind](samples, origin, quality)


def _described(photo: Photo, provenance: Provenance | None) -> Origin:
    """The metadata for a file of the photo, whose size may have changed."""
    said = photo.origin
    move = Move(1, said.size or (1, 1), (photo.width, photo.height) if said.size else (1, 1))
    xmp = moved_packet(said.xmp, move, [])
    xmp = xmp if provenance is None else with_provenance(xmp, provenance)
    return replace(said, exif=moved_exif(said.exif, move), xmp=xmp)


def is_lossless(kind: str) -> bool:
    """Whether a format loses nothing, so that it has no quality. Raises BadInput for one that is not written."""
    return _known(kind) in ("PNG", "TIFF", "BMP")


def lost_in(photo: Photo, *, kind: str | None = None, provenance: Provenance | None = None) -> tuple[str, ...]:
    """What of the photo a file of this format cannot hold, in words; `provenance` as in `encode_photo`."""
    kind = _known(kind or photo.origin.kind)
    origin, now = photo.origin, _described(photo, provenance)
    parts = {"EXIF": (origin.exif, now.exif), "XMP": (origin.xmp, now.xmp), "colour profile": (origin.icc, b"")}
    most = {"BMP": -1, "JPEG": SEGMENT}.get(kind, math.inf)  # bytes
    lost = [f"{name} left out" for name, (before, after) in parts.items() if before and len(after) > most]
    if origin.iptc and (kind not in ("JPEG", "TIFF") or (kind == "JPEG" and len(origin.iptc) > SEGMENT)):
        lost.append("IPTC left out")
    if origin.texts and kind != "PNG":
        lost.append("texts of the PNG left out")
    if any(kind not in ("JPEG", "PNG") or (kind == "JPEG" and len(comment) > SEGMENT) for comment in origin.comments):
        lost.append("comment left out")
    if photo.levels.dtype == np.uint16 and kind not in DEEP:
        lost.append("16 bits brought to 8")
    if photo.alpha is not None and kind not in CLEAR:
        lost.append("transparency laid over white")
    return tuple(lost)


def _known(kind: str) -> str:
    known = SHORT_NAMES.get(kind.upper(), kind.upper())
    if known not in SUFFIXES_OF:
        raise BadInput(f"{kind} is not a format that is written; choose one of {', '.join(SUFFIXES_OF)}.")
    if known == "AVIF" and not features.check("avif"):
        raise BadInput("AVIF cannot be written by this Pillow; choose another format or install one built with AVIF.")
    return known


def _samples(photo: Photo, kind: str) -> Levels:
    """(H, W, C) in the depth and the channels that the format has."""
    levels, alpha = photo.levels, photo.alpha
    if levels.dtype == np.uint16 and kind not in DEEP:
        levels, alpha = TO_8_BITS[levels], None if alpha is None else TO_8_BITS[alpha]
    if alpha is not None and kind not in CLEAR:
        levels, alpha = over_white(levels, alpha), None
    if photo.origin.grey and kind in GREY and _is_grey(levels):
        levels = levels[..., :1]
    return levels if alpha is None else np.concatenate([levels, alpha[..., None]], axis=-1)


def _is_grey(levels: Levels) -> bool:
    return np.array_equal(levels[..., 0], levels[..., 1]) and np.array_equal(levels[..., 0], levels[..., 2])


def _profile(icc: bytes, samples: Levels) -> bytes:
    """A profile for grey does not tell what colours are."""
    if icc[16:20] != b"GRAY" or samples.shape[-1] < 3:
        return icc
    try:
        return profile_as_of_grey(icc)
    except struct.error:
        return b""


def _jpeg(samples: Levels, origin: Origin, quality: int | None) -> bytes:
    matched = {"qtables": origin.tables} if origin.tables and quality is None else {"quality": quality or QUALITY}
    fitting = {name: part for name, part in (("exif", origin.exif), ("xmp", origin.xmp)) if len(part) <= SEGMENT}
    extra = _photoshop_segment(origin.iptc) if 0 < len(origin.iptc) <= SEGMENT else b""
    extra += b"".join(_segment(0xFE, comment) for comment in origin.comments if len(comment) <= SEGMENT)
    chroma = max(origin.subsampling, 0) if origin.read_as == "JPEG" else 0
    how = {**matched, **fitting, "extra": extra}
    return _by_pillow(samples, "JPEG", origin, subsampling=chroma, **how)


def _photoshop_segment(iptc: bytes) -> bytes:
    """APP13 with one of Photoshop's resources (Adobe Photoshop File Formats, Image Resource Blocks)."""
    resource = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    return _segment(0xED, b"Photoshop 3.0\0" + resource)


def _segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def _webp(samples: Levels, origin: Origin, quality: int | None) -> bytes:
    lossless = quality is None and (origin.lossless or origin.kind in ("PNG", "BMP", "TIFF"))
    how = {"lossless": lossless, "exact": lossless, "quality": 75 if lossless else quality or QUALITY}
    return _by_pillow(samples, "WEBP", origin, exif=origin.exif, xmp=origin.xmp, **how)


def _avif(samples: Levels, origin: Origin, quality: int | None) -> bytes:
    how = {"exif": origin.exif, "xmp": origin.xmp, "quality": quality or QUALITY}
    return _by_pillow(samples, "AVIF", origin, subsampling=CHROMA[max(origin.subsampling, 0)], **how)


def _bmp(samples: Levels, origin: Origin, quality: int | None) -> bytes:
    return _by_pillow(samples, "BMP", origin)


def _png(samples: Levels, origin: Origin, quality: int | None) -> bytes:
    texts = (*origin.texts, *map(_as_text, origin.comments))
    return png(samples, origin.exif, origin.xmp, origin.icc, origin.dpi, texts=texts)


def _as_text(comment: bytes) -> tuple[bytes, bytes]:
    """A comment as PNG's chunk of text that is not compressed; Latin-1 takes what is not UTF-8."""
    try:
        text = comment.decode()
    except UnicodeDecodeError:
        text = comment.decode("latin-1")
    return b"iTXt", b"Comment\0\0\0\0\0" + text.rstrip("\0").encode()


def _tiff(samples: Levels, origin: Origin, quality: int | None) -> bytes:
    return tiff(samples, origin.exif, origin.xmp, origin.icc, origin.dpi, iptc=origin.iptc)


def _by_pillow(samples: Levels, kind: str, origin: Origin, **how: object) -> bytes:
    """Options that are empty are left out: Pillow would take b"" for a wish."""
    said = {"icc_profile": origin.icc, "dpi": origin.dpi, **how}
    buffer = io.BytesIO()
    image = Image.fromarray(samples[..., 0] if samples.shape[-1] == 1 else samples)
    image.save(buffer, kind, **{name: value for name, value in said.items() if value not in (b"", None)})
    return buffer.getvalue()


ENCODERS: dict[str, Callable[[Levels, Origin, int | None], bytes]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "WEBP": _webp,
    "TIFF": _tiff,
    "BMP": _bmp,
    "AVIF": _avif,
}
