"""The choice of FFmpeg's encoder for the pictures of a film, and its options."""

from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from typing import Any

from unfade.images.film_input import VideoReader, has_alpha, pyav

ENLARGED_RATE = 1.5  # largest bit rate, as a multiple of the source's
LEAST_RATE = 0.05  # bits per pixel that are always allowed
MOST_TICKS = 65_535  # a second, of MPEG-4's time stamps
KEPT_TAGS = ("hvc1", "hev1", "apco", "apcs", "apcn", "apch", "ap4h", "ap4x")  # tags that matter to players
PRORES = ("apco", "apcs", "apcn", "apch", "ap4h", "ap4x")  # in the order of FFmpeg's profile numbers
IN_THE_CODEC = (
    "h264",
    "hevc",
    "mpeg4",
    "mpeg2video",
    "mpeg1video",
    "ffv1",
    "mjpeg",
    "dvvideo",
)  # codecs that store the shape of a pixel
IN_THE_FILE = ("mp4", "mov", "3gp", "3g2", "matroska", "webm")  # containers that store the shape of a pixel


@dataclass(frozen=True)
class Encoder:
    """One of FFmpeg's encoders."""

    name: str
    quality: int = 0  # constant rate factor, or quantiser scale, at which its losses are invisible
    worst: int = 0  # the largest such value; 0: it has none
    scale: bool = False  # whether it has a quantiser scale
    lossless: bool = False
    full: bool = True  # whether it can mark its values as full range
    steady: bool = False  # whether it needs a fixed frame rate
    options: tuple[tuple[str, str], ...] = ()


def _scaled(name: str, **given: Any) -> Encoder:
    return Encoder(name, 2, 31, scale=True, **{"full": False, **given})


def _lossless(name: str) -> Encoder:
    return Encoder(name, lossless=True)


FIXED = ("dvvideo",)  # have a few sizes only, so that results of other sizes get another codec
ANY_RATE = (("strict", "experimental"),)  # MPEG-1 and 2 name the nearest of theirs; the container has the exact times
OLD = ("mpeg4", "wmv2")  # written only where a container has nothing newer
ENCODERS = {  # by codec
    "h264": Encoder("libx264", 18, 51),
    "hevc": Encoder("libx265", 20, 51, options=(("x265-params", "log-level=none"),)),
    "vp8": Encoder("libvpx", 10, 63, full=False),
    "vp9": Encoder("libvpx-vp9", 24, 63),
    "av1": Encoder("libsvtav1", 24, 63),
    "mpeg4": _scaled("mpeg4"),
    "mpeg2video": _scaled("mpeg2video", steady=True, options=ANY_RATE),
    "mpeg1video": _scaled("mpeg1video", steady=True, options=ANY_RATE),
    "mjpeg": _scaled("mjpeg", full=True, options=(("strict", "unofficial"),)),
    "wmv2": _scaled("wmv2"),
    "prores": Encoder("prores_ks", full=False, options=(("vendor", "apl0"),)),
    "dvvideo": Encoder("dvvideo", full=False, steady=True),
    **{name: _lossless(name) for name in ("ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "rawvideo", "v210")},
    **{name: _lossless(name) for name in ("png", "qtrle")},
}


def codec_for(reader: VideoReader, scale: int) -> str:
    """The film's own codec, if it can be written `scale` times as large, or else the usual one of its container."""
    unfit = OLD if scale == 1 else (*OLD, *FIXED)
    return reader.codec if reader.codec in ENCODERS.keys() - unfit else reader.kind.others


def options_for(encoder: Encoder, quality: int | None, pixels: int, reader: VideoReader) -> dict[str, str]:
    """The encoder's options for a quality of 1..100; for None its own, with at most 1.5 times the source's bit rate."""
    options = dict(encoder.options)
    if encoder.name == "prores_ks" and tag_of(reader) in PRORES:
        return options | {"profile": str(PRORES.index(tag_of(reader)))}
    if not encoder.worst:
        return options
    factor = encoder.quality if quality is None else round(encoder.worst * (100 - quality) / 100)
    if encoder.scale:
        return options | dict.fromkeys(("qmin", "qmax"), str(max(1, factor)))  # "+qscale" applies it to every frame
    options |= {"crf": str(factor)}
    rate = reader.stream.bit_rate or (reader.container.size * 8 / reader.seconds if reader.seconds else 0)
    most = round(max(ENLARGED_RATE * rate, LEAST_RATE * pixels * reader.rate))
    if encoder.name.startswith("libvpx"):
        options |= {"b": str(most if quality is None else 0 if encoder.name == "libvpx-vp9" else 10**9)}
        return options | {"deadline": "good", "cpu-used": "4", "auto-alt-ref": "0"}
    if reader.kind.muxer == "avi":
        options |= {"bf": "0"}  # the container has no time stamps for frames out of order
    return options if quality is not None else options | {"maxrate": str(most), "bufsize": str(2 * most)}


def pixel_format(encoder: Encoder, source: Any, odd: int) -> str:
    """The source's pixel format, or the nearest that the encoder has; H.264 and HEVC allow odd sizes only in 4:4:4."""
    names = [known.name for known in pyav().Codec(encoder.name, "w").video_formats or ()]
    if odd and encoder.name in ("libx264", "libx265"):
        names = [name for name in names if "444" in name or "gbr" in name or "gray" in name]
    if source.name in names or not names:
        return str(source.name)
    best, _ = import_module("av.codec").find_best_pix_fmt_of_list(names, source.name, has_alpha(source))
    return str(best.name)


def time_base_for(encoder: Encoder, reader: VideoReader) -> Fraction:
    """The time base of an encoder: the film's, where it can use it."""
    unit = Fraction(reader.stream.time_base)
    if encoder.name == "mpeg4" and unit.denominator > MOST_TICKS:
        return (1 / reader.rate).limit_denominator(MOST_TICKS)
    return 1 / reader.rate if encoder.steady else unit


def tag_of(reader: VideoReader) -> str:
    """The container's four-letter code for the codec; "" for a number that is no letters, as of transport streams."""
    try:
        return str(reader.stream.codec_context.codec_tag)
    except UnicodeDecodeError:
        return ""


def keeps_shape(codec: str, reader: VideoReader) -> bool:
    """Whether this codec or the film's container can store that pixels are not square."""
    return codec in IN_THE_CODEC or reader.kind.muxer in IN_THE_FILE
