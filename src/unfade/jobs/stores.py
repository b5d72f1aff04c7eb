"""Photos and results in object stores, such as `s3://bucket/photos`, through fsspec.

A shard works on copies of its photos and of its journal in a folder of its own, where empty files stand for the results
that the journal lists. At its end the new results are stored, and then the journal, so that what a journal lists is
there. A shard that is killed before is worked on again. There are no locks.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from unfade.errors import BadInput, OutputConflict
from unfade.images.finding import (
    ENDINGS,
    JOURNALS,
    NOT_READ,
    OTHER,
    RAW,
    RUN,
    SUFFIXES,
    WRITTEN,
    Found,
    in_words,
    join_passed_over,
)
from unfade.jobs.journal import Journal
from unfade.jobs.runs import ITEMS, JOURNAL, shards_of
from unfade.jobs.shards import Portion, Shard


def is_store(place: str | Path) -> bool:
    """Whether a place is the address of an object store, and no path."""
    return "://" in str(place)


@dataclass(frozen=True)
class Store:
    """A place in an object store, with files below it."""

    address: str
    fs: Any
    root: str  # as the file system names the place

    @staticmethod
    def at(address: str) -> "Store":
        """Raises BadInput for an address of an unknown kind, or if the package for its kind is missing."""
        from fsspec.core import url_to_fs

        try:
            fs, root = url_to_fs(address, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise BadInput(f"{address} cannot be used ({error}); install what it needs, such as s3fs.") from error
        return Store(address, fs, root.rstrip("/"))

    def names(self, *, deep: bool = True) -> list[str]:
        """The files, relative to the place; without `deep` only those directly there."""
        found = self._call("find", self.root, None if deep else 1) or ()
        return sorted(key.removeprefix(f"{self.root}/") for key in found)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._call("info", f"{self.root}/{name}") is not None

    def fetch(self, name: str, folder: Path) -> None:
        """Copy a file to the same name in a folder, if it is there."""
        target = folder / name
        content = None if ".." in target.parts else self._call("cat_file", f"{self.root}/{name}")
        if content is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def keep(self, name: str, folder: Path) -> None:
        """Copy a file of that name in a folder to the store."""
        self._call("pipe_file", f"{self.root}/{name}", (folder / name).read_bytes())

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._call("rm_file", f"{self.root}/{name}")

    def _call(self, method: str, *given: Any) -> Any:
        """None for a file that is not there; every kind of store has errors of its own for everything else."""
        try:
            return getattr(self.fs, method)(*given)
        except FileNotFoundError:
            return None
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise BadInput(
                f"{self.address} cannot be used ({why}); check the address and your rights there."
            ) from error


def anywhere(place: str | Path) -> str:
    """The place as it can be named from every folder."""
    return str(place) if is_store(place) else str(Path(place).absolute())


def photos_in(address: str, out: str | Path, portion: Portion, *, flat: bool = False) -> Found:
    """The photos below an address, by their endings; with `flat` only those directly there.

    What is below `out` is left out, and so are hidden files; folders that runs have filled are passed over and counted.
    Raises BadInput if there are none, and for a manifest.
    """
    if portion.manifest:
        raise BadInput(f"{address} is listed by its store: leave out `manifest`.")
    store = Store.at(address)
    if str(out).rstrip("/") == address.rstrip("/"):
        raise OutputConflict(f"{out} is also the input; name another place as `out`, nothing is overwritten.")
    below = f"{str(out).rstrip('/')}/".removeprefix(f"{address.rstrip('/')}/")
    names = [name for name in store.names(deep=not flat) if not name.startswith(below) and "/." not in f"/{name}"]
    runs = _runs(names)
    endings = {name: PurePosixPath(name).suffix.lower() for name in names if not name.startswith(runs)}
    kinds = Counter(ending for ending in endings.values() if ending in (*RAW, *OTHER, *ENDINGS, *NOT_READ))
    left = join_passed_over(tuple(kinds.items()), ((WRITTEN, len(runs)),) if runs else ())
    photos = tuple(Path(name) for name, ending in endings.items() if ending in SUFFIXES)
    if not photos:
        others = f" but {in_words(left)}" if left else ""
        raise BadInput(f"{address} holds no photos{others}; expected files ending in {', '.join(SUFFIXES)}.")
    return portion.shard.of(Found(Path(address), tuple(sorted(photos)), left))


def _runs(names: Sequence[str]) -> tuple[str, ...]:
    """The folders that runs have filled, of those that hold files of these names, each with a slash at its end."""
    below = [PurePosixPath(name) for name in names if "/" in name and name.endswith((".json", ".jsonl"))]
    begun, recorded = ({f"{path.parent}/" for path in below if path.match(file)} for file in (RUN, JOURNALS))
    found = sorted(begun & recorded)  # a folder before those below it
    return tuple(name for i, name in enumerate(found) if not name.startswith(tuple(found[:i])))


def shards_in(out: str, usual: int) -> list[Shard]:
    """As `shards_of`, also in a store. Raises OutputConflict for a place there with files but without a run."""
    if not is_store(out):
        return shards_of(Path(out), usual)
    store = Store.at(out)
    with TemporaryDirectory() as folder:
        store.fetch(RUN, Path(folder))
        if not Path(folder, RUN).exists() and store.names(deep=False):
            raise OutputConflict(f"{out} holds files, but no run; name another place as `out`.")
        return shards_of(Path(folder), usual)


@contextmanager
def copies(place: str, photos: Found, out: str, shard: Shard) -> Iterator[tuple[Found, Path]]:
    """The photos of a shard, and a folder for its results, as local copies of those that are in a store."""
    with TemporaryDirectory(prefix="unfade-") as scratch:
        if is_store(place):
            photos, source = replace(photos, root=Path(scratch, "photos")), Store.at(place)
            for photo in photos.names:
                source.fetch(photo.as_posix(), photos.root)
        if not is_store(out):
            yield photos, Path(out)
            return
        store, folder = Store.at(out), Path(scratch, "out")
        own = [RUN, shard.named(JOURNAL), shard.named(ITEMS)]
        for name in own:
            store.fetch(name, folder)
        before = {file for file in _results(folder, shard) if store.has(file)}
        for file in before:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()  # a result is never empty
        yield photos, folder
        store.keep(RUN, folder)  # first: the place is the run's from now on
        for file in _results(folder, shard):
            if (folder / file).exists() and (folder / file).stat().st_size:
                store.keep(file, folder)
        for file in before:
            if not (folder / file).exists():
                store.remove(file)
        for name in own[1:]:
            if (folder / name).exists():
                store.keep(name, folder)


def _results(folder: Path, shard: Shard) -> set[str]:
    """The files that the journal of a shard lists."""
    journal = Journal(folder / shard.named(JOURNAL))
    return {file for stage in journal.stages() for entry in journal.stage(stage) for file in entry.outputs}
