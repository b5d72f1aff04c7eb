"""Videos go in and come out as they were, but for the faces."""

import itertools
import json
import struct
import threading
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

from clips import Brighter, beep, drawn, face_at, found, make_clip, pictures, restored, square_finder  # noqa: E402
from tiny_models import write_faces  # noqa: E402
from unfade.atomic import is_temporary  # noqa: E402
from unfade.errors import BadInput, DiskFull, UnreadableImage  # noqa: E402
from unfade.faces.identity import Likeness  # noqa: E402
from unfade.faces.tracks import TrackSettings  # noqa: E402
from unfade.images import film_input as reading  # noqa: E402
from unfade.images.enlarge import enlarged  # noqa: E402
from unfade.images.film_geometry import Turn  # noqa: E402
from unfade.images.film_input import Frame, find_videos, read_video  # noqa: E402
from unfade.images.photo import Photo  # noqa: E402
from unfade.images.provenance import Provenance  # noqa: E402
from unfade.jobs.journal import Counts  # noqa: E402
from unfade.recipes.restore import restore  # noqa: E402
from unfade.recipes.sources import Finding  # noqa: E402
from unfade.stages.restore_photos import Parts, PhotoSettings  # noqa: E402

PLAIN = PhotoSettings()
MATRICES = {  # display matrices of the eight ways up
    "as it is": (65536, 0, 0, 0, 65536, 0, 0, 0, 2**30), "quarter turn": (0, 65536, 0, -65536, 0, 0, 0, 0, 2**30),
    "half turn": (-65536, 0, 0, 0, -65536, 0, 0, 0, 2**30), "other turn": (0, -65536, 0, 65536, 0, 0, 0, 0, 2**30),
    "mirrored": (-65536, 0, 0, 0, 65536, 0, 0, 0, 2**30), "transposed": (0, 65536, 0, 65536, 0, 0, 0, 0, 2**30),
}  # fmt: skip


def stamps(path: Path, kind: str = "video") -> list[float]:
    with av.open(str(path)) as container:
        if kind == "video":
            return [frame.time for frame in container.decode(video=0)]
        return [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.dts is not None]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.dts is not None]


def test_faces_are_restored_and_the_rest_stays(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mp4", 24, sound="aac")
    restorer = Brighter()
    (entry,) = restored(tmp_path, "clip.mp4", restorer=restorer)
    assert entry.status == "done"
    assert entry.notes == ("24 frames, 1 track",)
    before, after = pictures(tmp_path / "clip.mp4"), pictures(tmp_path / "out/clip.mp4")
    assert len(before) == len(after) == 24
    for i in range(24):
        change = after[i].astype(int) - before[i]
        assert 33 < change[50:60, 40 + 2 * i : 50 + 2 * i].mean() < 43  # 0.3 of 2 is 38 levels
        assert np.abs(change[:, 130:]).mean() < 1.5
    assert sum(restorer.batches) == 24
    assert max(restorer.batches) == 8
    assert not [path for path in (tmp_path / "out").iterdir() if is_temporary(path.name)]


SOUNDS = [
    ("a.mp4", "libx264", "aac"), ("a.mkv", "libx264", "flac"), ("a.webm", "libvpx-vp9", "libopus"),
    ("a.mov", "libx264", "pcm_s16le"), ("a.avi", "mpeg4", "mp3"), ("b.avi", "mpeg4", "pcm_s16le"),
    ("c.avi", "mpeg4", "aac"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "sound"), SOUNDS)
def test_sound_is_copied_bit_for_bit(tmp_path: Path, name: str, codec: str, sound) -> None:
    make_clip(tmp_path / name, 12, codec=codec, sound=sound)
    (entry,) = restored(tmp_path, name)
    assert entry.status == "done", entry.reason
    assert packets(tmp_path / name) == packets(tmp_path / "out" / name) != []
    heard = [np.array(stamps(path, "audio")) for path in (tmp_path / name, tmp_path / "out" / name)]
    seen = [np.array(stamps(path)) for path in (tmp_path / name, tmp_path / "out" / name)]
    assert np.abs((heard[0] - seen[0][0]) - (heard[1] - seen[1][0])).max() < 0.0021  # mkv counts in ms
    assert np.abs((seen[0] - seen[0][0]) - (seen[1] - seen[1][0])).max() < 0.0021


def test_sound_in_blocks_whose_bit_rate_is_rounded_is_copied(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "b.avi"), "w") as container:
        shown, heard = container.add_stream("mjpeg", rate=25), container.add_stream("adpcm_ms", rate=44_100)
        shown.width, shown.height, shown.pix_fmt, heard.layout = 160, 120, "yuvj420p", "stereo"
        for i in range(25):
            picture = av.VideoFrame.from_ndarray(drawn(i, 160, 120), format="rgb24")
            container.mux(shown.encode(picture.reformat(format="yuvj420p")))
        for i in range(44):  # at the bit rate of the head, there is no time for the last block
            wave = np.sin(np.arange(2 * 1012) / (9 + i)) * 8000
            frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="stereo")
            frame.sample_rate, frame.pts = 44_100, 1012 * i
            container.mux(heard.encode(frame))
        container.mux(shown.encode(None))
        container.mux(heard.encode(None))
    (entry,) = restored(tmp_path, "b.avi")
    assert entry.status == "done", entry.reason
    assert packets(tmp_path / "b.avi") == packets(tmp_path / "out/b.avi") != []


def test_aac_in_avi_is_refused_where_it_would_be_described_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "a.avi", 3, codec="mjpeg", pix_fmt="yuvj420p", options={}, sound="aac")
    content = (tmp_path / "a.avi").read_bytes()
    assert content.count(b"\x15\x88\x56\xe5") == 1  # low complexity at 8000 Hz
    (tmp_path / "a.avi").write_bytes(content.replace(b"\x15\x88\x56\xe5", b"\x0d\x88\x56\xe5"))  # main
    (entry,) = restored(tmp_path, "a.avi")
    assert (entry.status, "AAC of a kind" in entry.reason) == ("failed", True)


def test_h264_in_avi_comes_out_in_order(tmp_path: Path) -> None:
    make_clip(tmp_path / "h.avi", 12, sound="pcm_s16le")
    assert restored(tmp_path, "h.avi")[0].status == "done"
    after = pictures(tmp_path / "out/h.avi")
    brightest = [picture[55].astype(int).sum(-1).cumsum().searchsorted(25_000) for picture in after]
    assert len(after) == 12
    assert np.allclose(np.diff(stamps(tmp_path / "out/h.avi")), 0.04)
    assert brightest == sorted(brightest)
    assert packets(tmp_path / "h.avi") == packets(tmp_path / "out/h.avi")


def test_b_frames_of_mpeg_4_in_avi_leave_no_gap(tmp_path: Path) -> None:
    make_clip(tmp_path / "b.avi", 12, codec="mpeg4", options={"bf": "2"})
    assert restored(tmp_path, "b.avi")[0].status == "done"
    assert np.allclose(stamps(tmp_path / "out/b.avi"), np.arange(12) / 25)


@pytest.mark.parametrize("ticks", [(333_667, 10_000_000), (41_708, 1_000_000)])  # of a frame, as DirectShow counts
@pytest.mark.parametrize("codec", ["mpeg4", "mpeg1video", "mpeg2video"])
def test_frame_rates_that_mpeg_cannot_count_are_kept_in_avi(tmp_path: Path, codec: str, ticks: tuple[int, int]) -> None:
    content = bytearray(make_clip(tmp_path / "a.avi", 6, codec=codec, options={}).read_bytes())
    rate = content.index(b"strh") + 28
    content[rate : rate + 8] = struct.pack("<II", *ticks)
    (tmp_path / "a.avi").write_bytes(content)
    (entry,) = restored(tmp_path, "a.avi")
    assert entry.status == "done", entry.reason
    with av.open(str(tmp_path / "out/a.avi")) as container:
        times = [float(packet.dts * packet.time_base) for packet in container.demux(video=0) if packet.size]
    assert np.allclose(times, np.arange(6) * ticks[0] / ticks[1], rtol=1e-6)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_variable_frame_rate_is_kept(tmp_path: Path, name: str) -> None:
    times = [0, 40, 80, 200, 210, 250, 400, 900, 940, 980, 1500, 1540]
    make_clip(tmp_path / name, 12, stamps=times)
    assert restored(tmp_path, name)[0].status == "done"
    before, after = stamps(tmp_path / name), stamps(tmp_path / "out" / name)
    assert np.allclose(np.diff(before), np.diff(times) / 1000)
    assert np.allclose(np.diff(after), np.diff(times) / 1000)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "options"),
    [
        ("mjpeg", "yuvj420p", {}),
        ("huffyuv", "yuv422p", {}),
        ("mpeg4", "yuv420p", {}),
        ("libx264", "yuv420p", {"bf": "0"}),
    ],
)
def test_frames_that_a_recorder_dropped_stay_left_out_of_an_avi(
    tmp_path: Path, codec: str, pix_fmt: str, options: dict[str, str]
) -> None:
    numbers = [0, 1, 2, 6, 7, 8, 9, 12, 13, 14]
    make_clip(tmp_path / "all.avi", len(numbers), codec=codec, pix_fmt=pix_fmt, options=options)
    with av.open(str(tmp_path / "all.avi")) as source, av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        whole = (packet for packet in source.demux(video=0) if packet.size)
        for number, packet in zip(numbers, whole, strict=True):
            packet.pts = packet.dts = number
            packet.stream = stream
            container.mux(packet)
    assert restored(tmp_path, "a.avi")[0].status == "done"
    for path in (tmp_path / "a.avi", tmp_path / "out/a.avi"):
        with av.open(str(path)) as container:
            assert [packet.dts for packet in container.demux(video=0) if packet.size] == numbers


@pytest.mark.parametrize(("name", "codec", "now"), [("o.webm", "libvpx-vp9", "yuv420p"), ("o.mkv", "ffv1", "yuv420p"),
    ("o.avi", "mpeg4", "yuv420p"), ("p.mkv", "mpeg4", "yuv444p")])  # fmt: skip
def test_odd_sizes(tmp_path: Path, name: str, codec: str, now: str) -> None:
    make_clip(tmp_path / name, 6, size=(161, 121), codec=codec)
    (entry,) = restored(tmp_path, name)
    assert entry.status == "done", entry.reason
    assert pictures(tmp_path / "out" / name)[5].shape == (121, 161, 3)
    with read_video(tmp_path / "out" / name) as reader:
        assert reader.stream.codec_context.pix_fmt == now
    assert any("written as" in note for note in entry.notes) == (now != "yuv420p")


@pytest.mark.parametrize("name", MATRICES)
def test_every_way_up_is_kept(tmp_path: Path, name: str) -> None:
    make_clip(tmp_path / "t.mp4", 4, matrix=MATRICES[name])
    turn, seen = Turn.of(MATRICES[name]), []

    def find(_: str, photo: Photo):
        seen.append(photo.levels)
        return found(face_at(40, 40, 40))

    assert restored(tmp_path, "t.mp4", find=find)[0].status == "done"
    with read_video(tmp_path / "out/t.mp4") as reader:
        after = next(item.photo.levels for item in reader if isinstance(item, Frame))
        assert (reader.matrix or MATRICES["as it is"]) == MATRICES[name]
    assert seen[0].shape == after.shape == ((160, 120, 3) if turn.swap else (120, 160, 3))
    corners = (slice(0, 20), slice(-20, None))  # no face there
    assert max(np.abs(seen[0][a, b].astype(int) - after[a, b]).mean() for a in corners for b in corners) < 3
    assert np.array_equal(turn.upright(turn.stored(seen[0])), seen[0])
    assert np.abs(turn.stored(seen[0])[:20, :20].astype(int) - drawn(0, 160, 120)[:20, :20]).mean() < 4


@pytest.mark.parametrize(("pix_fmt", "full"), [("yuv420p10le", False), ("yuvj420p", True), ("yuv444p", False)])
def test_depth_range_and_pixel_format_are_kept(tmp_path: Path, pix_fmt: str, full: bool) -> None:
    make_clip(tmp_path / "d.mp4", 4, pix_fmt=pix_fmt, full=full)
    assert restored(tmp_path, "d.mp4")[0].status == "done"
    with read_video(tmp_path / "d.mp4") as one, read_video(tmp_path / "out/d.mp4") as other:
        for name in ("pix_fmt", "color_range", "colorspace"):
            assert getattr(one.stream.codec_context, name) == getattr(other.stream.codec_context, name)
    before, after = pictures(tmp_path / "d.mp4")[0], pictures(tmp_path / "out/d.mp4")[0]
    assert before.dtype == after.dtype == (np.uint16 if "10" in pix_fmt else np.uint8)
    assert (
        np.abs(before[:, 130:] / np.iinfo(before.dtype).max - after[:, 130:] / np.iinfo(before.dtype).max).mean()
        < 0.006
    )


def test_titles_chapters_and_provenance_are_written(tmp_path: Path) -> None:
    make_clip(tmp_path / "c.mkv", 4)
    made_by = Provenance("unfade 1.0", "small", "ab" * 32, "{}")
    restored(tmp_path, "c.mkv", parts=Parts(provenance=made_by))
    with av.open(str(tmp_path / "out/c.mkv")) as container:
        assert container.metadata["title"] == "Holiday"
        told = {name.lower(): text for name, text in container.metadata.items()}["comment"]
    assert "unfade 1.0 with small" in told
    assert "compositeWithTrainedAlgorithmicMedia" in told


def remuxed(source: Path, path: Path, *, later: float = 0.0, **metadata: str) -> Path:
    """A copy with metadata, `later` by some seconds."""
    with av.open(str(source)) as before, av.open(str(path), "w") as container:
        streams = [container.add_stream_from_template(stream) for stream in before.streams]
        container.metadata.update(metadata)
        for packet in (packet for packet in before.demux() if packet.size):
            packet.pts, packet.dts = (stamp + round(later / packet.time_base) for stamp in (packet.pts, packet.dts))
            packet.stream = streams[packet.stream.index]
            container.mux(packet)
    return path


@pytest.mark.parametrize("name", ["t.mov", "t.mp4"])
def test_a_time_code_is_kept_and_not_noted_as_lost(tmp_path: Path, name: str) -> None:
    remuxed(make_clip(tmp_path / "a.mp4", 6), tmp_path / name, timecode="01:02:03:04")
    (entry,) = restored(tmp_path, name)
    assert entry.notes == ("6 frames, 1 track",)
    for path in (tmp_path / name, tmp_path / "out" / name):
        with av.open(str(path)) as container:
            assert [stream.metadata["timecode"] for stream in container.streams.data] == ["01:02:03:04"]


def test_a_film_that_begins_late_is_not_noted_as_cut_off(tmp_path: Path) -> None:
    remuxed(make_clip(tmp_path / "a.mp4", 6), tmp_path / "l.mkv", later=2.0)
    assert restored(tmp_path, "l.mkv")[0].notes == ("6 frames, 1 track",)
    assert stamps(tmp_path / "out/l.mkv") == stamps(tmp_path / "l.mkv")


@pytest.mark.parametrize("name", ["o.ts", "o.vob", "o.mkv"])
def test_mpeg_frames_stay_with_the_sound_where_they_begin_between_two_ticks(tmp_path: Path, name: str) -> None:
    make_clip(tmp_path / "a.mkv", 12, codec="mpeg2video", options={"bf": "0"})
    remuxed(tmp_path / "a.mkv", tmp_path / name, later=0.523)
    (entry,) = restored(tmp_path, name)
    assert entry.status == "done", entry.reason
    assert np.allclose(stamps(tmp_path / "out" / name), stamps(tmp_path / name), atol=1e-4)


def test_lossless_frames_without_a_face_stay_bit_for_bit(tmp_path: Path) -> None:
    make_clip(tmp_path / "l.mkv", 20, codec="ffv1")

    def find(name: str, photo: Photo):
        faces = square_finder(name, photo)
        return faces if faces[0].face.box[0] > 40 else []

    assert restored(tmp_path, "l.mkv", find=find)[0].status == "done"
    before, after = pictures(tmp_path / "l.mkv"), pictures(tmp_path / "out/l.mkv")
    same = [np.array_equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == [True] * 11 + [False] * 9


def test_fewer_bits_for_a_lower_quality(tmp_path: Path) -> None:
    make_clip(tmp_path / "q.mp4", 10)
    sizes = []
    for quality in (20, 90):
        restored(tmp_path, "q.mp4", settings=PhotoSettings(quality=quality))
        sizes.append((tmp_path / "out/q.mp4").stat().st_size)
    assert sizes[0] < 0.7 * sizes[1]


@pytest.mark.parametrize("every", [1, 3])
def test_searching_every_third_frame_gives_the_same_tracks(tmp_path: Path, every: int) -> None:
    make_clip(tmp_path / "e.mp4", 30)
    searched = []

    def find(name: str, photo: Photo):
        searched.append(1)
        faces = square_finder(name, photo)
        return faces if 30 < faces[0].face.box[0] < 66 else []  # frames 6 to 22

    settings = PhotoSettings(sidecar=True)
    (entry,) = restored(tmp_path, "e.mp4", find=find, settings=settings, tracks=TrackSettings(every=every))
    told = json.loads((tmp_path / "out/e.mp4.json").read_text())["tracks"]
    assert [(track["first"], track["last"], track["frames"]) for track in told] == [(6, 22, 17)]
    assert entry.notes[0] == "30 frames, 1 track"
    assert len(searched) == 30 if every == 1 else len(searched) < 20


def test_another_shot_is_another_track(tmp_path: Path) -> None:
    def draw(i: int, width: int, height: int) -> np.ndarray:
        picture = drawn(0, width, height)
        if i >= 9:
            picture[:, 100:] = 250
            picture[90:] = 250
        return picture

    make_clip(tmp_path / "s.mp4", 18, draw=draw)
    (entry,) = restored(tmp_path, "s.mp4", tracks=TrackSettings(every=4))
    assert entry.notes[0] == "18 frames, 2 tracks"


def test_a_film_without_a_face_is_noted_and_copied_only_on_request(tmp_path: Path) -> None:
    make_clip(tmp_path / "n.mp4", 4)
    (entry,) = restored(tmp_path, "n.mp4", find=lambda name, photo: [])
    assert entry.status == "no_face"
    assert not (tmp_path / "out/n.mp4").exists()
    (entry,) = restored(tmp_path, "n.mp4", find=lambda name, photo: [], settings=PhotoSettings(copy=True))
    assert entry.status == "no_face"
    assert (tmp_path / "out/n.mp4").read_bytes() == (tmp_path / "n.mp4").read_bytes()


def test_finished_videos_are_kept_and_a_killed_one_is_begun_again(tmp_path: Path) -> None:
    for name in ("1.mp4", "2.mp4"):
        make_clip(tmp_path / name, 6)
    calls = itertools.count()

    def dies(name: str, photo: Photo):
        if name == "2.mp4" and next(calls) > 2:
            raise KeyboardInterrupt
        return square_finder(name, photo)

    with pytest.raises(KeyboardInterrupt):
        restored(tmp_path, "1.mp4", "2.mp4", find=dies)
    (tmp_path / "out/.2.mp4.ab12cd_9.unfade.mp4").write_bytes(b"what a killed run leaves")
    restorer = Brighter()
    entries = restored(tmp_path, "1.mp4", "2.mp4", restorer=restorer)
    assert [entry.status for entry in entries] == ["done", "done"]
    assert sum(restorer.batches) == 6  # of the second alone
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mp4")) == ["1.mp4", "2.mp4"]


def test_bad_input_fails_alone_in_one_sentence(tmp_path: Path) -> None:
    make_clip(tmp_path / "good.mp4", 4)
    whole = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.avi").write_text("no video at all")
    (tmp_path / "empty.mkv").write_bytes(b"")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        heard = container.add_stream("aac", rate=8000, layout="mono")
        container.mux(heard.encode(beep(0)))
        container.mux(heard.encode(None))
    names = ("cut.mp4", "empty.mkv", "good.mp4", "gone.mp4", "sound.mp4", "text.avi")
    entries = restored(tmp_path, *names)
    assert Counts.of(entries).as_dict() == {"found": 6, "done": 1, "skipped": 0, "failed": 5, "no_face": 0}
    for entry in entries:
        if entry.status == "failed":
            assert entry.reason.startswith(str(tmp_path / entry.item))
            assert not (tmp_path / "out" / entry.item).exists()


def test_damage_in_the_middle_is_noted(tmp_path: Path) -> None:
    make_clip(tmp_path / "b.mkv", 40)
    content = bytearray((tmp_path / "b.mkv").read_bytes())
    (tmp_path / "short.mkv").write_bytes(content[: len(content) * 2 // 3])
    (entry,) = restored(tmp_path, "short.mkv")
    assert entry.status in ("done", "failed")
    if entry.status == "done":
        assert int(entry.notes[0].split()[0]) < 40


def test_a_missing_sidecar_is_made_again(tmp_path: Path) -> None:
    make_clip(tmp_path / "x.mp4", 2)
    for _ in range(2):
        restored(tmp_path, "x.mp4", settings=PhotoSettings(sidecar=True))
        (tmp_path / "out/x.mp4.json").unlink()


def test_memory_does_not_grow_with_the_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = weakref.WeakSet(), [0]
    lock = threading.Lock()

    class Counted(Frame):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            with lock:
                alive.add(self)
                most[0] = max(most[0], len(alive))

    monkeypatch.setattr(reading, "Frame", Counted)
    # read ahead, waiting for their tracks, and in three groups of 8; how many depends on which thread is slow
    room = 4 + 1 + TrackSettings().ahead + 1 + 3 * 8
    for frames in (40, 160):
        make_clip(tmp_path / f"m{frames}.mp4", frames, size=(96, 64), draw=lambda i, w, h: drawn(0, w, h))
        assert restored(tmp_path, f"m{frames}.mp4")[0].status == "done"
        assert 0 < most[0] <= room < frames


def test_results_of_nan_fail(tmp_path: Path) -> None:
    make_clip(tmp_path / "nan.mp4", 3)
    (entry,) = restored(tmp_path, "nan.mp4", restorer=Brighter(float("nan")))
    assert entry.status == "failed"
    assert "not numbers" in entry.reason


def test_videos_are_found_below_a_folder(tmp_path: Path) -> None:
    for name in ("a.MP4", "b/c.mkv", ".hidden/d.mp4", "out/e.mp4", "f.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = find_videos(tmp_path, without=tmp_path / "out").names
    assert names == (Path("a.MP4"), Path("b/c.mkv"))
    assert find_videos(tmp_path / "f.jpg").names == ()


def test_a_linked_folder_is_followed_once_as_that_of_photos_is(tmp_path: Path) -> None:
    elsewhere, place = tmp_path / "elsewhere", tmp_path / "place"
    elsewhere.mkdir()
    place.mkdir()
    (elsewhere / "a.mp4").write_bytes(b"")
    for name in ("one", "two"):
        (place / name).symlink_to(elsewhere)
    (place / "back").symlink_to(tmp_path)
    assert find_videos(place).names == (Path("one/a.mp4"),)


def test_twice_as_large(tmp_path: Path) -> None:
    make_clip(tmp_path / "w.mp4", 3)
    parts = Parts(enlarge=partial(enlarged, scale=2))
    (entry,) = restored(tmp_path, "w.mp4", settings=replace(PLAIN, scale=2), parts=parts)
    assert entry.status == "done", entry.reason
    assert pictures(tmp_path / "out/w.mp4")[2].shape == (240, 320, 3)


@pytest.mark.parametrize(
    ("name", "size", "how"),
    [
        ("w.mp4", (160, 400), {}),  # more rows than SD has
        ("w.mkv", (160, 400), {"codec": "mpeg2video", "options": {"qmin": "1", "qmax": "1"}}),
        ("d.avi", (720, 576), {"codec": "dvvideo", "options": {}}),
        ("d.mov", (720, 576), {"codec": "dvvideo", "options": {}}),
    ],
)
def test_colours_stay_where_a_film_becomes_hd(
    tmp_path: Path, name: str, size: tuple[int, int], how: dict[str, object]
) -> None:
    def green(i: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), (40, 200, 60), np.uint8)

    make_clip(tmp_path / name, 3, size=size, draw=green, **how)
    parts = Parts(enlarge=partial(enlarged, scale=2))
    (entry,) = restored(
        tmp_path, name, settings=replace(PLAIN, scale=2), parts=parts, find=lambda name, photo: found(face_at(60, 60))
    )
    assert entry.status == "done", entry.reason
    before, after = (pictures(path)[1].astype(int) for path in (tmp_path / name, tmp_path / "out" / name))
    assert after.shape[0] == 2 * before.shape[0]
    assert np.abs(after[-9:, -9:].mean((0, 1)) - before[-9:, -9:].mean((0, 1))).max() < 4


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "find_spec", lambda name: None)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(BadInput, match=r"pip install unfade\[video\]"):
        find_videos(tmp_path / "a.mp4")
    assert find_videos(tmp_path).names == ()


def test_a_file_that_is_not_a_video_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(UnreadableImage, match="no film that can be read"), read_video(tmp_path / "a.mp4"):
        pass


def test_strength_colour_and_likeness_have_an_effect(tmp_path: Path) -> None:
    make_clip(tmp_path / "s.mkv", 4, codec="ffv1", pix_fmt="yuv444p")

    def change(**given) -> float:
        settings = given.pop("settings", PLAIN)
        (entry,) = restored(tmp_path, "s.mkv", settings=settings, **given)
        notes.append(entry.notes)
        pair = [pictures(folder / "s.mkv")[2][50:60, 45:55].astype(float) for folder in (tmp_path, tmp_path / "out")]
        return float((pair[1] - pair[0]).mean())

    notes: list[tuple[str, ...]] = []
    assert change() == pytest.approx(38, abs=2)
    assert change(strength=0.5) == pytest.approx(19, abs=2)
    assert change(parts=Parts(likeness=Likeness(lambda a, b: 0.71, 0.6))) == pytest.approx(38, abs=2)
    assert (
        notes[-1][-1] == "the face that begins in frame 0 may no longer show the same person (identity distance 0.71)"
    )


def grey(i: int, width: int, height: int) -> np.ndarray:
    return drawn(i, width, height).mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8)


def test_a_grey_film_stays_grey(tmp_path: Path) -> None:
    make_clip(tmp_path / "g.mp4", 3, draw=grey)

    class Redder(Brighter):
        def forward(self, face):
            return face + self.amount * face.new_tensor([1.0, -1, -1])[:, None, None]

    def spread(settings: PhotoSettings) -> float:
        (entry,) = restored(
            tmp_path, "g.mp4", find=lambda name, photo: found(face_at(30, 30)), restorer=Redder(), settings=settings
        )
        assert entry.status == "done"
        return float(np.ptp(pictures(tmp_path / "out/g.mp4")[1][50:60, 50:60].astype(float).mean((0, 1))))

    assert spread(PLAIN) < 4
    assert spread(PhotoSettings(colour=True)) > 40


def test_the_command_takes_videos_among_photos(
    tmp_path: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in/clip.mp4", 4)
    write_faces(tmp_path / "in", 1)
    monkeypatch.setattr(Finding, "identity", lambda self: {})
    monkeypatch.setattr(Finding, "finder", lambda self, size: square_finder)
    entries = restore(tmp_path / "in", tmp_path / "out", models[0])
    assert {entry.item: entry.status for entry in entries} == {"face00.png": "no_face", "clip.mp4": "done"}
    (entry,) = restore(tmp_path / "in/clip.mp4", tmp_path / "out2", models[0])
    assert entry.notes == ("4 frames, 1 track",)
    again = restore(tmp_path / "in", tmp_path / "out", models[0])
    assert again == entries
    with av.open(str(tmp_path / "out/clip.mp4")) as container:
        assert "tiny-restorer" in container.metadata["comment"]


def test_a_full_disk_is_reported_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(tmp_path / "f.mp4", 3)

    def full(self, *given) -> None:
        raise av.error.OSError(28, "No space left on device")

    monkeypatch.setattr("unfade.images.film_output.VideoWriter.write", full)
    with pytest.raises(DiskFull):
        restored(tmp_path, "f.mp4")
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix == ".mp4"]
