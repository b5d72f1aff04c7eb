"""What lies in a file besides its picture is told, and XMP promises it no longer."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from drawn import coloured
from unfade.images.boxes import C2PA, boxed
from unfade.images.decoding import read_photo
from unfade.images.encoding import encode_photo
from unfade.images.packets import parse_packet
from unfade.images.parts import ISO_GAIN_MAP, without_parts
from unfade.images.photo import Photo

CONTAINER = (
    'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
    'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" '
)
HDRGM = 'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" '
CAMERA = 'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" '
FILM = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\0\x08mdat" + bytes(400)
KEPT = '<dc:title xmlns:dc="http://purl.org/dc/elements/1.1/">Aunt</dc:title>'


def packet(inner: str, spaces: str = "") -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {spaces}>{inner}{KEPT}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def directory(kind: str) -> str:
    items = "".join(
        f'<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="{one}" Item:Mime="image/jpeg"/></rdf:li>'
        for one in ("Primary", kind)
    )
    return f"<Container:Directory><rdf:Seq>{items}</rdf:Seq></Container:Directory>"


def jpeg(xmp: bytes = b"", behind: bytes = b"", extra: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(coloured(64)).save(buffer, "JPEG", **({"xmp": xmp} if xmp else {}), extra=extra)
    return buffer.getvalue() + behind


def read(folder: Path, content: bytes) -> Photo:
    (folder / "a.jpg").write_bytes(content)
    return read_photo(folder / "a.jpg")


DEPTH = 'xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/" GDepth:Mime="image/png"'
THUMBNAILS = packet("<xmp:Thumbnails/>", 'xmlns:xmp="http://ns.adobe.com/xap/1.0/"')
APPLE = packet("<a:HDRGainMapVersion>65536</a:HDRGainMapVersion>", 'xmlns:a="http://ns.apple.com/HDRGainMap/1.0/"')
MOTION = packet(directory("MotionPhoto"), CONTAINER + CAMERA + 'GCamera:MotionPhoto="1"')


@pytest.mark.parametrize(
    ("xmp", "behind", "notes"),
    [
        (packet(directory("GainMap"), CONTAINER + HDRGM), jpeg(), ("gain map (HDR) left out",)),
        (MOTION, FILM, ("motion film left out",)),
        (packet("", CAMERA + 'GCamera:MicroVideo="1" GCamera:MicroVideoOffset="9"'), FILM, ("motion film left out",)),
        (packet("", DEPTH), b"", ("depth map left out",)),
        (THUMBNAILS, b"", ("thumbnail in XMP left out",)),
        (APPLE, b"", ("gain map (HDR) left out",)),
    ],
)
def test_entries_go_with_their_parts(tmp_path: Path, xmp: bytes, behind: bytes, notes: tuple[str, ...]) -> None:
    photo = read(tmp_path, jpeg(xmp, behind))
    assert photo.notes == notes
    said = photo.origin.xmp
    assert parse_packet(said) is not None
    assert b"Aunt" in said
    for word in (b"GainMap", b"hdrgm", b"Motion", b"MicroVideo", b"Container", b"GDepth", b"Thumbnails"):
        assert word not in said
    again = read(tmp_path, encode_photo(photo))
    assert (again.notes, again.origin.xmp) == ((), said)


def test_parts_that_no_xmp_speaks_of_are_found_by_the_file(tmp_path: Path) -> None:
    assert read(tmp_path, jpeg(behind=FILM)).notes == ("motion film left out",)
    assert read(tmp_path, jpeg(behind=jpeg(b"", extra=b"") + b"tail")).notes == ("further parts left out",)
    assert read(tmp_path, jpeg(behind=bytes(300))).notes == (), "padding"
    app2 = b"\xff\xe2" + struct.pack(">H", 2 + len(ISO_GAIN_MAP) + 4) + ISO_GAIN_MAP + bytes(4)
    assert read(tmp_path, jpeg(extra=app2)).notes == ("gain map (HDR) left out",)
    picture = Image.fromarray(coloured(64))
    picture.save(tmp_path / "b.jpg", "MPO", save_all=True, append_images=[picture])
    assert read_photo(tmp_path / "b.jpg").notes == ("only the first of 2 pictures in the file is kept",)


def test_content_credentials_are_noted_as_left_out(tmp_path: Path) -> None:
    box = b"\0\0\0\x40jumb\0\0\0\x1ejumdc2pa" + bytes(12) + b"\x03c2pa\0"
    app11 = b"\xff\xeb" + struct.pack(">H", 10 + len(box)) + b"JP\0\1\0\0\0\1" + box
    app2 = b"\xff\xe2" + struct.pack(">H", 2 + len(ISO_GAIN_MAP) + 4) + ISO_GAIN_MAP + bytes(4)
    assert read(tmp_path, jpeg(extra=app11 + app2)).notes == (
        "content credentials (C2PA) left out",
        "gain map (HDR) left out",
    )
    buffer = io.BytesIO()
    Image.fromarray(coloured(16)).save(buffer, "PNG")
    chunk = struct.pack(">I", len(box)) + b"caBX" + box + struct.pack(">I", zlib.crc32(b"caBX" + box))
    assert read(tmp_path, buffer.getvalue()[:33] + chunk + buffer.getvalue()[33:]).notes == (
        "content credentials (C2PA) left out",
    )
    heif = struct.pack(">I", 24) + b"ftypavif\0\0\0\0avifmif1" + struct.pack(">I", 26) + b"meta\0\0\0\0"
    heif += struct.pack(">I", 14) + b"pitm" + bytes(6)
    assert boxed(io.BytesIO(heif + struct.pack(">I", 24) + b"uuid" + C2PA)).parts == ("content credentials (C2PA)",)


def test_a_progressive_jpeg_ends_where_it_ends(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(coloured(64)).save(buffer, "JPEG", progressive=True, restart_marker_rows=1)
    assert read(tmp_path, buffer.getvalue()).notes == ()
    assert read(tmp_path, buffer.getvalue() + FILM).notes == ("motion film left out",)


def test_a_packet_about_nothing_else_stays_byte_for_byte() -> None:
    for said in (packet(""), packet("", CAMERA + 'GCamera:BurstID="7"'), b"no packet", b""):
        assert without_parts(said, parts := []) == said
        assert parts == []


@pytest.mark.parametrize("deep", ["<a>" * 5000 + "</a>" * 5000, "<a>" * 200_000])
def test_a_deeply_nested_packet_is_left_out_and_noted(tmp_path: Path, deep: str) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        xmp = packet(deep) if kind != "JPEG" else packet(deep[:30_000])
        extra = {"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp}
        path = tmp_path / "a.bin"
        if kind == "PNG":
            path.write_bytes(encode_photo(Photo(coloured(16), origin=Photo(coloured(16)).origin.__class__(xmp=xmp))))
        else:
            Image.fromarray(coloured(16)).save(path, kind, **extra)
        photo = read_photo(path)
        assert photo.origin.xmp == b""
        assert photo.notes == ("damaged XMP left out",)
