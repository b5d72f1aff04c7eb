"""Films as cameras, discs and editors write them: what comes out looks as what went in, and nothing else is opened."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

av = pytest.importorskip("av")

from clips import SIZE, Brighter, drawn, face_at, found, make_clip, pictures, restored, square_finder  # noqa: E402
from unfade.errors import UnreadableImage  # noqa: E402
from unfade.faces.align import crop  # noqa: E402
from unfade.faces.detect import DetectSettings  # noqa: E402
from unfade.faces.detectors import load_detector  # noqa: E402
from unfade.images import film_codecs  # noqa: E402
from unfade.images.files import read_image, to_bytes  # noqa: E402
from unfade.images.film_geometry import Geometry, Turn, shape_of  # noqa: E402
from unfade.images.film_input import Frame, find_videos, read_video  # noqa: E402
from unfade.images.film_kinds import KINDS, kind_in, kind_of  # noqa: E402
from unfade.images.finding import list_images  # noqa: E402
from unfade.images.matroska import write_display_size  # noqa: E402
from unfade.images.photo import Photo  # noqa: E402
from unfade.jobs.journal import Counts  # noqa: E402
from unfade.recipes.adapt_settings import SAMPLES  # noqa: E402
from unfade.stages.photos import Choice, Searching  # noqa: E402
from unfade.stages.restore_photos import PhotoSettings  # noqa: E402

PLAIN: dict[str, Any] = {"options": {}}
SMOOTH: dict[str, Any] = {"options": {"qmin": "2", "qmax": "2"}}
QUIET: dict[str, Any] = {"options": {"x265-params": "log-level=none", "crf": "12"}}
KIND_FILES: dict[
    str, tuple[dict[str, Any], str, str]
] = {  # name: how it is made, its kind, the codec that it is written with
    "a.mts": ({"kind": "mpegts"}, "mpegts", "h264"),
    "a.ts": ({"kind": "mpegts", "codec": "mpeg2video", **SMOOTH}, "mpegts", "mpeg2video"),
    "a.vob": ({"codec": "mpeg2video", **SMOOTH}, "vob", "mpeg2video"),
    "a.mpg": ({"codec": "mpeg1video", **SMOOTH}, "mpeg", "mpeg1video"),
    "a.mpeg": ({"codec": "mpeg2video", "kind": "vob", **SMOOTH}, "vob", "mpeg2video"),
    "a.3gp": ({}, "3gp", "h264"),
    "a.flv": ({}, "flv", "h264"),
    "a.wmv": ({"codec": "wmv2", **SMOOTH}, "asf", "wmv2"),
    "a.mxf": ({"codec": "mpeg2video", **SMOOTH}, "mxf", "mpeg2video"),
    "a.dv": ({"codec": "dvvideo", "size": (720, 576), **PLAIN}, "dv", "dvvideo"),
    "without": ({"kind": "mp4"}, "mp4", "h264"),
}


@pytest.mark.parametrize("name", KIND_FILES)
def test_every_kind_of_film_is_recognised_by_its_content_and_kept(tmp_path: Path, name: str) -> None:
    given, kind, codec = KIND_FILES[name]
    make_clip(tmp_path / name, 8, **given)
    assert find_videos(tmp_path).names == (Path(name),)
    assert kind_of(tmp_path / name) == kind
    (entry,) = restored(tmp_path, name)
    assert entry.status == "done", entry.reason
    assert kind_of(tmp_path / "out" / name) == kind
    before, after = pictures(tmp_path / name), pictures(tmp_path / "out" / name)
    assert len(before) == len(after) == 8
    with read_video(tmp_path / "out" / name) as reader:
        assert reader.codec == codec
    change = after[4].astype(float) - before[4]
    assert 33 < change[50:60, 50:60].mean() < 43  # 0.3 of 2 is 38 levels
    assert abs(change[:, 130:].mean()) < 1


def test_avchd_keeps_the_time_stamps_before_its_packets(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.ts", 6, kind="mpegts")
    packets = (tmp_path / "a.ts").read_bytes()
    timed = b"".join(b"\0\0\0\0" + packets[at : at + 188] for at in range(0, len(packets), 188))
    (tmp_path / "A.MTS").write_bytes(timed)
    assert restored(tmp_path, "A.MTS")[0].status == "done"
    assert kind_of(tmp_path / "out/A.MTS") == "m2ts"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypmp42", "mp4"), (b"\0\0\0\x14ftypqt  ", "mov"), (b"\0\0\0\x18ftyp3gp4", "3gp"),
        (b"\0\0\0\x18ftypM4A ", ""), (b"\0\0\0\x18ftypheic", ""), (b"\0\0\0\x08wide\0\0\0\0mdat", "mov"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"), (b"RIFF\0\0\0\0WAVEfmt ", ""), (b"RIFF\0\0\0\0WEBPVP8 ", ""),
        (b"\x1a\x45\xdf\xa3\x42\x82\x84webm", "webm"), (b"\0\0\1\xba\x44", "vob"), (b"\0\0\1\xba\x21", "mpeg"),
        (b"G" * 40, ""), (b"", ""), (b"export const a: number = 1\n" * 50, ""), (b"\x1f\x07\0\x3f", "dv"),
    ],
)  # fmt: skip
def test_first_bytes_tell_the_kind(head: bytes, kind: str) -> None:
    assert kind_in(head) == kind
    assert kind == "" or kind in KINDS


def test_films_of_kinds_that_are_not_read_are_counted(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", 2)
    for name in ("b.rm", "c.ogv", "d.ogv", "e.ts", "f.m4a", "g.txt"):
        (tmp_path / name).write_bytes(b"whatever")
    found_here = find_videos(tmp_path)
    assert found_here.names == (Path("a.mp4"),)
    assert found_here.passed_over == ((".ogv", 2), (".rm", 1))


# --- colours


def flat(i: int, width: int, height: int) -> np.ndarray:
    picture = np.full((height, width, 3), 16, np.uint8)
    picture[:, width // 2 :] = 235
    picture[30:80, 20 + 2 * i : 70 + 2 * i] = (200, 150, 120)
    return picture


@pytest.mark.parametrize(
    ("name", "codec", "now", "noted"),
    [
        ("a.avi", "mjpeg", "mjpeg", False), ("a.mov", "mjpeg", "mjpeg", False), ("a.mkv", "mjpeg", "mjpeg", False),
        ("a.mp4", "libx264", "h264", False), ("b.avi", "mjpeg", "mpeg4", True), ("b.wmv", "mjpeg", "mjpeg", False),
    ],
)  # fmt: skip
def test_a_full_range_keeps_its_contrast(
    tmp_path: Path, name: str, codec: str, now: str, noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {} if codec == "libx264" else SMOOTH
    if noted:  # as a codec that is not written, in a film whose usual codec cannot say that the range is full
        monkeypatch.delitem(film_codecs.ENCODERS, "mjpeg")
    make_clip(tmp_path / name, 4, codec=codec, pix_fmt="yuvj420p", full=True, draw=flat, **given)
    (entry,) = restored(
        tmp_path, name, find=lambda name, photo: found(face_at(20, 30)) if photo.levels[55, 22, 0] > 150 else []
    )
    assert entry.status == "done", entry.reason
    with read_video(tmp_path / "out" / name) as reader:
        assert reader.codec == now
    for i, picture in enumerate(pictures(tmp_path / "out" / name)):  # no face from frame 2 on
        assert abs(float(picture[90:, 2:70].mean()) - 16) < 1.5, i
        assert abs(float(picture[90:, 90:].mean()) - 235) < 1.5, i
    assert any("range" in note for note in entry.notes) == noted


@pytest.mark.parametrize(
    ("name", "codec", "fmt", "size"),
    [
        ("a.mp4", "libx264rgb", "rgb24", (160, 120)), ("a.mkv", "libx264rgb", "rgb24", (1280, 720)),
        ("a.mov", "cinepak", "rgb24", (160, 120)), ("a.flv", "flashsv", "bgr24", (160, 120)),
        ("b.flv", "flashsv", "bgr24", (1280, 720)), ("c.avi", "zmbv", "bgr0", (160, 120)),
        ("b.avi", "msvideo1", "rgb555le", (160, 120)), ("c.mov", "qtrle", "rgb24", (160, 120)),
    ],
)  # fmt: skip
def test_films_of_red_green_and_blue_keep_their_colours(
    tmp_path: Path, name: str, codec: str, fmt: str, size: tuple[int, int]
) -> None:
    given: dict[str, Any] = {} if codec == "libx264rgb" else {"options": {}}
    make_clip(tmp_path / name, 3, codec=codec, pix_fmt=fmt, full=True, size=size, draw=coloured, **given)
    (entry,) = restored(
        tmp_path, name, find=lambda name, photo: found(face_at(20, 30)) if photo.levels[55, 22, 0] > 150 else []
    )
    assert entry.status == "done", entry.reason
    before, after = (list(pictures(tmp_path / place)) for place in (name, f"out/{name}"))
    assert len(before) == len(after) == 3
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        for k in range(4):  # the middle of each colour, as chroma of half the size runs over its edges
            place = np.s_[100:110, (4 * k + 1) * size[0] // 16 : (4 * k + 3) * size[0] // 16]
            assert np.abs(new[place].mean((0, 1)) - old[place].mean((0, 1))).max() < 3, (i, k)
    with av.open(str(tmp_path / "out" / name)) as film:
        frame = next(film.decode(video=0))
        said = (frame.color_range, frame.colorspace)
        assert frame.format.is_rgb or said == (1, 1 if size[1] >= 720 else 5) or (name[-4:], said[1]) == (".avi", 2)
    assert not any("range" in note for note in entry.notes)


def coloured(i: int, width: int, height: int) -> np.ndarray:
    picture = flat(i, width, height)
    for k, colour in enumerate([(200, 30, 40), (30, 190, 60), (40, 50, 210), (220, 210, 40)]):
        picture[90:, k * width // 4 : (k + 1) * width // 4] = colour
    return picture


def test_ten_bits_of_alpha_and_colour_stay(tmp_path: Path) -> None:
    make_clip(
        tmp_path / "p.mov",
        3,
        codec="prores_ks",
        pix_fmt="yuva444p10le",
        draw=clear_to_the_right,
        options={"profile": "4"},
    )
    check_alpha(tmp_path, "p.mov", "ap4h")


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
def test_transparency_of_webm_is_kept(tmp_path: Path, codec: str) -> None:
    options = {"auto-alt-ref": "0", "crf": "5", "b": "5000000"}
    make_clip(tmp_path / "a.webm", 3, codec=codec, pix_fmt="yuva420p", draw=clear_to_the_right, options=options)
    check_alpha(tmp_path, "a.webm", "")


def clear_to_the_right(i: int, width: int, height: int) -> np.ndarray:
    alpha = np.broadcast_to((255 - np.arange(width)).astype(np.uint8), (height, width))
    return np.dstack([drawn(i, width, height), alpha])


def check_alpha(folder: Path, name: str, tag: str) -> None:
    (entry,) = restored(folder, name)
    assert entry.status == "done", entry.reason
    assert not any("transparency" in note for note in entry.notes)
    with read_video(folder / "out" / name) as reader:
        assert not tag or reader.stream.codec_context.codec_tag == tag
        for item in reader:
            if isinstance(item, Frame):
                assert item.photo.alpha is not None
                alpha = item.photo.alpha.astype(float) * 255 / np.iinfo(item.photo.alpha.dtype).max
                assert np.abs(alpha - (255 - np.arange(160))).mean() < 2


def test_transparency_that_cannot_be_written_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(tmp_path / "a.mov", 2, codec="png", pix_fmt="rgba", draw=clear_to_the_right, **PLAIN)
    monkeypatch.delitem(film_codecs.ENCODERS, "png")
    (entry,) = restored(tmp_path, "a.mov")
    assert entry.status == "done", entry.reason
    assert "transparency is lost" in entry.notes
    assert "png written as h264" in entry.notes


# --- shapes


SHAPES = [("a.mp4", "libx264"), ("a.mp4", "libvpx-vp9"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"),
    ("a.mkv", "libvpx"), ("a.avi", "mpeg4"), ("a.mts", "libx264"), ("a.vob", "mpeg2video")]  # fmt: skip


@pytest.mark.parametrize(("name", "codec"), SHAPES)
@pytest.mark.parametrize("shape", [Fraction(2), Fraction(16, 15)])
def test_the_shape_of_pixels_is_kept(tmp_path: Path, name: str, codec: str, shape: Fraction) -> None:
    if name == "a.vob":
        shape = Fraction(4, 3) * 120 / 160 * (Fraction(4, 3) if shape == 2 else 1)  # MPEG-2 knows 4:3 and 16:9
    make_clip(tmp_path / name, 4, codec=codec, shape=shape, **(SMOOTH if "mpeg" in codec else {}))
    if name.endswith(("mkv", "webm")):
        shown_as(tmp_path / name, round(160 * shape), 120)
    (entry,) = restored(tmp_path, name)
    assert entry.status == "done", entry.reason
    for path in (tmp_path / name, tmp_path / "out" / name):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            said = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
            assert float(said) == pytest.approx(float(shape), rel=0.005)
            assert stream.codec_context.width == 160
            assert len([*container.decode(video=0)]) == 4
            assert not stream.metadata.get("title", "").strip()


def shown_as(path: Path, width: int, height: int) -> None:
    """Rewrite a Matroska film with a size in which it is shown: in these alone only the container holds the shape."""
    from unfade.images.matroska import ROOM

    copy = path.with_name(f"copy{path.suffix}")
    with av.open(str(path)) as one, av.open(str(copy), "w", container_options={"write_crc32": "0"}) as other:
        stream = other.add_stream_from_template(one.streams.video[0])
        stream.metadata["title"] = ROOM
        for packet in one.demux(video=0):
            if packet.size:
                packet.stream = stream
                other.mux(packet)
    write_display_size(copy, width, height)
    copy.replace(path)


def test_a_face_is_restored_in_square_pixels_and_the_rest_stays(tmp_path: Path) -> None:
    seen: list[Photo] = []

    def find(name: str, photo: Photo) -> list:
        seen.append(photo)
        return found(face_at(100, 30, 50))

    make_clip(tmp_path / "w.mkv", 3, codec="ffv1", pix_fmt="yuv444p", shape=Fraction(2))
    shown_as(tmp_path / "w.mkv", 320, 120)
    assert restored(tmp_path, "w.mkv", find=find)[0].status == "done"
    assert {(photo.width, photo.height) for photo in seen} == {(320, 120)}
    face = crop(seen[0], found(face_at(100, 30, 50))[0].matrix, SIZE)
    assert face.shape == (3, SIZE, SIZE)
    before, after = (np.stack(stored(path)).astype(int) for path in (tmp_path / "w.mkv", tmp_path / "out/w.mkv"))
    assert before.shape == after.shape == (3, 120, 160, 3)
    changed = np.flatnonzero(np.abs(after - before).max((0, 1, 3)))
    rows = np.flatnonzero(np.abs(after - before).max((0, 2, 3)))
    assert (changed[-1] - changed[0]) / (rows[-1] - rows[0]) == pytest.approx(0.5, abs=0.06)  # a square, squeezed
    assert not np.abs(after - before)[:, :, 110:].any()
    assert 33 < (after - before)[:, 55:65, 58:66].mean() < 43


def stored(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_square_pixels_are_written_where_others_cannot_be_said(tmp_path: Path) -> None:
    make_clip(tmp_path / "h.flv", 2, codec="flv", size=(176, 144), shape=Fraction(12, 11), options={})
    make_clip(tmp_path / "w.wmv", 2, codec="wmv2", shape=Fraction(2), **SMOOTH)
    assert Geometry(shape=Fraction(2)).size(160, 120) == (320, 120)
    assert Geometry(shape=Fraction(1, 2)).size(160, 120) == (160, 240)
    assert shape_of(None, Fraction(0), Fraction(4, 3), Fraction(2)) == Fraction(4, 3)
    assert shape_of(Fraction(1000), None) == 1
    for name in ("h.flv", "w.wmv"):
        with read_video(tmp_path / name) as reader:
            width = round(reader.stream.codec_context.width * reader.geometry.shape)
        assert restored(tmp_path, name)[0].status == "done"
        with read_video(tmp_path / "out" / name) as reader:
            assert round(reader.stream.codec_context.width * reader.geometry.shape) == width


@pytest.mark.parametrize("shape", [Fraction(3, 2), Fraction(2, 3), Fraction(1)])
@pytest.mark.parametrize("turn", [Turn(), Turn(swap=True, down=True), Turn(across=True)])
def test_what_does_not_change_comes_back_bit_for_bit(shape: Fraction, turn: Turn) -> None:
    geometry, levels = Geometry(turn, shape), np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    upright = geometry.upright(levels)
    width, height = geometry.size(64, 48)
    assert upright.shape == ((width, height, 3) if turn.swap else (height, width, 3))
    assert np.array_equal(geometry.stored(upright, levels), levels)


# --- fields


def fields(i: int, width: int, height: int) -> np.ndarray:
    """The upper rows of one moment and the lower ones of the next: a bar that moves by 8 px from field to field."""
    moments = [np.full((height, width, 3), 60, np.uint8) for _ in range(2)]
    for k, picture in enumerate(moments):
        left = 10 + 16 * i + 8 * k
        picture[20:100, left : left + 24] = (200, 150, 120)
    combed = moments[0].copy()
    combed[1::2] = moments[1][1::2]
    return combed


def combs(picture: np.ndarray) -> float:
    """How much every other row differs from those above and below."""
    grey = picture[22:98].mean(-1)
    return float(np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean())


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("i.mp4", "libx264", {"crf": "10", "flags": "+ilme+ildct", "x264-params": "tff=1"}),
        ("i.mpg", "mpeg2video", {"flags": "+ilme+ildct", "qmin": "2", "qmax": "2", "top": "1"}),
    ],
)
def test_interlaced_films_become_whole_frames_at_the_same_times(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    make_clip(tmp_path / name, 7, codec=codec, options=options, draw=fields)
    seen = []

    def find(name: str, photo: Photo) -> list:
        seen.append(combs(photo.levels))
        return found(face_at(100, 30, 30))

    assert combs(stored(tmp_path / name)[3]) > 5
    (entry,) = restored(tmp_path, name, find=find)
    assert entry.status == "done", entry.reason
    assert any("interlaced" in note for note in entry.notes)
    assert max(seen) < 2.5
    after = stored(tmp_path / "out" / name)
    assert max(map(combs, after)) < 2.5
    times = []
    for path in (tmp_path / name, tmp_path / "out" / name):
        with av.open(str(path)) as container:
            frames = [*container.decode(video=0)]
            times.append([frame.time - frames[0].time for frame in frames])
    assert np.allclose(times[0], times[1], atol=1e-3)
    with av.open(str(tmp_path / "out" / name)) as container:
        assert not any(frame.interlaced_frame for frame in container.decode(video=0))


# --- what stays as it is


@pytest.mark.parametrize("tag", ["hvc1", "hev1"])
def test_the_tag_that_players_of_apple_ask_for_is_kept(tmp_path: Path, tag: str) -> None:
    make_clip(tmp_path / "h.mp4", 3, codec="libx265", tag=tag, **QUIET)
    assert restored(tmp_path, "h.mp4")[0].status == "done"
    with read_video(tmp_path / "out/h.mp4") as reader:
        assert reader.stream.codec_context.codec_tag == tag


def test_a_tag_that_is_no_letters_is_none_to_keep(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4_096), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48_000
        container.mux([*sound.encode(silence), *sound.encode()])
    with av.open(str(tmp_path / "a.avi")) as container:  # AAC in AVI has the tag 255, as a film in a stream may have
        assert film_codecs.tag_of(SimpleNamespace(stream=container.streams[0])) == ""


@pytest.mark.parametrize(
    ("name", "codec", "fmt"), [("m.avi", "mjpeg", "yuvj420p"), ("p.mov", "prores_ks", "yuv422p10le")]
)
def test_packets_of_frames_without_a_change_are_copied(tmp_path: Path, name: str, codec: str, fmt: str) -> None:
    make_clip(tmp_path / name, 20, codec=codec, pix_fmt=fmt, options={})

    def find(name: str, photo: Photo) -> list:
        faces = square_finder(name, photo)
        return [one for one in faces if one.face.box[0] > 40]

    (entry,) = restored(tmp_path, name, find=find)
    assert entry.status == "done", entry.reason
    before, after = packets(tmp_path / name), packets(tmp_path / "out" / name)
    same = [one == other for one, other in zip(before, after, strict=True)]
    assert same == sorted(same, reverse=True)
    assert 9 <= sum(same) <= 12
    assert f"unchanged frames: {sum(same)} copied as they are" in entry.notes


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_frames_that_had_to_be_encoded_anew_are_noted(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", 20)
    (entry,) = restored(
        tmp_path, "a.mp4", find=lambda name, photo: [f for f in square_finder(name, photo) if f.face.box[0] > 40]
    )
    assert entry.notes[-1] == "unchanged frames: 11 encoded anew with the others"


def test_a_film_in_which_nothing_changes_is_a_copy(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", 4)
    (entry,) = restored(tmp_path, "a.mp4", restorer=Brighter(0.0))
    assert entry.status == "done"
    assert entry.notes == (
        "4 frames, 1 track",
        "1 face left unchanged: hardly degraded (a fidelity of 0.25 restores such faces too)",
    )
    assert (tmp_path / "out/a.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


# --- nothing else is opened, and one bad film is one failed entry


@contextmanager
def listener() -> Iterator[tuple[int, list[str]]]:
    """A port of this machine, and who came."""
    came: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        over = threading.Event()

        def wait() -> None:
            while not over.is_set():
                try:
                    connection, address = server.accept()
                    came.append(str(address))
                    connection.close()
                except TimeoutError:
                    pass

        thread = threading.Thread(target=wait)
        thread.start()
        yield server.getsockname()[1], came
        over.set()
        thread.join()


def test_the_listener_notices_who_comes() -> None:
    with listener() as (port, came):
        socket.create_connection(("127.0.0.1", port)).close()
        threading.Event().wait(0.5)
    assert came


@pytest.mark.parametrize("scheme", ["http:", "tcp:", "rtmp:", "concat:"])
def test_a_name_that_reads_like_an_address_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with listener() as (port, came):
        name = f"{scheme}/127.0.0.1:{port}/clip.mp4"
        Path(name).parent.mkdir(parents=True)
        make_clip(tmp_path / "clip.mp4", 2).rename(name)
        (entry,) = restored(Path(), name)
        threading.Event().wait(0.2)
    assert entry.status == "done", entry.reason
    assert not came
    assert len(pictures(Path("out") / name)) == 2


@pytest.mark.parametrize("ending", [".mp4", ".avi", ".ts", ".mkv"])
def test_a_list_of_addresses_in_a_film_is_not_followed(tmp_path: Path, ending: str) -> None:
    with listener() as (port, came):
        lists = {
            "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
            "concat": f"ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.mp4\n",
            "sdp": f"v=0\nm=video {port} RTP/AVP 96\nc=IN IP4 127.0.0.1\na=rtpmap:96 H264/90000\n",
        }
        for name, content in lists.items():
            (tmp_path / f"{name}{ending}").write_text(content)
        entries = restored(tmp_path, *(f"{name}{ending}" for name in lists))
        threading.Event().wait(0.2)
    assert [entry.status for entry in entries] == ["failed"] * 3
    assert not came


def test_an_unknown_codec_and_a_cut_off_film_fail_in_one_sentence_each_and_the_rest_goes_on(tmp_path: Path) -> None:
    make_clip(tmp_path / "good.avi", 3, codec="mpeg4", sound="mp3", **SMOOTH)
    whole = (tmp_path / "good.avi").read_bytes()
    (tmp_path / "pictures.avi").write_bytes(whole.replace(b"FMP4", b"QQQQ"))
    (tmp_path / "sound.avi").write_bytes(whole.replace(b"\x55\x00\x01\x00", b"\x77\x77\x01\x00", 1))
    (tmp_path / "head.avi").write_bytes(whole[:300])
    (tmp_path / "folder.mp4").mkdir()
    make_clip(tmp_path / "a.mkv", 3, codec="ffv1", sound="flac")
    (tmp_path / "v.mkv").write_bytes((tmp_path / "a.mkv").read_bytes().replace(b"V_FFV1", b"V_QQQ1"))
    names = ("pictures.avi", "sound.avi", "head.avi", "folder.mp4", "gone.mp4", "v.mkv", "good.avi")
    entries = restored(tmp_path, *names)
    assert Counts.of(entries).as_dict() == {"found": 7, "done": 1, "skipped": 0, "failed": 6, "no_face": 0}
    for entry in entries[:-1]:
        assert entry.reason.startswith(str(tmp_path / entry.item)), entry.reason
        assert entry.reason.count("\n") == 0
        assert "Error" not in entry.reason, entry.reason
        assert not (tmp_path / "out" / entry.item).exists()
    assert "codec" in entries[0].reason
    assert "codec" in entries[1].reason


@pytest.mark.parametrize("seed", range(3))
def test_films_with_damaged_bytes_end_in_an_entry(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = []
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "mpeg2video")):
        content = bytearray(
            make_clip(
                tmp_path / name, 5, codec=codec, size=(96, 64), **(SMOOTH if "mpeg" in codec else {})
            ).read_bytes()
        )
        for k in range(3):
            for at in rng.integers(0, len(content), 12):
                content[at] = rng.integers(256)
            (tmp_path / f"{seed}{k}{name}").write_bytes(content)
            names.append(f"{seed}{k}{name}")
    entries = restored(tmp_path, *names, find=lambda name, photo: found(face_at(20, 10, 30)))
    assert Counts.of(entries).as_dict()["found"] == len(names)
    for entry in entries:
        assert entry.status == "done" or (entry.reason.startswith(str(tmp_path)) and "Error:" not in entry.reason), (
            entry.reason
        )


def test_a_frame_that_would_be_too_large_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "a.mp4", 1, shape=Fraction(2))
    monkeypatch.setattr("unfade.images.film_input.MOST_PIXELS", 160 * 120 * 2 - 1)  # with square pixels it is larger
    with pytest.raises(UnreadableImage, match="160 x 120 px, which is not plausible"), read_video(tmp_path / "a.mp4"):
        pass


def test_a_film_that_takes_long_to_open_or_for_one_frame_is_left_after_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "a.mp4", 3)
    with read_video(tmp_path / "a.mp4") as reader:
        monkeypatch.setenv("UNFADE_SECONDS", "1e-9")
        with pytest.raises(UnreadableImage, match=r"a\.mp4 takes longer than the 1e-09 s that one file may take"):
            list(reader)
    monkeypatch.setenv("UNFADE_SECONDS", "0.1")
    monkeypatch.setattr(av, "open", lambda *_, **__: time.sleep(0.5))
    (entry,) = restored(tmp_path, "a.mp4")
    assert entry.reason.startswith(f"{tmp_path / 'a.mp4'} takes longer than the 0.1 s that one file may take to be")


@pytest.mark.parametrize("codec", ["libx265", "libx264", "libvpx-vp9"])
def test_encoders_say_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str], codec: str) -> None:
    make_clip(tmp_path / "a.mkv", 2, codec=codec, options=QUIET["options"] if codec == "libx265" else {})
    capfd.readouterr()
    assert restored(tmp_path, "a.mkv")[0].status == "done"
    assert capfd.readouterr() == ("", "")


def test_the_encoder_of_av1_says_nothing(tmp_path: Path) -> None:
    """It decides once in a process whether it speaks."""
    make_clip(tmp_path / "a.mkv", 2, codec="libsvtav1", options={"crf": "40"})
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from clips import restored\n"
        "(entry,) = restored(Path(sys.argv[2]), 'a.mkv'); assert entry.status == 'done', entry.reason\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "SVT_LOG"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_quality_of_old_codecs_has_an_effect(tmp_path: Path) -> None:
    make_clip(tmp_path / "q.mpg", 6, codec="mpeg1video", **SMOOTH)
    sizes = []
    for quality in (20, 95):
        restored(tmp_path, "q.mpg", settings=PhotoSettings(quality=quality))
        with av.open(str(tmp_path / "out/q.mpg")) as container:
            sizes.append(sum(packet.size for packet in container.demux(video=0)))
    assert sizes[0] < 0.7 * sizes[1]


# --- turned faces


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_that_is_turned_in_a_film_is_restored_upright(tmp_path: Path, quarters: int) -> None:
    """The restorer gets the same face, whichever way up the film shows it."""

    def draw(turn: int) -> Callable[[int, int, int], np.ndarray]:
        ground = cv2.resize(drawn(0, 320, 240), (320, 240))
        ground[40:200, 80:240] = cv2.resize(to_bytes(read_image(list_images(SAMPLES / "truth")[0])), (160, 160))
        return lambda i, width, height: np.ascontiguousarray(np.rot90(ground, turn))

    seen = []
    for name, turn in (("up.mkv", 0), ("turned.mkv", quarters)):
        size = (320, 240) if turn % 2 == 0 else (240, 320)
        make_clip(tmp_path / name, 3, size=size, codec="ffv1", pix_fmt="yuv444p", draw=draw(turn))
        restorer = Watching()
        find = Searching(load_detector(), DetectSettings(), Choice(), SIZE)
        (entry,) = restored(tmp_path, name, find=find, restorer=restorer)
        assert entry.status == "done", entry.reason
        seen.append(torch.cat(restorer.faces))
    assert seen[0].shape == seen[1].shape == (3, 3, SIZE, SIZE)
    off = {turn: float((torch.rot90(seen[1], turn, (2, 3)) - seen[0]).abs().mean()) for turn in range(4)}
    assert min(off, key=lambda turn: off[turn]) == 0
    assert off[0] < 0.5 * min(off[turn] for turn in (1, 2, 3))


class Watching(Brighter):
    """Keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.faces: list[torch.Tensor] = []

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        self.faces.append(face.clone())
        return super().forward(face)
