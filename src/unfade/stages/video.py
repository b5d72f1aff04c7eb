"""Videos to restored videos: faces are tracked, restored many at a time, and put back frame by frame.

Three things go on at once: a thread decodes and searches ahead, the restorer works, another thread pastes and encodes.
Only some frames are in memory, however long the video. A restorer that draws noise seeds it by the face, so a face that
does not change gives the same result in every frame. A run that was killed starts its unfinished video again and keeps
the finished ones.
"""

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

from unfade.atomic import atomic_write, room_for, temporary_beside, write_through
from unfade.errors import BadInput, UnreadableImage
from unfade.faces.align import Matrix, crop, scaled
from unfade.faces.detect import Face
from unfade.faces.paste import paste
from unfade.faces.tracks import Tracks, TrackSettings, steady
from unfade.images.photo_files import Found, Tone, tone_of
from unfade.images.video import Frame, VideoReader, pyav, read_video
from unfade.images.video_output import VideoWriter
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.outputs import Outputs, Writing
from unfade.progress import Advance, Progress, silent
from unfade.restorers.base import Restorer
from unfade.stages.photos import Finder, in_frames, no_face_in
from unfade.stages.restore import blend, choices, restore_batch
from unfade.stages.restore_photos import STAGE, Parts, PhotoSettings, check_run
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import fingerprint

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
    key = fingerprint(key, settings, tracks, choices(restorer, strength), parts.provenance)
    outputs = Outputs(STAGE, out, journal, key)
    run = partial(restore_batch, restorer=restorer)
    work = _Work(run, strength, restorer.size, batch, find, settings, parts, tracks)
    for name in found.names:
        _restore(found.root / name, name.as_posix(), outputs, work, progress)
    return outputs.entries(name.as_posix() for name in found.names)


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


def _restore(path: Path, name: str, outputs: Outputs, work: _Work, progress: Progress) -> None:
    """Write one video, unless it is done or cannot be."""
    content = ""
    with outputs.alone(name, path):
        outputs.claim(name, path, name, *[f"{name}.json"] * work.settings.sidecar)
        content = _hash_of(path)
    if not outputs.claimed(name) or outputs.settled(name, content):
        return
    target = outputs.out / name
    with outputs.alone(name, path, target), room_for(target), temporary_beside(target) as part:
        with read_video(path) as reader, progress(name, reader.expected) as advance:
            film = _Film(reader, name, part, work, advance)
            film.restore()
        if not film.told and not work.settings.copy:
            outputs.no_face(name, content, no_face_in(path))
            return
        with outputs.writing(name, path, content, count=None if film.told else 1) as writing:
            _write(path, part, film, work, writing)


def _write(path: Path, part: Path, film: "_Film", work: _Work, writing: Writing) -> None:
    as_it_is = not film.told and work.parts.enlarge is None
    write_through(writing.path, partial(copyfile, path) if as_it_is else part.replace)
    os.utime(writing.path, (path.stat().st_mtime,) * 2)
    writing.notes = film.notes if film.told else ()
    writing.no_face = "" if film.told else no_face_in(path)
    if film.told and work.settings.sidecar:
        tracks = [{**told, "identity_distance": film.distances.get(number)} for number, told in film.told.items()]
        made = asdict(work.parts.provenance) if work.parts.provenance else {}
        told = {"video": film.name, "result": film.name, "tracks": tracks, "notes": list(film.notes), **made}
        atomic_write(writing.files[1], json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def _hash_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UnreadableImage(f"{path} cannot be read ({error.strerror}); look at its rights.") from error


class _Film:
    """One video on its way from file to file."""

    def __init__(self, reader: VideoReader, name: str, part: Path, work: _Work, advance: Advance) -> None:
        self.reader, self.name, self.part, self.work, self.advance = reader, name, part, work, advance
        self.tracks = Tracks(work.tracks)
        self.find = in_frames(work.find)
        self.told: dict[int, dict[str, int]] = {}  # of each track: its first and last frame, and how many show it
        self.distances: dict[int, float] = {}  # of the first face of each track and its result, where it is measured
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
            raise BadInput(f"{self.reader.path}: the network gave values that are not numbers; try another `restorer`.")
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
            if parts.likeness is not None and number not in self.distances:
                self.distances[number] = parts.likeness.distance(item.crops[i], result)
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
        likeness = self.work.parts.likeness
        for number, distance in self.distances.items():
            if likeness and likeness.tells_apart(distance):
                at = self.told[number]["first"]
                told = f"identity distance {distance:.2f}"
                yield f"the face that begins in frame {at} no longer resembles itself ({told})"


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
