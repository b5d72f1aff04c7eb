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
from unfade.errors import BadInput, DiskFull, UnfadeError, UnreadableImage
from unfade.faces.align import crop, scale_of, scaled
from unfade.faces.identity import IdentitySettings, Likeness
from unfade.faces.masks import Mask
from unfade.faces.paste import PasteSettings, paste
from unfade.images.photo import Photo
from unfade.images.photo_files import Found, Provenance, encode_photo, lost_in, suffix_for, tone_of
from unfade.progress import Progress, silent
from unfade.restorers.base import Restorer
from unfade.stages.claims import check_unclaimed, is_strange, strange
from unfade.stages.photos import Finder, Opened, opened_groups, shows_none
from unfade.stages.restore import blend, check_strength, choices, restore_batch
from unfade.store.runs import Entry, Journal
from unfade.store.seeds import seed_for

STAGE = "restored"
WRITERS = 2  # threads that paste and encode
SCALES = (1, 2, 4)
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
        if self.scale not in SCALES:
            raise BadInput(f"The scale of the results is 1, 2 or 4, got {self.scale}.")
        suffix_for(Path("photo.png"), self.kind)  # complains about a format that is not written


@dataclass(frozen=True)
class Parts:
    """What is not a setting."""

    enlarge: Enlarge | None = None  # makes the photo that faces are pasted into, `scale` times as large
    similarity: Likeness | None = None  # of a face and its result: a low one is warned of, the sidecar has all
    provenance: Provenance | None = None  # None: results do not say what made them
    recrop: bool = False  # True: what enlarges restores too, and a face replaces what it made of the face
    identity: IdentitySettings = IdentitySettings()  # what a low similarity is
    mask: Mask | None = None  # where a restored face is a face; None: all of its square, but for the feather


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
    overwritten: its photo is skipped. A photo without a face is no_face, and copied only if asked, and enlarged as
    the others are. Bad input fails alone, and the rest goes on. Raises BadInput for a strength outside 0..1, a batch
    below 1, or a scale without a part that enlarges.
    """
    check_run(settings, parts, strength, batch)
    key = f"{seed_for(key, asdict(settings), choices(restorer, strength), repr(parts.provenance)):016x}"
    run = partial(restore_batch, restorer=restorer)  # blended later: a toned face with its photo's tone
    work = _Restoring(found, out, run, batch, strength, settings, parts, journal, key)
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


def check_run(settings: PhotoSettings, parts: Parts, strength: float, batch: int) -> None:
    """Raises BadInput for a strength outside 0..1, a batch below 1, or a scale without a part that enlarges."""
    check_strength(strength)
    if batch < 1:
        raise BadInput(f"Faces are restored one or more at a time, got --batch {batch}.")
    if settings.scale != 1 and parts.enlarge is None:
        raise BadInput(f"Results {settings.scale} times as large need Parts.enlarge; give one, or set the scale to 1.")


class _Restoring:
    """The state of one run."""

    def __init__(
        self, found: Found, out: Path, run: Callable[[Tensor], Tensor], batch: int, strength: float,
        settings: PhotoSettings, parts: Parts, journal: Journal, key: str,
    ) -> None:  # fmt: skip
        self.out, self.run, self.batch, self.strength = out, run, batch, strength
        self.settings, self.parts, self.journal, self.key = settings, parts, journal, key
        self.outputs = {name.as_posix(): _output(name, settings.kind) for name in found.names}
        self.taken: dict[str, str] = {}

    def is_settled(self, name: str, content: str) -> bool:
        """Whether the journal's last word on a photo still holds. May be called by threads."""
        before = self.journal.entry(STAGE, name)
        if before is None or not content or before.key != self._key(content):
            return False
        if before.status not in ("done", "no_face"):
            return False
        target = self.out / before.output
        return not before.output or all(_is_there(file) for file in self._files(target, before.status))

    def begin(self, group: list[Opened], writers: ThreadPoolExecutor) -> list[tuple[Opened, Future[Entry] | Entry]]:
        """Restore the faces of a group and have its photos written; what becomes of each is known now or later."""
        restored = iter(self._restored([face for one in group for face in one.crops]))
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
        refused = self._refused(one, target, before)
        if refused is not None:
            return refused
        if before is not None and self.is_settled(one.name, one.content):
            self.taken[output] = one.name
            return before
        if one.error:  # no claim: a broken photo does not keep its name from a sound one
            return self._failed(one, target, one.error)
        self.taken[output] = one.name
        if not all(bool(torch.isfinite(face).all()) for face in restored):
            told = f"{one.path}: the network gave values that are not numbers; try another restorer."
            return self._failed(one, target, BadInput(told))
        if not one.faces and not self.settings.copy:
            return self._or_failed(self._left_out, one, target)
        self.journal.record(Entry(STAGE, one.name, "begun", output=output))
        write: Write = self._copied if not one.faces else partial(self._pasted, restored=restored)
        return writers.submit(self._or_failed, write, one, target)

    def _refused(self, one: Opened, target: Path, before: Entry | None) -> Entry | None:
        """The entry of a photo whose result's name is another's, or cannot be a name; None: it may be written."""
        output = self.outputs[one.name]
        try:
            check_unclaimed(one.path, output, self.taken)
            files = (file for file in self._files(target) if is_strange(file, output, before))
            return next((strange(STAGE, one.name, one.path, file) for file in files), None)
        except (BadInput, OSError) as error:
            return Entry(STAGE, one.name, "failed", reason=_reason(error, target))

    def _or_failed(self, write: Write, one: Opened, target: Path) -> Entry:
        try:
            return write(one, target)
        except DiskFull:
            raise
        except (UnfadeError, OSError) as error:
            return self._failed(one, target, error)

    def _failed(self, one: Opened, target: Path, error: Exception) -> Entry:
        reason = _reason(error, target)
        try:
            self._withdraw(target)
        except OSError as other:
            reason += f" {target} is the result of an older photo and could not be removed ({other}): remove it."
            return Entry(STAGE, one.name, "failed", reason=reason, output=self.outputs[one.name])  # still our own file
        return Entry(STAGE, one.name, "failed", reason=reason)

    def _withdraw(self, target: Path) -> None:
        """A result of the photo as it was before: it must not pass for one of what it is now."""
        for file in filter(_is_there, self._files(target)):
            file.unlink()

    def _files(self, target: Path, status: str = "done") -> list[Path]:
        """What a photo becomes."""
        return [target, sidecar_of(target)] if self.settings.sidecar and status == "done" else [target]

    def _left_out(self, one: Opened, target: Path) -> Entry:
        self._withdraw(target)
        return self._no_face(one, "")

    def _no_face(self, one: Opened, output: str) -> Entry:
        reason = shows_none(one.path)
        return Entry(STAGE, one.name, "no_face", key=self._key(one.content), reason=reason, output=output)

    def _copied(self, one: Opened, target: Path) -> Entry:
        """In a thread: bit for bit, unless it is enlarged or becomes a file of another format."""
        photo = one.photo
        assert photo is not None
        same = self.parts.enlarge is None and target.name == one.path.name
        atomic_write(target, _bytes_of(one.path) if same else self._encoded(one, self._whole(photo, one, []), None))
        _date_as(photo, target)
        one.photo = None
        return self._no_face(one, self.outputs[one.name])

    def _pasted(self, one: Opened, target: Path, restored: list[Tensor]) -> Entry:
        """In a thread: put the faces back, encode and write."""
        photo, settings = one.photo, self.settings
        assert photo is not None
        if not settings.colour and (tone := tone_of(photo)) is not None:
            restored = [tone.apply(face) for face in restored]
        restored = [blend(crop, face, self.strength) for crop, face in zip(one.crops, restored, strict=True)]
        likeness = self._likeness(one, restored)
        notes = (*photo.notes, *lost_in(photo, kind=settings.kind), *_large(one), *self._warned(one, likeness))
        atomic_write(target, self._encoded(one, self._whole(photo, one, restored), self.parts.provenance))
        _date_as(photo, target)
        if settings.sidecar:
            told = json.dumps(self._told(one, likeness), indent=1, ensure_ascii=False) + "\n"
            atomic_write(sidecar_of(target), told.encode("utf-8", "backslashreplace"))  # names may hold half characters
        one.photo = None  # the group is kept until the next is begun
        notes = (f"{len(one.faces)} face{'s' * (len(one.faces) > 1)}", *notes)
        return Entry(STAGE, one.name, "done", key=self._key(one.content), notes=notes, output=self.outputs[one.name])

    def _whole(self, photo: Photo, one: Opened, restored: list[Tensor]) -> Photo:
        """The photo, enlarged where that is asked for, with its faces in it."""
        whole = photo if self.parts.enlarge is None else self.parts.enlarge(photo)
        matrices, before = [scaled(found.matrix, self.settings.scale) for found in one.faces], one.crops
        if self.parts.recrop:
            before = [crop(whole, matrix, face.shape[-1]) for matrix, face in zip(matrices, one.crops, strict=True)]
        settings = replace(self.settings.paste, upscale=self.settings.scale)
        for i, (face, result, matrix) in enumerate(zip(before, restored, matrices, strict=True)):
            mask = self.parts.mask and self.parts.mask(result)
            paste(whole, face, result, matrix, settings, mask=mask, others=matrices[:i] + matrices[i + 1 :])
        return whole

    def _likeness(self, one: Opened, restored: list[Tensor]) -> list[float]:
        """Of every face and its result; nothing where nothing measures it."""
        measure = self.parts.similarity
        return [] if measure is None else [measure(*pair) for pair in zip(one.crops, restored, strict=True)]

    def _warned(self, one: Opened, likeness: list[float]) -> Iterator[str]:
        for found, value in zip(one.faces, likeness, strict=False):
            if self.parts.identity.tells_apart(value):
                yield f"face {found.index} no longer resembles itself (similarity {value:.2f})"

    def _encoded(self, one: Opened, photo: Photo, provenance: Provenance | None) -> bytes:
        kind = self.settings.kind
        try:
            return encode_photo(photo, kind=kind, quality=self.settings.quality, provenance=provenance)
        except (OSError, ValueError) as error:  # each format has its largest picture
            told = f"{one.path} cannot be written as {kind or photo.origin.kind} ({error}); choose another --format."
            raise BadInput(told) from error

    def _told(self, one: Opened, likeness: list[float]) -> dict[str, object]:
        faces = []
        for i, found in enumerate(one.faces):
            told: dict[str, object] = {
                "index": found.index,
                "box": list(found.face.box),
                "points": found.face.points.tolist(),
                "score": found.face.score,
                "matrix": found.matrix.tolist(),
            }
            if likeness:
                told["similarity"] = likeness[i]
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


def _is_there(file: Path) -> bool:
    """Where it cannot be told, it is not."""
    try:
        return file.exists()
    except OSError:
        return False


def _reason(error: Exception, target: Path) -> str:
    if isinstance(error, UnfadeError):
        return str(error)
    return f"{target} could not be written ({error}); check its name, and that its folder may be written to."


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        told = f"{path} cannot be opened ({error.strerror}); check that it is there and may be read."
        raise UnreadableImage(told) from error


def _date_as(photo: Photo, target: Path) -> None:
    if photo.origin.modified is not None:
        os.utime(target, (photo.origin.modified,) * 2)


def _large(one: Opened) -> tuple[str, ...]:
    """What a small restorer can do for a large face is little."""
    widest = max((1 / scale_of(found.matrix) for found in one.faces), default=0.0)
    if widest <= LARGE:
        return ()
    return (f"a face is {widest:.1f} times as large as the restorer's: finer detail stays as it was",)
