"""Small files that would take gigabytes, or never end, do not: what they declare is read first."""

import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import JpegImagePlugin

from drawn import coloured
from tiffs import page, tiff
from toys import ToyRestorer, save_pictures
from unfade.errors import BadInput, UnreadableImage
from unfade.images.containers import PNG_START, png
from unfade.images.decoding import read_photo
from unfade.images.finding import list_images
from unfade.images.jxl_header import JxlHeader, jxl_header
from unfade.jobs.journal import Journal
from unfade.jobs.runs import Run
from unfade.stages.restore import restore_faces

SIDE = 32
FAR = 3 << 30  # bytes: the file has a hole there, which takes no room on the disk
MOST = 64 << 20  # bytes that reading one of these may take
UNPACKED = 200  # megabytes that a few of them unpack to


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """What zlib unpacks to much."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(UNPACKED)) + packer.flush()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def sound() -> bytes:
    return png(coloured(SIDE), b"", b"", b"", None)


def with_chunk(name: bytes, content: bytes) -> bytes:
    return sound()[:33] + chunk(name, content) + sound()[33:]


def read_within_bounds(path: Path) -> tuple[str, ...]:
    """The notes of the photo, or the sentence that refused it; either without much memory."""
    tracemalloc.start()
    try:
        photo = read_photo(path)
    except UnreadableImage as error:
        return (str(error),)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST
    assert np.array_equal(photo.levels, coloured(SIDE))
    return photo.notes


@pytest.mark.parametrize(
    ("name", "before", "notes"),
    [
        (b"zTXt", b"Title\0\0", ()),
        (b"iTXt", b"Title\0\1\0\0\0", ()),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0", ("damaged XMP left out",)),
        (b"zTXt", b"Raw profile type exif\0\0", ("damaged EXIF left out",)),
        (b"iCCP", b"a\0\0", ("damaged colour profile left out",)),
    ],
)
def test_what_is_packed_beside_the_picture(
    tmp_path: Path, bomb: bytes, name: bytes, before: bytes, notes: tuple[str, ...]
) -> None:
    (tmp_path / "a.png").write_bytes(with_chunk(name, before + bomb))
    assert read_within_bounds(tmp_path / "a.png") == notes


def test_pixels_that_are_more_than_the_picture_has(tmp_path: Path, bomb: bytes) -> None:
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    content = PNG_START + chunk(b"IHDR", header) + chunk(b"IDAT", bomb * 20) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    assert "of pixels, but" in read_within_bounds(tmp_path / "a.png")[0]


@pytest.mark.parametrize("name", [b"juNk", b"tEXt", b"eXIf"])
@pytest.mark.parametrize("place", [33, -12])
def test_chunks_as_large_as_the_disk(tmp_path: Path, name: bytes, place: int) -> None:
    size = (1 << 31) - 1
    with (tmp_path / "a.png").open("wb") as file:
        file.write(sound()[:place] + struct.pack(">I", size) + name)
        file.seek(size + 4, io.SEEK_CUR)
        file.write(sound()[place:])
    notes = read_within_bounds(tmp_path / "a.png")
    assert notes == (() if name == b"juNk" else (f"{name.decode()} of {size:,} bytes left out",))


def test_what_follows_a_picture_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.write(sound())
        file.truncate(FAR)
    assert read_within_bounds(tmp_path / "a.png") == ()


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({277: 60_000, 258: 64}, "60000 channels"),
        ({277: 32, 258: 64, 256: 30_000, 257: 30_000}, "claims 30,000 x 30,000"),
        ({256: 60_000, 257: 60_000}, "claims 60,000 x 60,000"),
        ({322: 65_536, 323: 65_536}, "damaged or cut off"),
        ({273: FAR}, "damaged or cut off"),
    ],
)
def test_tiffs_that_claim_more_than_they_hold(tmp_path: Path, tags: dict[int, int], word: str) -> None:
    said, strips = page(coloured(SIDE).astype(np.uint16), 2)
    content = tiff(({**said, **{tag: value for tag, value in tags.items() if tag != 273}}, strips))
    if 273 in tags:
        entry = content.index(struct.pack("<HHI", 273, 4, 1)) + 8
        content = content[:entry] + struct.pack("<I", tags[273]) + content[entry + 4 :]
    (tmp_path / "a.tif").write_bytes(content)
    assert word in read_within_bounds(tmp_path / "a.tif")[0]


def bits(*numbers: tuple[int, int]) -> bytes:
    """Values and how many bits each has, the lowest first."""
    joined, place = 0, 0
    for value, count in numbers:
        joined |= value << place
        place += count
    return joined.to_bytes(12, "little")


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (bits((1, 1), (7, 5), (1, 3)), (64, 64)),
        (bits((0, 1), (0, 2), (6, 9), (0, 3), (0, 2), (299, 9)), (300, 7)),
        (bits((0, 1), (3, 2), (99_999, 30), (7, 3)), (200_000, 100_000)),
    ],
)
@pytest.mark.parametrize("wrap", [lambda raw: raw, lambda raw: b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\0jxlc" + raw])
def test_a_jpeg_xl_says_how_large_it_is(header: bytes, size: tuple[int, int], wrap: Callable[[bytes], bytes]) -> None:
    found = jxl_header(io.BytesIO(wrap(b"\xff\n" + header)))
    assert found is not None
    assert (found.width, found.height) == size
    assert jxl_header(io.BytesIO(b"\xff\n")) in (None, JxlHeader(1, 1, 8))


@pytest.mark.parametrize(
    ("metadata", "depth"),
    [
        (((1, 1),), 8),
        (((0, 1), (0, 1), (0, 1), (0, 2)), 8),
        (((0, 1), (0, 1), (0, 1), (1, 2)), 10),
        (((0, 1), (0, 1), (0, 1), (3, 2), (15, 6)), 16),
        (((0, 1), (1, 1), (5, 3), (0, 3), (0, 1), (2, 2)), 12),
        (((0, 1), (0, 1), (1, 1), (0, 2)), 32),
        (((0, 1), (0, 1), (1, 1), (1, 2)), 16),
    ],
)
def test_a_jpeg_xl_says_how_deep_it_is(metadata: tuple[tuple[int, int], ...], depth: int) -> None:
    content = b"\xff\n" + bits((1, 1), (7, 5), (1, 3), *metadata)
    assert jxl_header(io.BytesIO(content)) == JxlHeader(64, 64, depth)


# Files that are slow to read


def test_a_file_that_takes_long_is_left_after_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pictures(tmp_path, ["a.png", "b.jpg", "c.png"], size=SIDE)
    decode = JpegImagePlugin.JpegImageFile.load
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", lambda image: time.sleep(6) or decode(image))
    monkeypatch.setenv("UNFADE_SECONDS", "3")
    entries = restore_faces(
        list_images(tmp_path), Run(tmp_path / "out", Journal(tmp_path / "journal.jsonl")), ToyRestorer(SIDE).eval()
    )
    assert [entry.status for entry in entries] == ["done", "failed", "done"]
    assert entries[1].reason == (
        f"{tmp_path / 'b.jpg'} takes longer than the 3 s that one file may take to be read; convert it first, or set "
        "the environment variable UNFADE_SECONDS to more."
    )


@pytest.mark.parametrize("value", ["fast", "0", "-1", "nan", "inf"])
def test_a_time_limit_that_is_not_a_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    (tmp_path / "a.png").write_bytes(sound())
    monkeypatch.setenv("UNFADE_SECONDS", value)
    with pytest.raises(BadInput, match=f"UNFADE_SECONDS is '{value}'; set it to a number of seconds"):
        read_photo(tmp_path / "a.png")
