"""An album: pictures from anywhere, kept as they came, with small ones to show in a list."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from filecmp import cmp
from functools import partial
from itertools import count
from pathlib import Path

from unfade.atomic import atomic_write, write_through
from unfade.errors import BadInput, UnfadeError
from unfade.images.files import encode, shown
from unfade.images.finding import SUFFIXES
from unfade.shown import printable

SMALL = 240  # px, longer side of the picture that stands for a photo in a list


@dataclass(frozen=True)
class Album:
    """Photos in a folder, under printable names that differ in their stems, so that results can be named after them."""

    folder: Path

    @property
    def photos(self) -> Path:
        """The folder of the photos themselves."""
        return self.folder / "photos"

    @property
    def names(self) -> list[str]:
        """The names of the photos, sorted."""
        return sorted(path.name for path in self.photos.glob("[!.]*"))

    def thumb(self, name: str) -> Path:
        """A small JPEG of a photo."""
        return self.folder / "thumbs" / f"{name}.jpg"

    def take(self, files: Iterable[Path]) -> tuple[list[str], list[str]]:
        """Copy pictures; returns the names of those that are here now, and one sentence for each other file.

        A sentence names its file, and not where it was. A picture that is here already is not copied again.
        """
        names, refused = [], []
        for file in files:
            try:
                names.append(self._taken(file))
            except UnfadeError as error:
                refused.append(str(error).replace(str(file), printable(file.name)))
            except Exception as error:
                refused.append(f"{printable(file.name)} cannot be read ({type(error).__name__}); is it a picture?")
        return names, refused

    def _taken(self, file: Path) -> str:
        wanted, ending = printable(file.stem).lstrip(".") or "photo", file.suffix.lower()
        if ending not in SUFFIXES:
            raise BadInput(f"{file} has none of the endings of pictures: {' '.join(SUFFIXES)}.")
        small = encode(shown(file, SMALL), "JPEG")  # reads the whole file
        for stem in (wanted if number == 1 else f"{wanted}-{number}" for number in count(1)):
            others = [name for name in self.names if Path(name).stem == stem]
            same = [name for name in others if cmp(file, self.photos / name, shallow=False)]
            if same or not others:
                break
        name = same[0] if same else f"{stem}{ending}"
        atomic_write(self.thumb(name), small)
        if not same:
            write_through(self.photos / name, partial(shutil.copyfile, file))
        return name
