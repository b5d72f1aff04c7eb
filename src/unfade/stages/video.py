"""Videos to restored videos: faces are tracked, restored many at a time, and put back frame by frame.

Three things go on at once: a thread decodes and searches ahead, the restorer works, another thread pastes and encodes.
What is in memory is some frames, however long the video. No restorer draws random numbers when it restores, so there is
nothing to seed: a face that does not change gives the same result in every frame. A run that was killed begins the
video again that it was at; the others are kept.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from torch import Tensor

from unfade.atomic import atomic_write, room_for, write_through
from unfade.errors import BadInput, DiskFull, UnfadeError, UnreadableImage
from unfade.faces.align import Matrix, crop, scaled
from unfade.faces.detect import Face
from unfade.faces.paste import paste
from unfade.faces.tracks import Tracks, TrackSettings, steady
from unfade.images.photo_files import Found, Tone, tone_of
from unfade.images.video import Frame, VideoReader, pyav, read_video
from unfade.images.video_output import VideoWriter
from unfade.progress import Advance, Progress, silent
from unfade.restorers.base import Restorer
from unfade.stages.claims import is_strange, strange
from unfade.stages.photos import Finder, in_frames, shows_none
from unfade.stages.restore import blend, choices, restore_batch
from unfade.stages.restore_photos import STAGE, Parts, PhotoSettings, check_run, sidecar_of
from unfade.store.runs import Entry, Journal
from unfade.store.seeds import seed_for

AHEAD = 4  # frames decoded before they are asked for
TOGETHER = 8  # frames of a group, at most
PIXELS = 24_000_000  # of a group; one frame may have more
CUT_SIDE = 64  # px of the longer side when successive frames are compared
CUT = 0.2  # mean difference in [-1, 1] from which on another shot begins; taken for one wrongly, nothing is lost

PLAIN, ALONE, TRACKED = PhotoSettings(), Parts(), TrackSettings()

Run = Callable[[Tensor], Tensor]


def restore_videos(
    found: Found,
    out: Path,
    restorer: Restorer,
    find: Finder,
    settings: PhotoSettings = PLAIN,
    parts: Parts = ALONE,
    *,
    journal: Journal,
    tracks: TrackSettings = TRACKED,
    strength: float = 1.0,
    batch: int = 8,
    key: str = "",
    progress: Progress = silent,
) -> list[Entry]:
    """Write every video with its faces restored to `out`, under its own name; one entry for each.

    As `restore_photos`, one video after the other; `settings.kind` is about photos. A quality of 1..100 is a constant
    rate factor; without one a result has at most 1.5 times the bits of its source. `find` chooses faces in every frame
    by itself, so that numbers of faces are those of the frame. Needs PyAV; raises BadInput where it is missing.
    """
    check_run(settings, parts, strength, batch)
    pyav()
    key = f"{seed_for(key, asdict(settings), asdict(tracks), choices(restorer, strength), repr(parts.provenance)):016x}"
    run = partial(restore_batch, restorer=restorer)
    work = _Work(run, strength, restorer.size, batch, find, settings, parts, tracks)
    entries = []
    for name in found.names:
        entries.append(_entry(found.root / name, name.as_posix(), out, work, journal, key, progress))
        if entries[-1] != journal.entry(STAGE, entries[-1].item):
            journal.record(entries[-1])
    return entries


@dataclass(frozen=True)
class _Work:
    """What is the same for all videos of a run."""

    run: Run
    strength: float
    size: int  # px, of the restorer's faces
    batch: int
    find: Finder
    settings: PhotoSettings
    parts: Parts
    tracks: TrackSettings


@dataclass(eq=False)
class _Looked:
    """A frame that waits for those after it, or for the restorer."""

    frame: Frame
    faces: list[Face] | None  # None: not looked for
    cut: bool  # another shot begins
    tracks: list[tuple[int, Matrix]] = field(default_factory=list)  # number, and frame to crop
    crops: list[Tensor] = field(default_factory=list)  # (3, size, size) of each


def _entry(path: Path, name: str, out: Path, work: _Work, journal: Journal, key: str, progress: Progress) -> Entry:
    """What becomes of one video."""
    before, target = journal.entry(STAGE, name), out / name
    files = (target, sidecar_of(target))[: 1 + work.settings.sidecar]
    try:
        with path.open("rb") as opened:
            key = f"{seed_for(key, hashlib.file_digest(opened, 'sha256').hexdigest()):016x}"
    except OSError as error:
        return Entry(STAGE, name, "failed", reason=f"{path} cannot be read ({error.strerror}); look at its rights.")
    if before is not None and before.key == key and before.status in ("done", "no_face"):
        needed = files if before.status == "done" else files[: bool(before.output)]
        if all(file.exists() for file in needed):
            return before
    for file in files:
        if is_strange(file, name, before):
            return strange(STAGE, name, path, file)
    journal.record(Entry(STAGE, name, "begun", output=name))
    try:
        return _written(path, name, target, work, key, progress)
    except DiskFull:
        raise
    except (UnfadeError, OSError, pyav().FFmpegError) as error:
        for file in files:
            file.unlink(missing_ok=True)
        told = f"{target} could not be written ({error}); check that its folder may be written to."
        return Entry(STAGE, name, "failed", reason=str(error) if isinstance(error, UnfadeError) else told)


def _written(path: Path, name: str, target: Path, work: _Work, key: str, progress: Progress) -> Entry:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem[:40]}.part{target.suffix}")  # a run that was killed leaves it to the next
    try:
        with room_for(target), read_video(path) as reader, progress(name, reader.expected) as advance:
            film = _Film(reader, name, part, work, advance)
            film.restore()
        reason = shows_none(path)
        if not film.told and not work.settings.copy:
            target.unlink(missing_ok=True)
            return Entry(STAGE, name, "no_face", key=key, reason=reason)
        as_it_is = not film.told and work.parts.enlarge is None
        write_through(target, partial(copyfile, path) if as_it_is else part.replace)
    finally:
        part.unlink(missing_ok=True)
    os.utime(target, (path.stat().st_mtime,) * 2)
    if not film.told:
        return Entry(STAGE, name, "no_face", key=key, reason=reason, output=name)
    if work.settings.sidecar:
        tracks = [{**told, "similarity": film.likeness.get(number)} for number, told in film.told.items()]
        made = asdict(work.parts.provenance) if work.parts.provenance else {}
        told = {"video": name, "result": name, "tracks": tracks, **made}
        atomic_write(sidecar_of(target), json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    return Entry(STAGE, name, "done", key=key, notes=film.notes, output=name)


class _Film:
    """One video on its way from file to file."""

    def __init__(self, reader: VideoReader, name: str, part: Path, work: _Work, advance: Advance) -> None:
        self.reader, self.name, self.part, self.work, self.advance = reader, name, part, work, advance
        self.tracks = Tracks(work.tracks)
        self.find = in_frames(work.find)
        self.told: dict[int, dict[str, int]] = {}  # of each track: its first and last frame, and how many show it
        self.likeness: dict[int, float] = {}  # of the first face of each track and its result, where it is measured
        self.notes: tuple[str, ...] = ()
        self._waiting: deque[_Looked] = deque()
        self._group: list[Any] = []  # frames, and packets of sound and subtitles
        self._tones: dict[int, Tone | None] = {}
        self._writer: VideoWriter | None = None
        self._written: Future[None] | None = None

    def restore(self) -> None:
        """Read, restore and write all of it."""
        with ThreadPoolExecutor(1) as thread:
            try:
                with closing(_ahead(self._looked(), AHEAD)) as items:
                    for item in items:
                        self._take(item)
                        self._hand_on(thread, self.work.tracks.ahead)
                self._hand_on(thread, 0)
                self._flush(thread)
                self._wait()
                self._finish()
            finally:
                if self._writer is not None:
                    thread.submit(self._writer.close).result()

    def _looked(self) -> Iterator[Any]:
        """In a thread: frames in order, searched where that is due, and packets."""
        before: Tensor | None = None
        for item in self.reader:
            if not isinstance(item, Frame):
                yield item
                continue
            small = item.photo.shrunk(CUT_SIDE)
            cut = before is not None and float((small - before).abs().mean()) > CUT
            before, due = small, cut or item.index % self.work.tracks.every == 0
            yield _Looked(item, self._faces(item, self.find) if due else None, cut)

    def _faces(self, frame: Frame, find: Finder) -> list[Face]:
        return [found.face for found in find(self.name, frame.photo)]

    def _take(self, item: Any) -> None:
        if not isinstance(item, _Looked):
            self._group.append(item)
            return
        if self._writer is None:
            settings = self.work.settings
            self._writer = VideoWriter(
                self.part, self.reader, item.frame,
                scale=settings.scale, quality=settings.quality, provenance=self.work.parts.provenance,
            )  # fmt: skip
        self._waiting.append(item)
        if item.faces is not None:
            self._track(item, item.faces)

    def _track(self, item: _Looked, faces: list[Face]) -> None:
        at = item.frame.index
        if item.cut or not self.tracks.expect(at, faces):
            for other in self._waiting:
                if other.faces is None and self.tracks.newest < other.frame.index < at:
                    other.faces = self._faces(other.frame, self.work.find)
                    self.tracks.add(other.frame.index, other.faces)
        if item.cut:
            self.tracks.cut()
        self.tracks.add(at, faces)

    def _hand_on(self, thread: ThreadPoolExecutor, keep: int) -> None:
        """Frames whose faces are known go into the group; a full group is worked on."""
        while len(self._waiting) > keep:
            one = self._waiting.popleft()
            photo, size = one.frame.photo, self.work.size
            one.tracks = [(number, steady(points, size)) for number, points in self.tracks.at(one.frame.index)]
            one.crops = [crop(photo, matrix, size) for _, matrix in one.tracks]
            for number, _ in one.tracks:
                told = self.told.setdefault(number, {"first": one.frame.index, "last": 0, "frames": 0})
                told |= {"last": one.frame.index, "frames": told["frames"] + 1}
                if number not in self._tones:
                    self._tones[number] = None if self.work.settings.colour else tone_of(photo)
            self._group.append(one)
            frames = [item for item in self._group if isinstance(item, _Looked)]
            pixels = len(frames) * photo.height * photo.width
            faces = sum(len(item.crops) for item in frames)
            if faces >= self.work.batch or len(frames) >= TOGETHER or pixels >= PIXELS:
                self._flush(thread)

    def _flush(self, thread: ThreadPoolExecutor) -> None:
        """Restore the faces of the group; begin to write it when the one before is written."""
        group, self._group = self._group, []
        crops = [one for item in group if isinstance(item, _Looked) for one in item.crops]
        batches = [crops[first : first + self.work.batch] for first in range(0, len(crops), self.work.batch)]
        restored = [face for some in batches for face in self.work.run(torch.stack(some)).cpu()]
        if not all(bool(torch.isfinite(face).all()) for face in restored):
            raise BadInput(
                f"{self.reader.path}: the network gave values that are not numbers; try --precision float32."
            )
        self._wait()
        self._written = thread.submit(self._write, group, iter(restored))

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def _write(self, group: list[Any], restored: Iterator[Tensor]) -> None:
        """In the other thread."""
        writer = self._writer
        assert writer is not None
        for item in group:
            if isinstance(item, _Looked):
                self._paste(item, [next(restored) for _ in item.crops], writer)
                self.advance(1)
            else:
                writer.copy(item)

    def _paste(self, item: _Looked, restored: list[Tensor], writer: VideoWriter) -> None:
        settings, parts = self.work.settings, self.work.parts
        if not item.crops and parts.enlarge is None:
            writer.write(item.frame, None)
            return
        whole = item.frame.photo if parts.enlarge is None else parts.enlarge(item.frame.photo)
        matrices, before = [scaled(matrix, settings.scale) for _, matrix in item.tracks], item.crops
        if parts.recrop:
            before = [crop(whole, matrix, self.work.size) for matrix in matrices]
        way = replace(settings.paste, upscale=settings.scale)
        for i, ((number, _), face) in enumerate(zip(item.tracks, restored, strict=True)):
            tone = self._tones[number]
            result = blend(item.crops[i], face if tone is None else tone.apply(face), self.work.strength)
            if parts.similarity is not None and number not in self.likeness:
                self.likeness[number] = parts.similarity(item.crops[i], result)
            mask = parts.mask and parts.mask(result)
            paste(whole, before[i], result, matrices[i], way, mask=mask, others=matrices[:i] + matrices[i + 1 :])
        writer.write(item.frame, whole)

    def _finish(self) -> None:
        if self._writer is None:
            raise UnreadableImage(f"{self.reader.path} holds no frame that can be decoded; it is damaged or cut off.")
        self._writer.finish()
        told = _count(self.reader.frames, "frame"), _count(len(self.told), "track")
        self.notes = (", ".join(told), *self.reader.notes, *self._writer.notes, *self._warned())

    def _warned(self) -> Iterator[str]:
        for number, value in self.likeness.items():
            if self.work.parts.identity.tells_apart(value):
                at = self.told[number]["first"]
                yield f"the face that begins in frame {at} no longer resembles itself (similarity {value:.2f})"


def _ahead(items: Iterator[Any], count: int) -> Generator[Any]:
    """The same in the same order, some of them made by a thread before they are asked for."""
    end = object()
    with ThreadPoolExecutor(1) as reader:
        coming = deque(reader.submit(next, items, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(reader.submit(next, items, end))
            yield item


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
