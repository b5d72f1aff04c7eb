"""The photos of a folder and of the folders in it, by their paths below it."""

import stat
from dataclasses import dataclass
from pathlib import Path

from unfade.errors import BadInput
from unfade.images.files import SUFFIXES

PHOTO_SUFFIXES = (*SUFFIXES, ".avif", ".heic", ".heif")


@dataclass(frozen=True)
class Found:
    """Photos below one folder."""

    root: Path
    names: tuple[Path, ...]  # relative to `root`, sorted: an output of the same name keeps the folders' structure

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where to read them, in the order of `names`."""
        return tuple(self.root / name for name in self.names)


def find_photos(place: Path, *, without: Path | None = None) -> Found:
    """Every file below a folder that is named like a photo; or the one file, if `place` is one, whatever its name.

    Hidden files and folders are passed over, and so is the folder `without` (the output's). A link to a folder is
    followed once, unless it leads to a folder that holds `place`. A link to a file that is gone, and a folder that may
    not be looked into, count as photos: they will fail under their names. Raises BadInput when `place` is missing or
    holds no photo.
    """
    if place.is_file():
        return Found(place.parent, (Path(place.name),))
    if not place.is_dir():
        raise BadInput(f"{place} is not there; name a photo or the folder that holds the photos.")
    names = files_below(place, PHOTO_SUFFIXES, without=without)
    if not names:
        raise BadInput(f"{place} holds no photos; expected files ending in {', '.join(PHOTO_SUFFIXES)}.")
    return Found(place, names)


def files_below(root: Path, suffixes: tuple[str, ...], *, without: Path | None = None) -> tuple[Path, ...]:
    """The names of files of some endings, relative to `root` and sorted, found as `find_photos` says."""
    names: list[Path] = []
    seen = {None if without is None else without.resolve()}
    folders, links = [root], list[Path]()  # links last: what is also there without one is named without one
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = folder.resolve()
        if real in seen or (folder != root and root.resolve().is_relative_to(real)):
            continue
        seen.add(real)
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            names.append(folder.relative_to(root))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(entry)
            elif entry.suffix.lower() in suffixes and _is_file(entry):
                names.append(entry.relative_to(root))
    return tuple(sorted(names))


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None


def _is_folder(path: Path) -> bool:
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _is_file(path: Path) -> bool:
    """Or something that cannot be told; but no pipe or device, which may never end."""
    mode = _mode(path)
    return mode is None or stat.S_ISREG(mode)
