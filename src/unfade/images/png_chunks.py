"""The chunks of a PNG: those for Pillow, and those that are read here.

Pillow unpacks texts and profiles before the picture, and keeps what lies behind it. So it gets only the chunks that
make up the picture; everything else is read here, within limits.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from unfade.images.colours import SRGB, Colours, Point, by_code_points
from unfade.images.parts import CREDENTIALS
from unfade.images.spliced import Part, file_size, read_at, spliced

START = b"\x89PNG\r\n\x1a\n"
FOR_PILLOW = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"pHYs", b"eXIf")
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
GAMMAS = range(16, 625_000_001)  # in units of 1/100,000; libpng takes any other gAMA for damaged
COLOURS = (b"cICP", b"sRGB", b"gAMA", b"cHRM")
MOST = 1 << 24  # bytes of one profile or packet, and of all texts together
MOST_CHUNKS = 1_000_000
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
XMP = b"XML:com.adobe.xmp"
RAW = b"Raw profile type "  # ImageMagick's way: hexadecimal digits in a text
PROFILES = {RAW + name: kind for kind, names in (("exif", (b"exif", b"APP1")), ("xmp", (b"xmp",))) for name in names}
SRGB_GAMMA = 0.45455
NEAR = 0.01  # largest deviation from a gamma that programs write for sRGB


@dataclass(frozen=True)
class Chunks:
    """The contents of a PNG besides its pixels."""

    plain: IO[bytes]  # the file with only the chunks for Pillow
    colours: Colours | None  # colours given as numbers; None: there are none
    icc: bytes
    exif: bytes  # EXIF from a text chunk; Pillow reads EXIF's own chunk
    xmp: bytes
    texts: tuple[tuple[bytes, bytes], ...]  # name and unchanged content of each text chunk
    notes: tuple[str, ...]  # what was left out


def chunks_of(file: IO[bytes]) -> Chunks | None:
    """Read the chunks of a PNG, except those of its pixels; None for any other file.

    Raises ValueError where the pixels take more bytes than the picture can have.
    """
    if file_size(file) < 33 or read_at(file, 0, 16) != START + b"\0\0\0\rIHDR":
        return None
    parts: list[Part] = [(0, len(START))]
    kept: dict[bytes, bytes] = {}
    texts: list[tuple[bytes, bytes]] = []
    notes: list[str] = []
    pixels = 0
    for name, start, size in _walk(file):
        if name in FOR_PILLOW and not (name == b"eXIf" and size > MOST):
            parts.append((start - 8, size + 12))
            pixels += size if name == b"IDAT" else 0
        elif name == b"caBX":
            notes.append(f"{CREDENTIALS} left out")
        elif name in (*TEXTS, *COLOURS, b"iCCP", b"eXIf"):
            if size + sum(len(content) for _, content in texts) > MOST:
                notes.append(f"{name.decode()} of {size:,} bytes left out")
            elif name in TEXTS:
                texts.append((name, read_at(file, start, size)))
            else:
                kept.setdefault(name, read_at(file, start, size))
    most = _most_bytes(read_at(file, 16, 13))
    if pixels > most:
        raise ValueError(f"{pixels:,} bytes of pixels, but the picture needs at most {most:,}")
    profiles, rest = _profiles(texts, notes)
    icc = _icc(kept.get(b"iCCP", b""), notes)
    colours = _colours(kept, icc, notes)
    icc = b"" if b"cICP" in kept and colours is not None else icc
    return Chunks(spliced(file, parts), colours, icc, profiles["exif"], profiles["xmp"], tuple(rest), tuple(notes))


def inflated(raw: bytes) -> bytes:
    """The content of zlib data, up to MOST bytes. Raises ValueError for more and for damage."""
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(raw, MOST)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if unpacker.unconsumed_tail:
        raise ValueError(f"more than {MOST:,} bytes")
    return content


def _walk(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and size of each chunk's content, up to the end of the picture; a truncated chunk counts as whole."""
    place, end = len(START), file_size(file)
    for _ in range(MOST_CHUNKS):
        if place + 8 > end:
            return
        size, name = struct.unpack(">I4s", read_at(file, place, 8))
        if place + 12 + size > end and name not in FOR_PILLOW:
            return
        yield name, place + 8, min(size, end - place - 8)
        if name == b"IEND":
            return
        place += 12 + size


def _most_bytes(header: bytes) -> int:
    width, height, depth, kind = struct.unpack(">IIBB", header[:10])
    row = (width * depth * CHANNELS.get(kind, 4) + 7) // 8 + 8  # more than the filter byte, for interlaced pictures
    return int(row * height * 1.1) + (1 << 20)


def _profiles(texts: list[tuple[bytes, bytes]], notes: list[str]) -> tuple[dict[str, bytes], list[tuple[bytes, bytes]]]:
    """EXIF and XMP stored as texts, and all other texts."""
    found, rest = {"exif": b"", "xmp": b""}, []
    for name, content in texts:
        keyword = content.split(b"\0", 1)[0]
        kind = "xmp" if keyword == XMP else PROFILES.get(keyword)
        if kind is None:
            rest.append((name, content))
            continue
        try:
            said = _said(name, content)
            found[kind] = found[kind] or (said if keyword == XMP else bytes.fromhex(said.decode().split("\n", 3)[3]))
        except (ValueError, IndexError):
            notes.append(f"damaged {kind.upper()} left out")
    return found, rest


def _said(name: bytes, content: bytes) -> bytes:
    """The decoded text of a chunk."""
    rest = content.split(b"\0", 1)[1]
    if name == b"tEXt":
        return rest
    if name == b"zTXt":
        return inflated(rest[1:])
    text = rest[2:].split(b"\0", 2)[2]  # two flags, then the language and the translated keyword, come first
    return inflated(text) if rest[:1] == b"\1" else text


def _icc(content: bytes, notes: list[str]) -> bytes:
    if not content:
        return b""
    try:
        return inflated(content.split(b"\0", 1)[1][1:])
    except (ValueError, IndexError):
        notes.append("damaged colour profile left out")
        return b""


def _colours(kept: dict[bytes, bytes], icc: bytes, notes: list[str]) -> Colours | None:
    """The colours by the first of cICP, iCCP, sRGB, and gAMA with cHRM that the file has (PNG 3, Sec. 4.3)."""
    said = kept.get(b"cICP", b"")
    if len(said) == 4:
        colours = by_code_points(said[0], said[1], full=bool(said[3]))
        if colours is not None:
            return colours
        notes.append(f"colours of cICP {said[0]}, {said[1]} are not known, taken for sRGB")
    if icc or b"sRGB" in kept:
        return None
    primaries = _primaries(kept.get(b"cHRM", b""))
    gamma = kept.get(b"gAMA", b"")
    number = struct.unpack(">I", gamma)[0] if len(gamma) == 4 else 0
    number = number / 100_000 if number in GAMMAS else 0.0
    if not primaries and not number:
        return None
    like_srgb = not number or abs(number - SRGB_GAMMA) < NEAR
    found = Colours(curve=SRGB if like_srgb else (1 / number,))
    return found if primaries is None else Colours(primaries, found.curve)


def _primaries(content: bytes) -> tuple[Point, Point, Point, Point] | None:
    if len(content) != 32:
        return None
    numbers = [number / 100_000 for number in struct.unpack(">8I", content)]
    white, red, green, blue = zip(numbers[::2], numbers[1::2], strict=True)
    sound = all(0 < x < 1 and 0 < y < 1 for x, y in (white, red, green, blue))
    return (red, green, blue, white) if sound else None
