"""Files that are either wholly there or not there: temporary file, fsync, rename."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from unfade.errors import DiskFull

FULL = (errno.ENOSPC, errno.EDQUOT)
TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}\.unfade(\.[^.]+)?", re.DOTALL)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write `path` in one step; a crash at any moment leaves the old file or the new one, never a part.

    Raises DiskFull when there is no room; nothing is left behind then.
    """
    # a file name may hold half characters, which no encoding has
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    write_through(path, lambda temporary: temporary.write_bytes(data))


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """The same for writers that want a file name: `write` fills a temporary file beside `path`."""
    with room_for(path), temporary_beside(path) as temporary:
        mode = temporary.stat().st_mode
        write(temporary)
        if temporary.stat().st_mode != mode:  # safetensors puts a file of its own there, which only its owner may read
            temporary.chmod(mode)
        _to_disk(temporary)
        temporary.replace(path)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """An empty file beside `path` with its ending; it is gone after the block. The folder is made if it is not there.

    A killed process leaves it behind, under a name that `is_temporary` knows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_prefix(path.name)}{token_hex(4)}.unfade{path.suffix}")
    temporary.touch(exist_ok=False)  # the system applies the umask, which cannot be asked without changing it for all
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Whether a file of that name is half of something that this module was writing."""
    return TEMPORARY.fullmatch(name) is not None


def is_temporary_of(temporary: str, name: str) -> bool:
    """Whether the first is a temporary file for one called `name`, in the same folder."""
    return is_temporary(temporary) and temporary.startswith(start := _prefix(name)) and temporary[len(start) + 8] == "."


def _prefix(name: str) -> str:
    """The begin of the names of temporary files; long names are shortened, by their hash so that they still differ."""
    short = name if len(name) <= 40 else f"{name[:31]}~{sha256(os.fsencode(name)).hexdigest()[:8]}"
    return f".{short}."


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Inside, running out of space (or of quota) raises DiskFull, whichever library does the writing."""
    try:
        yield
    except Exception as error:
        if _is_full(error):
            raise DiskFull(
                f"{path} could not be written because the disk is full; free some space and run again."
            ) from error
        raise


def _is_full(error: BaseException | None) -> bool:
    """torch wraps the OSError in a RuntimeError; safetensors keeps nothing of it but its text."""
    if error is None:
        return False
    known = isinstance(error, OSError) and error.errno in FULL
    in_text = any(f"(os error {code})" in str(error) for code in FULL)
    return known or in_text or _is_full(error.__cause__ or error.__context__)


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
