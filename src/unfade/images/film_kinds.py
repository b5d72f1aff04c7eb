"""Recognizing films by their first bytes, and how FFmpeg reads and writes each kind."""

from dataclasses import dataclass
from pathlib import Path

from unfade.images.finding import ENDINGS, NOT_READ, OTHER, RAW, SUFFIXES

HEAD = 1024  # first bytes of a file, which show its kind
PACKET, TIMED_PACKET = 188, 192  # bytes of a transport stream's packet, and of one with a time stamp before it


@dataclass(frozen=True)
class Kind:
    """A kind of container."""

    demuxer: str  # one of FFmpeg's names for its demuxer
    muxer: str
    others: str = "h264"  # the codec for films whose own codec cannot be written
    options: tuple[tuple[str, str], ...] = ()  # of the muxer


KINDS = {
    "mp4": Kind("mov", "mp4"),
    "mov": Kind("mov", "mov"),
    "3gp": Kind("mov", "3gp"),
    "3g2": Kind("mov", "3g2"),
    "matroska": Kind("matroska", "matroska"),
    "webm": Kind("matroska", "webm", "vp9"),
    "avi": Kind("avi", "avi", "mpeg4"),  # its time stamps do not allow frames out of order
    "mpegts": Kind("mpegts", "mpegts"),
    "m2ts": Kind("mpegts", "mpegts", options=(("mpegts_m2ts_mode", "1"),)),
    "vob": Kind("mpeg", "vob", "mpeg2video"),
    "mpeg": Kind("mpeg", "mpeg", "mpeg1video"),
    "asf": Kind("asf", "asf", "wmv2"),
    "flv": Kind("flv", "flv"),
    "dv": Kind("dv", "dv", "dvvideo"),
    "mxf": Kind("mxf", "mxf", "mpeg2video"),
}
DEMUXERS = ",".join(dict.fromkeys(kind.demuxer for kind in KINDS.values()))

SOUND = (".aac", ".m4a", ".m4b", ".m4p", ".m4r", ".mka", ".oga", ".weba", ".wma")  # in the same containers

STARTS = {  # from the first bytes of a file to its kind
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
    b"FLV\x01": "flv",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01": "mxf",
    b"\x1f\x07\x00": "dv",
}
ATOMS = (b"moov", b"mdat", b"wide", b"pnot")  # QuickTime before there was "ftyp"
BRANDS = {b"qt  ": "mov", b"3gp": "3gp", b"3gr": "3gp", b"3gs": "3gp", b"3ge": "3gp", b"3g2": "3g2"}
NO_FILMS = (  # sound, and pictures
    *(b"M4A ", b"M4B ", b"M4P ", b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"),
    *(b"mif1", b"msf1", b"crx ", b"jp2 ", b"jpx ", b"mjp2"),
)


def kind_of(path: Path) -> str:
    """The kind of a film by its file's first bytes, a key of `KINDS`; "" for other and unreadable files."""
    try:
        with path.open("rb") as file:
            return kind_in(file.read(HEAD))
    except OSError:
        return ""


def kind_in(head: bytes) -> str:
    """The kind of film that begins with these bytes, HEAD or more if the file has as many; "" for none."""
    for start, kind in STARTS.items():
        if head.startswith(start):
            return kind
    if head[4:8] == b"ftyp":
        return _of_brand(head[8:12])
    if head[4:8] in ATOMS:
        return "mov"
    if head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"AVIX"):
        return "avi"
    if head.startswith(b"\x1a\x45\xdf\xa3"):  # EBML
        return "webm" if b"webm" in head[:64] else "matroska" if b"matroska" in head[:64] else ""
    if head.startswith(b"\0\0\1\xba") and len(head) > 4:  # a pack of MPEG-2 (ISO/IEC 13818-1), or of MPEG-1
        return "vob" if head[4] >> 6 == 1 else "mpeg" if head[4] >> 4 == 2 else ""
    return _of_packets(head)


def is_film(path: Path) -> bool:
    """Whether a file is a film, by its suffix or, where that is unknown, by its first bytes."""
    ending = path.suffix.lower()
    if ending in ENDINGS:
        return True
    return ending not in (*SUFFIXES, *RAW, *OTHER, *NOT_READ, *SOUND) and bool(kind_of(path))


def written_as(kind: str, demuxer: str) -> Kind:
    """The kind in which an opened film is written: by its first bytes, or else by its demuxer."""
    if kind:
        return KINDS[kind]
    return next(known for known in KINDS.values() if known.demuxer in demuxer.split(","))


def _of_brand(brand: bytes) -> str:
    if brand in NO_FILMS:
        return ""
    return next((kind for start, kind in BRANDS.items() if brand.startswith(start)), "mp4")


def _of_packets(head: bytes) -> str:
    """The kind of a transport stream, each of whose packets begins with the same byte."""
    for length, first, kind in ((PACKET, 0, "mpegts"), (TIMED_PACKET, 4, "m2ts")):
        starts = head[first::length]
        if len(starts) >= 4 and set(starts) == {0x47}:
            return kind
    return ""
