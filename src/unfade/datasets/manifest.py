"""The manifest of a prepared folder, and the check of the folder against it."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from unfade.errors import BadInput
from unfade.jobs.json_lines import JsonLines
from unfade.progress import Progress, silent
from unfade.store.checkpoints import sha256_of

MANIFEST = "manifest.jsonl"
BESIDE = {MANIFEST, "run.json", "journal.jsonl", "train.txt", "test.txt"}  # what else a prepared folder holds


@dataclass(frozen=True)
class Line:
    """One picture of a prepared folder."""

    name: str  # of its file, below the folder
    split: str  # "train", "test", or "" where there is no split
    source: str  # the file it was made from, below the source
    source_sha256: str
    sha256: str
    size: int  # side in pixels
    square: tuple[int, int, int] | None = None  # left, top, side of what was cut out of the source; None: all of it


@dataclass(frozen=True)
class Verified:
    """The result of a check. The folder is intact when the three lists are empty."""

    checked: int  # files that the manifest names
    missing: tuple[str, ...]  # files in the manifest, but not in the folder
    changed: tuple[str, ...]  # files in the folder with other content
    extra: tuple[str, ...]  # files in the folder, but not in the manifest


def write_manifest(folder: Path, lines: Iterable[Line]) -> None:
    """Write `folder/manifest.jsonl` atomically, one line of JSON for each picture."""
    JsonLines(folder / MANIFEST).rewrite(asdict(line) for line in lines)


def read_manifest(folder: Path) -> list[Line]:
    """The lines of a prepared folder. Raises BadInput when there is no manifest or it is damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BadInput(f"{folder} holds no {MANIFEST}; name a folder that `unfade data prepare` has filled.")
    try:
        return [_line(json.loads(row)) for row in path.read_text().splitlines()]
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path} is damaged ({error}); prepare the folder again, what is done is kept.") from error


def verify_folder(folder: Path, *, progress: Progress = silent) -> Verified:
    """Read every file and compare it with the manifest. Hidden files are passed over. Raises BadInput."""
    hashes = {line.name: line.sha256 for line in read_manifest(folder)}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    shown = {name for name in there if not any(part.startswith(".") for part in name.split("/"))}
    present = sorted(hashes.keys() & there)
    changed = []
    with progress("verified", len(present)) as advance, ThreadPoolExecutor() as pool:
        for name, found in zip(present, pool.map(sha256_of, (folder / name for name in present)), strict=True):
            changed += [name] if found != hashes[name] else []
            advance(1)
    missing, extra = sorted(hashes.keys() - there), sorted(shown - hashes.keys() - BESIDE)
    return Verified(len(hashes), tuple(missing), tuple(changed), tuple(extra))


def _line(values: dict[str, object]) -> Line:
    square = values["square"]
    return Line(**{**values, "square": None if square is None else tuple(square)})  # type: ignore[arg-type]
