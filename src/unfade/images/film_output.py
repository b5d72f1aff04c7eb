"""Writing a film: its pictures are encoded anew, and everything else stays as in the original film.

Sound and subtitles are copied packet by packet; time stamps, rotation, pixel shape, colour space and pixel format are
kept. Where each packet is one frame, the packets of unchanged frames are copied too.
"""

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from unfade.errors import BadInput
from unfade.images.film_codecs import (
    ENCODERS,
    KEPT_TAGS,
    codec_for,
    keeps_shape,
    options_for,
    pixel_format,
    tag_of,
    time_base_for,
)
from unfade.images.film_input import WHOLE, Frame, VideoReader, address_of, has_alpha, is_rgb, pyav, range_of
from unfade.images.film_pictures import LIMITED_RANGE, Pictures
from unfade.images.matroska import ROOM, write_display_size
from unfade.images.photo import Photo
from unfade.images.provenance import COMPOSITE, Provenance

WHOLE_PACKETS = ("mp3", "ac3", "aac")  # codecs whose packets AVI counts as one unit each, instead of in bytes
ROUNDED = 0.02  # time bases of sound in AVI that differ less are the same: one of them comes from a rounded bit rate


@dataclass(frozen=True)
class Written:
    """How a film is written."""

    scale: int = 1  # its size, in that of the film that was read
    quality: int | None = None  # 1..100; None: the usual of the encoder
    provenance: Provenance | None = None  # for its comment


class _Stamps:
    """Time stamps of frames in the encoder's time base, each later than the one before."""

    def __init__(self, reader: VideoReader, unit: Fraction) -> None:
        self.reader, self.unit = reader, unit
        self.last: int | None = None  # time stamp of the last frame
        self.off = Fraction(0)  # by how much frames come later than their time stamps here, in the time base

    def next(self, source: Any) -> int:
        """The time stamp of the next frame."""
        stamp = source.dts if source.pts is None else source.pts
        when = None if stamp is None else stamp * Fraction(source.time_base or self.reader.stream.time_base) / self.unit
        if self.last is None:
            self.last = round(when or 0)
            self.off = (when or self.last) - Fraction(self.last)
        else:
            step: int = max(1, round(1 / (self.reader.rate * self.unit)))
            self.last = self.last + step if when is None else max(round(when - self.off), self.last + 1)
        return self.last

    def exact(self, packet: Any) -> Any:
        """A packet of pictures at its time, for which the encoder's time base may be too coarse."""
        fine = Fraction(self.reader.stream.time_base)
        if self.off:
            packet.pts, packet.dts = (
                round((stamp + self.off) * self.unit / fine) for stamp in (packet.pts, packet.dts)
            )
            packet.duration = round((packet.duration or 0) * self.unit / fine)
            packet.time_base = fine
        return packet


class VideoWriter:
    """Writes a film that differs from the one that is read only in its pictures. Not thread-safe."""

    def __init__(self, path: Path, reader: VideoReader, first: Frame, how: Written = Written()) -> None:
        self.path, self.reader = path, reader
        self._copied = self._unchanged = 0  # unchanged frames: those whose packets were copied, and those encoded anew
        self._container = _opened_for_writing(path, reader, how.provenance)
        codec = codec_for(reader, how.scale)
        self._encoder = ENCODERS[codec]
        self._pictures = self._as_written(first.source, codec, how.scale)
        self._stream = self._add_pictures(first.source, how.quality)
        self._stamps = _Stamps(reader, self._stream.codec_context.time_base)
        self._copies = {stream.index: _add_copy(self._container, stream, reader) for stream in reader.copied}
        for stream in reader.container.streams.attachments:
            self._container.add_attachment(stream.name or "", stream.mimetype or "", stream.data)
        self._container.start_encoding()  # writes the head, which sets time bases
        for stream in reader.copied:
            _check_aac(stream, self._copies[stream.index], reader)

    @property
    def notes(self) -> tuple[str, ...]:
        """What differs from the original film, in words; complete once all frames have been written."""
        source, now, alpha = self.reader.stream.codec_context, self._stream.codec_context, self.reader.alpha
        lost, again = alpha and not has_alpha(now), self._unchanged and not self._encoder.lossless
        said = {
            f"{self.reader.codec} written as {_codec(now)}": self.reader.codec != _codec(now),
            f"pixels of {source.pix_fmt} written as {now.pix_fmt}": source.pix_fmt != now.pix_fmt and not alpha,
            "transparency is lost": lost,
            "numbers of the full range written in the limited one": self._pictures.converted,
            "pixels that are not square written as square ones": self._pictures.squared,
            f"unchanged frames: {self._copied} copied as they are": self._copied,
            f"unchanged frames: {self._unchanged} encoded anew with the others": again,
        }
        return tuple(words for words, holds in said.items() if holds)

    def write(self, frame: Frame, photo: Photo | None) -> None:
        """Encode a picture in place of a frame; None: the unchanged frame."""
        when = self._stamps.next(frame.source)
        if photo is None and self._may_copy(frame):
            self._copy_picture(frame.packet, when)
            return
        self._unchanged += photo is None
        made = self._pictures.made(frame, photo)
        made.pict_type = 0  # lets the encoder choose
        made.time_base = self._stream.codec_context.time_base
        made.pts = when
        self._container.mux([self._stamps.exact(packet) for packet in self._stream.encode(made)])

    def copy(self, packet: Any) -> None:
        """Copy a packet of sound or subtitles unchanged."""
        copy = self._copies[packet.stream.index]
        if self.reader.kind.muxer == "avi" and abs(packet.time_base / copy.time_base - 1) < ROUNDED:
            packet.time_base = copy.time_base
        packet.stream = copy
        self._container.mux(packet)

    def finish(self) -> None:
        """Flush the encoder."""
        self._container.mux([self._stamps.exact(packet) for packet in self._stream.encode(None)])

    def close(self) -> None:
        """Close the file. Nothing can be written afterwards."""
        self._container.close()
        if self._stamps.last is not None and self._shape_is_missing():
            shape, context = self.reader.geometry.shape, self._stream.codec_context
            write_display_size(self.path, round(context.width * shape), context.height)

    def _shape_is_missing(self) -> bool:
        shape = self.reader.geometry.shape
        return shape != 1 and not self._pictures.squared and self.reader.kind.demuxer == "matroska"

    def _may_copy(self, frame: Frame) -> bool:
        """Whether the packet of a frame can be copied into the new film."""
        same = self.reader.codec in WHOLE and _codec(self._stream.codec_context) == self.reader.codec
        same = same and self._pictures.scale == 1 and not self._pictures.converted
        return same and frame.packet is not None and frame.source.format.name == self._pictures.format

    def _copy_picture(self, packet: Any, when: int) -> None:
        self._copied += 1
        packet.time_base = self._stream.codec_context.time_base
        packet.pts = packet.dts = when
        packet.stream = self._stream
        self._container.mux(self._stamps.exact(packet))

    def _as_written(self, source: Any, codec: str, scale: int) -> Pictures:
        geometry = self.reader.geometry
        squared = geometry.shape != 1 and not keeps_shape(codec, self.reader)
        width, height = geometry.size(source.width, source.height) if squared else (source.width, source.height)
        self._size = width * scale, height * scale
        odd = (self._size[0] | self._size[1]) % 2
        format = pixel_format(self._encoder, source.format, odd)
        from_rgb = is_rgb(source.format) and not is_rgb(pyav().VideoFormat(format))
        before = LIMITED_RANGE if from_rgb else range_of(source)  # players expect it of luma and chroma
        now = before if self._encoder.full or self._encoder.lossless else LIMITED_RANGE
        return Pictures(geometry, format, now, now != before, from_rgb, scale, squared)

    def _add_pictures(self, source: Any, quality: int | None) -> Any:
        reader, encoder = self.reader, self._encoder
        width, height = self._size
        options = options_for(encoder, quality, width * height, reader)
        stream = self._container.add_stream(encoder.name, rate=reader.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, self._pictures.format
        context = self._pictures.coloured(stream.codec_context, source)
        context.time_base = time_base_for(encoder, reader)
        context.sample_aspect_ratio = Fraction(1) if self._pictures.squared else reader.geometry.shape
        if _codec(context) == reader.codec and tag_of(reader) in KEPT_TAGS:
            context.codec_tag = tag_of(reader)
        if reader.codec in WHOLE:
            context.thread_count = 1  # frames come out as they go in, so that copied packets keep their order
        stream.metadata.update(_said(reader.stream))
        if self._shape_is_missing():
            stream.metadata["title"] = stream.metadata.get("title", "") + ROOM
        if reader.matrix is not None:
            stream.set_display_matrix(reader.matrix)
        return stream


def _add_copy(container: Any, stream: Any, reader: VideoReader) -> Any:
    """A track that takes the packets of another one unchanged."""
    try:
        if reader.kind.muxer == "avi" and _codec(stream) in WHOLE_PACKETS:
            copy = container.add_stream(_codec(stream), rate=stream.rate, layout=stream.layout)
            copy.bit_rate = stream.bit_rate
        else:
            copy = container.add_stream_from_template(stream)
    except ValueError as error:
        message = f"{reader.path} has {stream.type} that cannot be copied ({error}); convert it to .mkv first."
        raise BadInput(message) from error
    copy.metadata.update(_said(stream))
    copy.disposition = stream.disposition
    return copy


def _check_aac(stream: Any, copy: Any, reader: VideoReader) -> None:
    """Raises BadInput where AAC would be described wrongly in AVI: FFmpeg takes that from its own encoder there."""
    said, now = stream.codec_context.extradata or b"", copy.codec_context.extradata or b""
    if reader.kind.muxer == "avi" and _codec(stream) == "aac" and not now.startswith(said):
        raise BadInput(f"{reader.path} has AAC of a kind that cannot be copied into AVI; convert it to .mkv first.")


def _opened_for_writing(path: Path, reader: VideoReader, provenance: Provenance | None) -> Any:
    metadata, kind = _said(reader.container), reader.kind
    own = dict(kind.options)
    if kind.muxer in ("mp4", "mov") and any(name.startswith("com.") for name in metadata):  # Apple's
        own["movflags"] = "use_metadata_tags"
    if kind.demuxer == "matroska":
        own["write_crc32"] = "0"  # `write_display_size` changes the bytes that it would check
    os.environ.setdefault("SVT_LOG", "0")  # silences SVT-AV1, which reads this once, when it is first used
    container = pyav().open(address_of(path), "w", format=kind.muxer, container_options=own)
    if provenance is not None:
        made_by = f"Faces restored by {provenance.tool} with {provenance.model} (SHA-256 {provenance.sha256})"
        made_by = f"{made_by}, {provenance.settings}; IPTC digital source type {COMPOSITE}"
        metadata["comment"] = "; ".join(filter(None, (metadata.get("comment"), made_by)))
    container.metadata.update(metadata)
    if chapters := reader.container.chapters():
        container.set_chapters(chapters)
    return container


def _codec(context: Any) -> str:
    return str(context.codec.canonical_name)


def _said(place: Any) -> dict[str, str]:
    """The metadata of a file or a track, except what the writer sets itself."""
    own = ("encoder", "major_brand", "minor_version", "compatible_brands", "duration", "rotate", "alpha_mode")
    return {name: text for name, text in place.metadata.items() if name.lower() not in own}
