"""The split of a set into training and test pictures: by a list, or by a rule that never changes."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from unfade.errors import BadInput

NUMBER = re.compile(r"(?:imgHQ)?(\d+)")

Split = dict[str, tuple[str, ...]]  # "train", "test": the names in each, in their order


def as_numbered(stem: str) -> str:
    """The bare number, if a stem is one: "00012", "12" and "imgHQ00012" are the same picture of CelebA-HQ."""
    match = NUMBER.fullmatch(stem)
    return str(int(match[1])) if match else stem


def split_by_rule(names: Sequence[str], sizes: tuple[int, int]) -> Split:
    """The first of all names, sorted by the SHA-256 of each, number-normalised: train, then test.

    Given the names of a whole set as published, it does not depend on which of them the source holds. Raises BadInput
    when there are not enough.
    """
    _check_sizes(sizes)
    if sum(sizes) > len(names):
        raise BadInput(
            f"`split` {sizes[0]} {sizes[1]} needs {sum(sizes):,} pictures, there are {len(names):,}; "
            "give smaller numbers."
        )
    return _parted(sorted(names, key=lambda name: (_rank(name), name)), sizes)


def split_by_list(names: Sequence[str], sizes: tuple[int, int], stems: Sequence[str]) -> Split:
    """The names of the listed stems, in the order of the list. Raises BadInput for a list that does not fit.

    It fits when it holds as many stems as the split, each once, all of them of the set.
    """
    _check_sizes(sizes)
    if sum(sizes) != len(stems):
        raise BadInput(
            f"The list holds {len(stems):,} stems, `split` {sizes[0]} {sizes[1]} needs {sum(sizes):,}; "
            "give numbers that add up to the list."
        )
    known = {as_numbered(name): name for name in names} | {name: name for name in names}
    listed = [known.get(stem) or known.get(as_numbered(stem)) for stem in stems]
    seen: set[str] = set()
    for stem, name in zip(stems, listed, strict=True):
        if name is None or name in seen:
            what = "names nothing of this set" if name is None else "is listed twice"
            raise BadInput(f"The stem {stem} {what}; correct the list.")
        seen.add(name)
    return _parted([name for name in listed if name is not None], sizes)


def read_stems(path: Path) -> tuple[str, ...]:
    """The stems of a text file, one a line, in its order; empty lines are passed over. Raises BadInput."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not a readable text file ({error}); expected one stem a line.") from error
    stems = tuple(line.strip() for line in lines if line.strip())
    if not stems:
        raise BadInput(f"{path} lists nothing; expected one stem a line.")
    return stems


def _check_sizes(sizes: tuple[int, int]) -> None:
    if min(sizes) < 0 or sum(sizes) == 0:
        raise BadInput(f"Expected `split` with two numbers of pictures, such as 2500 500, got {sizes[0]} {sizes[1]}.")


def _parted(names: Sequence[str], sizes: tuple[int, int]) -> Split:
    train, test = sizes
    return {"train": tuple(names[:train]), "test": tuple(names[train : train + test])}


def _rank(name: str) -> str:
    return hashlib.sha256(as_numbered(name).encode("utf-8", "surrogateescape")).hexdigest()
