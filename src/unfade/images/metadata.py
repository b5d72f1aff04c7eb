"""The metadata of a file: EXIF, XMP, colour profile, resolution and the parameters of its compression."""

import math
import struct
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from unfade.images.exif_geometry import moved_exif
from unfade.images.opening import DAMAGED, STUMBLED, Opened
from unfade.images.packets import parse_packet, upright_packet
from unfade.images.parts import GAIN_MAP, OTHER, parts_of_jpeg, without_parts
from unfade.images.photo import Origin
from unfade.images.xmp_geometry import moved_packet

KINDS = {
    "MPO": "JPEG",
    "GIF": "PNG",
    "PPM": "PNG",
    "HEIF": "JPEG",
    "JXL": "JPEG",
    "JPEG2000": "PNG",
}  # from formats that are only read to those that are written instead
GROUPS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# In a TIFF the same directory holds tags that describe the photo and tags that describe the file; only these are kept:
# name, description, maker, model, page, software, dates, author, host, rating, copyright, and what Windows adds
DESCRIPTIVE = (269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 18249, 33432, 40091, 40092, 40093, 40094, 40095)
IPTC, IPTC_RESOURCE = 33723, 0x0404  # TIFF's tag, and the number of Photoshop's resource
PREFIX = b"Exif\0\0"
RESOLUTION = {282, 283}  # TIFF's tags of it, across and down
WORST = 65_535  # dpi, the largest that is kept


def origin_of(found: Opened, path: Path, notes: list[str]) -> Origin:
    """The metadata of a decoded picture's file, for the upright picture; adds to `notes` what cannot be kept."""
    image, chunks, move = found.image, found.chunks, found.move
    kind = image.format or "PNG"
    jpeg = image if isinstance(image, JpegImagePlugin.JpegImageFile) else None
    parts = list(found.boxes.parts) + (parts_of_jpeg(found.source) if jpeg and found.source else [])
    packet = image.info.get("xmp") or (chunks.xmp if chunks else found.boxes.xmp)
    exif, xmp = _exif(image, found.boxes.exif, notes), _xmp(packet, parts, notes)
    _tell_parts(parts, 1 if kind == "TIFF" else getattr(image, "n_frames", 1), notes)  # `opened` notes a TIFF's
    unstated = found.page is not None and not found.page.entries.keys() >= RESOLUTION  # for which Pillow takes 1
    dpi = None if unstated else _dpi(image.info.get("dpi"))
    return Origin(
        kind=KINDS.get(kind, kind),
        read_as="JPEG" if kind == "MPO" else kind,
        exif=moved_exif(exif, move),
        xmp=moved_packet(xmp, move, notes),
        icc=(chunks.icc if chunks else image.info.get("icc_profile")) or found.boxes.icc,
        dpi=dpi[::-1] if dpi and move.is_quarter else dpi,
        tables=_tables(jpeg) if jpeg else {},
        subsampling=JpegImagePlugin.get_sampling(jpeg) if jpeg else found.boxes.subsampling,
        modified=path.stat().st_mtime,
        lossless=kind == "WEBP" and _is_lossless_webp(path),
        size=move.after,
        iptc=_iptc(found),
        texts=chunks.texts if chunks else (),
        comments=_comments(image),
    )


def _comments(image: Image.Image) -> tuple[bytes, ...]:
    """The comments of a JPEG, of which Pillow's `info` has the last one alone, or that of a GIF."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return tuple(content for name, content in image.applist if name == "COM" and content)
    comment = image.info.get("comment")
    return (comment,) if isinstance(comment, bytes) and comment else ()


def _tell_parts(parts: list[str], pages: int, notes: list[str]) -> None:
    """Notes what the file holds besides the photo; a gain map counts as one of an MPO's pictures."""
    named = [part for part in dict.fromkeys(parts) if part != OTHER]
    if pages > 2 or (pages == 2 and GAIN_MAP not in named):
        notes.append(f"only the first of {pages} pictures in the file is kept")
    elif OTHER in parts and not named:
        named.append(OTHER)
    notes.extend(f"{part} left out" for part in named)


def _iptc(found: Opened) -> bytes:
    """IPTC-IIM, from Photoshop's resources in a JPEG or from its own tag in a TIFF."""
    if found.page is not None:
        return found.page.raw(IPTC)
    resources = found.image.info.get("photoshop")
    block = resources.get(IPTC_RESOURCE) if isinstance(resources, dict) else None
    return block if isinstance(block, bytes) else b""


def upright_exif(block: bytes) -> bytes:
    """An EXIF block with orientation 1 and without a link to its thumbnail, which shows the photo before restoration.

    Only these few bytes change: encoding all tags again would break makers' notes and fails on malformed tags. Raises
    ValueError or struct.error where the block is not EXIF.
    """
    data = bytearray(block)
    while data.startswith(PREFIX):
        del data[: len(PREFIX)]
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        raise ValueError("an EXIF block must begin with II or MM")
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    end = start + 2 + 12 * count
    for entry in range(start + 2, end, 12):
        if struct.unpack_from(order + "H", data, entry)[0] == ExifTags.Base.Orientation:
            struct.pack_into(order + "HIHH", data, entry + 2, 3, 1, 1, 0)  # one SHORT, 1, padding
    if end + 4 <= len(data):
        struct.pack_into(order + "I", data, end, 0)  # offset of the thumbnail's directory: none
    return PREFIX + bytes(data)


def describing_tags(exif: Image.Exif) -> dict[int, Any]:
    """The tags that describe the photo, with the EXIF and GPS groups as dicts; malformed tags are left out."""
    tags: dict[int, Any] = {tag: exif[tag] for tag in DESCRIPTIVE if tag in exif and _encodable(tag, exif[tag])}
    for group in GROUPS:
        inside = {tag: value for tag, value in exif.get_ifd(group).items() if _encodable(tag, value, group)}
        inside.pop(ExifTags.IFD.Interop, None)  # an offset into the file it came from
        if inside:
            tags[group] = inside
    return tags


def _exif(image: Image.Image, boxed: bytes, notes: list[str]) -> bytes:
    try:
        if image.format == "TIFF":
            return _tiff_exif(image)
        block = image.info.get("exif") or boxed
        return upright_exif(block) if block else b""
    except (*DAMAGED, *STUMBLED):
        notes.append("damaged EXIF left out")
        return b""


def _tiff_exif(image: Image.Image) -> bytes:
    exif = Image.Exif()
    for tag, value in describing_tags(image.getexif()).items():
        exif[tag] = value
    return upright_exif(exif.tobytes()) if len(exif) else b""


def _encodable(tag: int, value: object, group: int | None = None) -> bool:
    directory = ImageFileDirectory_v2(group=group)
    try:
        directory[tag] = value
        directory.tobytes()
    except (*DAMAGED, *STUMBLED):
        return False
    return True


def _xmp(packet: bytes | str, parts: list[str], notes: list[str]) -> bytes:
    packet = (packet.encode() if isinstance(packet, str) else bytes(packet)).rstrip(b"\0")
    if packet and parse_packet(packet) is None:
        notes.append("damaged XMP left out")
        return b""
    if b"HasExtendedXMP" in packet:
        notes.append("XMP beyond the first 64 KB left out")
    return upright_packet(without_parts(packet, parts))


def _dpi(said: object) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in said)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    sound = all(math.isfinite(value) and 0 < value < WORST for value in (across, down))
    return (across, down) if sound else None


def _tables(image: JpegImagePlugin.JpegImageFile) -> dict[int, list[int]]:
    """The quantisation tables with luma's as 0 and chroma's as 1, whatever their numbers in the file."""
    used = [image.quantization.get(layer[3]) for layer in image.layer[:2]]
    return {place: list(table) for place, table in enumerate(used) if table} if used and used[0] else {}


def _is_lossless_webp(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            if head[:4] in (b"VP8L", b"VP8 "):
                return head[:4] == b"VP8L"
            (size,) = struct.unpack("<I", head[4:])
            file.seek(size + size % 2, 1)
    return False
