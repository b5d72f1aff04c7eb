"""Cut aligned faces out of pictures. For whole photos, `faces.jsonl` keeps the transforms for pasting them back."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfade.errors import BadInput
from unfade.faces.detectors import Face
from unfade.images.files import write_png
from unfade.images.finding import Found
from unfade.images.photo import Photo
from unfade.jobs.journal import Entry
from unfade.jobs.json_lines import JsonLines, fits
from unfade.jobs.outputs import Outputs, withdraw_others
from unfade.jobs.run_stage import Item, Stage, run_stage
from unfade.jobs.runs import Run
from unfade.progress import Advance, silent
from unfade.stages.photos import Finder, FoundFace, Opened, no_face_in, opened_groups

STAGE = "faces"
RECORDS = "faces.jsonl"
LONGEST = 150  # bytes, of the name of a face's file without its number
Record = dict[str, Any]  # a line: the photo's name, the hash of its bytes, and its faces


def crop_photos(found: Found, run: Run, find: Finder, *, size: int, key: str = "") -> list[Entry]:
    """Write each face of each photo to the run's folder as a picture of (size, size); one entry for each photo.

    `faces.jsonl` gets a line for each photo that was searched, before its faces are written, so that no face lacks its
    transform. `key` identifies what the faces depend on besides the photos. Crops are lossless, with 8 bits. Those of a
    photo that is gone, or in which other faces are found now, are removed. A file that this run did not write is never
    overwritten; its photo is skipped. A bad photo does not stop the others. Raises OutputConflict if `faces.jsonl` is
    not this run's.
    """
    run.journal.claim(run.folder / RECORDS)
    cropping = _Cropping(Outputs(STAGE, run, f"{key}/{size}"), flat_names(found))
    with run.progress(STAGE, len(found.names)) as advance:
        for group in opened_groups(found, find, [size], cropping.is_settled):
            for opened in group:
                if not cropping.is_settled(opened.name, opened.content):
                    cropping.cut(opened)
                opened.photo = None
            advance(len(group))
    return cropping.finish([name.as_posix() for name in found.names])


def take_aligned(photos: Iterable[Path], run: Run, *, size: int) -> list[Entry]:
    """Resize pictures that are already face crops to (size, size), into the run's folder. One entry for each."""
    return run_stage(Stage(STAGE, _as_it_is, size, 16, f"aligned/{size}"), photos, run)


def as_they_are(pictures: Iterable[Path], run: Run, *, stage: str) -> list[Entry]:
    """Write pictures to the run's folder as PNG files with 8 bits, each under its own stem. One entry for each.

    It is a quick copy, of which no progress is shown.
    """
    return run_stage(Stage(stage, _as_it_is, None, 16), pictures, replace(run, progress=silent))


def _as_it_is(items: list[Item], advance: Advance) -> Tensor:
    return torch.stack([item.pixels for item in items])


def faces_in(out: Path) -> Mapping[str, list[str]]:
    """The files of the faces of each photo, by its name."""
    return {name: _files_of(record) for name, record in _records(out).items()}


def found_before(out: Path) -> Finder:
    """A finder of the faces that `crop_photos` recorded, without detection. Raises BadInput for any other photo."""
    lines = _records(out)

    def find(name: str, photo: Photo) -> list[FoundFace]:
        if name not in lines:
            raise BadInput(f"{name} was not searched for faces when the others were; run the same command again.")
        return [_found(face) for face in lines[name]["faces"]]

    return find


def flat_names(found: Found) -> dict[str, str]:
    """A unique name without folders for each photo: "holiday/1.jpg" becomes "holiday__1".

    Names that would be equal get their file endings, and if that is not enough, or a name is too long for a number
    after it, a part of the hash of the name. Bytes that are not valid text become U+FFFD, since later stages need text.
    """
    flat = {name.as_posix(): _in_characters("__".join(name.with_suffix("").parts)) for name in found.names}
    for longer in (lambda name, short: short + Path(name).suffix.replace(".", "-"), _hashed):
        times = Counter(flat.values())
        flat = {name: longer(name, short) if times[short] > 1 else short for name, short in flat.items()}
    return {name: _hashed(name, short) if len(os.fsencode(short)) > LONGEST else short for name, short in flat.items()}


def _in_characters(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def _hashed(name: str, short: str) -> str:
    """The beginning of the short name, in whole characters, and eight digits of the hash of the photo's full name."""
    beginning = os.fsencode(short)[:LONGEST].decode("utf-8", "ignore")
    return f"{beginning}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


class _Cropping:
    """The state of one run."""

    def __init__(self, outputs: Outputs, flat: Mapping[str, str]) -> None:
        self.outputs, self.flat = outputs, flat
        self.lines = JsonLines(outputs.out / RECORDS)
        self.records = _records(outputs.out)

    def is_settled(self, name: str, content: str) -> bool:
        there = self.records.get(name, {}).get("content") == content
        return there and self.outputs.settled(name, content)

    def cut(self, item: Opened) -> None:
        """Write the line of a photo, then its faces."""
        files = [f"{self.flat[item.name]}_{found.index:02d}.png" for found in item.faces]
        with self.outputs.alone(item.name, item.path):
            self.outputs.claim(item.name, item.path, *files)
            if item.error:
                raise item.error
        if not self.outputs.claimed(item.name):
            return
        if not files:
            self._add(item, files)
            self.outputs.no_face(item.name, item.content, no_face_in(item.path))
            return
        with self.outputs.writing(item.name, item.path, item.content) as writing:
            self._add(item, files)
            for path, crop in zip(writing.files, item.crops, strict=True):
                write_png(path, crop)
            writing.notes = (f"{len(files)} face{'s' * (len(files) > 1)}", *(item.photo.notes if item.photo else ()))

    def finish(self, names: list[str]) -> list[Entry]:
        """Keep one line for each photo that was searched, in the order of `names`; remove faces of other photos."""
        withdraw_others(self.outputs, names)
        entries = self.outputs.entries(names)
        self.lines.rewrite(self.records[entry.item] for entry in entries if entry.status in ("done", "no_face"))
        return entries

    def _add(self, item: Opened, files: list[str]) -> None:
        faces = [_as_record(found, file) for found, file in zip(item.faces, files, strict=True)]
        self.records[item.name] = {"photo": item.name, "content": item.content, "faces": faces}
        self.lines.append(self.records[item.name])


def _records(out: Path) -> dict[str, Record]:
    """The last line of each photo, by the photo's name; anything else in the file is ignored."""
    lines = JsonLines(out / RECORDS).read()
    return {line["photo"]: line for line in lines if fits(line, photo=str, content=str, faces=list)}


def _files_of(record: Record) -> list[str]:
    return [face["file"] for face in record["faces"]]


def _as_record(found: FoundFace, file: str) -> Record:
    face = found.face
    return {
        "file": file,
        "index": found.index,
        "box": list(face.box),
        "points": face.points.tolist(),
        "score": face.score,
        "matrix": found.matrix.tolist(),
    }


def _found(record: Record) -> FoundFace:
    left, top, right, bottom = record["box"]
    face = Face((left, top, right, bottom), np.array(record["points"]), record["score"])
    return FoundFace(record["index"], face, np.array(record["matrix"]))
