"""Reading films frame by frame: upright pictures, and sound and subtitles as packets.

PyAV, which does the reading and writing (`images/film_output.py`), comes with the extra `video`. Only the file itself
is opened: no other file or address that it refers to, and none that its name could be mistaken for.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unfade.errors import BadInput, UnreadableImage
from unfade.images.film_fields import Deinterlacer
from unfade.images.film_geometry import Geometry, Turn, shape_of
from unfade.images.film_kinds import DEMUXERS, Kind, is_film, kind_of, written_as
from unfade.images.finding import ENDINGS, NOT_READ, Found, files_below, join_passed_over
from unfade.images.photo import Levels, Photo
from unfade.images.time_limit import checked_time, most_seconds, too_slow, within_limit

MOST_PIXELS = 2**26  # of a frame; twice as many as 8K
SPACES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # from H.273's number of a colour matrix to swscale's
HD = 720  # with at least this many rows, an unspecified matrix is BT.709, otherwise BT.601
FULL_RANGE = 2
HDR = (16, 18)  # H.273: PQ, HLG
WHOLE = ("mjpeg", "prores", "dvvideo")  # codecs whose packets are one frame each and decode on their own
OUT_OF_ORDER = ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vc1")  # AVI numbers frames as they are coded
WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # the decoders that return transparency


@dataclass(eq=False)
class Frame:
    """One picture of a film."""

    index: int  # counted from 0
    photo: Photo  # upright, square pixels, 8 or 16 bits, with alpha if the film has it
    source: Any  # PyAV's frame, deinterlaced
    levels: Levels | None = None  # the stored levels, where pixels are not square
    packet: Any = None  # the packet that it was decoded from, where that holds this frame alone


class VideoReader:
    """An open film. Iterating gives its frames in order, and the packets of sound and subtitles among them."""

    def __init__(self, path: Path, container: Any, kind: Kind) -> None:
        self.path, self.container, self.kind = path, container, kind
        self.stream = _pictures_of(container, path)
        self.codec = str(self.stream.codec_context.codec.canonical_name)
        self.stream.thread_type = "SLICE" if self.codec in WHOLE else "AUTO"
        self.copied = [*container.streams.audio, *container.streams.subtitles]
        _refuse_unknown(self.copied, path)
        self.matrix: tuple[int, ...] | None = None  # the file's display matrix
        self.geometry = Geometry(
            shape=shape_of(self.stream.sample_aspect_ratio, self.stream.codec_context.sample_aspect_ratio)
        )
        self.frames = 0  # frames decoded so far
        self.damaged = 0  # packets that could not be decoded
        self.alpha = False  # whether frames have transparency
        self._whole_frames = Deinterlacer()
        self._decoder = _decoder_of(self.stream, self.codec)
        self._numbered = kind.muxer == "avi" and self.codec in OUT_OF_ORDER
        self._delay: int | None = None  # of such frames: how many packets were decoded before the first was shown
        self._end = 0.0  # s, start of the last frame
        _check_size(self)

    @property
    def rate(self) -> Fraction:
        """Frames per second, on average."""
        return Fraction(self.stream.average_rate or self.stream.guessed_rate or 25)

    @property
    def seconds(self) -> float:
        """The duration that the file states; 0 where it states none."""
        return float(self.container.duration or 0) / 1e6

    @property
    def expected(self) -> int:
        """The approximate number of frames; 0: unknown."""
        return int(self.stream.frames) or round(self.seconds * self.rate)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is damaged or lost, in words; complete once all frames have been read."""
        begin = 0.0 if self.kind.demuxer == "matroska" else float(self.container.start_time or 0) / 1e6  # of `seconds`
        said = {
            f"{_counted(self.damaged, 'part')} could not be decoded": self.damaged,
            f"the pictures end after {self._end - begin:.1f} of {self.seconds:.1f} s": self._end - begin
            < 0.95 * self.seconds - 1,
            "interlaced: every two fields became one whole frame": self._whole_frames.used,
            "HDR: what it says of the screen it was made on is lost": self.stream.codec_context.color_trc in HDR,
            f"{_counted(self._left, 'other track')} left out": self._left,
        }
        return tuple(words for words, holds in said.items() if holds)

    @property
    def _left(self) -> int:
        """How many tracks have none in the result; of QuickTime, those of time codes and of chapters are made anew."""
        streams, quicktime = self.container.streams, self.kind.muxer in ("mov", "mp4")
        times = sum("timecode" in stream.metadata for stream in streams.data)
        titles = bool(self.container.chapters()) and any(stream.name == "bin_data" for stream in streams.data)
        return len(streams) - 1 - len(self.copied) - len(streams.attachments) - (times + titles if quicktime else 0)

    def __iter__(self) -> Iterator[Any]:
        for packet in self._packets():
            if packet.stream is self.stream:
                yield from self._pictures(packet)
            elif packet.size:
                yield packet
        yield from map(self._frame, self._whole_frames.rest())
        if not self.frames:
            raise UnreadableImage(f"{self.path} holds no frame that can be decoded; it is damaged or cut off.")

    def _packets(self) -> Iterator[Any]:
        packets = self.container.demux(self.stream, *self.copied)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except pyav().ExitError as error:  # FFmpeg's answer to the time limit
                raise too_slow(self.path) from error
            except pyav().FFmpegError:  # taken for the end of the file
                self.damaged += 1
                return

    def _pictures(self, packet: Any) -> Iterator[Frame]:
        with checked_time(self.path):
            decoded = self._decoded(packet)
        for source in self._whole_frames(map(self._checked, decoded)):
            frame = self._frame(source)
            if self.codec in WHOLE and len(decoded) == 1 and not self._whole_frames.used:
                frame.packet = packet
            yield frame

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            ends = self._decoder is not self.stream and not packet.size
            return list(self._decoder.decode(None if ends else packet))
        except pyav().FFmpegError:
            self.damaged += 1
            return []

    def _checked(self, source: Any) -> Any:
        size = self.stream.codec_context.width, self.stream.codec_context.height
        if (source.width, source.height) != size:
            raise UnreadableImage(f"{self.path} changes the size of its frames after {self.frames}; cut it there.")
        if self._numbered:  # `dts` is the number of the packet that was decoded last, and so in order
            self._delay = source.dts if self._delay is None else self._delay
            source.pts = None if source.dts is None else source.dts - self._delay
        return source

    def _frame(self, source: Any) -> Frame:
        if not self.frames and (matrix := _matrix(source)):
            self.matrix, self.geometry = matrix, Geometry(Turn.of(matrix), self.geometry.shape)
        self._end = max(self._end, source.time or 0.0)  # None where the last frames have no time base
        self.alpha = has_alpha(source)
        levels = _levels(source)
        shown = self.geometry.upright(levels)
        photo = Photo(np.ascontiguousarray(shown[..., :3]), shown[..., 3] if shown.shape[-1] == 4 else None)
        self.frames += 1
        return Frame(self.frames - 1, photo, source, None if self.geometry.shape == 1 else levels)


def find_videos(place: Path, *, without: Path | None = None) -> Found:
    """Every film below a folder, or the file itself, if `place` is one; the result may be empty.

    A film is recognized by its suffix or, where that is unknown, by its first bytes (`film_kinds.is_film`). Films are
    searched as `find_photos` searches photos, which also reports folders that cannot be read. Films of kinds that are
    not read are passed over and counted, as are all films where PyAV is missing; if `place` is itself such a film,
    BadInput is raised.
    """
    if place.is_file():
        if place.suffix.lower() in NOT_READ:
            raise BadInput(f"{place} is a video of a kind that is not read; convert it to .mp4 or .mkv first.")
        if not is_film(place):
            return Found(place.parent, ())
        pyav()
        return Found(place.parent, (Path(place.name),))
    below = [name for name in files_below(place, without=without, runs=False) if (place / name).is_file()]
    names = tuple(name for name in below if is_film(place / name))
    left = [name for name in below if name.suffix.lower() in NOT_READ]
    if find_spec("av") is None:
        names, left = (), [*left, *names]
    return Found(place, names, join_passed_over(tuple(Counter(name.suffix.lower() for name in left).items())))


def by_endings(found: Found) -> tuple[Found, Found]:
    """Files in two parts: films by their endings, and all others."""
    films = tuple(name for name in found.names if name.suffix.lower() in ENDINGS)
    if not films:
        return found, replace(found, names=())
    pyav()
    others = tuple(name for name in found.names if name.suffix.lower() not in ENDINGS)
    return replace(found, names=others), replace(found, names=films)


@contextmanager
def read_video(path: Path) -> Iterator[VideoReader]:
    """Open a film. Raises UnreadableImage, whose message starts with the path, and BadInput where PyAV is missing."""
    av = pyav()
    allowed = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
    kind = kind_of(path)
    opening = partial(
        av.open, address_of(path), "r", container_options=allowed, metadata_errors="replace", timeout=most_seconds()
    )
    try:
        container = within_limit(path, opening)
    except av.ExitError as error:
        raise too_slow(path) from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableImage(f"{path} is no film that can be read ({reason_of(error)}); it may be damaged.") from error
    with container:
        yield VideoReader(path, container, written_as(kind, container.format.name))


def address_of(path: Path) -> str:
    """The address of a file that FFmpeg cannot mistake for anything else."""
    return f"file:{path.absolute()}"


def reason_of(error: Exception) -> str:
    """The message of FFmpeg or the system, without the address."""
    return str(getattr(error, "strerror", None) or error)


def pyav() -> Any:
    """The module of PyAV. Raises BadInput where it is not installed."""
    if find_spec("av") is None:
        raise BadInput("Films need PyAV, which is not installed: pip install unfade[video]")
    return import_module("av")


def has_alpha(source: Any) -> bool:
    """Whether a frame, or its format, has transparency."""
    return any(component.is_alpha for component in getattr(source, "format", source).components)


def is_rgb(format: Any) -> bool:
    """Whether a pixel format holds red, green and blue, or a palette of such, and not luma and chroma."""
    return bool(format.is_rgb or format.has_palette)


def space_of(source: Any, height: int = 0) -> int:
    """The colour matrix of a stream by FFmpeg's number; where unspecified, BT.709 for HD and above, else BT.601.

    `height` is that of a frame made of it, if another one.
    """
    return SPACES.get(source.colorspace, 1 if (height or source.height) >= HD else 5)


def range_of(source: Any) -> int:
    """Full or limited range; where the frame does not specify it, full if its pixel format implies it ("yuvj420p")."""
    full = source.format.name.startswith("yuvj") or is_rgb(source.format)
    return int(source.color_range or (FULL_RANGE if full else 1))


def reformatted(source: Any, format: str, **colours: int) -> Any:
    """A frame in another pixel format; chroma is resampled bicubically, in full resolution, with exact rounding."""
    kinds = import_module("av.video.reformatter").Interpolation
    exact = kinds.BICUBIC | kinds.ACCURATE_RND | kinds.FULL_CHR_H_INT
    return source.reformat(format=format, interpolation=exact, **colours)


def _check_size(reader: VideoReader) -> None:
    width, height = reader.stream.codec_context.width, reader.stream.codec_context.height
    if not width * height > 0 or np.prod(reader.geometry.size(width, height)) > MOST_PIXELS:
        raise UnreadableImage(
            f"{reader.path} claims frames of {width} x {height} px, which is not plausible; check the file."
        )


def _levels(source: Any) -> Levels:
    """The levels of a frame: (H, W, 3), or with alpha (H, W, 4), of 8 or 16 bits."""
    deep = max(component.bits for component in source.format.components) > 8
    formats = {(False, False): "rgb24", (False, True): "rgba", (True, False): "rgb48le", (True, True): "rgba64le"}
    format, space = formats[deep, has_alpha(source)], space_of(source)
    made = reformatted(source, format, src_colorspace=space, dst_color_range=FULL_RANGE)
    return cast(Levels, made.to_ndarray())


def _decoder_of(stream: Any, codec: str) -> Any:
    """The decoder of a stream: libvpx where needed, as FFmpeg's own decoders of VP8 and VP9 drop transparency."""
    said = {name.lower(): text for name, text in stream.metadata.items()}
    if codec in WITH_ALPHA and said.get("alpha_mode") == "1":
        return pyav().CodecContext.create(WITH_ALPHA[codec], "r")
    return stream


def _pictures_of(container: Any, path: Path) -> Any:
    """The first stream of moving pictures. Raises UnreadableImage if there is none that can be decoded."""
    streams = [stream for stream in container.streams.video if "attached_pic" not in _dispositions(stream)]
    if not streams:
        raise UnreadableImage(f"{path} holds no moving pictures; name a film.")
    if streams[0].codec_context is None:
        raise UnreadableImage(f"{path} is coded in a way that FFmpeg cannot read; convert it to H.264 first.")
    return streams[0]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _dispositions(stream: Any) -> str:
    return str(stream.disposition.name or stream.disposition)


def _refuse_unknown(streams: list[Any], path: Path) -> None:
    """Raises UnreadableImage if FFmpeg does not know the codec of one of the streams."""
    for stream in streams:
        if stream.codec_context is None:
            raise UnreadableImage(f"{path} has {stream.type} of a codec that FFmpeg does not know; convert it first.")


def _matrix(source: Any) -> tuple[int, ...] | None:
    data = source.side_data.get("DISPLAYMATRIX")
    numbers: NDArray[np.int32] | None = None if data is None else np.frombuffer(bytes(data), np.int32)
    return None if numbers is None or len(numbers) != 9 else tuple(numbers.tolist())
