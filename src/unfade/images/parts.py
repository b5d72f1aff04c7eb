"""Parts of a file besides its picture, and the XMP about them: both are left out of results, with a note.

A gain map or a depth map fits only the picture that it was made for; with restored faces, both would be wrong. So the
result holds the picture alone, and its XMP no longer mentions parts that are missing.
"""

import mmap
import re
from typing import IO
from xml.etree.ElementTree import Element

from unfade.images.packets import STRUCTURE, children, edited, local, space_of

GAIN_MAP, FILM, DEPTH, SOUND = "gain map (HDR)", "motion film", "depth map", "sound"
ORIGINAL, THUMBNAIL, OTHER = "picture before editing", "thumbnail in XMP", "further parts"
GOOGLE, APPLE = "http://ns.google.com/photos/", "http://ns.apple.com/"
CREDENTIALS = "content credentials (C2PA)"  # they vouch for the pixels as they were
SPACES = {  # name spaces all of whose entries are about a part
    "http://ns.adobe.com/hdr-gain-map/1.0/": GAIN_MAP,
    APPLE + "HDRGainMap/1.0/": GAIN_MAP,
    APPLE + "HDRToneMap/1.0/": GAIN_MAP,
    GOOGLE + "1.0/depthmap/": DEPTH,
    GOOGLE + "1.0/focus/": DEPTH,
    APPLE + "depthData/1.0/": DEPTH,
    APPLE + "pixeldatainfo/1.0/": DEPTH,
    APPLE + "portraitEffectsMatte/1.0/": DEPTH,
    APPLE + "semanticSegmentationMatte/1.0/": DEPTH,
    GOOGLE + "1.0/image/": ORIGINAL,
    GOOGLE + "1.0/audio/": SOUND,
    "http://ns.xiaomi.com/photos/1.0/camera/": OTHER,
}
BEGINNINGS = {
    GOOGLE + "dd/1.0/": DEPTH,
    GOOGLE + "1.0/container/": "",
}  # name spaces of several parts; the items of a container tell which
CAMERAS = (GOOGLE + "1.0/camera/", "http://ns.oplus.com/photos/1.0/camera/")
OF_FILMS = ("MotionPhoto", "MicroVideo", "OLivePhoto", "VideoLength")  # beginnings of cameras' entries about films
SEMANTICS = {
    "GainMap": GAIN_MAP,
    "MotionPhoto": FILM,
    "Depth": DEPTH,
    "Original": ORIGINAL,
}  # by the semantics of a container's item
BASIC, NOTE = "{http://ns.adobe.com/xap/1.0/}Thumbnails", "{http://ns.adobe.com/xmp/note/}HasExtendedXMP"
ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"  # in an APP2 segment
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in compressed data: neither a byte 255 nor a restart
MOST_SEGMENTS = 100_000
CREDENTIALS_START = b"c2pa"  # near the beginning of an APP11 segment
HEAD = 64  # first bytes of a part, which show its kind
SIGHT = 1 << 20  # bytes behind the picture that are searched


def without_parts(packet: bytes, parts: list[str]) -> bytes:
    """The packet without its entries about parts, whose names are added to `parts`; unchanged if there are none."""

    def edit(root: Element) -> bool:
        found = _said(root)
        for parent, child in children(root):
            if _part_of(child.tag) is not None or child.tag == NOTE:
                parent.remove(child)
        for element in root.iter():
            for name in [name for name in element.attrib if _part_of(name) is not None or name == NOTE]:
                del element.attrib[name]
        parts.extend(part for part in found if part and part not in parts)
        return bool(found)

    return edited(packet, edit)


def parts_of_jpeg(file: IO[bytes]) -> list[str]:
    """The parts in a JPEG besides its picture, found in its segments and behind its end."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # a film may be larger than memory
        return _walked(content)


def _walked(content: mmap.mmap) -> list[str]:
    parts: list[str] = []
    place = 2
    for _ in range(MOST_SEGMENTS):
        if place + 2 > len(content) or content[place] != 0xFF:
            return parts
        kind = content[place + 1]
        if kind == 0xD9:
            behind = _behind(content[place + 2 : place + 2 + SIGHT], content[-SIGHT:])
            return parts + [part for part in behind if part not in parts]
        if kind == 0xFF or 0xD0 <= kind <= 0xD8 or kind == 1:
            place += 1 if kind == 0xFF else 2
            continue
        start = content[place + 4 : place + 4 + HEAD]
        if kind == 0xE2 and start.startswith(ISO_GAIN_MAP) and GAIN_MAP not in parts:
            parts.append(GAIN_MAP)
        if kind == 0xEB and CREDENTIALS_START in start and CREDENTIALS not in parts:
            parts.append(CREDENTIALS)
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if kind == 0xDA:
            following = MARKER.search(content, place)
            place = following.start() if following else len(content)
    return parts


def _behind(seen: bytes, end: bytes) -> list[str]:
    """The parts behind the end of the picture, by their first bytes and by the file's last; padding does not count."""
    if b"ftyp" in seen[4:HEAD] or b"MotionPhoto_Data" in seen or b"MotionPhoto_Data" in end:
        return [FILM]
    if b"hdrgm:" in seen or ISO_GAIN_MAP in seen or b"HDRGainMap" in seen:
        return [GAIN_MAP]
    return [OTHER] if seen.strip(b"\0\xff\n\r ") else []


def _said(root: Element) -> list[str]:
    """The parts that a packet mentions; "" stands for a container or an entry that needs no note."""
    found: list[str] = []
    for element in root.iter():
        names = [element.tag, *element.attrib]
        found += [part for name in names if (part := _part_of(name)) is not None]
        found += [""] if NOTE in names else []
        for name, value in [*element.attrib.items(), (element.tag, (element.text or "").strip())]:
            if local(name) == "Semantic" and space_of(name).startswith(GOOGLE) and value != "Primary":
                found.append(SEMANTICS.get(value, OTHER))
    return list(dict.fromkeys(found))


def _part_of(name: str) -> str | None:
    """The part that an entry is about; "" for an entry about all of them, None for one about the picture."""
    space = space_of(name)
    if name in STRUCTURE or not space:
        return None
    if name == BASIC:
        return THUMBNAIL
    if space in CAMERAS and local(name).startswith(OF_FILMS):
        return FILM
    return SPACES.get(space, next((part for start, part in BEGINNINGS.items() if space.startswith(start)), None))
