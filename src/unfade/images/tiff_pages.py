"""The pages of a TIFF file: finding the photo among them, and the file as if that page were its only one."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from unfade.images.spliced import file_size, read_at, spliced

HEADS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True)}
BIG_ENDIAN_BIG = b"MM\0+"  # Pillow misreads its directories as those of a classic TIFF
WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of unsigned integers
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
LONG, RATIONAL, LONG8 = 4, 5, 16
MOST_PAGES = 10_000
WIDTH, HEIGHT, PHOTOMETRIC, SUBFILE, OLD_SUBFILE, SUB_DIRECTORIES = 256, 257, 262, 254, 255, 330
REDUCED, MASK, TRANSPARENCY_MASK = 1, 4, 4  # two bits of NewSubfileType, and the photometric interpretation of a mask
OLD_REDUCED = 2  # of SubfileType
# Tags of the photo that may only be in the thumbnail's directory: name, maker, model, orientation, resolution,
# software, dates, author, XMP, rating, copyright, IPTC, Photoshop's resources, EXIF, GPS, and what Windows adds
DESCRIBING = (
    *(269, 270, 271, 272, 274, 282, 283, 285, 296, 305, 306, 315, 316, 700, 18246, 18249, 33432, 33723, 34377),
    *(34665, 34853, 40091, 40092, 40093, 40094, 40095),
)


@dataclass(frozen=True)
class Page:
    """One directory of a file; values that lie elsewhere in the file are read on demand."""

    file: IO[bytes]
    order: str  # byte order, "<" or ">" as in `struct`
    big: bool  # whether it is a BigTIFF, with offsets of 8 bytes instead of 4
    place: int  # offset of the directory in the file, bytes
    entries: dict[int, bytes]  # from each tag to the bytes of its entry

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The integers of an entry; () where it is missing or of another type. Raises ValueError if cut off."""
        kind, raw = self._value(tag)
        letter = WHOLE.get(kind)
        return struct.unpack(f"{self.order}{len(raw) // SIZES[kind]}{letter}", raw) if letter else ()

    def number(self, tag: int, default: int) -> int:
        """The first integer of an entry; `default` where there is none."""
        return next(iter(self.numbers(tag)), default)

    def fractions(self, tag: int) -> tuple[float, ...]:
        """The unsigned fractions of an entry; () where it is missing, of another type or divided by zero."""
        kind, raw = self._value(tag)
        parts = struct.unpack(f"{self.order}{len(raw) // 4}I", raw) if kind == RATIONAL else ()
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        return tuple(above / below for above, below in pairs) if all(below for _, below in pairs) else ()

    def raw(self, tag: int) -> bytes:
        """The raw bytes of an entry; b"" where it is missing or cut off."""
        try:
            return self._value(tag)[1]
        except ValueError:
            return b""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.number(WIDTH, 0), self.number(HEIGHT, 0)

    @property
    def is_full(self) -> bool:
        """Whether the page is marked neither as a smaller copy of another page nor as a mask."""
        reduced = self.number(SUBFILE, 0) & (REDUCED | MASK) or self.number(OLD_SUBFILE, 0) == OLD_REDUCED
        return not reduced and self.number(PHOTOMETRIC, 0) != TRANSPARENCY_MASK

    def _value(self, tag: int) -> tuple[int, bytes]:
        """The type of an entry and its bytes; (0, b"") where there is none."""
        entry = self.entries.get(tag)
        if entry is None:
            return 0, b""
        (kind,), (count,) = struct.unpack_from(self.order + "H", entry, 2), self._unpacked(entry, 4)
        size = count * SIZES.get(kind, 0)
        field = entry[-8 if self.big else -4 :]
        if size <= len(field):
            return kind, field[:size]
        return kind, read_at(self.file, self._unpacked(field, 0)[0], size)

    def _unpacked(self, raw: bytes, start: int) -> tuple[int]:
        value: tuple[int] = struct.unpack_from(self.order + ("Q" if self.big else "I"), raw, start)
        return value


@dataclass(frozen=True)
class Pages:
    """The photo of a file among its pages."""

    photo: Page  # the largest full page
    first: Page  # the first page of the file
    full: int  # the number of full pages

    @property
    def described(self) -> Page:
        """The photo's page, with the tags about the photo that only the file's first page has."""
        said = {tag: entry for tag, entry in self.first.entries.items() if tag in DESCRIBING}
        return replace(self.photo, entries={**said, **self.photo.entries})


def pages_of(file: IO[bytes]) -> Pages | None:
    """Find the photo of a TIFF; None for any other file and for one whose first directory is damaged.

    Among the largest full pages it is the first. A smaller copy or a mask is the photo only where there is nothing
    else.
    """
    pages = [page for page in _all_pages(file) if all(page.size)]
    if not pages:
        return None
    full = [page for page in pages if page.is_full]
    return Pages(max(full or pages, key=lambda page: page.size[0] * page.size[1]), pages[0], len(full))


def as_only_page(page: Page, changes: dict[int, tuple[int, ...] | None]) -> IO[bytes]:
    """The file with this page as its only directory, some of whose entries are replaced by integers or removed (None).

    Everything in the file keeps its offset; the new directory is appended.
    """
    kind, letter, field = (LONG8, "Q", 8) if page.big else (LONG, "I", 4)
    entries = {tag: entry for tag, entry in page.entries.items() if tag not in changes}
    size = file_size(page.file)
    end = size + size % 2
    written = {tag: values for tag, values in changes.items() if values is not None}
    count_letter, link = ("Q", 8) if page.big else ("H", 4)
    arrays = end + struct.calcsize(count_letter) + (len(entries) + len(written)) * (4 + 2 * field) + link
    tail = b""
    for tag, values in written.items():
        raw = struct.pack(f"{page.order}{len(values)}{letter}", *values)
        if len(raw) > field:
            raw, tail = struct.pack(page.order + letter, arrays + len(tail)), tail + raw
        entries[tag] = struct.pack(f"{page.order}HH{letter}", tag, kind, len(values)) + raw.ljust(field, b"\0")
    directory = struct.pack(page.order + count_letter, len(entries))
    directory += b"".join(entries[tag] for tag in sorted(entries)) + bytes(link)
    head = read_at(page.file, 0, 8 if page.big else 4) + struct.pack(page.order + letter, end)
    return spliced(page.file, [head, (len(head), size - len(head)), bytes(size % 2), directory + tail])


def _all_pages(file: IO[bytes]) -> Iterator[Page]:
    """All readable pages in the file's order, each followed by its sub-pages."""
    file.seek(0)
    head = file.read(16)
    order, big = HEADS.get(head[:4], ("", False))
    if not order or len(head) < 16:
        return
    waiting = list(struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4))
    seen = {0}
    while waiting and len(seen) < MOST_PAGES:
        place = waiting.pop(0)
        if place in seen:
            continue
        seen.add(place)
        try:
            page, following = _page_at(file, place, order, big)
            waiting = [*page.numbers(SUB_DIRECTORIES), following, *waiting]
            page.size, page.is_full  # noqa: B018  leaves out a page whose size cannot be read
        except (ValueError, struct.error):
            continue
        yield page


def _page_at(file: IO[bytes], place: int, order: str, big: bool) -> tuple[Page, int]:
    count_letter, letter, size = ("Q", "Q", 20) if big else ("H", "I", 12)
    head = read_at(file, place, struct.calcsize(count_letter))
    (count,) = struct.unpack(order + count_letter, head)
    raw = read_at(file, place + len(head), count * size)
    entries: dict[int, bytes] = {}
    for start in range(0, len(raw), size):
        entry = raw[start : start + size]
        entries.setdefault(struct.unpack_from(order + "H", entry)[0], entry)
    try:
        link = read_at(file, place + len(head) + len(raw), struct.calcsize(letter))
    except ValueError:
        link = bytes(8)
    (following,) = struct.unpack_from(order + letter, link)
    return Page(file, order, big, place, entries), following
