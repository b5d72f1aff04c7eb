"""Videos, frame by frame, out of files: upright pictures, and sound and subtitles as packets.

PyAV, which does the reading and writing (`images/video_output.py`), is the extra `video`.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unfade.errors import BadInput, UnreadableImage
from unfade.images.finding import Found, files_below, join_passed_over
from unfade.images.photo import Levels, Photo

FORMATS = {  # by the ending of a file: FFmpeg's name of its format
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi",
}  # fmt: skip
VIDEO_SUFFIXES = tuple(FORMATS)
MOST_PIXELS = 2**26  # of a frame; twice as many as 8K
SPACES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # H.273's number of a colour matrix: swscale's
HD = 720  # rows from which on an unnamed matrix is BT.709 and not BT.601
FULL_RANGE = 2
HDR = (16, 18)  # H.273: PQ, HLG


@dataclass(eq=False)
class Frame:
    """One picture of a video."""

    index: int  # from 0 on
    photo: Photo  # upright, 8 or 16 bits
    source: Any  # as PyAV decoded it


@dataclass(frozen=True)
class Turn:
    """From pictures as they are stored to upright ones: axes swapped first, then mirrored."""

    swap: bool = False
    across: bool = False  # left and right are exchanged
    down: bool = False

    @staticmethod
    def of(matrix: tuple[int, ...]) -> "Turn":
        """From the nine numbers of a display matrix (ISO/IEC 14496-12): x' = a x + c y, y' = b x + d y."""
        a, b, _, c, d = matrix[:5]
        if abs(b) > abs(a):
            return Turn(True, across=c < 0, down=b < 0)
        return Turn(False, across=a < 0, down=d < 0)

    def upright(self, levels: Levels) -> Levels:
        """The picture, turned: a view of the same numbers where that is enough."""
        levels = levels.swapaxes(0, 1) if self.swap else levels
        return np.ascontiguousarray(self._mirrored(levels))

    def stored(self, levels: Levels) -> Levels:
        """The inverse of `upright`."""
        levels = self._mirrored(levels)
        return np.ascontiguousarray(levels.swapaxes(0, 1) if self.swap else levels)

    def _mirrored(self, levels: Levels) -> Levels:
        return levels[:: -1 if self.down else 1, :: -1 if self.across else 1]


class VideoReader:
    """An open video. Iterating gives its frames in order, and the packets of sound and subtitles among them."""

    def __init__(self, path: Path, container: Any) -> None:
        self.path, self.container = path, container
        pictures = [stream for stream in container.streams.video if "attached_pic" not in _dispositions(stream)]
        if not pictures:
            raise UnreadableImage(f"{path} holds no moving pictures; name a video.")
        self.stream = pictures[0]
        self.stream.thread_type = "AUTO"
        self.copied = [*container.streams.audio, *container.streams.subtitles]
        self.matrix: tuple[int, ...] | None = None  # how pictures are turned when shown, as the file has it
        self.frames = 0  # that were decoded so far
        self.damaged = 0  # packets that could not be decoded
        self.interlaced = False
        self._end = 0.0  # s, where the last frame begins
        size = self.stream.codec_context.width, self.stream.codec_context.height
        if not 0 < size[0] * size[1] <= MOST_PIXELS:
            raise UnreadableImage(f"{path} says its frames are {size[0]} x {size[1]} px, which cannot be; look at it.")

    @property
    def rate(self) -> Fraction:
        """Frames per second, on average."""
        return Fraction(self.stream.average_rate or self.stream.guessed_rate or 25)

    @property
    def seconds(self) -> float:
        """How long it is, as the file says; 0 where it does not."""
        return float(self.container.duration or 0) / 1e6

    @property
    def expected(self) -> int:
        """About how many frames there are; 0: unknown."""
        return int(self.stream.frames) or round(self.seconds * self.rate)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found wanting, in words; complete when all frames were read."""
        left = len(self.container.streams) - 1 - len(self.copied) - len(self.container.streams.attachments)
        said = {
            f"{self.damaged} parts could not be decoded": self.damaged,
            f"the pictures end after {self._end:.1f} of {self.seconds:.1f} s": self._end < 0.95 * self.seconds - 1,
            "interlaced: written as whole frames": self.interlaced,
            "HDR: what it says of the screen it was made on is lost": self.stream.codec_context.color_trc in HDR,
            f"{left} other tracks left out": left and not self.container.chapters(),
        }
        return tuple(words for words, holds in said.items() if holds)

    def __iter__(self) -> Iterator[Any]:
        for packet in self._packets():
            if packet.stream is self.stream:
                yield from map(self._frame, self._decoded(packet))
            elif packet.dts is not None:
                yield packet
        if not self.frames:
            raise UnreadableImage(f"{self.path} holds no frame that can be decoded; it is damaged or cut off.")

    def _packets(self) -> Iterator[Any]:
        packets = self.container.demux(self.stream, *self.copied)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except pyav().FFmpegError:  # the file ends here, whatever it says
                self.damaged += 1
                return

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            return list(packet.decode())
        except pyav().FFmpegError:
            self.damaged += 1
            return []

    def _frame(self, source: Any) -> Frame:
        if not self.frames:
            self.matrix = _matrix(source)
        size = self.stream.codec_context.width, self.stream.codec_context.height
        if (source.width, source.height) != size:
            raise UnreadableImage(f"{self.path} changes the size of its frames after {self.frames}; cut it there.")
        self.interlaced |= source.interlaced_frame
        self._end = source.time or self._end
        deep = max(component.bits for component in source.format.components) > 8
        levels = source.reformat(
            format="rgb48le" if deep else "rgb24", interpolation=kernel(),
            src_colorspace=space_of(source), dst_color_range=FULL_RANGE,
        ).to_ndarray()  # fmt: skip
        turn = Turn.of(self.matrix) if self.matrix else Turn()
        self.frames += 1
        return Frame(self.frames - 1, Photo(turn.upright(cast(Levels, levels))), source)


def find_videos(place: Path, *, without: Path | None = None) -> Found:
    """Every file below a folder that is named like a video, or the one file, if `place` is named so; maybe none.

    They are found as `find_photos` finds photos, but folders that may not be looked into are left to that. Where PyAV
    is missing those of a folder are passed over and counted, and BadInput is raised where `place` is one.
    """
    if place.is_file():
        if place.suffix.lower() not in VIDEO_SUFFIXES:
            return Found(place.parent, ())
        pyav()
        return Found(place.parent, (Path(place.name),))
    below = files_below(place, VIDEO_SUFFIXES, without=without)
    names = tuple(name for name in below if name.suffix.lower() in VIDEO_SUFFIXES)
    if find_spec("av") is None:
        return Found(place, (), join_passed_over(tuple(Counter(name.suffix.lower() for name in names).items())))
    return Found(place, names)


@contextmanager
def read_video(path: Path) -> Iterator[VideoReader]:
    """Open a video. Raises UnreadableImage, its message starting with the path, and BadInput where PyAV is missing."""
    av = pyav()
    try:
        container = av.open(str(path), "r", metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableImage(f"{path} is no video that can be read ({reason}); it may be damaged.") from error
    with container:
        yield VideoReader(path, container)


def pyav() -> Any:
    """PyAV, for those who have it."""
    if find_spec("av") is None:
        raise BadInput("Videos need PyAV, which is not installed: pip install unfade[video]")
    return import_module("av")


def _dispositions(stream: Any) -> str:
    return str(stream.disposition.name or stream.disposition)


def _matrix(source: Any) -> tuple[int, ...] | None:
    data = source.side_data.get("DISPLAYMATRIX")
    numbers: NDArray[np.int32] | None = None if data is None else np.frombuffer(bytes(data), np.int32)
    return None if numbers is None or len(numbers) != 9 else tuple(numbers.tolist())


def space_of(source: Any) -> int:
    """The matrix of colours of a stream, as FFmpeg numbers it; where it says none, BT.709 from HD on, else BT.601."""
    return SPACES.get(source.colorspace, 1 if source.height >= HD else 5)


def kernel() -> Any:
    """How FFmpeg resamples chroma between pixel formats: bicubic, exactly rounded, at full resolution."""
    kinds = import_module("av.video.reformatter").Interpolation
    return kinds.BICUBIC | kinds.ACCURATE_RND | kinds.FULL_CHR_H_INT
