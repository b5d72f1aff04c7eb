"""Restore whole photos: the faces of several photos go through the restorer together, then back into their photos.

Three groups of photos are in progress at once: threads read the next group and detect its faces, the restorer works on
the current one, and threads paste and encode the previous one.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from shutil import copyfile

import torch
from torch import Tensor

from unfade.atomic import atomic_write, write_through
from unfade.errors import BadInput
from unfade.faces.align import scale_of
from unfade.faces.identity import Likeness
from unfade.faces.masks import Mask
from unfade.faces.paste import PasteSettings
from unfade.faces.restoring import Enlarge, Placed, Tools, blend, finished, put_back, refuse_no_numbers
from unfade.faces.trust import Trust
from unfade.images.encoding import encode_photo, is_lossless, lost_in, suffix_for
from unfade.images.finding import Found
from unfade.images.photo import Photo
from unfade.images.provenance import Provenance
from unfade.images.tone import tone_of
from unfade.jobs.journal import Entry
from unfade.jobs.outputs import Outputs, Writing
from unfade.jobs.run_stage import attempted
from unfade.jobs.runs import Run
from unfade.restorers.base import Restorer
from unfade.shown import json_text
from unfade.stages.photos import Finder, Opened, no_face_in, opened_groups
from unfade.stages.restore import check_strength, choices, left_alone, restore_batch
from unfade.stages.trust_maps import MAP, no_map, write_map
from unfade.store.seeds import fingerprint

STAGE = "restored"
WRITERS = 2  # threads that paste and encode
SCALES = (1, 2, 4)
LARGE = 2.0  # px of the photo per px of the restorer's face; a note is made of faces above it


@dataclass(frozen=True)
class PhotoSettings:
    """How restored faces are pasted into their photos, and how photos are written."""

    paste: PasteSettings = PasteSettings()
    colour: bool = False  # allow faces of grey and sepia photos to become coloured
    kind: str | None = None  # format of the results, by Pillow's name; None: the photo's own
    quality: int | None = None  # 1..100, of lossy formats; None: the photo's own
    copy: bool = False  # copy photos without a face
    sidecar: bool = False  # write a JSON file about the faces next to each result
    scale: int = 1  # enlarge results this many times; above 1, the caller has to give `Parts.enlarge`

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise BadInput(f"Expected `quality` to lie in 1..100, got {self.quality}.")
        if self.quality is not None and self.kind is not None and is_lossless(self.kind):
            raise BadInput(f"`quality` has no effect on {self.kind}, which loses nothing; leave it out.")
        if self.scale not in SCALES:
            raise BadInput(f"Expected `scale` to be 1, 2 or 4, got {self.scale}.")
        suffix_for(Path("photo.png"), self.kind)  # raises BadInput for a format that cannot be written


@dataclass(frozen=True)
class Parts:
    """Loaded networks and other objects that a restoration needs besides its settings."""

    enlarge: Enlarge | None = None  # makes the photo, `scale` times as large, that faces are pasted into
    likeness: Likeness | None = None  # compares face and result, for warnings and for the distances in the sidecar
    provenance: Provenance | None = None  # None: results do not record how they were made
    recrop: bool = False  # whether `enlarge` changes faces too; restored faces then replace what it made of them
    mask: Mask | None = None  # the part of a restored face that is pasted; None: the whole square, feathered
    trust: Trust | None = None  # None: no trust map is written next to each result

    @property
    def tools(self) -> Tools:
        """The parts that are needed for pasting."""
        return Tools(self.enlarge, self.recrop, self.mask)


def restore_photos(
    found: Found,
    run: Run,
    restorer: Restorer,
    find: Finder,
    settings: PhotoSettings = PhotoSettings(),
    parts: Parts = Parts(),
    *,
    strength: float = 1.0,
    batch: int = 8,
    key: str = "",
    place: Callable[[str], str] = str,
) -> list[Entry]:
    """Restore the faces of every photo and write the photos to the run's folder under their own names.

    Returns one entry for each photo. `strength` in 0..1 blends each face with the original. `key` identifies what else
    the results depend on, such as the weights and the finder. `place` maps the name of a result to its path below that
    folder, and must keep different names different. Results of the same key and content are kept. A file that this run
    did not write is never overwritten; its photo is skipped. A photo without a face gets the status no_face, and is
    copied, or enlarged like the others, only if `settings.copy` is set. A bad photo does not stop the others. Raises
    BadInput for a strength outside 0..1, a batch below 1, or a scale above 1 without `parts.enlarge`.
    """
    check_run(settings, parts, strength, batch)
    key = fingerprint(key, settings, choices(restorer, strength), parts.provenance)
    restore = partial(restore_batch, restorer=restorer)  # no `strength`: faces get their tone back before the blending
    outputs, result_of = Outputs(STAGE, run, key), result_names(found.names, settings.kind, place)
    work = _Restoring(outputs, restore, batch, strength, settings, parts, result_of)
    work.clear_names(found.names)
    with run.progress(STAGE, len(found.names)) as advance, ThreadPoolExecutor(WRITERS) as writers:
        written: list[Future[None]] = []
        for group in opened_groups(found, find, restorer.sizes, outputs.settled):
            begun = work.begin(group, writers)
            _wait_for(written)
            written = begun
            advance(len(group))
        _wait_for(written)
    return outputs.entries(name.as_posix() for name in found.names)


def check_run(settings: PhotoSettings, parts: Parts, strength: float, batch: int) -> None:
    """Raises BadInput for a strength outside 0..1, a batch below 1, or a scale above 1 without `parts.enlarge`."""
    check_strength(strength)
    if batch < 1:
        raise BadInput(f"Expected `batch` to be 1 or more, got {batch}.")
    if settings.scale != 1 and parts.enlarge is None:
        raise BadInput(f"Results {settings.scale} times as large need Parts.enlarge; give one, or set the scale to 1.")


def result_names(names: Sequence[Path], kind: str | None, place: Callable[[str], str] = str) -> Callable[[str], str]:
    """From the name of a photo to the file of its result, below the output folder.

    Where results of several photos would have the same name, the photo that is called so already keeps it, or the first
    one; the others append the suffix to their whole name: `one.gif` beside `one.png` becomes `one.gif.png`.
    """
    wanted = {name: name.with_suffix(ending) for name in names if (ending := suffix_for(name, kind)) != name.suffix}
    taken = {name for name in names if name not in wanted} if wanted else set()
    for name, result in wanted.items():
        longer = name
        while wanted[name] in taken:
            longer = wanted[name] = longer.with_name(longer.name + result.suffix)
        taken.add(wanted[name])
    others = {name.as_posix(): result.as_posix() for name, result in wanted.items()}
    return lambda name: place(others.get(name, name))


def in_batches(crops: list[Tensor], run: Callable[[Tensor], Tensor], batch: int) -> Iterator[Tensor | Exception]:
    """The result of each crop, in their order; those of one size go through the network together, `batch` at a time."""

    def of_one(size: int) -> Iterator[Tensor | Exception]:
        same = [crop for crop in crops if crop.shape[-1] == size]
        for first in range(0, len(same), batch):
            yield from attempted(lambda faces: run(torch.stack(faces)).cpu(), same[first : first + batch])

    results = {size: of_one(size) for size in {crop.shape[-1] for crop in crops}}
    return (next(results[crop.shape[-1]]) for crop in crops)


@dataclass(frozen=True)
class _Restoring:
    """The state of one run."""

    outputs: Outputs
    restore: Callable[[Tensor], Tensor]
    batch: int
    strength: float
    settings: PhotoSettings
    parts: Parts
    result_of: Callable[[str], str]  # from the name of a photo to that of its result

    def clear_names(self, names: Sequence[Path]) -> None:
        """Remove the results of earlier runs that would have other names now, as another photo may take their names."""
        for name in (path.as_posix() for path in names if len(self.outputs.journal)):
            before = self.outputs.journal.entry(STAGE, name)
            if before is not None and before.output not in ("", self.result_of(name)):
                self.outputs.withdraw(name)

    def begin(self, group: list[Opened], writers: ThreadPoolExecutor) -> list[Future[None]]:
        """Restore the faces of a group, and start writing its photos."""
        restored = in_batches([face for item in group for face in item.crops], self.restore, self.batch)
        begun = []
        for item in group:
            faces = [next(restored) for _ in item.crops]
            if self._may_write(item, faces):
                begun.append(writers.submit(self._write, item, [face for face in faces if isinstance(face, Tensor)]))
        return begun

    def _beside(self, target: str) -> list[str]:
        """The names of the files next to a result: its sidecar, and last its trust map."""
        return [f"{target}.json"] * self.settings.sidecar + [f"{target}{MAP}"] * (self.parts.trust is not None)

    def _may_write(self, item: Opened, restored: Sequence[Tensor | Exception]) -> bool:
        """Whether a result should be written; otherwise the reason is recorded, or it has been written before."""
        target = self.result_of(item.name)
        with self.outputs.alone(item.name, item.path):
            self.outputs.claim(item.name, item.path, target, *self._beside(target))
            if self.outputs.settled(item.name, item.content):
                return False
            for error in (item.error, *restored):
                if isinstance(error, Exception):
                    raise error
            refuse_no_numbers(restored, item.path)
        if not self.outputs.claimed(item.name):
            return False
        if not item.faces and not self.settings.copy:
            self.outputs.no_face(item.name, item.content, no_face_in(item.path))
            return False
        return True

    def _write(self, item: Opened, restored: list[Tensor]) -> None:
        """Write the result of one photo; called in a thread."""
        why = no_map(item.photo, item.crops, self.parts.trust) if item.photo else ""
        count = (-1 if why else None) if item.faces else 1  # all but the map; a copy has neither sidecar nor map
        with self.outputs.writing(item.name, item.path, item.content, count=count) as writing:
            if item.faces:
                self._paste(item, restored, writing, why)
            else:
                self._copy(item, writing)
        item.photo = None  # frees its memory, since the group is kept until the next one begins

    def _copy(self, item: Opened, writing: Writing) -> None:
        """Copy a photo bit for bit, unless it is enlarged or converted to another format."""
        photo, target = item.photo, writing.path
        assert photo is not None
        same = self.parts.enlarge is None and target.name == item.path.name
        if same:  # by the block, as anything may follow the picture in its file
            write_through(target, partial(copyfile, item.path))
        else:
            atomic_write(target, _encoded(item, self._whole(photo, [], []), self.settings, None))
        _date_as(photo, target)
        writing.no_face = no_face_in(item.path)

    def _paste(self, item: Opened, restored: list[Tensor], writing: Writing, why: str) -> None:
        """Paste the faces, encode the photo and write it; `why` it gets no trust map, although one is wanted."""
        photo, settings = item.photo, self.settings
        assert photo is not None
        left = left_alone(item.crops, restored)
        tone = None if settings.colour else tone_of(photo)
        faces = [Placed(found.matrix, crop, tone) for found, crop in zip(item.faces, item.crops, strict=True)]
        toned = finished(faces, restored)
        restored = [blend(face.crop, result, self.strength) for face, result in zip(faces, toned, strict=True)]
        distances = self._distances(item, restored)
        notes = (
            *photo.notes,
            *lost_in(photo, kind=settings.kind, provenance=self.parts.provenance),
            *_renamed(item, writing.path),
            *_resized(item, whole=not settings.paste.feather),
            *left,
            *_warned(item, distances, self.parts.likeness),
            *([why] if why else []),
        )
        if self.parts.trust and not why:
            map_file, trust, mask = writing.files[-1], self.parts.trust, self.parts.mask
            write_map(map_file, photo, faces, toned, trust, strength=self.strength, settings=self._pasting, mask=mask)
        atomic_write(writing.path, _encoded(item, self._whole(photo, faces, restored), settings, self.parts.provenance))
        _date_as(photo, writing.path)
        if settings.sidecar:
            about = _sidecar(item, self.result_of(item.name), distances, notes, self.parts.provenance)
            atomic_write(writing.files[1], json_text(about, indent=1, ascii_only=False) + "\n")
        writing.notes = (f"{len(item.faces)} face{'s' * (len(item.faces) > 1)}", *notes)

    def _whole(self, photo: Photo, faces: list[Placed], restored: list[Tensor]) -> Photo:
        """The photo, enlarged if asked for, with its restored faces."""
        return put_back(photo, faces, restored, self._pasting, self.parts.tools)

    @property
    def _pasting(self) -> PasteSettings:
        return replace(self.settings.paste, upscale=self.settings.scale)

    def _distances(self, item: Opened, restored: list[Tensor]) -> list[float]:
        """The identity distance of every face and its result; an empty list if it is not measured."""
        likeness = self.parts.likeness
        return [] if likeness is None else [likeness.distance(*pair) for pair in zip(item.crops, restored, strict=True)]


def _warned(item: Opened, distances: list[float], likeness: Likeness | None) -> Iterator[str]:
    for found, crop, distance in zip(item.faces, item.crops, distances, strict=False):
        if likeness and likeness.tells_apart(crop, distance):
            yield f"face {found.index} may no longer show the same person (identity distance {distance:.2f})"


def _encoded(item: Opened, photo: Photo, settings: PhotoSettings, provenance: Provenance | None) -> bytes:
    kind = settings.kind
    try:
        return encode_photo(photo, kind=kind, quality=settings.quality, provenance=provenance)
    except (OSError, ValueError, RuntimeError) as error:  # such as a picture larger than the format allows
        message = f"{item.path} cannot be written as {kind or photo.origin.kind} ({error}); choose another `kind`."
        raise BadInput(message) from error


def _renamed(item: Opened, result: Path) -> tuple[str, ...]:
    """A note if another photo keeps the name that the result would have."""
    is_longer = result.name.startswith(f"{item.path.name}.")
    return (f"written as {result.name}, as another photo has its name",) if is_longer else ()


def _resized(item: Opened, *, whole: bool) -> tuple[str, ...]:
    """A note if a face is much larger than the restorer's; for aligned faces (`whole`), of any difference in size."""
    widest = max(1 / scale_of(found.matrix) for found in item.faces)
    if widest > (1 if whole else LARGE):
        return (f"a face is {widest:.1f} times as large as the restorer's: finer detail stays as it was",)
    if whole and widest < 1:
        return (f"the restorer's face, {1 / widest:.1f} times as large, was reduced; `size` restorer keeps its size",)
    return ()


def _sidecar(
    item: Opened, result: str, distances: list[float], notes: Sequence[str], made: Provenance | None
) -> dict[str, object]:
    faces = []
    for i, (found, crop) in enumerate(zip(item.faces, item.crops, strict=True)):
        face: dict[str, object] = {
            "index": found.index,
            "box": list(found.face.box),
            "points": found.face.points.tolist(),
            "score": found.face.score,
            "matrix": found.matrix.tolist(),
            "size": crop.shape[-1],
        }
        if distances:
            face["identity_distance"] = distances[i]
        faces.append(face)
    return {
        "photo": item.name,
        "result": result,
        "faces": faces,
        "notes": list(notes),
        **(asdict(made) if made else {}),
    }


def _wait_for(written: Sequence[Future[None]]) -> None:
    """Raises an error that has to stop the run; errors of a single photo are in the journal instead."""
    for future in written:
        future.result()


def _date_as(photo: Photo, target: Path) -> None:
    if photo.origin.modified is not None:
        os.utime(target, (photo.origin.modified,) * 2)
