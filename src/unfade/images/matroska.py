"""The pixel shape of Matroska and WebM films, patched in after writing: PyAV cannot pass it to FFmpeg.

The track's name is first written with ROOM bytes of padding. Once the file is closed, the padding is replaced by the
display size (DisplayWidth and DisplayHeight, RFC 9559, Sec. 5.1.4.1.28) and, for the bytes that are left, a Void
element, so that nothing after it moves.
"""

from collections.abc import Iterator
from pathlib import Path

from unfade.errors import BadInput

ROOM = " " * 32
HEAD = 1 << 20  # bytes within which the tracks are described
SEGMENT, TRACKS, ENTRY = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae"
TYPE, NAME, VIDEO, VOID = b"\x83", b"\x53\x6e", b"\xe0", b"\xec"
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"  # the unit is pixels by default
PICTURES = b"\x01"  # the type of a video track
Element = tuple[bytes, int, int]  # id, start and end of the content


def write_display_size(path: Path, width: int, height: int) -> None:
    """Set the display size of a file's pictures, in px. Raises BadInput where the file has no ROOM for it."""
    with path.open("r+b") as file:
        head = file.read(HEAD)
        for _, begin, end in _entries(head):
            parts = [(name, head[first:last]) for name, first, last in _elements(head, begin, end)]
            said = dict(parts)
            if said.get(TYPE) == PICTURES and said.get(NAME, b"").endswith(ROOM.encode()):
                file.seek(begin)
                file.write(_with_size(parts, width, height, end - begin))
                return
    raise BadInput(f"{path}: the shape of its pixels could not be written; convert the film to .mp4 first.")


def _with_size(parts: list[tuple[bytes, bytes]], width: int, height: int, length: int) -> bytes:
    """A track's description with the display size, padded to the same length."""
    described = b""
    for name, content in parts:
        if name == NAME:
            content = content.removesuffix(ROOM.encode())
        if name == VIDEO:
            content = _shown_as(content, width, height)
        if name != VOID and (content or name != NAME):
            described += _element(name, content)
    left = length - len(described) - 2
    return described + VOID + bytes([0x80 | left]) + bytes(left)


def _shown_as(video: bytes, width: int, height: int) -> bytes:
    """A video description with another display size."""
    old = (DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT)
    kept = [(name, video[first:last]) for name, first, last in _elements(video, 0, len(video)) if name not in old]
    wanted = (*kept, (DISPLAY_WIDTH, _number(width)), (DISPLAY_HEIGHT, _number(height)))
    return b"".join(_element(name, content) for name, content in wanted)


def _entries(head: bytes) -> Iterator[Element]:
    for segment in (element for element in _elements(head, 0, len(head)) if element[0] == SEGMENT):
        for tracks in (element for element in _elements(head, *segment[1:]) if element[0] == TRACKS):
            yield from (element for element in _elements(head, *tracks[1:]) if element[0] == ENTRY)


def _elements(head: bytes, begin: int, end: int) -> Iterator[Element]:
    """The elements between two offsets, as far as `head` holds them."""
    while begin < min(end, len(head)):
        long = 9 - head[begin].bit_length()  # length of the id in bytes, given by its first set bit
        name, at = head[begin : begin + long], begin + long
        if long > 4 or at >= len(head):
            return
        wide = 9 - head[at].bit_length()
        size = int.from_bytes(head[at : at + wide]) & ((1 << 7 * wide) - 1)
        unknown = size == (1 << 7 * wide) - 1
        last = end if unknown else at + wide + size
        yield name, at + wide, last
        begin = last


def _element(name: bytes, content: bytes) -> bytes:
    wide = next(wide for wide in range(1, 9) if len(content) < (1 << 7 * wide) - 1)
    return name + (len(content) | 1 << 7 * wide).to_bytes(wide) + content


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, -(-value.bit_length() // 8)))
