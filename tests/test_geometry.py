"""Sizes and regions in EXIF and XMP follow the pixels when these are turned or scaled."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from drawn import upright
from unfade.images.decoding import read_photo
from unfade.images.encoding import encode_photo
from unfade.images.geometry import Move
from unfade.images.photo import Photo
from unfade.images.xmp_geometry import moved_packet

WIDTH, HEIGHT = 40, 30  # of the stored picture
FACE = (4, 6, 10, 8)  # left, top, width and height of what the metadata speaks of, in px of it
SPACES = (
    'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    'xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/" '
    'xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#" xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#" '
    'xmlns:MP="http://ns.microsoft.com/photo/1.2/" xmlns:MPReg="http://ns.microsoft.com/photo/1.2/t/Region#" '
    'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
)


def packet(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    left, top, wide, high = FACE
    x, y = (left + wide / 2) / WIDTH, (top + high / 2) / HEIGHT
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {SPACES} tiff:ImageWidth="{WIDTH}" GPano:FullPanoWidthPixels="{WIDTH}">'
        f"<exif:PixelXDimension>{WIDTH}</exif:PixelXDimension><exif:PixelYDimension>{HEIGHT}</exif:PixelYDimension>"
        f"<exif:SubjectArea><rdf:Seq><rdf:li>{left + wide / 2}</rdf:li><rdf:li>{top + high / 2}</rdf:li>"
        f"<rdf:li>{wide}</rdf:li><rdf:li>{high}</rdf:li></rdf:Seq></exif:SubjectArea>"
        f'<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="{width}" stDim:h="{height}" '
        'stDim:unit="pixel"/><mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType="Resource">'
        f'<mwg-rs:Area stArea:x="{x}" stArea:y="{y}" stArea:w="{wide / WIDTH}" stArea:h="{high / HEIGHT}" '
        'stArea:unit="normalized"/><mwg-rs:Name>Aunt</mwg-rs:Name></rdf:li></rdf:Bag></mwg-rs:RegionList>'
        "</mwg-rs:Regions><MP:RegionInfo><rdf:Description><MPReg:Rectangle>"
        f"{left / WIDTH}, {top / HEIGHT}, {wide / WIDTH}, {high / HEIGHT}</MPReg:Rectangle></rdf:Description>"
        "</MP:RegionInfo><Iptc4xmpExt:ImageRegion/></rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def stored() -> np.ndarray:
    """Black, with the region in white."""
    left, top, wide, high = FACE
    levels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    levels[top : top + high, left : left + wide] = 255
    return levels


def photo_of(folder: Path, orientation: int, kind: str = "TIFF") -> Photo:
    left, top, wide, high = FACE
    exif = Image.Exif()
    exif[0x0112], exif[0x0100], exif[0x0101] = orientation, WIDTH, HEIGHT
    exif.get_ifd(0x8769).update(
        {0xA002: WIDTH, 0xA003: HEIGHT, 0x9214: (left + wide // 2, top + high // 2, wide, high)}
    )
    exif.get_ifd(0x8769).update(
        {0xA214: (left + wide // 2, top + high // 2), 0xA20E: IFDRational(100), 0xA20F: IFDRational(200)}
    )
    how = {"exif": exif, "xmp": packet(), "lossless": True} if kind == "WEBP" else {"exif": exif, "xmp": packet()}
    Image.fromarray(stored()).save(folder / "a.bin", kind, **how)
    return read_photo(folder / "a.bin")


def box_of(levels: np.ndarray) -> tuple[float, ...]:
    """Where it is white: middle and sides, in px."""
    rows, columns = np.nonzero(levels[..., 0] > 127)
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def said_in_exif(photo: Photo) -> dict[int, object]:
    exif = Image.Exif()
    exif.load(photo.origin.exif)
    return {**dict(exif), **exif.get_ifd(0x8769)}


def numbers(xmp: bytes, before: str, count: int = 1) -> list[float]:
    """The numbers behind a word."""
    text = xmp.decode().split(before, 1)[1].replace("<rdf:li>", " ").replace("</rdf:li>", " ")
    found = "".join(sign if sign in "0123456789.- " else " " for sign in text[:400]).split()
    return [float(number) for number in found[:count]]


def check(photo: Photo) -> None:
    """All that speaks of the region speaks of where it is now."""
    width, height = photo.width, photo.height
    box, xmp, exif = box_of(photo.levels), photo.origin.xmp, said_in_exif(photo)
    assert (exif[0xA002], exif[0xA003]) == (width, height)
    assert exif[0x9214] == pytest.approx(box, abs=1)
    assert exif[0xA214] == pytest.approx(box[:2], abs=1)
    assert numbers(xmp, "<exif:PixelXDimension>") == [width]
    assert numbers(xmp, "<exif:PixelYDimension>") == [height]
    assert numbers(xmp, 'tiff:ImageWidth="') == [width]
    assert (numbers(xmp, 'stDim:w="'), numbers(xmp, 'stDim:h="')) == ([width], [height])
    area = [numbers(xmp, f'stArea:{name}="')[0] for name in "xywh"]
    assert np.multiply(area, [width, height, width, height]) == pytest.approx(box, abs=0.6)
    assert numbers(xmp, "<exif:SubjectArea><rdf:Seq>", 4) == pytest.approx(box, abs=1)
    left, top, wide, high = np.multiply(numbers(xmp, "<MPReg:Rectangle>", 4), [width, height, width, height])
    assert (left + wide / 2, top + high / 2, wide, high) == pytest.approx(box, abs=0.6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_regions_turn_with_the_picture(tmp_path: Path, kind: str, orientation: int) -> None:
    photo = photo_of(tmp_path, orientation, "PNG" if kind == "PNG" else kind)
    assert np.abs(photo.levels.astype(int) - upright(stored(), orientation)).max() < (90 if kind == "JPEG" else 1)
    if kind == "PNG":  # whose XMP Pillow does not write
        photo.origin = type(photo.origin)(**{**vars(photo.origin), "xmp": moved_packet(packet(), Move(orientation, (WIDTH, HEIGHT), (photo.width, photo.height)), [])})  # fmt: skip  # noqa: E501
    check(photo)
    exif = said_in_exif(photo)
    assert (exif[0x0100], exif[0x0101]) == (photo.width, photo.height)
    assert (exif[0xA20E], exif[0xA20F]) == ((200, 100) if orientation >= 5 else (100, 200))
    assert (b"ImageRegion" in photo.origin.xmp) == (b"GPano:Full" in photo.origin.xmp) == (orientation == 1)
    assert kind == "PNG" or len(photo.notes) == (0 if orientation == 1 else 2)


def test_regions_grow_with_the_picture(tmp_path: Path) -> None:
    small = photo_of(tmp_path, 6, "WEBP")
    levels = cv2.resize(small.levels, (small.width * 2, small.height * 2), interpolation=cv2.INTER_NEAREST)
    for kind in ("PNG", "JPEG", "WEBP"):
        (tmp_path / "b.bin").write_bytes(encode_photo(Photo(levels, None, small.origin), kind=kind))
        large = read_photo(tmp_path / "b.bin")
        check(large)
        assert said_in_exif(large)[0xA20E] == pytest.approx(400)


def test_what_does_not_move_stays_byte_for_byte(tmp_path: Path) -> None:
    photo = photo_of(tmp_path, 1, "JPEG")
    assert photo.origin.xmp == packet()
    (tmp_path / "b.bin").write_bytes(encode_photo(photo))
    again = read_photo(tmp_path / "b.bin")
    assert (again.origin.xmp, again.origin.exif) == (photo.origin.xmp, photo.origin.exif)


def test_regions_that_are_upright_already_are_not_turned() -> None:
    quarter = Move(6, (WIDTH, HEIGHT), (HEIGHT, WIDTH))
    turned, kept = (moved_packet(packet(*sides), quarter, []) for sides in ((WIDTH, HEIGHT), (HEIGHT, WIDTH)))
    before = numbers(packet(), 'stArea:x="')
    assert numbers(kept, 'stArea:x="') == before != numbers(turned, 'stArea:x="')


@pytest.mark.parametrize("noise", range(20))
def test_damaged_exif_is_ignored(tmp_path: Path, noise: int) -> None:
    buffer = io.BytesIO()
    photo = photo_of(tmp_path, 6, "JPEG")
    block = bytearray(photo.origin.exif)
    for place in np.random.default_rng(noise).integers(14, len(block), 6):
        block[place] ^= 0x5A
    Image.fromarray(stored()).save(buffer, "JPEG", exif=bytes(block))
    (tmp_path / "b.jpg").write_bytes(buffer.getvalue())
    assert read_photo(tmp_path / "b.jpg").levels.size == stored().size
