"""The source that a user has downloaded: a folder or a zip file, read by names relative to it."""

import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from unfade.atomic import room_for
from unfade.errors import BadInput, UnreadableImage
from unfade.images.files import Picture, read_picture
from unfade.images.finding import SUFFIXES

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)

MOST = 1 << 29  # bytes of a file that is read as a whole; a photo of 100 megapixels has fewer


class Source:
    """Files by name: their path below the source, with slashes. Hidden files and folders are passed over."""

    def __init__(self, path: Path, names: Iterable[str]):
        self.path = path
        self.names = tuple(sorted(name for name in set(names) if _is_shown(name)))

    @property
    def pictures(self) -> list[str]:
        """The names with the suffix of a picture, sorted."""
        return [name for name in self.names if PurePosixPath(name).suffix.lower() in SUFFIXES]

    def place(self, name: str) -> Path:
        """The path of a file in messages."""
        return self.path / name

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises UnreadableImage, also for one of more than MOST bytes."""
        raise NotImplementedError

    def _check(self, name: str, size: int) -> None:
        if size > MOST:
            raise UnreadableImage(
                f"{self.place(name)} has {size:,} bytes, more than the {MOST:,} that are read; make it smaller first."
            )

    def picture(self, name: str) -> Picture:
        """The decoded picture. Raises UnreadableImage."""
        raise NotImplementedError


class FolderSource(Source):
    """A folder with everything below it."""

    def __init__(self, path: Path):
        super().__init__(path, (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()))

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises UnreadableImage."""
        try:
            self._check(name, self.place(name).stat().st_size)
            return self.place(name).read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{self.place(name)} cannot be opened ({error.strerror}).") from error

    def picture(self, name: str) -> Picture:
        """The decoded picture. Raises UnreadableImage."""
        return read_picture(self.place(name))


class ZipSource(Source):
    """A zip file; several threads may read it."""

    def __init__(self, path: Path, file: zipfile.ZipFile):
        super().__init__(path, (info.filename for info in file.infolist() if not info.is_dir()))
        self._file = file

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises UnreadableImage."""
        try:
            self._check(name, self._file.getinfo(name).file_size)  # which zipfile does not read beyond
            return self._file.read(name)
        except ZIP_ERRORS as error:
            raise UnreadableImage(
                f"{self.place(name)} cannot be unpacked ({error}); download the zip again."
            ) from error

    def picture(self, name: str) -> Picture:
        """The decoded picture. Raises UnreadableImage."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"picture{PurePosixPath(name).suffix}"
            with room_for(path):
                path.write_bytes(self.read(name))
            try:
                return read_picture(path)
            except UnreadableImage as error:
                raise UnreadableImage(str(error).replace(str(path), str(self.place(name)))) from error


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """A folder or a zip file, opened. Raises BadInput for anything else, or for an incomplete zip file."""
    if path.is_dir():
        yield FolderSource(path)
        return
    if not path.exists():
        raise BadInput(f"{path} is not there; name the folder or the zip file that you have downloaded.")
    with _opened(path) as file:
        yield ZipSource(path, file)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except ZIP_ERRORS as error:
        size = path.stat().st_size
        raise BadInput(
            f"{path} is neither a folder nor a whole zip file ({size:,} bytes: {error}); "
            "unpack it, or download it again if it is cut off."
        ) from error


def _is_shown(name: str) -> bool:
    return not any(part.startswith((".", "/", "__MACOSX")) for part in PurePosixPath(name).parts)
