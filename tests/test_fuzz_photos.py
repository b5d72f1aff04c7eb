"""2,000 mutated files: each is read, or refused in one sentence that begins with its path; quickly and in bounds."""

import io
import random
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import coloured, exif_with
from unfade.errors import UnreadableImage
from unfade.images.decoding import read_photo
from unfade.images.encoding import encode_photo
from unfade.images.photo import Origin, Photo
from unfade.images.provenance import Provenance

FILES = 2_000
LONGEST = 10  # seconds, one file
MOST = 1 << 20  # KB that all of them together may add to the memory's peak
SUFFIXES = (".png", ".jpg", ".webp", ".tif", ".bmp", ".gif", ".avif", ".heic")


def sound_files() -> list[bytes]:
    """Small files of every kind, with metadata."""
    picture, exif = coloured(24), exif_with(6).tobytes()
    made = Provenance("unfade", "model", "ab", "settings")
    deep = picture.astype(np.uint16) * 257
    photos = [Photo(picture), Photo(deep), Photo(picture, picture[..., 0].copy()), Photo(deep, deep[..., 0].copy())]
    photos.append(Photo(np.repeat(deep[..., :1], 3, -1), deep[..., 1].copy(), Origin(grey=True)))
    for photo in photos:
        photo.origin = Origin(exif=exif, icc=bytes(300), dpi=(300.0, 300.0), grey=photo.origin.grey)
    kinds = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF")
    files = [encode_photo(photo, kind=kind, provenance=made) for photo in photos for kind in kinds]
    image = Image.fromarray(picture)
    odd = [(image.convert("CMYK"), "JPEG"), (image.convert("CMYK"), "TIFF"), (image.convert("LA"), "PNG")]
    odd += [(image.convert("P"), "PNG"), (image.convert("1"), "TIFF"), (image.convert("1"), "PPM"), (image, "PPM")]
    files += [saved(one, kind) for one, kind in odd]
    files += [saved(image, "TIFF", compression=how) for how in ("tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate")]
    files += [saved(image, "JPEG", progressive=True, exif=exif)]
    return files + [saved(image, kind, save_all=True, append_images=[image]) for kind in ("GIF", "PNG", "WEBP", "TIFF")]


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def flipped(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8, 60))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def flipped_in_front(content: bytes, chance: random.Random) -> bytes:
    return flipped(content[:120], chance) + content[120:]


def cut_off(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def zeroed(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + bytes(len(content[start:])) if chance.random() < 0.5 else bytes(start)


def spliced(content: bytes, chance: random.Random) -> bytes:
    one, other = sorted(chance.randrange(len(content)) for _ in range(2))
    return content[:one] + content[other:] + content[one:other]


def untouched(content: bytes, chance: random.Random) -> bytes:
    return content


def inflated(content: bytes, chance: random.Random) -> bytes:
    """A header that claims up to 65,000 x 65,000."""
    sides = [chance.choice((0, 1, 9_000, 13_000, 16_383, 65_000, 65_535)) for _ in range(2)]
    data = bytearray(content)
    if data.startswith(b"\x89PNG"):
        struct.pack_into(">II", data, 16, *sides)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    elif data.startswith(b"BM"):
        struct.pack_into("<ii", data, 18, *sides)
    elif data.startswith(b"GIF8"):
        struct.pack_into("<HH", data, 6, *sides)
    elif data.startswith(b"II*\0"):
        for place in range(10, 10 + 12 * 2, 12):
            struct.pack_into("<I", data, place + 8, sides.pop())
    elif (start := max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))) > 0:
        struct.pack_into(">HH", data, start + 5, *sides)
    elif (start := data.find(b"VP8X")) > 0:
        data[start + 12 : start + 18] = struct.pack("<I", sides[0])[:3] + struct.pack("<I", sides[1])[:3]
    return bytes(data)


MUTATIONS = (flipped, flipped, flipped_in_front, cut_off, zeroed, spliced, untouched, inflated)


def mutated() -> Iterator[tuple[str, bytes]]:
    files, chance = sound_files(), random.Random(61)
    for number in range(FILES):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        yield f"{mutation.__name__} {number}{chance.choice(SUFFIXES)}", mutation(chance.choice(files), chance)


def test_mutated_files_are_read_or_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = refused = 0
    for name, content in mutated():
        path, start = tmp_path / name, time.monotonic()
        path.write_bytes(content)
        try:
            photo = read_photo(path)
        except UnreadableImage as error:
            sentence = str(error)
            assert sentence.startswith(str(path)), sentence
            assert sentence.endswith("."), sentence
            assert "\n" not in sentence, sentence
            refused += 1
        else:
            assert photo.levels.ndim == 3, name
            encode_photo(photo)
            read += 1
        path.unlink()
        assert time.monotonic() - start < LONGEST, name
        said = capfd.readouterr()
        assert said.out == "", name
        assert said.err == "" or content[:2] in (b"II", b"MM"), (
            "only libtiff speaks past Pillow, where no one can stop it"
        )
    assert (read + refused, read > FILES / 5, refused > FILES / 5) == (FILES, True, True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MOST
