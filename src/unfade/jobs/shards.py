"""Shards: shares of a run's items for processes that know nothing of each other, and where results lie in folders."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from unfade.errors import BadInput
from unfade.images.finding import SUFFIXES, Found, find_photos, find_pictures
from unfade.images.listing import Names, listed

MOST = 100_000  # shards


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`, counted from 1: the items whose names have a certain hash.

    So a share does not depend on the order or number of the items, nor on the other shards. Items whose results could
    have the same name are in the same shard (`one.gif` and `one.png`). Raises BadInput for an impossible share.
    """

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count <= MOST:
            raise BadInput(
                f"Expected `shard` to be I/N with I from 1 to N and N at most {MOST}, got {self.index}/{self.count}."
            )

    @staticmethod
    def parse(text: str | None) -> "Shard":
        """The shard "I/N"; None is the whole. Raises BadInput."""
        if text is None:
            return WHOLE
        if not (found := re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)):
            raise BadInput(f"Expected `shard` to be I/N, such as 1/8 for the first of eight, got {text}.")
        return Shard(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def is_whole(self) -> bool:
        """Whether there is no other shard."""
        return self.count == 1

    def holds(self, name: str) -> bool:
        """Whether an item, by its name below the folder of pictures, is in this share."""
        return self.is_whole or share_of(name, self.count) == self.index

    def of(self, found: Found) -> Found:
        """The photos of this share."""
        if self.is_whole:
            return found
        return replace(found, names=tuple(name for name in found.names if self.holds(name.as_posix())))

    def named(self, file: str) -> str:
        """The shard's own file instead of one of the whole run: `journal-1-of-4.jsonl` for `journal.jsonl`."""
        if self.is_whole:
            return file
        path = Path(file)
        return f"{path.stem}-{self.index}-of-{self.count}{path.suffix}"


WHOLE = Shard()


def share_of(name: str, count: int) -> int:
    """In which of `count` shards an item is, counted from 1."""
    return int(_hash(name), 16) % count + 1


def every_share(found: Found, count: int) -> list[Found]:
    """The photos of each of `count` shards: what `Shard.of` gives, for all of them at once."""
    shares: list[list[str]] = [[] for _ in range(count)]
    for name in map(Path.as_posix, found.names):
        shares[share_of(name, count) - 1].append(name)
    return [replace(found, names=Names(share)) for share in shares]


@dataclass(frozen=True)
class Portion:
    """Which of the pictures in a folder are worked on."""

    shard: Shard = WHOLE
    manifest: Path | None = None  # file that lists the pictures, see `listed`; None: the folder is searched

    def photos(self, place: Path, out: Path) -> Found:
        """The photos and other files below a folder, as `find_photos` finds them. Raises what that raises."""
        if self.manifest:
            return listed(self.manifest, place, holds=self.shard.holds)
        return self.shard.of(find_photos(place, without=out))

    def pictures(self, place: Path, *, folder: bool = False) -> Found:
        """The pictures directly in a folder, as `find_pictures` finds them; with `folder`, a file is refused.

        Raises what that raises.
        """
        if folder and not place.is_dir():
            raise BadInput(f"{place} is not a folder; name the folder that holds the pictures.")
        if self.manifest:
            return listed(self.manifest, place, holds=self.shard.holds, flat=True)
        return self.shard.of(find_pictures(place))


EVERYTHING = Portion()


def hashed(name: str) -> str:
    """The name in one of 4096 folders inside its own, by its hash: 2,441 files in each for a folder of ten million."""
    folder, _, own = name.rpartition("/")
    return f"{folder}/{_hash(name)[:3]}/{own}" if folder else f"{_hash(name)[:3]}/{own}"


LAYOUTS: dict[str, Callable[[str], str]] = {"names": str, "hashed": hashed}  # from names of results to their places


def _hash(name: str) -> str:
    """The same for names that differ only in endings of pictures."""
    folder, _, own = name.rpartition("/")
    own = own[: own.rfind(".")] if own.rfind(".") > 0 else own
    while (dot := own.rfind(".")) > 0 and own[dot:].lower() in SUFFIXES:
        own = own[:dot]
    return sha256(f"{folder}/{own}".encode(errors="surrogateescape")).hexdigest()
