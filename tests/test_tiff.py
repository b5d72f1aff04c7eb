"""What the numbers of a TIFF mean: every layout comes out as the picture it holds, or is refused by name."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import coloured, exif_with, upright
from tiffs import page, tiff
from unfade.errors import UnreadableImage
from unfade.images.decoding import read_photo
from unfade.images.encoding import encode_photo
from unfade.images.files import read_image, to_bytes
from unfade.images.opening import readable_kinds
from unfade.images.photo import Photo

DEEP = np.random.default_rng(1).integers(0, 1 << 16, (6, 5, 4)).astype(np.uint16)
DEEP[0, 0] = 65_535
GREY = DEEP[..., :1]


def read(folder: Path, content: bytes) -> Photo:
    path = folder / "a.tif"
    path.write_bytes(content)
    return read_photo(path)


def refused(folder: Path, content: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read(folder, content)
    sentence = str(caught.value)
    assert sentence.startswith(str(folder / "a.tif"))
    assert re.search(r"; (get|convert|save|make) .*\.$", sentence)
    return sentence


# Layouts


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("in_planes", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_colours_together_and_in_planes(
    tmp_path: Path, kind: str, channels: int, in_planes: bool, deflate: bool, order: str
) -> None:
    samples = (DEEP if kind == "u2" else (DEEP >> 8).astype(np.uint8))[..., :channels]
    how = {"t338": 2} if channels == 4 else {}
    content = tiff(page(samples, 2, order=order, in_planes=in_planes, deflate=deflate, **how), order=order)
    photo = read(tmp_path, content)
    assert photo.levels.dtype == samples.dtype
    assert np.array_equal(photo.levels, samples[..., :3])
    assert photo.alpha is None if channels == 3 else np.array_equal(photo.alpha, samples[..., 3])
    assert photo.notes == ()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("photometric", [0, 1])
def test_white_is_zero_is_not_a_negative(
    tmp_path: Path, photometric: int, bits: int, deflate: bool, order: str
) -> None:
    bright = GREY if photometric else 65_535 - GREY
    stored = {8: (bright >> 8).astype(np.uint8), 16: bright, 32: bright.astype(np.uint32) * 65_537}[bits]
    photo = read(tmp_path, tiff(page(stored, photometric, order=order, deflate=deflate), order=order))
    assert np.array_equal(photo.levels[..., :1], (GREY >> 8) if bits == 8 else GREY)
    assert photo.origin.grey
    assert photo.notes == (("32 bits brought to 16",) if bits == 32 else ())
    shown = to_bytes(read_image(tmp_path / "a.tif"))
    assert np.abs(shown[..., :1] - GREY / 257).max() < 1, "faces are read alike"


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
def test_samples_that_are_packed_tightly(tmp_path: Path, bits: int) -> None:
    values = DEEP[..., :3] >> (16 - bits)
    single = (values.reshape(6, -1, 1) >> np.arange(bits)[::-1]) & 1
    tags, _ = page(values, 2)
    photo = read(tmp_path, tiff(({**tags, 258: [bits] * 3}, [np.packbits(single.reshape(6, -1), axis=1).tobytes()])))
    most = 255 if bits <= 8 else 65_535
    assert np.array_equal(photo.levels, np.rint(values * (most / (2**bits - 1))))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_what_libtiff_compressed_itself(tmp_path: Path, compression: str) -> None:
    Image.fromarray(GREY[..., 0]).save(tmp_path / "b.tif", compression=compression)
    assert np.array_equal(read_photo(tmp_path / "b.tif").levels[..., :1], GREY)


def test_without_a_photometric_interpretation_black_is_zero(tmp_path: Path) -> None:
    for samples, kind in ((GREY, 1), (DEEP[..., :3], 2)):
        tags, strips = page(samples, kind)
        del tags[262]
        assert np.array_equal(
            read(tmp_path, tiff((tags, strips))).levels, samples.repeat(4 - samples.shape[-1], -1)[..., :3]
        )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_samples_are_turned(tmp_path: Path, orientation: int) -> None:
    photo = read(tmp_path, tiff(page(DEEP[..., :3], 2, in_planes=True, t274=orientation)))
    assert np.array_equal(photo.levels, upright(DEEP[..., :3], orientation))


def test_black_and_white(tmp_path: Path) -> None:
    for compression in ("raw", "group4", "tiff_lzw"):
        Image.fromarray(GREY[..., 0] > 30_000).save(tmp_path / "a.tif", compression=compression)
        photo = read_photo(tmp_path / "a.tif")
        assert np.array_equal(photo.levels[..., :1], (GREY > 30_000) * 255)
        assert (photo.origin.grey, photo.notes) == (True, ("black and white converted to grey",))


# Ranges


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("photometric", [0, 1])
def test_fewer_bits_in_16_fill_the_range(tmp_path: Path, bits: int, photometric: int) -> None:
    few = GREY >> (16 - bits)
    photo = read(tmp_path, tiff(page(few if photometric else 2**bits - 1 - few, photometric)))
    assert photo.notes == (f"{bits} bits in 16 brought to the full range",)
    assert np.array_equal(photo.levels[..., :1], np.rint(few * (65_535 / (2**bits - 1))))
    (tmp_path / "a.png").write_bytes(encode_photo(Photo(few.repeat(3, -1)), kind="PNG"))
    assert np.array_equal(read_photo(tmp_path / "a.png").levels, photo.levels)


def test_14_bits_in_16_are_recognised_by_their_tag_or_noted(tmp_path: Path) -> None:
    few = GREY >> 2
    assert "14 bits in 16" in read(tmp_path, tiff(page(few, 1, t281=16_383))).notes[0]
    photo = read(tmp_path, tiff(page(few, 1)))
    assert np.array_equal(photo.levels[..., :1], few)
    assert photo.notes[0].startswith("no value above a quarter of the range")


@pytest.mark.parametrize("white", [1, 255, 65_535])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 3])
def test_floating_point(tmp_path: Path, kind: str, white: int, channels: int) -> None:
    if kind == "f2" and white == 65_535:
        pytest.skip("beyond what 16 bits of floating point hold")
    samples = (DEEP[..., :channels] / 65_535 * white).astype(kind)
    photo = read(tmp_path, tiff(page(samples, 2 if channels == 3 else 1)))
    assert photo.levels.dtype == np.uint16
    assert np.abs(photo.levels[..., :channels] - DEEP[..., :channels].astype(float)).max() < (40 if kind == "f2" else 1)
    assert photo.notes == (f"floating-point values of 0 to {white} brought to 16 bits",)
    assert photo.origin.grey == (channels == 1)


@pytest.mark.parametrize(
    ("samples", "photometric", "word"),
    [
        (np.full((4, 4, 3), 3.5, "f4"), 2, "floating-point values from 3.5 to 3.5"),
        (np.full((4, 4, 1), -0.5, "f4"), 1, "floating-point values from -0.5"),
        (np.full((4, 4, 1), np.nan, "f4"), 1, "NaN or infinite"),
        (np.ones((4, 4, 1), "c8"), 1, "complex numbers"),
        (np.ones((4, 4, 1), "i2"), 1, "signed values"),
        (np.ones((4, 4, 1), "i1"), 1, "signed values"),
        (np.ones((4, 4, 1), "u2"), 3, "a palette of 16 bits"),
        (np.ones((4, 4, 3), "u2"), 6, "YCbCr of 16 bits"),
        (np.ones((4, 4, 1), "u2"), 32_803, "a camera's raw file"),
    ],
)
def test_what_cannot_be_known_is_refused_by_name(
    tmp_path: Path, samples: np.ndarray, photometric: int, word: str
) -> None:
    assert word in refused(tmp_path, tiff(page(samples, photometric)))


def test_a_strip_that_is_cut_off_is_damage(tmp_path: Path) -> None:
    for deflate in (False, True):
        assert "damaged or cut off" in refused(tmp_path, tiff(page(DEEP[..., :3], 2, deflate=deflate))[:-9])


# Alpha


@pytest.mark.parametrize("in_planes", [False, True])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_colours_multiplied_by_alpha_keep_their_depth(tmp_path: Path, kind: str, in_planes: bool) -> None:
    most = np.iinfo(kind).max
    straight = (DEEP if kind == "u2" else DEEP >> 8).astype(float)
    alpha = np.linspace(0.5, 1, 30).reshape(6, 5, 1)
    stored = np.concatenate([straight[..., :3] * alpha, alpha * most], -1).round().astype(kind)
    photo = read(tmp_path, tiff(page(stored, 2, in_planes=in_planes, t338=1)))
    assert photo.levels.dtype == np.dtype(kind)
    assert np.abs(photo.levels - straight[..., :3]).max() <= 2, "both were rounded"
    assert np.array_equal(photo.alpha, stored[..., 3])
    assert photo.notes == ("colours divided by the transparency they were multiplied by",)


def test_channels_other_than_alpha_are_left_out_and_noted(tmp_path: Path) -> None:
    tags, strips = page(DEEP[..., [0, 1, 2, 0, 3]], 2)
    photo = read(tmp_path, tiff(({**tags, 338: [0, 2]}, strips)))
    assert np.array_equal(photo.alpha, DEEP[..., 3])
    assert photo.notes == ("1 channel besides the colours left out",)


# Colours that are no RGB


def test_inks_and_lab_of_16_bits(tmp_path: Path) -> None:
    inks = np.broadcast_to(np.array([0, 65_535, 65_535, 0], np.uint16), (4, 4, 4))
    photo = read(tmp_path, tiff(page(inks, 5)))
    assert np.abs(photo.levels.mean((0, 1)) - [255, 0, 0]).max() < 5
    assert photo.notes == ("16 bits brought to 8", "CMYK converted to RGB without a colour profile")
    for photometric, white in ((8, [65_535, 0, 0]), (9, [0xFF00, 0x8000, 0x8000])):
        lab = np.broadcast_to(np.array(white, np.uint16), (4, 4, 3))
        assert read(tmp_path, tiff(page(lab, photometric))).levels.min() > 250


@pytest.mark.parametrize("in_planes", [False, True])
def test_ycbcr_without_compression_is_not_taken_for_rgb(tmp_path: Path, in_planes: bool) -> None:
    picture = coloured(16)
    tags, strips = page(np.asarray(Image.fromarray(picture).convert("YCbCr")), 6, in_planes=in_planes)
    content = tiff(({**tags, 530: [1, 1], 274: 6}, strips))
    photo = read(tmp_path, content + bytes(10_000))  # behind which Pillow saw no end
    assert np.abs(photo.levels.astype(int) - upright(picture, 6)).max() <= 3
    refused(tmp_path, content[:-400])
    Image.fromarray(picture).convert("YCbCr").save(tmp_path / "b.tif")
    assert np.abs(read_photo(tmp_path / "b.tif").levels.astype(int) - picture).max() <= 3


# Pages


def test_the_photo_is_the_largest_full_page(tmp_path: Path) -> None:
    picture = coloured(16)
    thumbnail = page(picture[::4, ::4], 2, t254=1, t274=6)
    photo = read(tmp_path, tiff(thumbnail, page(picture, 2, t254=0)))
    assert np.array_equal(photo.levels, upright(picture, 6)), "and it is turned as the first page says"
    assert photo.notes == ()
    assert np.array_equal(read(tmp_path, tiff(page(picture, 2), thumbnail)).levels, picture)
    several = read(tmp_path, tiff(page(picture[:8], 2), page(picture, 2), page(picture, 2)))
    assert np.array_equal(several.levels, picture)
    assert several.notes == ("only the largest of 3 pictures in the file is kept",)


def test_what_the_first_page_says_of_the_photo_is_kept(tmp_path: Path) -> None:
    picture = Image.fromarray(coloured(16))
    first = picture.resize((4, 4))
    first.save(tmp_path / "a.tif", exif=exif_with(1), save_all=True, append_images=[picture])
    exif = Image.Exif()
    exif.load(read_photo(tmp_path / "a.tif").origin.exif)
    assert exif[0x010F] == "maker"


def test_masks_and_lower_pages_are_not_taken_for_the_photo(tmp_path: Path) -> None:
    picture = coloured(16)
    mask = page(np.full((32, 32, 1), 255, np.uint8), 4, t254=4)
    assert np.array_equal(read(tmp_path, tiff(page(picture, 2), mask)).levels, picture)
    content = tiff(page(picture[::4, ::4], 2, t254=1, t330=0), page(picture, 2, t254=0))
    below = content.index(b"\x4a\x01\x04\0\1\0\0\0") + 8  # the entry of tag 330: where the pages below begin
    link = 10 + 12 * int.from_bytes(content[8:10], "little")
    hung = content[:below] + content[link : link + 4] + content[below + 4 : link] + bytes(4) + content[link + 4 :]
    assert np.array_equal(read(tmp_path, hung).levels, picture)


def test_a_big_endian_bigtiff_is_named(tmp_path: Path) -> None:
    assert "TIFF" in readable_kinds()
    assert "BigTIFF in big-endian order" in refused(tmp_path, b"MM\0+\0\x08\0\0" + bytes(40))
