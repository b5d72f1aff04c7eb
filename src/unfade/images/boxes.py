"""What Pillow does not report of the boxes of AVIF, HEIC, JPEG 2000 and JPEG XL files.

These are coded colours, bit depth, metadata and other parts.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from unfade.images.jxl_header import CONTAINER
from unfade.images.parts import CREDENTIALS
from unfade.images.spliced import file_size, read_at

MOST_BOXES = 100_000
MOST = 1 << 24  # bytes, the largest box that is read
GAIN_MAPS = (b"urn:com:apple:photo:2020:aux:hdrgainmap",)
DEPTHS = (b"urn:mpeg:hevc:2015:auxid:2", b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth")
ALPHAS = (b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha")
JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n"
JP2_XMP, JP2_EXIF = bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), b"JpgTiffExif->JP2"  # kinds of uuid boxes
SUBSAMPLED = (0, -1, 1, 2)  # Pillow's numbers by two bits of av1C: chroma with half the columns, and half the rows
C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # the kind of a uuid box


@dataclass(frozen=True)
class Boxed:
    """What the boxes say about the picture."""

    nclx: tuple[int, int, bool] | None = None  # primaries and transfer by H.273, and whether black is 0
    icc: bytes = b""  # colour profile of a JPEG 2000; for the other formats Pillow reads it
    enumerated: int = 0  # enumerated colour space of a JPEG 2000; 0: none
    exif: bytes = b""  # of a JPEG 2000
    xmp: bytes = b""  # of a JPEG 2000 or JPEG XL
    bits: int = 8  # of a sample
    subsampling: int = -1  # of an AVIF's chroma, by Pillow's number; -1: unknown
    parts: tuple[str, ...] = ()  # other contents of the file, in words


def boxed(file: IO[bytes]) -> Boxed:
    """Read the boxes. Damaged files and files of other formats give the defaults."""
    try:
        head = read_at(file, 0, 12)
        if head == JP2_START:
            return _of_jp2(file)
        if head == CONTAINER:
            return _of_jxl(file)
        if head[4:8] == b"ftyp":
            return _of_heif(file)
    except (ValueError, struct.error, LookupError):
        pass
    return Boxed()


Box = tuple[bytes, int, int]  # kind, and where its content begins and ends


def _boxes(file: IO[bytes], start: int, end: int) -> Iterator[Box]:
    for _ in range(MOST_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack(">I4s", read_at(file, start, 8))
        head = 8
        if size == 1:
            (size,), head = struct.unpack(">Q", read_at(file, start + 8, 8)), 16
        size = size or end - start
        if size < head or start + size > end:
            return
        yield kind, start + head, start + size
        start += size


def _content(file: IO[bytes], box: Box) -> bytes:
    return read_at(file, box[1], min(box[2] - box[1], MOST))


def _of_jp2(file: IO[bytes]) -> Boxed:
    icc, bits, enumerated = b"", 8, 0
    said: dict[bytes, bytes] = {}
    for header in _boxes(file, 0, file_size(file)):
        if header[0] == b"uuid":
            content = _content(file, header)
            said.setdefault(content[:16], content[16:])
        for box in _boxes(file, header[1], header[2]) if header[0] == b"jp2h" else ():
            content = _content(file, box)
            if box[0] == b"colr" and content[0] in (2, 3):
                icc = icc or content[3:]
            elif box[0] == b"colr" and content[0] == 1:
                (enumerated,) = struct.unpack_from(">I", content, 3)
            elif box[0] == b"ihdr":
                bits = (content[10] & 0x7F) + 1 if content[10] != 0xFF else bits
    exif, xmp = said.get(JP2_EXIF, b""), said.get(JP2_XMP, b"")
    return Boxed(icc=icc, enumerated=0 if icc else enumerated, exif=exif, xmp=xmp, bits=bits)


def _of_jxl(file: IO[bytes]) -> Boxed:
    """The metadata of a JPEG XL (ISO/IEC 18181-2); Pillow's plugin gives its EXIF."""
    boxes = list(_boxes(file, 0, file_size(file)))
    packed = [_content(file, box)[:4] for box in boxes if box[0] == b"brob"]  # by Brotli
    xmp = next((_content(file, box) for box in boxes if box[0] == b"xml "), b"")
    return Boxed(xmp=xmp, parts=("compressed XMP",) if b"xml " in packed else ())


def _of_heif(file: IO[bytes]) -> Boxed:
    end = file_size(file)
    top = list(_boxes(file, 0, end))
    meta = next((box for box in top if box[0] == b"meta"), None)
    if meta is None:
        return Boxed()
    inside = {box[0]: box for box in _boxes(file, meta[1] + 4, meta[2])}
    properties = list(_boxes(file, *inside[b"iprp"][1:])) if b"iprp" in inside else []
    shared = [box for kind in properties if kind[0] == b"ipco" for box in _boxes(file, kind[1], kind[2])]
    own = _own_properties(file, inside, properties, shared)
    nclx = next((found for box in (own or shared) if (found := _nclx(file, box))), None)
    depths = [_depth(box[0], _content(file, box)) for box in own]
    chroma = next((SUBSAMPLED[_content(file, box)[2] >> 2 & 3] for box in own if box[0] == b"av1C"), -1)
    items = _content(file, inside[b"iinf"]) if b"iinf" in inside else b""
    auxiliary = [_content(file, box)[4:].split(b"\0")[0] for box in shared if box[0] == b"auxC"]
    parts = []
    if b"tmap" in items or any(kind in GAIN_MAPS for kind in auxiliary):
        parts.append("gain map (HDR)")
    if any(kind in DEPTHS for kind in auxiliary):
        parts.append("depth map")
    if any(kind not in (*GAIN_MAPS, *DEPTHS, *ALPHAS) for kind in auxiliary):
        parts.append("auxiliary picture")
    if any(kind == b"mpvd" for kind, _, _ in top):
        parts.append("motion film")
    if any(kind == b"uuid" and read_at(file, start, 16) == C2PA for kind, start, last in top if last - start >= 16):
        parts.append(CREDENTIALS)
    return Boxed(nclx, bits=max(depths, default=8), subsampling=chroma, parts=tuple(parts))


def _depth(kind: bytes, content: bytes) -> int:
    """Bits per sample by a property of the picture: pixi, av1C or hvcC; 8 by any other."""
    if kind == b"pixi":
        return max(content[5:], default=8)
    if kind == b"av1C":
        return {0x40: 10, 0x60: 12}.get(content[2] & 0x60, 8)
    return (content[17] & 7) + 8 if kind == b"hvcC" else 8


def _nclx(file: IO[bytes], box: Box) -> tuple[int, int, bool] | None:
    content = _content(file, box) if box[0] == b"colr" else b""
    if content[:4] != b"nclx" or len(content) < 11:
        return None
    primaries, transfer = struct.unpack(">HH", content[4:8])
    return primaries, transfer, bool(content[10] & 0x80)


def _own_properties(file: IO[bytes], inside: dict[bytes, Box], properties: list[Box], shared: list[Box]) -> list[Box]:
    """The properties of the primary picture (ISO/IEC 23008-12, Sec. 9.3)."""
    said = _content(file, inside[b"pitm"])
    (primary,) = struct.unpack_from(">I" if said[0] else ">H", said, 4)
    own = []
    for box in (box for box in properties if box[0] == b"ipma"):
        raw = _content(file, box)
        wide, large = raw[3] & 1, raw[0] > 0
        (count,), place = struct.unpack_from(">I", raw, 4), 8
        for _ in range(count):
            (item,) = struct.unpack_from(">I" if large else ">H", raw, place)
            place += 4 if large else 2
            numbers = raw[place]
            place += 1
            for _ in range(numbers):
                index = struct.unpack_from(">H", raw, place)[0] & 0x7FFF if wide else raw[place] & 0x7F
                place += 2 if wide else 1
                if item == primary and 0 < index <= len(shared):
                    own.append(shared[index - 1])
    return own
