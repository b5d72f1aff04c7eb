"""What lies in a file besides its picture, and what its XMP says of such parts: both stay behind, and it is told.

A gain map brightens the picture it was made for, a depth map cuts it out; beside restored faces both are wrong. So the
result is the picture alone, and its XMP no longer promises what is not there.
"""

import mmap
import re
from typing import IO
from xml.etree.ElementTree import Element

from unfade.images.packets import STRUCTURE, children, edited, local, space_of

GAIN_MAP, FILM, DEPTH, SOUND = "gain map (HDR)", "motion film", "depth map", "sound"
ORIGINAL, THUMBNAIL, OTHER = "picture before editing", "thumbnail in XMP", "further parts"
GOOGLE, APPLE = "http://ns.google.com/photos/", "http://ns.apple.com/"
SPACES = {  # whose every entry is about a part
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
}  # of name spaces; what is in a container follows
CAMERAS = (GOOGLE + "1.0/camera/", "http://ns.oplus.com/photos/1.0/camera/")
OF_FILMS = ("MotionPhoto", "MicroVideo", "OLivePhoto", "VideoLength")  # beginnings of what these cameras say of films
SEMANTICS = {
    "GainMap": GAIN_MAP,
    "MotionPhoto": FILM,
    "Depth": DEPTH,
    "Original": ORIGINAL,
}  # of what a container holds
BASIC, NOTE = "{http://ns.adobe.com/xap/1.0/}Thumbnails", "{http://ns.adobe.com/xmp/note/}HasExtendedXMP"
ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"  # in an APP2 segment
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in compressed data: neither a byte 255 nor a restart
MOST_SEGMENTS = 100_000
HEAD = 64  # bytes that tell what a part is
SIGHT = 1 << 20  # bytes behind the picture that are searched


def without_parts(packet: bytes, parts: list[str]) -> bytes:
    """The packet without what it says of parts, whose names are added to `parts`; untouched if it says nothing."""

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
    """What lies in a JPEG besides its picture, by its segments and by what follows its end."""
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
        if kind == 0xE2 and content[place + 4 : place + 4 + len(ISO_GAIN_MAP)] == ISO_GAIN_MAP and not parts:
            parts.append(GAIN_MAP)
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if kind == 0xDA:
            following = MARKER.search(content, place)
            place = following.start() if following else len(content)
    return parts


def _behind(seen: bytes, end: bytes) -> list[str]:
    """What follows the end of the picture, by its beginning and by the file's end; padding is nothing."""
    if b"ftyp" in seen[4:HEAD] or b"MotionPhoto_Data" in seen or b"MotionPhoto_Data" in end:
        return [FILM]
    if b"hdrgm:" in seen or ISO_GAIN_MAP in seen or b"HDRGainMap" in seen:
        return [GAIN_MAP]
    return [OTHER] if seen.strip(b"\0\xff\n\r ") else []


def _said(root: Element) -> list[str]:
    """The parts that a packet speaks of, "" for a container or a note that needs no word."""
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
    """The part that an entry is about, "" for what is about all of them; None for an entry about the picture."""
    space = space_of(name)
    if name in STRUCTURE or not space:
        return None
    if name == BASIC:
        return THUMBNAIL
    if space in CAMERAS and local(name).startswith(OF_FILMS):
        return FILM
    return SPACES.get(space, next((part for start, part in BEGINNINGS.items() if space.startswith(start)), None))
