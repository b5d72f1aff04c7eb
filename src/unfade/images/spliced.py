"""A virtual file made of parts of another file and additional bytes; nothing is copied before it is read."""

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import IO, Any

Part = bytes | tuple[int, int]  # additional bytes, or offset and length of a part of the other file


def spliced(file: IO[bytes], parts: Sequence[Part]) -> IO[bytes]:
    """The parts, joined in order, as a readable file. `file` must stay open while it is used."""
    return io.BufferedReader(_Spliced(file, parts))


def read_at(file: IO[bytes], place: int, size: int) -> bytes:
    """`size` bytes of a file from `place` on. Raises ValueError, before allocating, where the file ends earlier."""
    if place + size > file_size(file):
        raise ValueError(f"{size:,} bytes at {place:,} lie behind its end")
    file.seek(place)
    return file.read(size)


def file_size(file: IO[bytes]) -> int:
    """The size of a file in bytes; leaves the file at its end."""
    return file.seek(0, os.SEEK_END)


class _Spliced(io.RawIOBase):
    def __init__(self, file: IO[bytes], parts: Sequence[Part]):
        self._file, self._parts, self._place = file, parts, 0
        sizes = [len(part) if isinstance(part, bytes) else part[1] for part in parts]
        self._starts = [0, *accumulate(sizes)]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._place = place + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._starts[-1]}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place >= self._starts[-1]:
            return 0
        number = bisect_right(self._starts, self._place) - 1
        part, inside = self._parts[number], self._place - self._starts[number]
        if isinstance(part, bytes):
            read = part[inside : inside + len(buffer)]
        else:
            self._file.seek(part[0] + inside)
            read = self._file.read(min(len(buffer), part[1] - inside))
        buffer[: len(read)] = read
        self._place += len(read)
        return len(read)
