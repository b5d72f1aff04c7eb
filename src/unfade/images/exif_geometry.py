"""Updates the sizes and positions in pixels that EXIF holds when the picture is turned or scaled."""

import contextlib
import struct

from unfade.images.geometry import Move

SHORT, LONG, RATIONAL = 3, 4, 5  # types of EXIF
LARGEST_SHORT = 65_535


def moved_exif(block: bytes, move: Move) -> bytes:
    """An EXIF block, with its "Exif\\0\\0", whose sizes and subject area are updated; no other bytes change."""
    if not move.moves or not block:
        return block
    data = bytearray(block)
    with contextlib.suppress(struct.error):  # a malformed block is kept as it is
        _Patch(data, "<" if block[6:8] == b"II" else ">", move).apply()
    return bytes(data)


class _Patch:
    """Changes entries of an EXIF block in place."""

    def __init__(self, data: bytearray, order: str, move: Move):
        self.data, self.order, self.move = data, order, move

    def apply(self) -> None:
        first = self._entries(self._number("I", 10) + 6)
        self._sides(first, 0x100, 0x101)
        if self.move.is_quarter:
            self._exchange(first, 0x11A, 0x11B)
        if 0x8769 not in first:
            return
        inner = self._entries(self._number("I", first[0x8769] + 8) + 6)
        self._sides(inner, 0xA002, 0xA003)
        if self.move.is_quarter:
            self._exchange(inner, 0xA20E, 0xA20F)
        across, down = self.move.extent(*self.move.before)
        was = self.move.before[::-1] if self.move.is_quarter else self.move.before
        for tag, factor in ((0xA20E, across / was[0]), (0xA20F, down / was[1])):
            if tag in inner and factor != 1:
                self._multiply(inner[tag], factor)
        for tag in (0x9214, 0xA214):
            if tag in inner:
                self._subject(inner[tag])
        if 0xA005 in inner:
            self._sides(self._entries(self._number("I", inner[0xA005] + 8) + 6), 0x1001, 0x1002)

    def _number(self, letter: str, place: int) -> int:
        number: int = struct.unpack_from(self.order + letter, self.data, place)[0]
        return number

    def _entries(self, place: int) -> dict[int, int]:
        """From each tag to the position of its entry."""
        places = range(place + 2, place + 2 + 12 * self._number("H", place), 12)
        return {self._number("H", entry): entry for entry in places}

    def _sides(self, entries: dict[int, int], *tags: int) -> None:
        for tag, side in zip(tags, self.move.after, strict=True):
            if tag in entries:
                struct.pack_into(self.order + "HII", self.data, entries[tag] + 2, LONG, 1, side)

    def _subject(self, entry: int) -> None:
        kind, count = self._number("H", entry + 2), self._number("I", entry + 4)
        letter = {SHORT: "H", LONG: "I"}.get(kind)
        if letter is None or not 2 <= count <= 4:
            return
        size = struct.calcsize(letter) * count
        place = entry + 8 if size <= 4 else self._number("I", entry + 8) + 6
        numbers = struct.unpack_from(f"{self.order}{count}{letter}", self.data, place)
        largest = LARGEST_SHORT if kind == SHORT else 2**32 - 1
        subject = self.move.subject([float(number) for number in numbers])
        moved = [min(max(round(number), 0), largest) for number in subject]
        struct.pack_into(f"{self.order}{count}{letter}", self.data, place, *moved)

    def _exchange(self, entries: dict[int, int], *tags: int) -> None:
        if not entries.keys() >= set(tags) or {self._number("H", entries[tag] + 2) for tag in tags} != {RATIONAL}:
            return
        places = [self._number("I", entries[tag] + 8) + 6 for tag in tags]
        first, second = (bytes(self.data[place : place + 8]) for place in places)
        self.data[places[0] : places[0] + 8], self.data[places[1] : places[1] + 8] = second, first

    def _multiply(self, entry: int, factor: float) -> None:
        place = self._number("I", entry + 8) + 6
        if self._number("H", entry + 2) != RATIONAL or not self._number("I", place + 4):
            return
        value = self._number("I", place) / self._number("I", place + 4) * factor
        below = 1000 if value < 4_000_000 else 1
        struct.pack_into(self.order + "II", self.data, place, round(value * below), below)
