"""Whole photos to aligned faces, and the transforms that bring them back: `faces.jsonl`, a line for each photo."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unfade.atomic import atomic_write, room_for
from unfade.faces.detect import Face
from unfade.images.files import write_png
from unfade.images.photo import Photo
from unfade.images.photo_files import Found
from unfade.progress import Progress, silent
from unfade.stages.photos import Finder, FoundFace, Opened, opened_groups
from unfade.store.runs import Entry, Journal
from unfade.store.seeds import seed_for

STAGE = "faces"
RECORDS = "faces.jsonl"
Record = dict[str, Any]  # a line: the photo's name, the hash of its bytes, and its faces


def crop_photos(
    found: Found, out: Path, find: Finder, *, size: int, journal: Journal, key: str = "", progress: Progress = silent
) -> list[Entry]:
    """Write each face of each photo to `out` as a picture of (size, size); one entry for each photo.

    `faces.jsonl` has a line for each photo with faces, before these are written, so no face is without its transform;
    `key` says what the faces depend on besides the photos. Crops are lossless and 8 bits. Bad input fails alone.
    """
    cropping = _Cropping(out, journal, f"{key}/{size}", flat_names(found))
    with progress(STAGE, len(found.names)) as advance:
        for group in opened_groups(found, find, size, cropping.is_settled):
            for one in group:
                cropping.settle(one)
            advance(len(group))
    names = [name.as_posix() for name in found.names]
    cropping.records.keep(names)
    entries = [journal.entry(STAGE, name) for name in names]
    return [entry for entry in entries if entry is not None]


def faces_in(out: Path) -> Mapping[str, list[str]]:
    """The files of the faces of each photo, by its name."""
    return {name: [face["file"] for face in record["faces"]] for name, record in _Records(out / RECORDS).lines.items()}


def found_before(out: Path) -> Finder:
    """Finds the faces that `crop_photos` wrote down, without looking again."""
    lines = _Records(out / RECORDS).lines

    def find(name: str, photo: Photo) -> list[FoundFace]:
        return [_found(face) for face in lines[name]["faces"]] if name in lines else []

    return find


def flat_names(found: Found) -> dict[str, str]:
    """A name without folders for each photo: "holiday/1.jpg" is "holiday__1", with the ending where two are alike."""
    flat = {name.as_posix(): "__".join(name.with_suffix("").parts) for name in found.names}
    times = Counter(flat.values())
    return {
        name: short + Path(name).suffix.replace(".", "-") if times[short] > 1 else short for name, short in flat.items()
    }


class _Cropping:
    """The state of one run."""

    def __init__(self, out: Path, journal: Journal, key: str, flat: Mapping[str, str]) -> None:
        self.out, self.journal, self.key, self.flat = out, journal, key, flat
        self.records = _Records(out / RECORDS)

    def is_settled(self, name: str, content: str) -> bool:
        before = self.journal.entry(STAGE, name)
        if before is None or not content or before.key != self._key(content):
            return False
        files = [face["file"] for face in self.records.lines.get(name, {"faces": []})["faces"]]
        return before.status == "no_face" or (before.status == "done" and all((self.out / f).exists() for f in files))

    def settle(self, one: Opened) -> None:
        """Write the faces of a photo, and say in the journal what became of it."""
        if self.is_settled(one.name, one.content):
            return
        failed = Entry(STAGE, one.name, "failed", reason=str(one.error)) if one.error else None
        self.journal.record(failed or self._cut(one))
        one.photo = None

    def _cut(self, one: Opened) -> Entry:
        key = self._key(one.content)
        if not one.faces:
            reason = f"{one.path} shows no face that was asked for; look at --min-face, --faces and --detector."
            return Entry(STAGE, one.name, "no_face", key=key, reason=reason)
        files = [f"{self.flat[one.name]}_{found.index:02d}.png" for found in one.faces]
        told = [_told(found, file) for found, file in zip(one.faces, files, strict=True)]
        self.records.add({"photo": one.name, "content": one.content, "faces": told})
        self.journal.record(Entry(STAGE, one.name, "begun", output=files[0]))
        for file, crop in zip(files, one.crops, strict=True):
            write_png(self.out / file, crop)
        notes = (f"{len(files)} face{'s' * (len(files) > 1)}", *(one.photo.notes if one.photo else ()))
        return Entry(STAGE, one.name, "done", key=key, notes=notes, output=files[0])

    def _key(self, content: str) -> str:
        return f"{seed_for(self.key, content):016x}"


class _Records:
    """The lines of `faces.jsonl`; the last of a photo counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, Record] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the part of a line that a killed run left; its photo is done again
            self.lines[record["photo"]] = record

    def add(self, record: Record) -> None:
        """On disk before anything else happens."""
        with room_for(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write("\n" + json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self.lines[record["photo"]] = record

    def keep(self, names: Iterable[str]) -> None:
        """One line for each of these photos, in this order, and none of others."""
        kept = list(self._kept(names))
        self.lines = {record["photo"]: record for record in kept}
        atomic_write(self.path, "".join(json.dumps(record) + "\n" for record in kept))

    def _kept(self, names: Iterable[str]) -> Iterator[Record]:
        for name in names:
            if name in self.lines:
                yield self.lines[name]


def _told(found: FoundFace, file: str) -> Record:
    face = found.face
    return {
        "file": file,
        "index": found.index,
        "box": list(face.box),
        "points": face.points.tolist(),
        "score": face.score,
        "matrix": found.matrix.tolist(),
    }


def _found(told: Record) -> FoundFace:
    left, top, right, bottom = told["box"]
    face = Face((left, top, right, bottom), np.array(told["points"]), told["score"])
    return FoundFace(told["index"], face, np.array(told["matrix"]))
