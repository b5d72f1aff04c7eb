"""Pairing the pictures of two folders by their stems. Files are never paired in any other way."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unfade.errors import BadInput
from unfade.images.files import read_image
from unfade.images.finding import list_images
from unfade.shown import first_few


@dataclass(frozen=True)
class Paired:
    """The pictures of two folders, in pairs."""

    pairs: tuple[tuple[Path, Path], ...]  # one picture of each folder, sorted by name
    alone: tuple[tuple[Path, ...], tuple[Path, ...]]  # the pictures of each folder without a partner, sorted by name


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their stems, sorted.

    Raises BadInput, naming the first few, where several have the same stem, as it would be unclear which is meant; and
    as `list_images` does.
    """
    paths = list_images(folder)
    twice = sorted(stem for stem, count in Counter(path.stem for path in paths).items() if count > 1)
    if twice:
        names = [" and ".join(path.name for path in paths if path.stem == stem) for stem in twice]
        raise BadInput(f"{folder} holds several pictures of the same name: {first_few(names)}; keep one of each.")
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def paired(left: Path, right: Path) -> Paired:
    """Pair the pictures of two folders. Raises BadInput as `by_stem` does for each of them."""
    ours, theirs = by_stem(left), by_stem(right)
    pairs = tuple((path, theirs[stem]) for stem, path in ours.items() if stem in theirs)
    alone = (_without(ours, theirs), _without(theirs, ours))
    return Paired(pairs, alone)


def without_namesakes(paths: Iterable[Path], taken: Iterable[Path] = ()) -> tuple[list[Path], list[tuple[str, str]]]:
    """The first picture of each stem, in the order given, and the others as (file, reason).

    Folders below one another may hold pictures of the same name, of which only one can be written to one folder.
    `taken` are pictures whose stems are in use already.
    """
    first = {path.stem: path for path in taken}
    kept, others = [], []
    for path in paths:
        if path.stem in first:
            others.append((str(path), f"{path} has the same name as {first[path.stem]}; rename one of them."))
        else:
            first[path.stem] = path
            kept.append(path)
    return kept, others


def check_side(paths: Iterable[Path], side: int) -> None:
    """Raises BadInput, naming the first few, for pictures that are not `side` px wide and high; UnreadableImage."""
    sizes = {path: read_image(path).shape[-2:] for path in paths}
    others = [f"{path} has {size[1]} x {size[0]}" for path, size in sizes.items() if size != (side, side)]
    if others:
        found = f"Scores are taken at {side} x {side} pixels, the restorer's size, but {first_few(others)}"
        raise BadInput(f"{found}; provide them at that size, since scores of resized pictures are not comparable.")


def _without(some: dict[str, Path], others: dict[str, Path]) -> tuple[Path, ...]:
    return tuple(path for stem, path in some.items() if stem not in others)
