"""A user's folder: the photos dropped on the page, their results and adaptations. It stays when the server ends."""

import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from unfade.app.looking import thumbnail
from unfade.atomic import atomic_write, write_through
from unfade.errors import BadInput, UnfadeError
from unfade.images.finding import SUFFIXES
from unfade.shown import printable
from unfade.store.checkpoints import sha256_of

TOKEN = re.compile(r"[\w-]{22}", re.ASCII)  # names a user's folder and cannot be guessed


@dataclass(frozen=True)
class User:
    """One user, by the folder that is named after the token in the user's browser."""

    folder: Path

    @staticmethod
    def of(work: Path, token: object) -> "User":
        """The user with that token, or a new user if it is no token."""
        known = isinstance(token, str) and TOKEN.fullmatch(token)
        return User(work / (str(token) if known else secrets.token_urlsafe(16)))

    @property
    def photos(self) -> Path:
        """The folder of the photos, which are kept as they came."""
        return self.folder / "photos"

    @property
    def names(self) -> list[str]:
        """The names of the photos, sorted."""
        return sorted(path.name for path in self.photos.glob("[!.]*"))

    def thumb(self, name: str) -> Path:
        """A small JPEG of a photo."""
        return self.folder / "thumbs" / f"{name}.jpg"

    def take(self, uploads: Iterable[Path]) -> Iterator[str]:
        """Keep the uploads that are pictures; yields one sentence for each of the others."""
        for upload in uploads:
            try:
                self._keep(upload)
            except UnfadeError as error:
                yield str(error).replace(str(upload), printable(upload.name))
            except Exception as error:
                yield f"{printable(upload.name)} cannot be read ({type(error).__name__}); is it a picture?"

    def _keep(self, upload: Path) -> None:
        if upload.suffix.lower() not in SUFFIXES:
            raise BadInput(f"{upload} has none of the endings of pictures: {' '.join(SUFFIXES)}.")
        small = thumbnail(upload)  # reads the whole file
        if name := self._name_for(upload):
            atomic_write(self.thumb(name), small)
            write_through(self.photos / name, partial(shutil.copyfile, upload))

    def _name_for(self, upload: Path) -> str | None:
        """A name whose stem no other photo has; None if the same picture is there already."""
        wanted, ending = printable(upload.stem).lstrip(".") or "photo", upload.suffix.lower()
        for stem in (wanted if number == 1 else f"{wanted}-{number}" for number in count(1)):
            others = [self.photos / name for name in self.names if Path(name).stem == stem]
            if not others or any(sha256_of(other) == sha256_of(upload) for other in others):
                return None if others else f"{stem}{ending}"
        return None
