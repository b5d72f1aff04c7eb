"""Files of JSON lines: each line is on disk before its writer continues, and invalid lines are ignored."""

import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unfade.atomic import atomic_write, room_for


class JsonLines:
    """A file with a JSON object in each line, in ASCII, since file names may hold any bytes, even broken UTF-8.

    Threads of one process may share it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def read(self) -> list[dict[str, Any]]:
        """Every object in the file. Incomplete lines of a killed run and other invalid lines are left out."""
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else ()
        return [found for found in map(_parsed, lines) if isinstance(found, dict)]

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line and wait until it is on disk. Raises DiskFull."""
        line = json.dumps(record).encode() + b"\n"
        with self._lock, room_for(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(b"\n" + line if file.tell() and self._ends_in_a_part() else line)
                file.flush()
                os.fsync(file.fileno())

    def rewrite(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replace the lines of the file in one step, unless it holds exactly these already. Raises DiskFull."""
        content = "".join(json.dumps(record) + "\n" for record in records).encode()
        if not self.path.exists() or self.path.read_bytes() != content:
            atomic_write(self.path, content)

    def _ends_in_a_part(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def fits(record: Mapping[str, Any], **kinds: Any) -> bool:
    """Whether a line has these fields, each of the given type; it may have others."""
    return all(name in record and isinstance(record[name], kind) for name, kind in kinds.items())


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
