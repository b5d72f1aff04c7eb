"""Whole photos to aligned faces, and the transforms that bring them back: `faces.jsonl`, a line for each photo."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unfade.atomic import atomic_write, room_for
from unfade.errors import BadInput
from unfade.faces.detect import Face
from unfade.images.files import write_png
from unfade.images.photo import Photo
from unfade.images.photo_files import Found
from unfade.progress import Progress, silent
from unfade.stages.claims import strange
from unfade.stages.photos import Finder, FoundFace, Opened, opened_groups, shows_none
from unfade.store.runs import Entry, Journal
from unfade.store.seeds import seed_for

STAGE = "faces"
RECORDS = "faces.jsonl"
LONGEST = 150  # bytes of a name of a face's file before its number
Record = dict[str, Any]  # a line: the photo's name, the hash of its bytes, and its faces


def crop_photos(
    found: Found, out: Path, find: Finder, *, size: int, journal: Journal, key: str = "", progress: Progress = silent
) -> list[Entry]:
    """Write each face of each photo to `out` as a picture of (size, size); one entry for each photo.

    `faces.jsonl` has a line for each photo that was searched, before its faces are written, so no face is without its
    transform; `key` says what the faces depend on besides the photos. Crops are lossless and 8 bits. Those of a photo
    that is there no more, or shows other faces now, are removed; a file that this run did not write is never
    overwritten: its photo is skipped. Bad input fails alone.
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
    return {name: _files_of(record) for name, record in _Records(out / RECORDS).lines.items()}


def found_before(out: Path) -> Finder:
    """Finds the faces that `crop_photos` wrote down, without looking again. Raises BadInput for another photo."""
    lines = _Records(out / RECORDS).lines

    def find(name: str, photo: Photo) -> list[FoundFace]:
        if name not in lines:
            raise BadInput(f"{name} was not searched for faces when the others were; run the same command again.")
        return [_found(face) for face in lines[name]["faces"]]

    return find


def flat_names(found: Found) -> dict[str, str]:
    """A name without folders for each photo, no two alike: "holiday/1.jpg" is "holiday__1".

    Where two would be alike they get their endings, and where that is not enough, or the name is too long to have a
    number after it, a part of their hash. Bytes that are no characters become U+FFFD: later stages make text of names.
    """
    flat = {name.as_posix(): _in_characters("__".join(name.with_suffix("").parts)) for name in found.names}
    for longer in (lambda name, short: short + Path(name).suffix.replace(".", "-"), _hashed):
        times = Counter(flat.values())
        flat = {name: longer(name, short) if times[short] > 1 else short for name, short in flat.items()}
    return {name: _hashed(name, short) if len(os.fsencode(short)) > LONGEST else short for name, short in flat.items()}


def _in_characters(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def _hashed(name: str, short: str) -> str:
    """The beginning, in whole characters, and eight digits that only this photo's whole name gives."""
    beginning = os.fsencode(short)[:LONGEST].decode("utf-8", "ignore")
    return f"{beginning}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


class _Cropping:
    """The state of one run."""

    def __init__(self, out: Path, journal: Journal, key: str, flat: Mapping[str, str]) -> None:
        self.out, self.journal, self.key, self.flat = out, journal, key, flat
        self.records = _Records(out / RECORDS)

    def is_settled(self, name: str, content: str) -> bool:
        before, line = self.journal.entry(STAGE, name), self.records.lines.get(name)
        if before is None or line is None or line["content"] != content or before.key != self._key(content):
            return False
        there = all((self.out / file).exists() for file in _files_of(line))
        return before.status == "no_face" or (before.status == "done" and there)

    def settle(self, one: Opened) -> None:
        """Write the faces of a photo, and say in the journal what became of it."""
        if self.is_settled(one.name, one.content):
            return
        entry = self._failed(one, str(one.error)) if one.error else self._cut(one)
        if entry != self.journal.entry(STAGE, one.name):
            self.journal.record(entry)
        one.photo = None

    def _failed(self, one: Opened, reason: str) -> Entry:
        self.records.drop(one.name)
        return Entry(STAGE, one.name, "failed", reason=reason)

    def _cut(self, one: Opened) -> Entry:
        key = self._key(one.content)
        files = [f"{self.flat[one.name]}_{found.index:02d}.png" for found in one.faces]
        known = self.records.files(one.name)
        for file in files:
            if file not in known and (self.out / file).exists():
                self.records.drop(one.name)
                return strange(STAGE, one.name, one.path, self.out / file)
        told = [_told(found, file) for found, file in zip(one.faces, files, strict=True)]
        self.records.add({"photo": one.name, "content": one.content, "faces": told})
        if not files:
            return Entry(STAGE, one.name, "no_face", key=key, reason=shows_none(one.path))
        self.journal.record(Entry(STAGE, one.name, "begun", output=files[0]))
        for file, crop in zip(files, one.crops, strict=True):
            write_png(self.out / file, crop)
        notes = (f"{len(files)} face{'s' * (len(files) > 1)}", *(one.photo.notes if one.photo else ()))
        return Entry(STAGE, one.name, "done", key=key, notes=notes, output=files[0])

    def _key(self, content: str) -> str:
        return f"{seed_for(self.key, content):016x}"


class _Records:
    """The lines of `faces.jsonl`, the last of a photo counts; and the faces beside it, none without a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[str, Record] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the part of a line that a killed run left; its photo is done again
            self.lines[record["photo"]] = record

    def files(self, name: str) -> list[str]:
        """The names of a photo's faces."""
        return _files_of(self.lines[name]) if name in self.lines else []

    def drop(self, name: str, *, but: Sequence[str] = ()) -> None:
        """Forget a photo, and remove its faces `but` those."""
        for file in self.files(name):
            if file not in but:
                (self.path.parent / file).unlink(missing_ok=True)
        self.lines.pop(name, None)

    def add(self, record: Record) -> None:
        """On disk before anything else happens; the photo's older faces are removed."""
        self.drop(record["photo"], but=_files_of(record))
        with room_for(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write("\n" + json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self.lines[record["photo"]] = record

    def keep(self, names: Iterable[str]) -> None:
        """One line for each of these photos, in this order, and none of others; nor their faces."""
        wanted = list(names)
        for name in self.lines.keys() - set(wanted):
            self.drop(name)
        self.lines = {name: self.lines[name] for name in wanted if name in self.lines}
        text = "".join(json.dumps(record) + "\n" for record in self.lines.values())
        if not self.path.exists() or self.path.read_text() != text:
            atomic_write(self.path, text)


def _files_of(record: Record) -> list[str]:
    return [face["file"] for face in record["faces"]]


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
