"""Whole photos to restored photos: the faces of several go through the restorer together, and back into their places.

Three photos' worth of work goes on at once: threads read and search the next group, the restorer works on this one,
threads paste and encode the one before. Only the caller's thread writes the journal.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from unfade.atomic import atomic_write
from unfade.errors import BadInput, DiskFull, UnfadeError
from unfade.faces.align import scale_of, scaled
from unfade.faces.paste import PasteSettings, paste
from unfade.images.photo import Photo
from unfade.images.photo_files import Found, Provenance, encode_photo, lost_in, suffix_for, tone_of
from unfade.progress import Progress, silent
from unfade.restorers.base import Restorer
from unfade.stages.claims import check_unclaimed, is_strange, strange
from unfade.stages.photos import Finder, Opened, opened_groups
from unfade.stages.restore import check_strength, choices, restore_batch
from unfade.store.runs import Entry, Journal
from unfade.store.seeds import seed_for

STAGE = "restored"
WRITERS = 2  # threads that paste and encode
LARGE = 2.0  # px of the photo per px of the restorer's face, above which a note says so

Enlarge = Callable[[Photo], Photo]
Write = Callable[[Opened, Path], Entry]


@dataclass(frozen=True)
class PhotoSettings:
    """How restored faces go back into their photos, and how those are written."""

    paste: PasteSettings = PasteSettings()
    colour: bool = False  # True: faces of grey or sepia photos may come out in colour
    kind: str | None = None  # Pillow's name of the format of the results; None: the photo's own
    quality: int | None = None  # 1..100 of lossy formats; None: as the photo's own
    copy: bool = False  # photos without a face are copied
    sidecar: bool = False  # a JSON file beside each result tells of its faces
    scale: int = 1  # the results are so many times as large; the caller brings what enlarges them

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise BadInput(f"The quality lies in 1..100, got {self.quality}.")
        suffix_for(Path("photo.png"), self.kind)  # complains about a format that is not written


@dataclass(frozen=True)
class Parts:
    """What is not a setting."""

    enlarge: Enlarge | None = None  # makes the photo that faces are pasted into, `scale` times as large
    similarity: Callable[[Tensor, Tensor], float] | None = None  # of two faces (3, S, S), in -1..1; for the sidecar
    provenance: Provenance | None = None  # None: results do not say what made them


def restore_photos(
    found: Found,
    out: Path,
    restorer: Restorer,
    find: Finder,
    settings: PhotoSettings = PhotoSettings(),
    parts: Parts = Parts(),
    *,
    journal: Journal,
    strength: float = 1.0,
    batch: int = 8,
    key: str = "",
    progress: Progress = silent,
) -> list[Entry]:
    """Write every photo with its faces restored to `out`, under its own name; one entry for each.

    `strength` in 0..1 blends each face with what it was. `key` says what else the results depend on: the weights, the
    finder. What is done under the same key and content is kept. A file that this run did not write is never
    overwritten: its photo is skipped. A photo without a face is no_face, and copied only if asked. Bad input fails
    alone, and the rest goes on.
    """
    check_strength(strength)
    key = f"{seed_for(key, asdict(settings), choices(restorer, strength), repr(parts.provenance)):016x}"
    run = partial(restore_batch, restorer=restorer, strength=strength)
    work = _Restoring(found, out, run, batch, settings, parts, journal, key)
    with progress(STAGE, len(found.names)) as advance, ThreadPoolExecutor(WRITERS) as writers:
        written: list[tuple[Opened, Future[Entry] | Entry]] = []
        for group in opened_groups(found, find, restorer.size, work.is_settled):
            begun = work.begin(group, writers)
            work.record(written)
            advance(len(written))
            written = begun
        work.record(written)
        advance(len(written))
    entries = [journal.entry(STAGE, name.as_posix()) for name in found.names]
    return [entry for entry in entries if entry is not None]


class _Restoring:
    """The state of one run."""

    def __init__(
        self, found: Found, out: Path, run: Callable[[Tensor], Tensor], batch: int, settings: PhotoSettings,
        parts: Parts, journal: Journal, key: str,
    ) -> None:  # fmt: skip
        self.out, self.run, self.batch, self.settings = out, run, batch, settings
        self.parts, self.journal, self.key = parts, journal, key
        self.outputs = {name.as_posix(): _output(name, settings.kind) for name in found.names}
        self.taken: dict[str, str] = {}

    def is_settled(self, name: str, content: str) -> bool:
        """Whether the journal's last word on a photo still holds. May be called by threads."""
        before = self.journal.entry(STAGE, name)
        if before is None or not content or before.key != self._key(content):
            return False
        return before.status in ("done", "no_face") and (not before.output or (self.out / before.output).exists())

    def begin(self, group: list[Opened], writers: ThreadPoolExecutor) -> list[tuple[Opened, Future[Entry] | Entry]]:
        """Restore the faces of a group and have its photos written; what becomes of each is known now or later."""
        crops = [crop for one in group for crop in one.crops]
        restored = iter(self._restored(crops))
        begun: list[tuple[Opened, Future[Entry] | Entry]] = []
        for one in group:
            faces = [next(restored) for _ in one.crops]
            begun.append((one, self._begin(one, faces, writers)))
        return begun

    def record(self, begun: list[tuple[Opened, Future[Entry] | Entry]]) -> None:
        """Wait for what was begun and write it to the journal."""
        for _, outcome in begun:
            entry = outcome if isinstance(outcome, Entry) else outcome.result()
            if entry != self.journal.entry(STAGE, entry.item):
                self.journal.record(entry)

    def _restored(self, crops: list[Tensor]) -> Iterator[Tensor]:
        for first in range(0, len(crops), self.batch):
            yield from self.run(torch.stack(crops[first : first + self.batch])).cpu()

    def _begin(self, one: Opened, restored: list[Tensor], writers: ThreadPoolExecutor) -> Future[Entry] | Entry:
        output = self.outputs[one.name]
        target, before = self.out / output, self.journal.entry(STAGE, one.name)
        try:
            check_unclaimed(one.path, output, self.taken)
        except BadInput as error:
            return Entry(STAGE, one.name, "failed", reason=str(error))
        self.taken[output] = one.name
        if before is not None and self.is_settled(one.name, one.content):
            return before
        for file in (target, sidecar_of(target))[: 1 + self.settings.sidecar]:
            if is_strange(file, output, before):
                return strange(STAGE, one.name, one.path, file)
        return self._write(one, restored, target, writers)

    def _write(
        self, one: Opened, restored: list[Tensor], target: Path, writers: ThreadPoolExecutor
    ) -> Future[Entry] | Entry:
        reason = str(one.error) if one.error else _not_numbers(one, restored)
        if reason:
            _withdraw(target, self.settings.sidecar)
            return Entry(STAGE, one.name, "failed", reason=reason)
        output = self.outputs[one.name]
        if not one.faces and not self.settings.copy:
            _withdraw(target, self.settings.sidecar)
            return self._no_face(one, "")
        self.journal.record(Entry(STAGE, one.name, "begun", output=output))
        write: Write = self._copied if not one.faces else partial(self._pasted, restored=restored)
        return writers.submit(self._or_failed, write, one, target)

    def _or_failed(self, write: Write, one: Opened, target: Path) -> Entry:
        try:
            return write(one, target)
        except DiskFull:
            raise
        except (UnfadeError, OSError) as error:
            _withdraw(target, self.settings.sidecar)
            told = f"{target} could not be written ({error}); check that its folder may be written to."
            return Entry(STAGE, one.name, "failed", reason=str(error) if isinstance(error, UnfadeError) else told)

    def _no_face(self, one: Opened, output: str) -> Entry:
        reason = f"{one.path} shows no face that was asked for; look at --min-face, --faces and --detector."
        return Entry(STAGE, one.name, "no_face", key=self._key(one.content), reason=reason, output=output)

    def _copied(self, one: Opened, target: Path) -> Entry:
        atomic_write(target, one.path.read_bytes())
        os.utime(target, (one.path.stat().st_mtime,) * 2)
        return self._no_face(one, self.outputs[one.name])

    def _pasted(self, one: Opened, target: Path, restored: list[Tensor]) -> Entry:
        """In a thread: put the faces back, encode and write."""
        photo, settings = one.photo, self.settings
        assert photo is not None
        if not settings.colour and (tone := tone_of(photo)) is not None:
            restored = [tone.apply(face) for face in restored]
        notes = (*photo.notes, *lost_in(photo, kind=settings.kind), *_large(one))
        whole = photo if self.parts.enlarge is None else self.parts.enlarge(photo)
        matrices = [scaled(found.matrix, settings.scale) for found in one.faces]
        for i, (crop, face, matrix) in enumerate(zip(one.crops, restored, matrices, strict=True)):
            others = matrices[:i] + matrices[i + 1 :]
            paste(whole, crop, face, matrix, replace(settings.paste, upscale=settings.scale), others=others)
        provenance = self.parts.provenance
        atomic_write(target, encode_photo(whole, kind=settings.kind, quality=settings.quality, provenance=provenance))
        if photo.origin.modified is not None:
            os.utime(target, (photo.origin.modified,) * 2)
        if settings.sidecar:
            atomic_write(sidecar_of(target), json.dumps(self._told(one, restored), indent=1, ensure_ascii=False) + "\n")
        one.photo = None  # the group is kept until the next is begun
        notes = (f"{len(one.faces)} face{'s' * (len(one.faces) > 1)}", *notes)
        return Entry(STAGE, one.name, "done", key=self._key(one.content), notes=notes, output=self.outputs[one.name])

    def _told(self, one: Opened, restored: list[Tensor]) -> dict[str, object]:
        faces = []
        for found, crop, face in zip(one.faces, one.crops, restored, strict=True):
            told: dict[str, object] = {
                "index": found.index,
                "box": list(found.face.box),
                "points": found.face.points.tolist(),
                "score": found.face.score,
                "matrix": found.matrix.tolist(),
            }
            if self.parts.similarity is not None:
                told["similarity"] = self.parts.similarity(crop, face)
            faces.append(told)
        made = asdict(self.parts.provenance) if self.parts.provenance else {}
        return {"photo": one.name, "result": self.outputs[one.name], "faces": faces, **made}

    def _key(self, content: str) -> str:
        return f"{seed_for(self.key, content):016x}"


def sidecar_of(target: Path) -> Path:
    """The file beside a result that tells of its faces."""
    return target.with_name(f"{target.name}.json")


def _output(name: Path, kind: str | None) -> str:
    return name.with_suffix(suffix_for(name, kind)).as_posix()


def _withdraw(target: Path, sidecar: bool) -> None:
    """A result of the photo as it was before: it must not pass for one of what it is now."""
    target.unlink(missing_ok=True)
    if sidecar:
        sidecar_of(target).unlink(missing_ok=True)


def _not_numbers(one: Opened, restored: list[Tensor]) -> str:
    if all(bool(torch.isfinite(face).all()) for face in restored):
        return ""
    return f"{one.path}: the network gave values that are not numbers; try --precision float32."


def _large(one: Opened) -> tuple[str, ...]:
    """What a small restorer can do for a large face is little."""
    widest = max((1 / scale_of(found.matrix) for found in one.faces), default=0.0)
    if widest <= LARGE:
        return ()
    return (f"a face is {widest:.1f} times as large as the restorer's: finer detail stays as it was",)
