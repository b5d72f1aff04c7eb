"""A video in the making: its pictures are encoded anew, and all the rest stays as the first video has it.

Sound and subtitles are copied packet by packet; time stamps, the way up, colour space and pixel format are kept.
"""

from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from unfade.errors import BadInput
from unfade.images.photo import Photo
from unfade.images.provenance import COMPOSITE, Provenance
from unfade.images.video import FORMATS, FULL_RANGE, Frame, Turn, VideoReader, kernel, pyav, space_of

ENLARGED_RATE = 1.5  # times the bits per second of the source, at most
LEAST_RATE = 0.05  # bits per pixel that are always allowed


@dataclass(frozen=True)
class Encoder:
    """One of FFmpeg's."""

    name: str
    quality: int = 0  # its constant rate factor where nothing can be seen of it
    worst: int = 0  # the largest factor; 0: it is lossless


ENCODERS = {  # by the codec of the source
    "h264": Encoder("libx264", 18, 51),
    "hevc": Encoder("libx265", 20, 51),
    "vp8": Encoder("libvpx", 10, 63),
    "vp9": Encoder("libvpx-vp9", 24, 63),
    "av1": Encoder("libsvtav1", 24, 63),
    "ffv1": Encoder("ffv1"),
}
OTHERS = ENCODERS["h264"]  # MPEG-4, MJPEG, DV and whatever else
OTHERS_IN_AVI = Encoder("mpeg4", 2, 31)  # its time stamps are those of frames that wait for none
WHOLE_FRAMES = ("mp3", "ac3")  # in AVI a packet of them is one unit, and not so many bytes


class VideoWriter:
    """A video in the making, like the one that is read in all but its pictures. To be used by one thread at a time."""

    def __init__(
        self, path: Path, reader: VideoReader, first: Frame, *, scale: int, quality: int | None,
        provenance: Provenance | None,
    ) -> None:  # fmt: skip
        self.reader = reader
        self._last: int | None = None  # time stamp
        self._turn = Turn.of(reader.matrix) if reader.matrix else Turn()
        self._container = _opened_for_writing(path, reader, provenance)
        self._stream = self._add_pictures(first, scale, quality)
        self._copies = {stream.index: self._add_copy(stream) for stream in reader.copied}
        for stream in reader.container.streams.attachments:
            self._container.add_attachment(stream.name or "", stream.mimetype or "", stream.data)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is written otherwise than it was, in words."""
        before, now = self.reader.stream.codec_context, self._stream.codec_context
        said = {
            f"{_codec(before)} written as {_codec(now)}": _codec(before) != _codec(now),
            f"pixels of {before.pix_fmt} written as {now.pix_fmt}": before.pix_fmt != now.pix_fmt,
        }
        return tuple(words for words, holds in said.items() if holds)

    def write(self, frame: Frame, photo: Photo | None) -> None:
        """Encode a picture in the place of a frame; None: the frame as it was."""
        made, source = frame.source, frame.source
        if photo is not None:
            levels = self._turn.stored(photo.levels)
            made = pyav().VideoFrame.from_ndarray(levels, format="rgb24" if levels.dtype == np.uint8 else "rgb48le")
            made = made.reformat(
                format=self._stream.pix_fmt, interpolation=kernel(), src_color_range=FULL_RANGE,
                dst_colorspace=space_of(source), dst_color_range=source.color_range or _range_of(source),
            )  # fmt: skip
            for name in ("color_range", "colorspace", "color_trc", "color_primaries", "duration"):
                setattr(made, name, getattr(source, name))
        made.pict_type = 0  # the encoder chooses
        made.time_base = self._stream.codec_context.time_base
        made.pts = self._last = self._when(source)
        self._container.mux(self._stream.encode(made))

    def copy(self, packet: Any) -> None:
        """A packet of sound or subtitles, as it is."""
        packet.stream = self._copies[packet.stream.index]
        self._container.mux(packet)

    def finish(self) -> None:
        """Nothing more comes."""
        self._container.mux(self._stream.encode(None))

    def close(self) -> None:
        """The file ends here."""
        self._container.close()

    def _when(self, source: Any) -> int:
        """A time stamp, always later than the one before."""
        stamp = source.dts if source.pts is None else source.pts
        if _kind(self.reader) == "avi" and _codec(self.reader.stream.codec_context) != "mpeg4":
            stamp = None  # those of H.264 are in disorder: the format has none but the number of the packet
        if self._last is None:
            return int(stamp or 0)
        step = max(1, round(1 / (self.reader.rate * self._stream.codec_context.time_base)))
        return self._last + step if stamp is None else max(int(stamp), self._last + 1)

    def _add_pictures(self, first: Frame, scale: int, quality: int | None) -> Any:
        source, reader = self.reader.stream.codec_context, self.reader
        others = OTHERS_IN_AVI if _kind(reader) == "avi" else OTHERS
        encoder = ENCODERS.get(_codec(source), others)
        width, height = source.width * scale, source.height * scale
        options = _options(encoder, quality, width * height, reader)
        stream = self._container.add_stream(encoder.name, rate=reader.rate, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = _pixel_format(encoder, first.source.format, width % 2 or height % 2)
        context = stream.codec_context
        context.time_base = reader.stream.time_base
        context.sample_aspect_ratio = source.sample_aspect_ratio or Fraction(1)
        for name in ("color_range", "colorspace", "color_trc", "color_primaries"):
            setattr(context, name, getattr(first.source, name))
        stream.metadata.update(_said(reader.stream))
        if reader.matrix is not None:
            stream.set_display_matrix(reader.matrix)
        return stream

    def _add_copy(self, stream: Any) -> Any:
        try:
            if _kind(self.reader) == "avi" and _codec(stream) in WHOLE_FRAMES:
                copy = self._container.add_stream(_codec(stream), rate=stream.rate, layout=stream.layout)
                copy.bit_rate = stream.bit_rate
            else:
                copy = self._container.add_stream_from_template(stream)
        except ValueError as error:
            reason = f"{self.reader.path} has {stream.type} that cannot be copied ({error})"
            raise BadInput(f"{reason}; convert it to .mkv first.") from error
        copy.metadata.update(_said(stream))
        copy.disposition = stream.disposition
        return copy


def _opened_for_writing(path: Path, reader: VideoReader, provenance: Provenance | None) -> Any:
    metadata = _said(reader.container)
    own = {"movflags": "use_metadata_tags"} if any(name.startswith("com.") for name in metadata) else {}  # Apple's
    kind = _kind(reader)
    container = pyav().open(str(path), "w", format=kind, container_options=own if kind in ("mp4", "mov") else {})
    if provenance is not None:
        told = f"Faces restored by {provenance.tool} with {provenance.model} (SHA-256 {provenance.sha256})"
        told = f"{told}, {provenance.settings}; IPTC digital source type {COMPOSITE}"
        metadata["comment"] = "; ".join(filter(None, (metadata.get("comment"), told)))
    container.metadata.update(metadata)
    if chapters := reader.container.chapters():
        container.set_chapters(chapters)
    return container


def _options(encoder: Encoder, quality: int | None, pixels: int, reader: VideoReader) -> dict[str, str]:
    """A quality of 1..100, or the encoder's own with at most 1.5 times the bits of the source."""
    if not encoder.worst:
        return {}
    factor = encoder.quality if quality is None else round(encoder.worst * (100 - quality) / 100)
    if encoder is OTHERS_IN_AVI:
        return {"flags": "+qscale", "global_quality": str(118 * max(1, factor))}  # FF_QP2LAMBDA
    options = {"crf": str(factor)}
    rate = reader.stream.bit_rate or (reader.container.size * 8 / reader.seconds if reader.seconds else 0)
    most = round(max(ENLARGED_RATE * rate, LEAST_RATE * pixels * reader.rate))
    if encoder.name.startswith("libvpx"):
        options |= {"b": str(most if quality is None else 0 if encoder.name == "libvpx-vp9" else 10**9)}
        return options | {"deadline": "good", "cpu-used": "4"}
    if _kind(reader) == "avi":
        options |= {"bf": "0"}  # the format has no time stamps that could tell their order
    return options if quality is not None else options | {"maxrate": str(most), "bufsize": str(2 * most)}


def _pixel_format(encoder: Encoder, source: Any, odd: int) -> str:
    """The source's, or the nearest that the encoder has; H.264 and HEVC have odd sizes with full colour only."""
    names = [known.name for known in pyav().Codec(encoder.name, "w").video_formats]
    if odd and encoder.name in ("libx264", "libx265"):
        names = [name for name in names if "444" in name or "gbr" in name or "gray" in name]
    if source.name in names:
        return str(source.name)
    best, _ = import_module("av.codec").find_best_pix_fmt_of_list(names, source.name)
    return str(best.name)


def _kind(reader: VideoReader) -> str:
    return FORMATS[reader.path.suffix.lower()]


def _codec(context: Any) -> str:
    return str(context.codec.canonical_name)


def _said(place: Any) -> dict[str, str]:
    """What a file or a track says of itself, but for what the writer says anew."""
    own = ("encoder", "major_brand", "minor_version", "compatible_brands", "duration", "rotate")
    return {name: text for name, text in place.metadata.items() if name.lower() not in own}


def _range_of(source: Any) -> int:
    """Of a frame that does not say: full where the format's name does ("yuvj420p")."""
    return FULL_RANGE if source.format.name.startswith("yuvj") or source.format.is_rgb else 1
