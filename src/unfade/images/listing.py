"""A manifest: a file that lists pictures, for folders that take too long to search."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import overload

from unfade.errors import BadInput
from unfade.images.finding import Found

COLUMN = "path"  # of a Parquet file with several columns


class Names(Sequence[Path]):
    """Paths that are held as text: as objects, millions of them would take five times the memory."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> "Names": ...
    def __getitem__(self, index: int | slice) -> "Path | Names":
        found = self._texts[index]
        return Names(found) if isinstance(found, list) else Path(found)


def listed(
    manifest: Path, root: Path, *, holds: Callable[[str], bool] = lambda name: True, flat: bool = False
) -> Found:
    """The pictures that a manifest lists below `root` and that `holds` accepts, each once, sorted as folders are.

    The manifest is a text file with a path in each line, or a Parquet file (`.parquet`) with a column of paths, called
    "path" if it is not the only one. Relative paths are relative to `root`. Nothing is looked up: a file that is
    missing fails later, alone. Raises BadInput for a manifest that cannot be read or is empty, for a path outside
    `root`, and with `flat` for one in a subfolder.
    """
    if not root.is_dir():
        raise BadInput(f"{root} is not a folder; name the folder that the paths of {manifest} are relative to.")
    rows = _from_parquet(manifest) if manifest.suffix.lower() == ".parquet" else _from_text(manifest)
    base, kept, count = f"{os.path.normpath(root.absolute())}{os.sep}", set[str](), 0
    try:
        for count, text in rows:
            name = _below(text, base)
            if not name or (flat and "/" in name):
                where = "directly in" if flat else "below"
                raise BadInput(
                    f"{manifest}, line {count}: {text} does not lie {where} {root}; correct it or remove it."
                )
            if holds(name):
                kept.add(name)
    except OSError as error:
        raise BadInput(f"{manifest} cannot be read ({error.strerror}); name a file that lists the pictures.") from error
    if not count:
        raise BadInput(f"{manifest} lists nothing; expected the path of a picture in each line.")
    return Found(root, Names(sorted(kept, key=lambda name: name.replace("/", "\0"))))  # in the order of paths


def _from_text(manifest: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and lines, without the empty ones. Names may hold any bytes."""
    with manifest.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n"))
            if text.strip():
                yield number, text


def _from_parquet(manifest: Path) -> Iterator[tuple[int, str]]:
    if find_spec("pyarrow") is None:
        raise BadInput(
            f"{manifest} is a Parquet file, which needs pyarrow: pip install pyarrow, or list paths as text."
        )
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(manifest) as file:
            names = file.schema_arrow.names
            column = names[0] if len(names) == 1 else COLUMN
            if column not in names:
                raise BadInput(f"{manifest} has the columns {', '.join(names)}; one of them has to be called {COLUMN}.")
            yield from enumerate(_texts(file.iter_batches(columns=[column])), 1)
    except ArrowException as error:
        raise BadInput(f"{manifest} is no Parquet file that can be read ({error}); write it again.") from error


def _texts(batches: Iterable[object]) -> Iterator[str]:
    for batch in batches:
        yield from map(str, batch.column(0).to_pylist())  # type: ignore[attr-defined]


def _below(text: str, base: str) -> str:
    """The path below the folder `base`, which ends in a separator, with "/"; empty for one that is not below it."""
    path = os.path.normpath(text)
    if path.startswith(base):
        path = path.removeprefix(base)
    elif path.startswith(os.sep) or os.path.splitdrive(path)[0] or path.split(os.sep, 1)[0] in (os.curdir, os.pardir):
        path = ""
    return path.replace(os.sep, "/")
