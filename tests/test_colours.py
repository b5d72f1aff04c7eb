"""Colours that files name by numbers: kept as a profile, or brought to sRGB; and any profile as evaluation reads it."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from drawn import coloured
from tiffs import page, tiff
from unfade.errors import UnreadableImage
from unfade.images.boxes import boxed
from unfade.images.colours import (
    BT709,
    BT709_CURVE,
    HLG,
    PQ,
    PRIMARIES,
    Colours,
    apply_colours,
    by_code_points,
    profile_of,
    to_srgb,
)
from unfade.images.decoding import read_photo
from unfade.images.encoding import encode_photo
from unfade.images.files import read_image, read_picture, to_bytes
from unfade.images.photo import Photo

P3 = Colours(PRIMARIES[12])
KEPT = "colours named by numbers kept as a colour profile"


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    framed = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    return png[:33] + b"".join(framed) + png[33:]


def png_photo(folder: Path, levels: np.ndarray, *chunks: tuple[bytes, bytes]) -> Photo:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    (folder / "a.png").write_bytes(with_chunks(buffer.getvalue(), *chunks))
    return read_photo(folder / "a.png")


def light_of(levels: np.ndarray, icc: bytes) -> np.ndarray:
    """CIE Lab, by littleCMS: what a viewer that knows profiles shows."""
    source = ImageCms.getOpenProfile(io.BytesIO(icc)) if icc else ImageCms.createProfile("sRGB")
    lab = ImageCms.profileToProfile(Image.fromarray(levels), source, ImageCms.createProfile("LAB"), 1, "LAB")
    return np.asarray(lab).astype(np.int16)


# Profiles


def test_the_profile_of_srgb_changes_nothing() -> None:
    assert to_srgb(coloured(16), profile_of(Colours()), notes := []) is not None
    assert np.array_equal(to_srgb(coloured(16), profile_of(Colours()), notes), coloured(16))
    assert notes == []
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(to_srgb(coloured(16), own, notes), coloured(16))


def test_the_matrix_of_p3_is_the_published_one() -> None:
    profile = ImageCms.getOpenProfile(io.BytesIO(profile_of(P3))).profile
    expected = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))  # Apple's own
    for name, column in zip(("red", "green", "blue"), expected, strict=True):
        assert getattr(profile, f"{name}_colorant")[0] == pytest.approx(column, abs=2e-4)


@pytest.mark.parametrize("curve", [(2.2,), (1.8,), BT709_CURVE])
def test_profiles_hold_the_curve(curve: tuple[float, ...]) -> None:
    grey = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, -1)
    shown = to_srgb(grey, profile_of(Colours(BT709, curve)), [])[0, :, 0].astype(float)
    values = np.arange(256) / 255
    if len(curve) == 1:
        light = values ** curve[0]
    else:
        light = np.where(values < 0.081243, values / 4.5, ((values + 0.099297) / 1.099297) ** (1 / 0.45))
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(shown - encoded * 255).max() <= 1.5


# PNG


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"cICP", bytes((12, 13, 0, 1)))],
        [(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))],
        [
            (b"gAMA", struct.pack(">I", 45455)),
            (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
        ],
    ],
)
def test_p3_by_numbers_becomes_a_profile(tmp_path: Path, chunks: list[tuple[bytes, bytes]]) -> None:
    photo = png_photo(tmp_path, coloured(16), *chunks)
    assert np.array_equal(photo.levels, coloured(16))
    assert photo.origin.icc == profile_of(P3)
    assert photo.notes == (KEPT,)
    for kind in ("PNG", "WEBP", "TIFF", "JPEG", "AVIF"):
        (tmp_path / "b").write_bytes(encode_photo(photo, kind=kind))
        assert read_photo(tmp_path / "b").origin.icc == photo.origin.icc, kind


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"cICP", bytes((1, 13, 0, 1)))],
        [(b"gAMA", struct.pack(">I", 45455))],
        [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))],
        [(b"gAMA", bytes(4))],
        [(b"gAMA", struct.pack(">I", 0xFFFFFFFF))],
        [(b"cHRM", bytes(32))],
        [(b"cICP", b"\1")],
    ],
)
def test_srgb_by_numbers_and_numbers_that_are_none_need_no_word(
    tmp_path: Path, chunks: list[tuple[bytes, bytes]]
) -> None:
    photo = png_photo(tmp_path, coloured(16), *chunks)
    assert (photo.origin.icc, photo.notes) == (b"", ())
    assert np.array_equal(photo.levels, coloured(16))


def test_unknown_numbers_are_noted(tmp_path: Path) -> None:
    photo = png_photo(tmp_path, coloured(16), (b"cICP", bytes((3, 10, 0, 1))))
    assert photo.notes == ("colours of cICP 3, 10 are not known, taken for sRGB",)


@pytest.mark.parametrize("grey", [False, True])
def test_linear_light_is_brought_to_srgb(tmp_path: Path, grey: bool) -> None:
    levels = np.full((4, 4) if grey else (4, 4, 3), 55, np.uint8)
    photo = png_photo(tmp_path, levels, (b"gAMA", struct.pack(">I", 100_000)))
    assert np.unique(photo.levels).tolist() == [round(255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055))]
    assert photo.notes == ("linear light brought to sRGB's curve",)
    assert photo.origin.icc == b""


def test_dark_linear_light_of_16_bits_is_not_taken_for_fewer_bits(tmp_path: Path) -> None:
    dark = encode_photo(Photo(coloured(16).astype(np.uint16) * 10))
    (tmp_path / "a.png").write_bytes(with_chunks(dark, (b"gAMA", struct.pack(">I", 100_000))))
    photo = read_photo(tmp_path / "a.png")
    assert photo.notes == ("linear light brought to sRGB's curve",)
    assert photo.levels.max() == round(65_535 * srgb(int(coloured(16).max()) * 10 / 65_535))


def test_what_was_brought_to_srgb_shows_the_same_colours(tmp_path: Path) -> None:
    wide = png_photo(tmp_path, coloured(16), (b"cICP", bytes((12, 8, 0, 1))))
    linear = profile_of(Colours(PRIMARIES[12], (1.0,)))
    off = np.abs(light_of(wide.levels, wide.origin.icc) - light_of(coloured(16), linear))
    assert off.max() <= 4, "levels of 8 bits, rounded"


def test_cicp_goes_before_a_profile(tmp_path: Path) -> None:
    profile = b"a\0\0" + zlib.compress(profile_of(Colours(BT709, (1.8,))))
    photo = png_photo(tmp_path, coloured(16), (b"iCCP", profile), (b"cICP", bytes((12, 13, 0, 1))))
    assert photo.origin.icc == profile_of(P3)


# Light beyond white


def shown(colours: Colours, signal: float) -> float:
    """What a signal of grey becomes, 0 to 1."""
    levels = np.full((1, 1, 3), round(signal * 65_535), np.uint16)
    return float(apply_colours(levels, colours, [])[0][0, 0, 0]) / 65_535


def srgb(light: float) -> float:
    return 1.055 * light ** (1 / 2.4) - 0.055


def test_pq_is_brought_to_203_nits_of_white() -> None:
    pq = by_code_points(1, PQ)
    assert pq is not None
    assert shown(pq, 0.508078) == pytest.approx(srgb(100 / 203), abs=1e-3)  # ST 2084: 100 cd/m2
    assert shown(pq, 0.149946) == pytest.approx(srgb(1 / 203), abs=1e-3)
    assert shown(pq, 0.0) == 0
    assert 0.9 < shown(pq, 0.580689) < 1  # 203 cd/m2, just above the knee
    assert shown(pq, 0.7518) == shown(pq, 1.0) == 1  # 1,000 and 10,000


def test_hlg_at_half_signal_is_a_twelfth_of_its_light() -> None:
    hlg = by_code_points(9, HLG)
    assert hlg is not None
    assert shown(hlg, 0.5) == pytest.approx(srgb((1 / 12) ** 1.2 * 1000 / 203), abs=1e-3)  # BT.2100
    assert 0.9 < shown(hlg, 0.75) < 1, "BT.2408: white"
    assert shown(hlg, 1.0) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_light_beyond_white_keeps_its_order_and_its_hue(transfer: int) -> None:
    hdr = by_code_points(9, transfer)
    assert hdr is not None
    ramp = np.linspace(0, 65_535, 300).astype(np.uint16)[None, :, None].repeat(3, -1)
    levels, icc = apply_colours(ramp, hdr, notes := [])
    assert (np.diff(levels[0, :, 0].astype(int)) >= 0).all()
    assert icc == profile_of(Colours(PRIMARIES[9]))
    assert notes[0].endswith("brought to sRGB's curve, light beyond white compressed")


def test_narrow_range_is_widened(tmp_path: Path) -> None:
    levels = np.array([[[16] * 3, [235] * 3, [126] * 3]], np.uint8)
    assert png_photo(tmp_path, levels, (b"cICP", bytes((1, 13, 0, 0)))).levels[0, :, 0].tolist() == [0, 255, 128]


# Other files


def avif(primaries: int, transfer: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(coloured(16)).save(buffer, "AVIF", quality=90)
    content = buffer.getvalue()
    place = content.index(b"colrnclx") + 8
    return content[:place] + struct.pack(">HH", primaries, transfer) + content[place + 4 :]


def test_avif_by_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    path.write_bytes(avif(1, 13))
    plain = read_photo(path)
    assert (plain.origin.icc, plain.notes) == (b"", ())
    path.write_bytes(avif(12, 13))
    wide = read_photo(path)
    assert (wide.origin.icc, wide.notes) == (profile_of(P3), (KEPT,))
    assert np.array_equal(wide.levels, plain.levels)
    path.write_bytes(avif(9, PQ))
    assert read_photo(path).notes == ("PQ brought to sRGB's curve, light beyond white compressed",)
    path.write_bytes(avif(3, 10))
    assert read_photo(path).notes == ("colours of nclx 3, 10 are not known, taken for sRGB",)


def test_the_boxes_show_samples_deeper_than_those_that_are_read() -> None:
    content = bytearray(avif(1, 13))
    assert boxed(io.BytesIO(content)).bits == 8
    content[content.index(b"av1C") + 6] |= 0x40
    assert boxed(io.BytesIO(content)).bits == 10


def test_boxes_that_are_damaged_say_nothing() -> None:
    content = avif(12, 13)
    for end in range(0, len(content), 7):
        assert boxed(io.BytesIO(content[:end])).nclx in (None, (12, 13, True))
    assert boxed(io.BytesIO(content.replace(b"pitm", b"free"))).nclx is None


def test_tiff_by_its_tags(tmp_path: Path) -> None:
    tags, strips = page(coloured(16), 2)
    content = tiff(({**tags, 318: [0, 0], 319: [0] * 6}, strips))
    (tmp_path / "a.tif").write_bytes(content)
    assert read_photo(tmp_path / "a.tif").origin.icc == b"", "numbers that are no fractions"
    image = Image.fromarray(coloured(16))
    image.save(tmp_path / "b.tif", tiffinfo={318: (0.3127, 0.329), 319: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)})
    photo = read_photo(tmp_path / "b.tif")
    assert photo.notes == (KEPT,)
    shown_p3 = to_srgb(coloured(16), profile_of(P3), [])
    assert np.abs(to_srgb(photo.levels, photo.origin.icc, []).astype(int) - shown_p3).max() <= 1


def bmp(header: bytes, behind: bytes = b"") -> bytes:
    """16 x 16 px behind a header of version 4 or 5, whose colours `header` tells."""
    pixels = np.ascontiguousarray(coloured(16)[::-1, :, ::-1]).tobytes()
    size = 40 + 16 + len(header)
    info = struct.pack("<IiiHHIIiiII", size, 16, 16, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + bytes(16) + header
    start = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", start + len(pixels) + len(behind), 0, 0, start) + info + pixels + behind


def test_bmp_by_its_header_and_by_its_profile(tmp_path: Path) -> None:
    columns = [(0.4866, 0.2290, 0.0), (0.2657, 0.6917, 0.0451), (0.1982, 0.0793, 1.0439)]  # P3 under D65
    ends = struct.pack("<9i", *(round(value * 2**30) for column in columns for value in column))
    (tmp_path / "a.bmp").write_bytes(bmp(struct.pack("<I", 0) + ends + struct.pack("<3I", *[round(2.2 * 65_536)] * 3)))
    photo = read_photo(tmp_path / "a.bmp")
    assert photo.notes == (KEPT,)
    expected = to_srgb(coloured(16), profile_of(Colours(PRIMARIES[12], (2.2,))), [])
    assert np.abs(to_srgb(photo.levels, photo.origin.icc, []).astype(int) - expected).max() <= 2
    (tmp_path / "a.bmp").write_bytes(bmp(struct.pack("<I", 0) + bytes(48)))
    assert read_photo(tmp_path / "a.bmp").origin.icc == b"", "nought says nothing"
    icc = profile_of(P3)
    header = b"DEBM" + bytes(48) + struct.pack("<IIII", 4, 124 + 768, len(icc), 0)
    (tmp_path / "a.bmp").write_bytes(bmp(header, icc))
    assert read_photo(tmp_path / "a.bmp").origin.icc == icc


# What evaluation and networks read


def test_pictures_of_other_profiles_are_read_as_srgb(tmp_path: Path) -> None:
    picture = Image.fromarray(coloured(64)).resize((64, 64), Image.Resampling.BICUBIC)
    for colours in (P3, Colours(PRIMARIES[9], (1.8,))):
        wide = ImageCms.profileToProfile(
            picture, ImageCms.createProfile("sRGB"), ImageCms.getOpenProfile(io.BytesIO(profile_of(colours)))
        )
        wide.save(tmp_path / "a.png", icc_profile=profile_of(colours))
        read = read_picture(tmp_path / "a.png")
        off = to_bytes(read.pixels).astype(float) - np.asarray(picture)
        assert 10 * np.log10(255**2 / (off**2).mean()) > 45, "8 bits, rounded twice"
        assert read.notes == ("converted to sRGB by its colour profile",)


def test_grey_profiles_and_those_that_are_none(tmp_path: Path) -> None:
    Image.fromarray(coloured(16)).save(tmp_path / "a.png", icc_profile=b"no profile" * 30)
    assert read_picture(tmp_path / "a.png").notes == ("colour profile that cannot be used left out",)
    assert np.array_equal(to_bytes(read_image(tmp_path / "a.png")), coloured(16))


def test_a_wholly_clear_picture_is_not_taken_for_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (9, 9, 9, 0)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match=r"a\.png is fully transparent"):
        read_image(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").alpha is not None, "a whole photo stays as clear as it was"
