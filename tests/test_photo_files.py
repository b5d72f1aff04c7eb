"""Whole photos from files and back: upright, as deep, as clear, as grey and as compressed as they were."""

import struct
import sys
import types
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, TiffImagePlugin, features

from drawn import coloured, exif_with, ramp, upright
from unfade.errors import BadInput, UnreadableImage
from unfade.images.containers import png
from unfade.images.decoding import read_photo
from unfade.images.encoding import QUALITY, encode_photo, lost_in, suffix_for
from unfade.images.opening import readable_kinds
from unfade.images.photo import Origin, Photo

LOSSLESS = ("PNG", "TIFF", "BMP", "WEBP")


def again(photo: Photo, folder: Path, kind: str | None = None, quality: int | None = None) -> Photo:
    """The photo after a way through a file."""
    path = folder / "again.bin"
    path.write_bytes(encode_photo(photo, kind=kind, quality=quality))
    return read_photo(path)


def same(one: Photo, other: Photo) -> bool:
    """Bit for bit, alpha included."""
    clear = (one.alpha is None, other.alpha is None)
    return (
        one.levels.dtype == other.levels.dtype
        and np.array_equal(one.levels, other.levels)
        and (clear == (True, True) or (clear == (False, False) and np.array_equal(one.alpha, other.alpha)))
    )


# Upright


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_photos_are_turned_once(tmp_path: Path, kind: str, orientation: int) -> None:
    stored, path = ramp(8, 6), tmp_path / "a.bin"
    exact = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(stored).save(path, kind, exif=exif_with(orientation), **exact)
    photo = read_photo(path)
    expected = upright(stored, orientation)
    assert photo.levels.shape == expected.shape
    if kind != "JPEG":
        assert np.array_equal(photo.levels, expected)
    assert np.abs(photo.levels.astype(int) - expected).max() < 40
    twice = again(photo, tmp_path)
    assert twice.levels.shape == expected.shape, "the result's own orientation must not turn it again"
    with Image.open(tmp_path / "again.bin") as image:
        assert image.getexif()[0x010F] == "maker"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_photos_of_16_bits_are_turned_too(tmp_path: Path, kind: str, orientation: int) -> None:
    deep, path = ramp(8, 6).astype(np.uint16) * 200 + 7, tmp_path / "a.bin"
    path.write_bytes(encode_photo(Photo(deep, origin=Origin(kind))))
    content = path.read_bytes()
    if kind == "PNG":
        block = exif_with(orientation).tobytes()[6:]
        chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
        path.write_bytes(content[:33] + chunk + content[33:])
    else:
        path.write_bytes(with_tiff_orientation(content, orientation))
    photo = read_photo(path)
    assert photo.levels.dtype == np.uint16
    assert np.array_equal(photo.levels, upright(deep, orientation))


def with_tiff_orientation(content: bytes, orientation: int) -> bytes:
    """Our own TIFF with its PlanarConfiguration, which says what is the default anyway, made an orientation."""
    data = bytearray(content)
    (count,) = struct.unpack_from("<H", data, 8)
    entries = [bytes(data[at : at + 12]) for at in range(10, 10 + 12 * count, 12)]
    entries = [entry for entry in entries if entry[:2] != struct.pack("<H", 284)]
    entries.append(struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0))
    data[10 : 10 + 12 * count] = b"".join(sorted(entries, key=lambda entry: struct.unpack("<H", entry[:2])))
    return bytes(data)


def test_an_orientation_that_only_the_xmp_tells_is_applied_once(tmp_path: Path) -> None:
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    Image.fromarray(ramp(8, 6)).save(tmp_path / "a.jpg", xmp=packet)
    photo = read_photo(tmp_path / "a.jpg")
    assert (photo.width, photo.height) == (8, 6)
    assert (again(photo, tmp_path).width, photo.origin.xmp) == (8, packet.replace(b'"6"', b'"1"'))


# Depth, alpha, grey: a property over all of them and the formats


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["L", "LA", "RGB", "RGBA", "P", "1", "CMYK", "L16", "LA16", "RGB16", "RGBA16"]),
    st.sampled_from(["PNG", "TIFF", "BMP", "WEBP", "JPEG"]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 99),
)
def test_pixels_depth_alpha_and_grey_survive(
    tmp_path: Path, mode: str, kind: str, width: int, height: int, seed: int
) -> None:
    photo = read_photo(drawn_file(tmp_path, mode, width, height, seed))
    assert photo.levels.shape == (height, width, 3)
    assert photo.levels.dtype == (np.uint16 if mode.endswith("16") else np.uint8)
    assert (photo.alpha is not None) == ("A" in mode)
    assert photo.origin.grey == (mode.strip("16A") in ("L", ""))
    back = again(photo, tmp_path, kind)
    assert back.levels.shape == photo.levels.shape
    lost = lost_in(photo, kind=kind)
    if kind in LOSSLESS and not lost:
        assert same(back, photo)
    deep_grey_and_clear = mode == "LA16" and kind == "TIFF"  # Pillow cannot read such a TIFF, so none is written
    assert back.origin.grey == (photo.origin.grey and kind != "WEBP" and not deep_grey_and_clear)
    assert ("16 bits brought to 8" in lost) == (photo.levels.dtype != back.levels.dtype)
    assert ("transparency laid over white" in lost) == ((photo.alpha is None) != (back.alpha is None))


def drawn_file(folder: Path, mode: str, width: int, height: int, seed: int) -> Path:
    """A file of noise in one of Pillow's modes, or of 16 bits."""
    rng = np.random.default_rng(seed)
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "P": 3, "1": 1}[mode.removesuffix("16")]
    path = folder / ("a.tif" if mode == "CMYK" else "a.png")
    if mode.endswith("16"):
        samples = rng.integers(0, 1 << 16, (height, width, channels)).astype(np.uint16)
        alpha = samples[..., -1] if channels in (2, 4) else None
        colours = samples[..., :1].repeat(3, -1) if channels < 3 else samples[..., :3]
        path.write_bytes(encode_photo(Photo(colours, alpha, Origin(grey=channels < 3))))
        return path
    samples = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    if mode in ("P", "1"):
        Image.fromarray(samples.squeeze(-1) if channels == 1 else samples).convert(mode).save(path)
    else:
        Image.frombytes(mode, (width, height), samples.tobytes()).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_as_opencv_reads_and_writes_them(tmp_path: Path, name: str, channels: int) -> None:
    samples = np.random.default_rng(1).integers(0, 1 << 16, (9, 14, channels)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / name), samples)
    photo = read_photo(tmp_path / name)
    turned = samples.repeat(3, -1) if channels == 1 else samples[..., [2, 1, 0]]
    assert np.array_equal(photo.levels, turned)
    assert channels < 4 or np.array_equal(photo.alpha, samples[..., 3])
    (tmp_path / name).write_bytes(encode_photo(photo))
    assert np.array_equal(cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED), samples.squeeze())


def test_big_endian_and_interlaced_16_bits(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).integers(0, 1 << 16, (5, 4, 3)).astype(np.uint16)
    tags = {256: 4, 257: 5, 258: (16, 16, 16), 259: 1, 262: 2, 277: 3, 278: 5, 273: 0, 279: samples.nbytes, 284: 1}
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"MM\0*\0\0\0\x08")
    for tag, value in tags.items():
        directory[tag] = value
    (tmp_path / "a.tif").write_bytes(b"MM\0*\0\0\0\x08" + directory.tobytes(8) + samples.astype(">u2").tobytes())
    assert np.array_equal(read_photo(tmp_path / "a.tif").levels, samples)


def test_one_clear_value_of_16_bits_becomes_alpha(tmp_path: Path) -> None:
    samples = np.full((2, 2, 3), 40_000, np.uint16)
    samples[0, 0] = (1, 2, 3)
    content = encode_photo(Photo(samples))
    chunk = b"tRNS" + struct.pack(">HHH", 1, 2, 3)
    framed = struct.pack(">I", 6) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content[:33] + framed + content[33:])
    photo = read_photo(tmp_path / "a.png")
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[0, 65535], [65535, 65535]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_one_clear_value_of_few_bits_becomes_alpha(tmp_path: Path, bits: int) -> None:
    most = 2**bits - 1
    samples = np.arange(16)[None] % (most + 1)
    rows = np.packbits(np.unpackbits(samples.astype(np.uint8)[..., None], -1)[..., 8 - bits :])
    header = struct.pack(">IIBBBBB", 16, 1, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", struct.pack(">H", 1)), (b"IDAT", zlib.compress(b"\0" + rows.tobytes()))]
    framed = [
        struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in [*chunks, (b"IEND", b"")]
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    photo = read_photo(tmp_path / "a.png")
    assert photo.alpha is not None
    assert np.array_equal(photo.levels[..., 0], samples * (255 // most))
    assert np.array_equal(photo.alpha, (samples != 1) * 255)


@pytest.mark.parametrize("most", [1023, 65_535])
def test_a_ppm_keeps_its_depth(tmp_path: Path, most: int) -> None:
    samples = np.random.default_rng(1).integers(0, most, (5, 7, 3), endpoint=True).astype(np.uint16)
    (tmp_path / "a.ppm").write_bytes(b"P6\n# by hand\n7 5\n%d\n" % most + samples.astype(">u2").tobytes())
    assert np.array_equal(read_photo(tmp_path / "a.ppm").levels, np.rint(samples * (65_535 / most)))
    (tmp_path / "b.ppm").write_text(f"P3 7 5 {most} " + " ".join(map(str, samples.ravel())))
    photo = read_photo(tmp_path / "b.ppm")
    assert (photo.levels.dtype, photo.notes[1:]) == (np.uint8, (f"{most.bit_length()} bits brought to 8",))


def test_a_dark_border_of_grey_does_not_brighten_its_first_columns(tmp_path: Path) -> None:
    samples = np.full((4, 9, 1), 50_000, np.uint16)
    samples[:, :4] = 900
    (tmp_path / "a.png").write_bytes(png(samples, b"", b"", b"", None))
    photo = read_photo(tmp_path / "a.png")
    assert (photo.notes, np.array_equal(photo.levels[..., :1], samples)) == ((), True)


def test_grey_of_12_in_16_bits_fills_the_range(tmp_path: Path) -> None:
    samples = np.arange(4096, dtype=np.uint16)[None, ::-1, None]
    (tmp_path / "a.png").write_bytes(png(samples, b"", b"", b"", None))
    photo = read_photo(tmp_path / "a.png")
    assert photo.notes == ("12 bits in 16 brought to the full range",)
    assert np.array_equal(photo.levels[..., :1], np.rint(samples * (65_535 / 4095)))


def test_8_of_16_bits_are_rounded_not_cut(tmp_path: Path) -> None:
    deep = np.array([[[0, 300, 65_535]]], np.uint16)
    assert again(Photo(deep), tmp_path, "BMP").levels.tolist() == [[[0, 1, 255]]]


def test_clear_parts_are_white_where_the_format_has_no_alpha(tmp_path: Path) -> None:
    photo = Photo(np.zeros((1, 2, 3), np.uint8), np.array([[0, 255]], np.uint8))
    assert again(photo, tmp_path, "BMP").levels[0, :, 0].tolist() == [255, 0]
    assert lost_in(photo, kind="bmp") == ("transparency laid over white",)


def test_a_grey_file_becomes_one_of_colours_only_when_there_are_some(tmp_path: Path) -> None:
    Image.fromarray(ramp(8, 8)[..., 0]).save(tmp_path / "a.jpg")
    photo = read_photo(tmp_path / "a.jpg")
    assert again(photo, tmp_path).origin.grey
    photo.levels[2:4, 2:4, 0] = 255
    assert not again(photo, tmp_path).origin.grey


# Modes that are no RGB


def test_cmyk_is_converted_by_its_profile(tmp_path: Path) -> None:
    Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (0, 255, 255, 0)]).save(tmp_path / "a.jpg")
    photo = read_photo(tmp_path / "a.jpg")
    assert np.abs(photo.levels.mean((0, 1)) - [255, 0, 0]).max() < 5
    assert photo.notes == ("CMYK converted to RGB without a colour profile",)


def test_a_profile_of_the_wrong_kind_is_not_used_for_cmyk(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("CMYK", (16, 16)).save(tmp_path / "a.jpg", icc_profile=profile)
    photo = read_photo(tmp_path / "a.jpg")
    assert (photo.notes, photo.origin.icc) == (("CMYK converted to RGB without a colour profile",), b"")


def test_lab(tmp_path: Path) -> None:
    Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (255, 128, 128)]).save(tmp_path / "a.tif")
    photo = read_photo(tmp_path / "a.tif")
    assert photo.levels.min() > 250
    assert photo.notes == ("LAB converted to sRGB by its colour profile",)


@pytest.mark.parametrize(
    ("mode", "word"), [("P", "palette converted to RGB"), ("1", "black and white converted to grey")]
)
def test_conversions_are_noted(tmp_path: Path, mode: str, word: str) -> None:
    Image.fromarray(ramp(8, 8)).convert(mode).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").notes == (word,)


def test_a_gif_is_written_as_png_and_several_pages_are_noted(tmp_path: Path) -> None:
    page = Image.fromarray(ramp(8, 8))
    page.save(tmp_path / "a.gif")
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    gif, tif = read_photo(tmp_path / "a.gif"), read_photo(tmp_path / "a.tif")
    assert (gif.origin.kind, gif.notes[0]) == ("PNG", "GIF is not written; PNG instead")
    assert tif.notes == ("only the first of 2 pictures in the file is kept",)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")
def test_jpeg_2000(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(grey).save(tmp_path / "a.jp2", irreversible=False)
    photo = read_photo(tmp_path / "a.jp2")
    assert np.array_equal(photo.levels[..., 0], grey)
    assert photo.notes == ("JPEG2000 is not written; PNG instead",)
    Image.fromarray(ramp(8, 8)).save(tmp_path / "b.jp2", irreversible=False)
    content = (tmp_path / "b.jp2").read_bytes()
    assert np.array_equal(read_photo(tmp_path / "b.jp2").levels, ramp(8, 8))
    place = content.index(b"colr\1\0\0") + 7
    (tmp_path / "b.jp2").write_bytes(content[:place] + struct.pack(">I", 21) + content[place + 4 :])
    with pytest.raises(UnreadableImage, match="JPEG 2000 in an unsupported colour space"):
        read_photo(tmp_path / "b.jp2")


def test_jpeg_xl_without_its_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unfade.images.opening.readable_kinds", lambda: ("PNG", "JPEG"))
    (tmp_path / "a.jxl").write_bytes(b"\xff\n" + bytes(60))
    with pytest.raises(UnreadableImage, match=r"a\.jxl is a JPEG XL picture; get the package pillow-jxl-plugin"):
        read_photo(tmp_path / "a.jxl")


# Compression


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_an_avif_keeps_the_resolution_of_its_colours(tmp_path: Path, subsampling: int) -> None:
    stripes = np.full((64, 64, 3), (200, 60, 60), np.uint8)
    stripes[:, ::2] = (60, 60, 200)
    Image.fromarray(stripes).save(
        tmp_path / "a.avif", quality=100, subsampling=("4:4:4", "4:2:2", "4:2:0")[subsampling]
    )
    photo = read_photo(tmp_path / "a.avif")
    (tmp_path / "b.avif").write_bytes(encode_photo(photo, quality=100))
    back = read_photo(tmp_path / "b.avif")
    assert photo.origin.subsampling == back.origin.subsampling == subsampling
    assert np.abs(back.levels.astype(int) - photo.levels).max() <= 4
    (tmp_path / "c.avif").write_bytes(encode_photo(replace(photo, origin=Origin("AVIF")), quality=100))
    assert read_photo(tmp_path / "c.avif").origin.subsampling == 0, "unknown: nothing is thrown away"
    assert encode_photo(photo, kind="JPEG") == encode_photo(replace(photo, origin=Origin()), kind="JPEG")


@pytest.mark.parametrize("quality", [30, 75, 92, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_is_compressed_as_it_was(tmp_path: Path, quality: int, subsampling: int) -> None:
    Image.fromarray(coloured(64)).save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    photo = read_photo(tmp_path / "a.jpg")
    back = again(photo, tmp_path)
    assert (back.origin.tables, back.origin.subsampling) == (photo.origin.tables, subsampling)
    assert len(photo.origin.tables) == 2
    size = (tmp_path / "a.jpg").stat().st_size
    assert (tmp_path / "again.bin").stat().st_size == pytest.approx(size, rel=0.1)
    assert again(photo, tmp_path, quality=50).origin.tables != photo.origin.tables


def test_quality_counts_and_has_a_default(tmp_path: Path) -> None:
    photo = Photo(coloured(64))
    for kind in ("JPEG", "WEBP", "AVIF"):
        sizes = [len(encode_photo(replaced_kind(photo, kind), quality=quality)) for quality in (20, 60, QUALITY)]
        assert sizes == sorted(set(sizes)), kind
        assert sizes[-1] == len(encode_photo(replaced_kind(photo, kind)))


def replaced_kind(photo: Photo, kind: str) -> Photo:
    return Photo(photo.levels, origin=Origin(kind))


def test_a_lossless_webp_stays_lossless(tmp_path: Path) -> None:
    Image.fromarray(coloured(32)).save(tmp_path / "a.webp", lossless=True, icc_profile=b"x" * 200)
    photo = read_photo(tmp_path / "a.webp")
    assert photo.origin.lossless
    assert same(again(photo, tmp_path), photo)
    Image.fromarray(coloured(32)).save(tmp_path / "a.webp")
    assert not read_photo(tmp_path / "a.webp").origin.lossless


# Names and refusals


def test_suffixes() -> None:
    names = ("a.JPG", "a.jpeg", "a.tif", "a.heic", "a.gif", "a", "a.jfif", "a.jp2", "a.jxl")
    expected = [".JPG", ".jpeg", ".tif", ".jpg", ".png", "", ".jfif", ".png", ".jpg"]
    assert [suffix_for(Path(name), None) for name in names] == expected
    assert [suffix_for(Path(name), "jpg") for name in names] == [
        *(".JPG", ".jpeg", ".jpg", ".jpg", ".jpg", ".jpg", ".jfif", ".jpg", ".jpg")
    ]


def test_unknown_formats_are_refused() -> None:
    for refused in (lambda: suffix_for(Path("a.png"), "GIF"), lambda: encode_photo(Photo(coloured(8)), kind="GIF")):
        with pytest.raises(BadInput, match="GIF is not a format that is written; choose one of JPEG, PNG"):
            refused()


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    content = bytearray(encode_photo(Photo(coloured(8))))
    content[16:33] = header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImage, match="claims 12,000 x 12,000 pixels in 2"):
        read_photo(tmp_path / "a.png")


def test_a_large_blank_photo_is_not_taken_for_a_bomb(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 2000), "white").save(tmp_path / "a.webp")
    assert read_photo(tmp_path / "a.webp").levels.min() > 250


def test_heic_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    package = types.ModuleType("pillow_heif")
    package.register_heif_opener = lambda: asked.append("registered")
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    assert "HEIF" in readable_kinds.__wrapped__()
    assert asked == ["registered"]


def test_heic_without_its_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unfade.images.opening.readable_kinds", lambda: ("PNG", "JPEG"))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(60))
    with pytest.raises(UnreadableImage, match=r"^.*a\.heic is a HEIC picture; get the package pillow-heif"):
        read_photo(tmp_path / "a.heic")


def test_warnings_do_not_escape_from_threads(tmp_path: Path) -> None:
    block = exif_with(1).tobytes()
    odd = png(coloured(8), block[:-3], b"", b"", None)  # Pillow warns of tags that are cut off
    for number in range(16):
        (tmp_path / f"{number}.png").write_bytes(odd)
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        photos = list(pool.map(read_photo, sorted(tmp_path.iterdir())))
    assert len(photos) == 16
    assert warnings.filters == before
