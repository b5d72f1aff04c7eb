"""Restore one video: faces are tracked, restored in batches, and pasted back frame by frame.

Three things run in parallel: a thread decodes frames and detects faces ahead, the restorer works, and another thread
pastes and encodes. Only a few frames are in memory, however long the video is. A restorer that draws noise seeds it
from the face, so a face that does not change gives the same result in every frame.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfade.errors import UnreadableImage
from unfade.faces.align import Matrix, crop, steady
from unfade.faces.detectors import Face
from unfade.faces.identity import Likeness
from unfade.faces.restoring import Placed, finished, put_back, refuse_no_numbers, shows_no_change
from unfade.faces.tracks import Tracks, TrackSettings
from unfade.images.film_input import Frame, VideoReader
from unfade.images.film_output import VideoWriter, Written
from unfade.images.tone import Tone, tone_of
from unfade.jobs.run_stage import all_of
from unfade.progress import Advance
from unfade.stages.photos import Finder, for_films, in_frames
from unfade.stages.restore import LEFT_ALONE
from unfade.stages.restore_photos import Parts, PhotoSettings

AHEAD = 4  # frames decoded before they are asked for
TOGETHER = 8  # frames of a group, at most
PIXELS = 24_000_000  # of a group; one frame may have more
CUT_SIDE = 64  # px of the longer side when successive frames are compared
CUT = 0.2  # mean difference in [-1, 1] that counts as a cut between shots; a false cut does no harm

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Work:
    """What all videos of a run have in common."""

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
    """A frame that waits for later frames, or for the restorer."""

    frame: Frame
    faces: list[Face] | None  # None: faces were not detected in this frame
    cut: bool  # whether a new shot begins here
    tracks: list[tuple[int, Matrix]] = field(default_factory=list)  # number of the track, matrix from frame to crop
    crops: list[Tensor] = field(default_factory=list)  # (3, size, size) of each


class _Search:
    """Detects and tracks the faces of a video, frame by frame."""

    def __init__(self, reader: VideoReader, name: str, find: Finder, settings: TrackSettings) -> None:
        self.reader, self.name, self.find, self.every = reader, name, for_films(find), settings.every
        self.tracks = Tracks(settings)

    def __iter__(self) -> Iterator[Any]:
        """Frames in order, with their faces where detection is due, and packets; called in a thread."""
        before: Tensor | None = None
        along = in_frames(self.find)
        for item in self.reader:
            if not isinstance(item, Frame):
                yield item
                continue
            small = item.photo.shrunk(CUT_SIDE)
            cut = before is not None and float((small - before).abs().mean()) > CUT
            before, due = small, cut or item.index % self.every == 0
            yield _Looked(item, self._faces(item, along) if due else None, cut)

    def track(self, item: _Looked, faces: list[Face], waiting: Iterable[_Looked]) -> None:
        """Track the faces of a frame; if they do not fit the tracks, detect faces in the skipped frames before it."""
        at = item.frame.index
        if item.cut or not self.tracks.expect(at, faces):
            for other in waiting:
                if other.faces is None and self.tracks.newest < other.frame.index < at:
                    other.faces = self._faces(other.frame, self.find)
                    self.tracks.add(other.frame.index, other.faces)
        if item.cut:
            self.tracks.cut()
        self.tracks.add(at, faces)

    def _faces(self, frame: Frame, find: Finder) -> list[Face]:
        return [found.face for found in find(self.name, frame.photo)]


class _Tracks:
    """What is known of each track, by its number."""

    def __init__(self, likeness: Likeness | None, colour: bool) -> None:
        self.likeness, self.colour = likeness, colour
        self.spans: dict[int, dict[str, int]] = {}  # its first and last frame, and in how many frames it is
        self.tones: dict[int, Tone | None] = {}  # of its first frame; None: results keep their colours
        self.distances: dict[int, float] = {}  # identity distance of its first face and the result
        self.apart: list[int] = []  # tracks whose result may no longer show the same person
        self.restored: set[int] = set()  # tracks in which the restorer changed something

    def seen(self, number: int, frame: Frame) -> None:
        """A face of the track is in this frame."""
        span = self.spans.setdefault(number, {"first": frame.index, "last": 0, "frames": 0})
        span |= {"last": frame.index, "frames": span["frames"] + 1}
        if number not in self.tones:
            self.tones[number] = None if self.colour else tone_of(frame.photo)

    def measure(self, item: _Looked, results: list[Tensor]) -> None:
        """Measure the identity distance of the first face of each track and its result."""
        for (number, _), face, result in zip(item.tracks, item.crops, results, strict=True):
            if self.likeness is not None and number not in self.distances:
                self.distances[number] = self.likeness.distance(face, result)
                self.apart += [number] * self.likeness.tells_apart(face, self.distances[number])

    def notes(self) -> Iterator[str]:
        """How many faces were left alone, and which may show someone else."""
        if alone := len(self.spans.keys() - self.restored):
            yield f"{_count(alone, 'face')}{LEFT_ALONE}"
        for number in self.apart:
            at = self.spans[number]["first"]
            measured = f"identity distance {self.distances[number]:.2f}"
            yield f"the face that begins in frame {at} may no longer show the same person ({measured})"


class Film:
    """One video on its way from file to file."""

    def __init__(self, reader: VideoReader, name: str, part: Path, work: Work, advance: Advance) -> None:
        self.reader, self.name, self.part, self.work, self.advance = reader, name, part, work, advance
        self.search = _Search(reader, name, work.find, work.tracks)
        self.changed = work.parts.enlarge is not None  # whether any frame so far has changed
        self.notes: tuple[str, ...] = ()
        self._tracks = _Tracks(work.parts.likeness, work.settings.colour)
        self._waiting: deque[_Looked] = deque()
        self._group: list[Any] = []  # frames, and packets of sound and subtitles
        self._writer: VideoWriter | None = None
        self._written: Future[None] | None = None

    @property
    def tracks(self) -> list[dict[str, float | None]]:
        """Of each track its first and last frame, in how many frames it is, and its identity distance, if measured."""
        distances = self._tracks.distances
        return [{**span, "identity_distance": distances.get(number)} for number, span in self._tracks.spans.items()]

    def restore(self) -> None:
        """Read, restore and write the whole video."""
        with ThreadPoolExecutor(1) as thread:
            try:
                with closing(_ahead(iter(self.search), AHEAD)) as items:
                    for item in items:
                        self._take(item)
                        self._hand_on(thread, self.work.tracks.ahead)
                self._hand_on(thread, 0)
                self._flush(thread)
                self._wait()
                self._finish()
            except BaseException:
                with suppress(Exception):  # so that the first error is the one that is raised
                    self._close(thread)
                raise
            self._close(thread)

    def _take(self, item: Any) -> None:
        if not isinstance(item, _Looked):
            self._group.append(item)
            return
        if self._writer is None:
            settings = self.work.settings
            written = Written(settings.scale, settings.quality, self.work.parts.provenance)
            self._writer = VideoWriter(self.part, self.reader, item.frame, written)
        self._waiting.append(item)
        if item.faces is not None:
            self.search.track(item, item.faces, self._waiting)

    def _hand_on(self, thread: ThreadPoolExecutor, keep: int) -> None:
        """Move all but the last `keep` waiting frames to the group, and restore the group when it is full."""
        while len(self._waiting) > keep:
            looked = self._waiting.popleft()
            photo, size = looked.frame.photo, self.work.size
            looked.tracks = [
                (number, steady(points, size)) for number, points in self.search.tracks.at(looked.frame.index)
            ]
            looked.crops = [crop(photo, matrix, size) for _, matrix in looked.tracks]
            for number, _ in looked.tracks:
                self._tracks.seen(number, looked.frame)
            self._group.append(looked)
            frames = [item for item in self._group if isinstance(item, _Looked)]
            pixels = len(frames) * photo.height * photo.width
            faces = sum(len(item.crops) for item in frames)
            if faces >= self.work.batch or len(frames) >= TOGETHER or pixels >= PIXELS:
                self._flush(thread)

    def _flush(self, thread: ThreadPoolExecutor) -> None:
        """Restore the faces of the group, and start writing it once the previous group has been written."""
        group, self._group = self._group, []
        crops = [face for item in group if isinstance(item, _Looked) for face in item.crops]
        batches = [crops[first : first + self.work.batch] for first in range(0, len(crops), self.work.batch)]
        run = self.work.run
        restored = [face for some in batches for face in all_of(lambda faces: run(torch.stack(faces)).cpu(), some)]
        refuse_no_numbers(restored, self.reader.path)
        self._wait()
        self._written = thread.submit(self._write, group, iter(restored))

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def _write(self, group: list[Any], restored: Iterator[Tensor]) -> None:
        """Paste and encode the frames of a group; called in the writing thread."""
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
        way = replace(settings.paste, upscale=settings.scale)
        known, pairs = self._tracks, list(zip(item.tracks, item.crops, restored, strict=True))
        faces = [Placed(matrix, face, known.tones[number]) for (number, matrix), face, _ in pairs]
        known.restored |= {number for (number, _), face, result in pairs if not torch.equal(face, result)}
        results = finished(faces, restored, self.work.strength)
        if parts.enlarge is None and shows_no_change(faces, results, way):
            writer.write(item.frame, None)
            return
        self.changed = True
        known.measure(item, results)
        writer.write(item.frame, put_back(item.frame.photo, faces, results, way, parts.tools))

    def _close(self, thread: ThreadPoolExecutor) -> None:
        if self._writer is not None:
            thread.submit(self._writer.close).result()

    def _finish(self) -> None:
        if self._writer is None:
            raise UnreadableImage(f"{self.reader.path} holds no frame that can be decoded; it is damaged or cut off.")
        self._writer.finish()
        counts = f"{_count(self.reader.frames, 'frame')}, {_count(len(self._tracks.spans), 'track')}"
        written = (*self.reader.notes, *self._writer.notes) if self.changed else ()
        self.notes = (counts, *written, *self._tracks.notes())


def _ahead(items: Iterator[Any], count: int) -> Generator[Any]:
    """The same items in the same order, up to `count` of them produced by a thread in advance."""
    end = object()
    with ThreadPoolExecutor(1) as reader:
        coming = deque(reader.submit(next, items, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(reader.submit(next, items, end))
            yield item


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
