"""What a file says besides its pixels is said again by the result, and the result says what made it."""

import io
import struct
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, PngImagePlugin, features

from drawn import coloured, exif_with
from unfade.images.boxes import Boxed, boxed
from unfade.images.containers import png
from unfade.images.decoding import read_photo
from unfade.images.encoding import encode_photo, lost_in
from unfade.images.metadata import PREFIX, upright_exif
from unfade.images.packets import RDF, parse_packet
from unfade.images.photo import Origin, Photo
from unfade.images.provenance import COMPOSITE, GENERATED, IPTC, OURS, XMP, Provenance, with_provenance

MADE = Provenance("unfade 0.1.0", "small-restorer", "ab" * 32, '{"strength": 0.5, "note": "<&>"}')
DC = "{http://purl.org/dc/elements/1.1/}"
PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'<rdf:RDF xmlns:rdf="{RDF[1:-1]}"><rdf:Description rdf:about="" xmlns:xmp="{XMP[1:-1]}" '
    f'xmlns:Iptc4xmpExt="{IPTC[1:-1]}" xmlns:dc="{DC[1:-1]}" xmp:CreatorTool="Darkroom 3" '
    'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/print">'
    '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">Grandmother, 1931</rdf:li></rdf:Alt></dc:description>'
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()
CARRIERS = ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"]


@cache
def profile() -> bytes:
    """Made once: it holds the second it was made in."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def full_photo(kind: str = "PNG", deep: bool = False) -> Photo:
    """A photo whose file said everything."""
    levels = coloured(16).astype(np.uint16) * 257 if deep else coloured(16)
    return Photo(levels, origin=Origin(kind, upright_exif(exif_with(6).tobytes()), PACKET, profile(), (300.0, 300.0)))


def written(photo: Photo, folder: Path, **how: object) -> Photo:
    path = folder / "a.bin"
    path.write_bytes(encode_photo(photo, **how))
    return read_photo(path)


def said(packet: bytes, name: str) -> list[str]:
    """What the descriptions of a packet say under a name, as attribute or as element."""
    root = parse_packet(packet)
    assert root is not None
    descriptions = list(root.iter(f"{RDF}Description"))
    attributes = [each.attrib[name] for each in descriptions if name in each.attrib]
    return attributes + ["".join(child.itertext()) for each in descriptions for child in each.findall(name)]


@pytest.mark.parametrize("kind", CARRIERS)
@pytest.mark.parametrize("deep", [False, True])
def test_everything_is_kept(tmp_path: Path, kind: str, deep: bool) -> None:
    origin = written(full_photo(kind, deep), tmp_path).origin
    assert origin.xmp == PACKET
    assert origin.icc == profile()
    assert kind in ("WEBP", "AVIF") or origin.dpi == pytest.approx((300, 300), abs=0.01)  # those have no resolution
    exif = Image.Exif()
    exif.load(origin.exif)
    assert exif[ExifTags.Base.Make] == "maker"
    assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "1987:06:05 04:03:02"
    assert exif.get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_is_kept_byte_for_byte(tmp_path: Path, kind: str) -> None:
    photo = full_photo(kind)
    assert written(photo, tmp_path).origin.exif == photo.origin.exif


def test_only_the_orientation_and_the_thumbnails_hook_are_patched() -> None:
    for order in "<>":
        exif = exif_with(6)
        exif.endian = order
        exif[0xEA1C] = b"\x00\xffpadding of some camera"
        block = exif.tobytes()
        changed = [place for place, (a, b) in enumerate(zip(block, upright_exif(block), strict=True)) if a != b]
        assert len(changed) == 1
        assert block[changed[0]] == 6


def test_a_thumbnail_of_the_unrestored_photo_is_no_longer_shown() -> None:
    block = bytearray(exif_with(6).tobytes())
    (count,) = struct.unpack_from("<H" if block[6:8] == b"II" else ">H", block, 14)
    block[16 + 12 * count : 20 + 12 * count] = b"\1\2\3\4"
    assert upright_exif(bytes(block))[16 + 12 * count : 20 + 12 * count] == bytes(4)


def test_damaged_metadata_is_left_out_and_noted(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(coloured(8), PREFIX + b"II nothing of the kind", b"<x:xmpmeta", b"", None))
    photo = read_photo(tmp_path / "a.png")
    assert photo.notes == ("damaged EXIF left out", "damaged XMP left out")
    assert (photo.origin.exif, photo.origin.xmp) == (b"", b"")


def test_a_resolution_that_is_none_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(coloured(8), b"", b"", b"", (0.0, 0.0)))
    assert read_photo(tmp_path / "a.png").origin.dpi is None


def test_a_tiff_without_a_resolution_gets_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif")
    assert read_photo(tmp_path / "a.tif").origin.dpi is None
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif", dpi=(300, 200))
    assert read_photo(tmp_path / "a.tif").origin.dpi == (300, 200)


def test_the_date_of_the_file_is_known(tmp_path: Path) -> None:
    Image.fromarray(coloured(8)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").origin.modified == (tmp_path / "a.png").stat().st_mtime


def grey_profile(gamma: float) -> bytes:
    """The least that lcms accepts for grey, of version 2."""
    tags = [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Grey\0" + bytes(79))]
    tags += [(b"wtpt", b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061))]
    tags += [(b"kTRC", b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0))]
    starts = [132 + 12 * len(tags) + sum(len(content) for _, content in tags[:place]) for place in range(len(tags))]
    table = b"".join(name + struct.pack(">II", at, len(it)) for at, (name, it) in zip(starts, tags, strict=True))
    body = struct.pack(">I", len(tags)) + table + b"".join(content for _, content in tags)
    head = struct.pack(">I4sI", 128 + len(body), b"lcms", 0x02400000) + b"prtrGRAYXYZ "
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(48) + body


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "JPEG", "PNG"])
def test_grey_looks_the_same_where_it_is_written_as_colours(tmp_path: Path, kind: str) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)
    if kind in ("JPEG", "PNG"):
        grey[0, 0] = (0, 9, 0)  # one pixel that is not grey
    photo = Photo(grey, origin=Origin(icc=grey_profile(1.2), grey=True))
    shown = Image.open(io.BytesIO(encode_photo(photo, kind=kind, quality=None if kind == "PNG" else 100)))
    profiles = [ImageCms.getOpenProfile(io.BytesIO(icc)) for icc in (photo.origin.icc, shown.info["icc_profile"])]
    srgb = ImageCms.createProfile("sRGB")
    ours = np.asarray(ImageCms.profileToProfile(shown, profiles[1], srgb)).astype(int)
    lone = Image.fromarray(grey[..., 0])
    theirs = np.asarray(ImageCms.profileToProfile(lone, profiles[0], srgb, outputMode="RGB")).astype(int)
    assert np.abs(ours - theirs)[1:].max() <= (2 if kind == "PNG" else 8)


def test_a_profile_for_grey_is_not_given_to_colours(tmp_path: Path) -> None:
    icc = bytes(16) + b"GRAY" + bytes(200)
    grey = np.repeat(coloured(8)[..., :1], 3, -1)
    assert written(Photo(grey, origin=Origin(icc=icc, grey=True)), tmp_path).origin.icc == icc
    assert written(Photo(coloured(8), origin=Origin(icc=icc, grey=True)), tmp_path).origin.icc == b""
    Image.fromarray(coloured(8)).save(tmp_path / "a.png", icc_profile=icc)
    photo = read_photo(tmp_path / "a.png")
    assert photo.origin.icc == b""
    assert photo.notes == ("colour profile for grey left out, as the picture has colours",)


def test_what_a_format_cannot_hold_is_noted(tmp_path: Path) -> None:
    photo = full_photo()
    assert lost_in(photo, kind="BMP") == ("EXIF left out", "XMP left out", "colour profile left out")
    assert lost_in(photo) == lost_in(photo, kind="jpg") == ()
    huge = Photo(photo.levels, origin=Origin("JPEG", xmp=PACKET + b" " * 70_000))
    assert lost_in(huge) == ("XMP left out",)
    assert written(huge, tmp_path).origin.xmp == b""


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")
def test_exif_and_xmp_of_a_jpeg_2000_are_kept(tmp_path: Path) -> None:
    Image.fromarray(coloured(16)).save(tmp_path / "a.jp2")
    exif = upright_exif(exif_with(1).tobytes())
    xmp = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + PACKET)
    with (tmp_path / "a.jp2").open("ab") as file:
        file.write(xmp + box(b"uuid", b"JpgTiffExif->JP2" + exif.removeprefix(PREFIX)))
    origin = read_photo(tmp_path / "a.jp2").origin
    assert (origin.exif, origin.xmp) == (exif, PACKET)


@pytest.mark.parametrize("packed", [False, True])
def test_xmp_of_a_jpeg_xl_is_kept_or_noted(packed: bool) -> None:
    xmp = box(b"brob", b"xml " + b"by Brotli") if packed else box(b"xml ", PACKET)
    said = boxed(io.BytesIO(box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ") + xmp))
    assert said == (Boxed(parts=("compressed XMP",)) if packed else Boxed(xmp=PACKET))


@pytest.mark.parametrize(("words", "padding", "lost"), [(64_000, 0, True), (60_000, 6_000, False)])
def test_xmp_is_noted_as_lost_where_it_is_too_long_with_what_is_added(
    tmp_path: Path, words: int, padding: int, lost: bool
) -> None:
    packet = PACKET.replace(b"1931", b"1931" * (words // 4)) + b" " * padding
    photo = Photo(coloured(16), origin=Origin("JPEG", xmp=packet))
    assert lost_in(photo, provenance=MADE) == ("XMP left out",) * lost
    assert (written(photo, tmp_path, provenance=MADE).origin.xmp == b"") == lost


# Provenance


@pytest.mark.parametrize("kind", CARRIERS)
@pytest.mark.parametrize("packet", [b"", PACKET], ids=["none", "some"])
def test_a_result_says_what_made_it(tmp_path: Path, kind: str, packet: bytes) -> None:
    xmp = written(Photo(coloured(16), origin=Origin(kind, xmp=packet)), tmp_path, provenance=MADE).origin.xmp
    assert said(xmp, f"{IPTC}DigitalSourceType") == [COMPOSITE]
    note = [said(xmp, OURS + name) for name in ("Tool", "Model", "ModelSHA256", "Settings")]
    assert note == [[MADE.tool], [MADE.model], [MADE.sha256], [MADE.settings]]
    assert said(xmp, f"{XMP}CreatorTool") == (["Darkroom 3"] if packet else [MADE.tool])
    assert not packet or said(xmp, f"{DC}description") == ["Grandmother, 1931"]
    assert not packet or b"<dc:description>" in xmp, "the packet's own prefixes stay"


def test_without_provenance_the_packet_is_untouched(tmp_path: Path) -> None:
    assert written(full_photo(), tmp_path).origin.xmp == PACKET


def test_a_second_result_replaces_the_note_of_the_first() -> None:
    other = Provenance("unfade 0.2.0", "other", "cd" * 32, "")
    twice = with_provenance(with_provenance(PACKET, MADE), other)
    assert said(twice, f"{OURS}Tool") == ["unfade 0.2.0"]
    assert said(twice, f"{IPTC}DigitalSourceType") == [COMPOSITE]
    assert said(twice, f"{XMP}CreatorTool") == ["Darkroom 3"]


def test_a_wholly_generated_picture_stays_one() -> None:
    packet = PACKET.replace(b"http://cv.iptc.org/newscodes/digitalsourcetype/print", GENERATED.encode())
    assert said(with_provenance(packet, MADE), f"{IPTC}DigitalSourceType") == [GENERATED]


@pytest.mark.parametrize("packet", [b"no xml", b"<a/>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b"<a>\xff</a>"])
def test_a_packet_that_cannot_be_parsed_is_replaced(packet: bytes) -> None:
    assert parse_packet(packet) is None
    assert said(with_provenance(packet, MADE), f"{OURS}Model") == [MADE.model]


def test_control_characters_do_not_break_the_packet() -> None:
    odd = with_provenance(b"", Provenance("unfade\0", "a\x1bb", "", "two\nlines"))
    assert ElementTree.parse(io.BytesIO(odd)) is not None
    assert (said(odd, f"{OURS}Model"), said(odd, f"{OURS}Settings")) == (["ab"], ["two\nlines"])


# IPTC and texts

IPTC_BLOCK = b"\x1c\x02\x78\x00\x0dAunt, by sea!"  # 2:120, the caption


def resource(code: int, content: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", code, 0, len(content)) + content + bytes(len(content) % 2)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_iptc_is_kept(tmp_path: Path, kind: str) -> None:
    content = b"Photoshop 3.0\0" + resource(0x040A, b"\1") + resource(0x0404, IPTC_BLOCK)
    segment = b"\xff\xed" + struct.pack(">H", len(content) + 2) + content
    Image.fromarray(coloured(16)).save(tmp_path / "a.jpg", extra=segment)
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.origin.iptc == IPTC_BLOCK
    photo.origin = replace(photo.origin, kind=kind)
    assert written(photo, tmp_path).origin.iptc.rstrip(b"\0") == IPTC_BLOCK
    assert lost_in(photo) == ()
    assert lost_in(photo, kind="WEBP") == ("IPTC left out",)


def test_texts_of_a_png_are_kept(tmp_path: Path) -> None:
    said = PngImagePlugin.PngInfo()
    said.add_text("Title", "Aunt at the sea, 1957")
    said.add_text("Comment", "blown" * 100, zip=True)
    said.add_itxt("Author", "Großvater", lang="de")
    Image.fromarray(coloured(16)).save(tmp_path / "a.png", pnginfo=said)
    photo = read_photo(tmp_path / "a.png")
    assert [name for name, _ in photo.origin.texts] == [b"tEXt", b"zTXt", b"iTXt"]
    (tmp_path / "b.png").write_bytes(encode_photo(photo))
    with Image.open(tmp_path / "b.png") as image:
        assert image.text == {"Title": "Aunt at the sea, 1957", "Comment": "blown" * 100, "Author": "Großvater"}
    assert lost_in(photo, kind="JPEG") == ("texts of the PNG left out",)


def test_exif_in_a_text_of_a_png_becomes_exif(tmp_path: Path) -> None:
    block = exif_with(6).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)
    Image.fromarray(coloured(16)[:8]).save(tmp_path / "a.png", pnginfo=text)
    photo = read_photo(tmp_path / "a.png")
    assert (photo.origin.exif, photo.origin.texts) == (upright_exif(block), ())
    assert (photo.width, photo.height) == (8, 16)


def test_comments_are_kept(tmp_path: Path) -> None:
    """Those of a JPEG byte for byte, all of them; in a PNG as text."""
    picture, caption = Image.new("RGB", (16, 16), (200, 150, 120)), b"Grandma 1957, M\xfcnchen"
    picture.save(tmp_path / "a.jpg", comment=caption)
    picture.save(tmp_path / "a.gif", comment="am Strand, Köln".encode())
    plain = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "two.jpg").write_bytes(plain[:2] + b"\xff\xfe\0\x07first" + plain[2:])
    for name, comments in (
        ("a.jpg", [b"Grandma 1957, M\xfcnchen"]),
        ("two.jpg", [b"first", b"Grandma 1957, M\xfcnchen"]),
    ):
        made = Image.open(io.BytesIO(encode_photo(read_photo(tmp_path / name))))
        assert isinstance(made, JpegImagePlugin.JpegImageFile)
        assert [content for marker, content in made.applist if marker == "COM"] == comments
    for name, text in (("a.jpg", "Grandma 1957, München"), ("a.gif", "am Strand, Köln")):
        photo = read_photo(tmp_path / name)
        made = Image.open(io.BytesIO(encode_photo(photo, kind="PNG")))
        assert made.info["Comment"] == text
        assert "comment left out" not in lost_in(photo, kind="PNG")
        assert "comment left out" in lost_in(photo, kind="WEBP")
