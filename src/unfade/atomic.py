"""Files that are either wholly there or not there: temporary file, fsync, rename."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from unfade.errors import DiskFull


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write `path` in one step; a crash at any moment leaves the old file or the new one, never a part.

    Raises DiskFull when there is no room; nothing is left behind then.
    """
    data = content.encode() if isinstance(content, str) else content
    write_through(path, lambda temporary: temporary.write_bytes(data))


def write_through(path: Path, write: Callable[[Path], object]) -> None:
    """The same for writers that want a file name: `write` fills a temporary file beside `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        _to_disk(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"{path} could not be written because the disk is full; free some space and run again."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
