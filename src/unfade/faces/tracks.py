"""Faces of successive frames joined into tracks, whose landmarks follow the face without jitter.

A detector's landmarks jitter by a pixel from frame to frame, and a restored face that shakes is noticed at once. So the
landmarks are smoothed over some frames before and after by local linear regression (Cleveland 1979): a line fitted to
them, weighted by nearness in time. As it is symmetric in time, it neither lags behind a steady movement nor leads it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unfade.errors import BadInput
from unfade.faces.detectors import Box, Face, area, common

Points = NDArray[np.float64]


@dataclass(frozen=True)
class TrackSettings:
    """How faces become tracks. All lengths are in frames."""

    every: int = 1  # faces are detected in every n-th frame, and in those between where faces come or go
    overlap: float = 0.3  # least intersection over union of a face and the box that its track expects
    gap: int = 4  # longest gap without a detection that is bridged
    window: int = 5  # frames before and after over which landmarks are smoothed; 0: no smoothing
    least: int = 2  # least frames with the face: a shorter track is taken for a false detection

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("gap", 0), ("window", 0), ("least", 1)):
            if getattr(self, name) < least:
                raise BadInput(f"The {name} of tracks is at least {least} frames, got {getattr(self, name)}.")
        if not 0 < self.overlap < 1:
            raise BadInput(f"The overlap of tracks must lie between 0 and 1, got {self.overlap}.")

    @property
    def reach(self) -> int:
        """The most frames from one detection of a face to the next."""
        return self.gap + self.every

    @property
    def ahead(self) -> int:
        """Frames after a given one that must have been read before its faces are known."""
        return max(self.window, self.reach + self.every - 1)


@dataclass(eq=False)
class Track:
    """One face over time, with the detections that are still kept."""

    number: int
    first: int  # the first frame that showed it
    seen: dict[int, Face]  # detections by frame, in order
    sights: int = 1  # frames that showed it
    chances: int = 1  # frames that were searched while it was expected
    open: bool = field(default=True)  # whether more frames may be added

    @property
    def last(self) -> int:
        """The last frame that showed it."""
        return next(reversed(self.seen))

    def expected(self, at: int) -> Box:
        """Its expected box in a frame, if it keeps moving as it did."""
        frames = [*self.seen][-2:]
        box = np.array(self.seen[frames[-1]].box)
        if len(frames) == 2:
            moved = _centre(box) - _centre(np.array(self.seen[frames[0]].box))
            box = box + np.tile(moved, 2) * ((at - frames[1]) / (frames[1] - frames[0]))
        left, top, right, bottom = box.tolist()
        return left, top, right, bottom

    def points(self, at: int, window: int) -> Points:
        """Its landmarks in a frame, (5, 2) in px, smoothed over `window` frames before and after."""
        near = [frame for frame in self.seen if abs(frame - at) <= window]
        near = near or [min(self.seen, key=lambda frame: abs(frame - at))]
        apart = np.array(near, dtype=np.float64) - at
        weights = (1 - np.abs(apart / (max(window, float(np.abs(apart).max())) + 1)) ** 3) ** 3  # Cleveland's
        return _line_at_zero(apart, np.stack([self.seen[frame].points for frame in near]), weights)


class Tracks:
    """The tracks of a video, fed frame by frame. Detections older than the settings need are dropped."""

    def __init__(self, settings: TrackSettings) -> None:
        self.settings = settings
        self.newest = -1  # the last frame that was added
        self._tracks: list[Track] = []
        self._begun = 0

    def expect(self, at: int, faces: Sequence[Face]) -> bool:
        """Whether a frame shows one face for every open track, and no others."""
        return len(self._pairs(at, faces)) == len(faces) == len(self._open(at))

    def add(self, at: int, faces: Sequence[Face]) -> None:
        """Add the faces of a frame that was searched; frames come in order."""
        pairs = self._pairs(at, faces)
        for track in self._open(at):
            track.chances += 1
        for k, face in enumerate(faces):
            if k in pairs:
                pairs[k].seen[at] = face
                pairs[k].sights += 1
            else:
                self._tracks.append(Track(self._begun, at, {at: face}))
                self._begun += 1
        self.newest = at
        self._forget()

    def cut(self) -> None:
        """Close all tracks: a new shot begins with the next frame."""
        for track in self._tracks:
            track.open = False

    def at(self, frame: int) -> Iterator[tuple[int, Points]]:
        """Number and landmarks, (5, 2) in px, of each track in a frame.

        Every searched frame up to `settings.ahead` frames after it, or to the end of the video, must have been added.
        """
        for track in self._tracks:
            if track.first <= frame <= track.last and track.sights >= min(self.settings.least, track.chances):
                yield track.number, track.points(frame, self.settings.window)

    def _open(self, at: int) -> list[Track]:
        return [track for track in self._tracks if track.open and at - track.last <= self.settings.reach]

    def _pairs(self, at: int, faces: Sequence[Face]) -> dict[int, Track]:
        """The track of each face that continues one, by the face's index; the best overlaps are matched first."""
        overlaps = [
            (_overlap(track.expected(at), face.box), k, track)
            for track in self._open(at)
            for k, face in enumerate(faces)
            if _alike_turned(track.seen[track.last], face)
        ]
        pairs: dict[int, Track] = {}
        for overlap, k, track in sorted(overlaps, key=lambda item: -item[0]):
            if overlap >= self.settings.overlap and k not in pairs and track not in pairs.values():
                pairs[k] = track
        return pairs

    def _forget(self) -> None:
        oldest = self.newest - self.settings.ahead
        self._tracks = [track for track in self._tracks if track.last >= oldest]
        for track in self._tracks:
            for frame in [frame for frame in track.seen if frame < oldest - self.settings.window]:
                if len(track.seen) > 2:  # two are needed to predict the movement
                    del track.seen[frame]


def _line_at_zero(x: NDArray[np.float64], y: Points, weights: NDArray[np.float64]) -> Points:
    """The value at 0 of the weighted line through (N,) places and (N, ...) values; their mean where N is 1."""
    sums = [float((weights * x**power).sum()) for power in range(3)]
    determinant = sums[0] * sums[2] - sums[1] ** 2
    if determinant > 1e-9 * sums[0] ** 2:
        weights = weights * (sums[2] - sums[1] * x) / determinant
    else:
        weights = weights / sums[0]
    return np.tensordot(weights, y, 1)


def _alike_turned(a: Face, b: Face) -> bool:
    """Whether the line of the eyes has about the same direction in both; where not, the landmarks did not just move."""
    return float((a.points[1] - a.points[0]) @ (b.points[1] - b.points[0])) > 0


def _centre(box: NDArray[np.float64]) -> NDArray[np.float64]:
    return (box[:2] + box[2:]) / 2


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    both = common(a, b)
    return both / max(1e-9, area(a) + area(b) - both)
