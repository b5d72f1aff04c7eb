"""The border between files and tensors: whatever a folder holds becomes the picture, or one sentence about the file."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array
from PIL import Image, TiffImagePlugin

from toys import levels
from unfade.errors import BadInput, UnreadableImage
from unfade.images.files import encode, from_bytes, read_image, read_picture, to_bytes, write_png
from unfade.images.finding import list_images

ORIENTATION = 0x0112
UPRIGHT = {  # how a stored picture is turned for each EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def refusal(path: Path) -> str:
    """The sentence about a file that cannot be read: one sentence that starts with the path and says a way out."""
    with pytest.raises(UnreadableImage) as caught:
        read_picture(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    rest = sentence.removeprefix(str(path))
    assert rest.endswith(".")
    assert not re.search(r"\n|[.!?]\s", rest), "more than one sentence"
    assert re.search(r"; (get|convert|save|check|make)", rest), "no way out"
    return rest


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


# Bytes and tensors


@given(any_array(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))))
def test_levels_survive_the_way_to_a_tensor_and_back(pixels: np.ndarray) -> None:
    image = from_bytes(pixels)
    assert image.shape == (3, *pixels.shape[:2])
    assert image.dtype == torch.float32
    assert image.abs().max() <= 1
    assert np.array_equal(to_bytes(image), pixels)


def test_black_is_minus_one_and_white_is_one() -> None:
    assert from_bytes(np.array([[[0, 255, 51]]], np.uint8)).flatten().tolist() == pytest.approx([-1.0, 1.0, -0.6])


def test_values_outside_are_clamped_and_others_rounded() -> None:
    image = torch.tensor([-3.0, 3.0, -1 + 0.6 / 127.5])[:, None, None]
    assert to_bytes(image).flatten().tolist() == [0, 255, 1]


def test_a_written_png_is_read_as_it_was(tmp_path: Path) -> None:
    pixels = levels(1)[:, :11]
    write_png(tmp_path / "new folder" / "a.png", from_bytes(pixels))
    assert np.array_equal(to_bytes(read_image(tmp_path / "new folder" / "a.png")), pixels)


def test_quality_changes_a_jpeg() -> None:
    image = from_bytes(levels(1))
    assert len(encode(image, "JPEG", quality=30)) < len(encode(image, "JPEG", quality=95))


# Odd pictures become RGB, and the notes say what was converted


def test_a_plain_picture_has_no_notes(tmp_path: Path) -> None:
    Image.fromarray(levels(1)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").notes == ()


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (255, 0, 51)).save(tmp_path / "a.png")
    assert to_bytes(read_image(tmp_path / "a.png")).tolist() == [[[255, 0, 51]]]


def test_grey(tmp_path: Path) -> None:
    Image.fromarray(levels(1)[..., 0]).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(to_bytes(picture.pixels), levels(1)[..., :1].repeat(3, 2))
    assert picture.notes == ("grey converted to RGB",)


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(levels(1)[..., 0] > 127).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(to_bytes(picture.pixels)[..., 0], (levels(1)[..., 0] > 127) * np.uint8(255))
    assert picture.notes == ("black and white converted to grey", "grey converted to RGB")


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_grey_of_16_bits_keeps_its_brightness(tmp_path: Path, name: str) -> None:
    deep = levels(1)[..., 0].astype(np.uint16) * 257
    deep[0, 0] = 300  # 1.17 levels of 8 bits
    cv2.imwrite(str(tmp_path / name), deep)
    picture = read_picture(tmp_path / name)
    expected = levels(1)[..., 0].copy()
    expected[0, 0] = 1
    assert np.array_equal(to_bytes(picture.pixels)[..., 1], expected)
    assert picture.notes == ("16 bits brought to 8", "grey converted to RGB")


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_colour_of_16_bits(tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(tmp_path / name), levels(1)[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(to_bytes(read_image(tmp_path / name)), levels(1))


def test_cmyk_jpeg(tmp_path: Path) -> None:
    cmyk = Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (0, 255, 255, 0)])  # red
    cmyk.save(tmp_path / "a.jpg", quality=95)
    picture = read_picture(tmp_path / "a.jpg")
    assert (picture.pixels.mean((1, 2)) - torch.tensor([1.0, -1.0, -1.0])).abs().max() < 0.05
    assert picture.notes == ("CMYK converted to RGB without a colour profile",)


def test_palette(tmp_path: Path) -> None:
    few = (levels(1) // 128 * 255).astype(np.uint8)  # eight colours
    Image.fromarray(few).quantize(8).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(to_bytes(picture.pixels), few)
    assert picture.notes == ("palette converted to RGB",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.convert(mode).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert to_bytes(picture.pixels).tolist() == [[[255] * 3, [0] * 3]]
    assert "transparency laid over white" in picture.notes


def test_an_alpha_channel_that_hides_nothing_is_not_noted(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 1), (10, 20, 30, 255)).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert (to_bytes(picture.pixels).tolist(), picture.notes) == ([[[10, 20, 30]] * 2], ())


def test_half_transparent_black_is_grey(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert to_bytes(read_image(tmp_path / "a.png")).flatten().tolist() == [127] * 3


def test_one_colour_of_a_palette_may_be_transparent(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    assert to_bytes(read_image(tmp_path / "a.png")).tolist() == [[[255] * 3, [40, 50, 60]]]


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    stored = levels(1)[:10]
    Image.fromarray(stored).save(tmp_path / "a.png", exif=oriented(orientation))
    assert np.array_equal(to_bytes(read_image(tmp_path / "a.png")), UPRIGHT[orientation](stored))


def test_a_jpeg_is_turned_upright(tmp_path: Path) -> None:
    Image.fromarray(levels(1)[:10]).save(tmp_path / "a.jpg", exif=oriented(6))
    assert read_image(tmp_path / "a.jpg").shape == (3, 16, 10)


def test_what_is_converted_is_turned_upright_too(tmp_path: Path) -> None:
    deep = np.arange(6, dtype=np.uint16).reshape(2, 3) * 50 * 257
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[ORIENTATION] = 6
    Image.fromarray(deep).save(tmp_path / "a.tiff", tiffinfo=tags)
    assert to_bytes(read_image(tmp_path / "a.tiff"))[..., 0].tolist() == [[150, 0], [200, 50], [250, 100]]
    Image.new("RGBA", (3, 2), (0, 0, 0, 9)).save(tmp_path / "a.png", exif=oriented(8))
    assert read_image(tmp_path / "a.png").shape == (3, 3, 2)


def test_a_gif_of_one_frame_is_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "a.gif")
    assert to_bytes(read_image(tmp_path / "a.gif"))[0, 0].tolist() == [255, 0, 0]


def test_the_first_page_of_a_tiff_is_taken(tmp_path: Path) -> None:
    Image.fromarray(levels(1)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(levels(2))])
    assert np.array_equal(to_bytes(read_image(tmp_path / "a.tif")), levels(1))


# Bad files: one sentence, and nothing else ever


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(levels(1)).save(path, kind, save_all=True, append_images=[Image.fromarray(levels(2))])
    assert "animation of 2 frames" in refusal(path)


def test_a_text_file_is_not_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("Dear diary,\nnothing happened today.\n")
    assert "not a picture" in refusal(tmp_path / "a.jpg")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert "is empty" in refusal(tmp_path / "a.jpg")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    assert "cannot be opened (No such file or directory)" in refusal(tmp_path / "a.jpg")
    assert "cannot be opened (Is a directory)" in refusal(tmp_path / "folder.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.gif", "a.ppm"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_a_file_that_is_cut_off(tmp_path: Path, name: str, share: float) -> None:
    Image.fromarray(levels(1, 32)).save(tmp_path / name)
    assert refusal(cut(tmp_path / name, share))


def test_a_cut_off_file_says_how_much_there_is(tmp_path: Path) -> None:
    Image.fromarray(levels(1, 32)).save(tmp_path / "a.png")
    assert "damaged or cut off (1,5" in refusal(cut(tmp_path / "a.png", 0.5))


def test_a_cut_off_animation(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    Image.fromarray(levels(1)).save(path, save_all=True, append_images=[Image.fromarray(levels(2))])
    content, refused = path.read_bytes(), 0
    for length in range(0, len(content), 9):
        path.write_bytes(content[:length])
        try:
            read_picture(path)  # the first frame, where nothing tells of a second
        except UnreadableImage:
            refused += bool(refusal(path))
    assert refused > len(content) // 9 / 2


def test_damaged_exif_does_no_harm(tmp_path: Path) -> None:
    exif = oriented(6)
    exif[0x010F] = "maker"
    Image.fromarray(levels(1)[:10]).save(tmp_path / "a.webp", exif=exif)
    content = (tmp_path / "a.webp").read_bytes()
    at = content.index(b"\x01\x0f\x00\x02")
    (tmp_path / "a.webp").write_bytes(content[:at] + b"\x01\x03" + content[at + 2 :])  # a text where a number belongs
    assert read_image(tmp_path / "a.webp").shape == (3, 16, 10)


def test_far_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(levels(1)).save(tmp_path / "a.png")
    monkeypatch.setenv("UNFADE_MEGAPIXELS", "0.0001")
    assert "more than the 0.0001 megapixels that are read" in refusal(tmp_path / "a.png")
    monkeypatch.setenv("UNFADE_MEGAPIXELS", "much")
    with pytest.raises(BadInput, match="UNFADE_MEGAPIXELS is 'much'; set it to a number"):
        read_picture(tmp_path / "a.png")


# Folders and names


@pytest.mark.parametrize("name", ["Ünïcødé – 写真 😀.png", " .png", "a b  c.PNG", "two.dots.png", "-rf.png", "%d.png"])
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    write_png(tmp_path / name, from_bytes(levels(1)))
    assert [path.name for path in list_images(tmp_path)] == [name]
    assert np.array_equal(to_bytes(read_image(tmp_path / name)), levels(1))


def test_only_pictures_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "c.txt", ".hidden.png", "._b.jpg", "noend"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.PNG", "b.jpg"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    for path, why in ((tmp_path, "holds no pictures"), (tmp_path / "a.txt", "not a folder"), (tmp_path / "b", "not a")):
        with pytest.raises(BadInput, match=why) as caught:
            list_images(path)
        assert str(caught.value).startswith(str(path))
