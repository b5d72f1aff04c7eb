"""Photos of more pixels: positions, bits, alpha and what the file said."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from drawn import coloured, ramp
from marked import LEVEL, Place, load, statuses
from unfade.errors import BadInput
from unfade.faces.align import crop, scaled
from unfade.images.decoding import read_photo
from unfade.images.encoding import encode_photo
from unfade.images.enlarge import brought_to, enlarged
from unfade.images.photo import Origin, Photo
from unfade.stages.restore_photos import Parts, PhotoSettings


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def twice(photo: Photo) -> Photo:
    return enlarged(photo, 2)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("most", [255, 65535])
def test_positions_are_those_of_align(scale: int, most: int) -> None:
    """A slope stays the same slope where the kernel sees nothing else: values tell where pixels went."""
    across = np.arange(40) * (most // 64)
    levels = np.stack([np.tile(across, (30, 1)), np.tile(across[:30, None], (1, 40)), np.zeros((30, 40))], -1)
    large = enlarged(Photo(levels.astype(np.uint8 if most == 255 else np.uint16)), scale)
    assert (large.height, large.width) == (30 * scale, 40 * scale)
    inner = slice(8 * scale, 22 * scale)
    places = (np.arange(40 * scale) + 0.5) / scale - 0.5
    expected = places[inner] * (most // 64)
    tolerance = max(1, most // 64 * 0.02)  # the kernel's own: it is no polynomial
    assert np.abs(large.levels[inner, inner, 0] - expected[None]).max() <= tolerance
    assert np.abs(large.levels[inner, inner, 1] - expected[:, None]).max() <= tolerance


@pytest.mark.parametrize("scale", [2, 4])
def test_a_crop_of_the_enlarged_photo_is_the_crop_of_the_photo(scale: int) -> None:
    pixels = cv2.GaussianBlur(coloured(96), (0, 0), 2)
    matrix = np.array([(0.5, 0.2, -9.0), (-0.2, 0.5, 4.0)])
    small, large = Photo(pixels), enlarged(Photo(pixels), scale)
    difference = crop(small, matrix, 32) - crop(large, scaled(matrix, scale), 32)
    assert difference.abs().mean() <= 0.006
    moved = crop(large, scaled(matrix + np.array([(0, 0, 0.25), (0, 0, 0)]), scale), 32)  # a quarter of a pixel is seen
    assert (crop(small, matrix, 32) - moved).abs().mean() > 4 * difference.abs().mean()


def test_scale_1_is_a_copy_and_everything_else_is_kept() -> None:
    origin = Origin("PNG", exif=b"Exif", dpi=(300.0, 300.0), grey=True)
    photo = Photo(ramp(20, 30), ramp(20, 30)[..., 0], origin, ("a note",))
    same, large = enlarged(photo, 1), enlarged(photo, 2)
    assert np.array_equal(same.levels, photo.levels)
    assert same.levels is not photo.levels
    assert same.alpha is not None
    assert np.array_equal(same.alpha, ramp(20, 30)[..., 0])
    assert large.alpha is not None
    assert large.alpha.shape == (40, 60)
    assert (large.origin, large.notes) == (origin, ("a note",))


def test_sixteen_bits_and_grey_stay(tmp_path: Path) -> None:
    levels = np.repeat((ramp(20, 30)[..., :1].astype(np.uint16) * 257), 3, -1)
    photo = Photo(levels, origin=Origin("PNG", grey=True, dpi=(240.0, 240.0)))
    (tmp_path / "a.png").write_bytes(encode_photo(enlarged(photo, 4)))
    again = read_photo(tmp_path / "a.png")
    assert again.levels.dtype == np.uint16
    assert again.origin.grey
    assert again.origin.dpi == pytest.approx((240, 240), abs=0.1)
    assert (again.height, again.width) == (80, 120)


def test_tensors_are_brought_to_a_size() -> None:
    pixels = torch.arange(2 * 3 * 16.0).reshape(3, 4, 8)
    assert brought_to(pixels, 4, 8) is pixels
    assert torch.equal(brought_to(pixels, 2, 4), torch.nn.functional.avg_pool2d(pixels[None], 2)[0])
    assert brought_to(pixels, 12, 24).shape == (3, 12, 24)
    flat = torch.full((3, 8, 8), 0.5)
    torch.testing.assert_close(brought_to(flat, 32, 32), torch.full((3, 32, 32), 0.5))


# In a run


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_results_are_larger_with_faces_in_their_places(place: Place, kind: str) -> None:
    place.save(f"a.{kind}", (30, 18, 24))
    (entry,) = place.run(parts=Parts(twice), scale=2)
    assert entry.status == "done"
    result = load(place.out / f"a.{kind}")
    assert result.shape == (120, 180, 3)
    large = enlarged(read_photo(place.photos / f"a.{kind}"), 2).levels.astype(int)
    change = np.abs(result - large).max(-1)
    assert change[:, :20].max() <= (0 if kind == "png" else 12)
    assert result[59, 83].mean() < LEVEL - 40, "the restorer halves it"
    for axis, middle in ((0, 59.5), (1, 83.5)):
        places = np.flatnonzero((change > 15).any(1 - axis))
        assert (places[0] + places[-1]) / 2 == pytest.approx(middle, abs=1.5)
        assert 60 <= places[-1] - places[0] <= 92, "the square is 1.9 times the mark's 48 px"


def test_strength_0_at_a_scale_is_the_enlarged_photo(place: Place) -> None:
    photo = place.save("a.png", (10, 10, 20))
    place.run(parts=Parts(twice), scale=2, strength=0.0)
    assert np.array_equal(load(place.out / "a.png"), twice(read_photo(photo)).levels)


def test_photos_without_a_face_are_copied_at_the_same_scale(place: Place) -> None:
    photo = place.save("a.png")
    assert statuses(place.run(parts=Parts(twice), scale=2, copy=True)) == {"a.png": "no_face"}
    assert np.array_equal(load(place.out / "a.png"), twice(read_photo(photo)).levels)


def test_a_picture_too_large_for_its_format_fails_alone(place: Place) -> None:
    place.save("a.webp", (10, 10, 20), lossless=True)
    place.save("b.png", (10, 10, 20))

    def wide(photo: Photo) -> Photo:
        return Photo(np.zeros((240, 17_000, 3), np.uint8), origin=photo.origin)

    entries = place.run(parts=Parts(wide), scale=4)
    assert statuses(entries) == {"a.webp": "failed", "b.png": "done"}
    assert "choose another `kind`" in entries[0].reason


@pytest.mark.parametrize("scale", [0, 3, 8, -1])
def test_other_scales_are_refused(scale: int) -> None:
    with pytest.raises(BadInput, match=rf"^Expected `scale` to be 1, 2 or 4, got {scale}\.$"):
        PhotoSettings(scale=scale)


def test_a_scale_needs_what_enlarges(place: Place) -> None:
    place.save("a.png")
    with pytest.raises(BadInput, match=r"Parts\.enlarge"):
        place.run(scale=2)
