"""Faces back into photos: exactly where nothing changed, without a seam where something did."""

import cv2
import numpy as np
import pytest
import torch

from published import published_crop
from recorded import arrays, fill_module, image_u8
from test_align import centred, mapped, similarity
from unfade.errors import BadInput
from unfade.faces import paste as pasting
from unfade.faces.align import bounds, crop, inverse, scale_of, scaled, to_template
from unfade.faces.masks import parsing_mask
from unfade.faces.paste import PasteSettings, paste
from unfade.images.photo import Photo
from unfade.nets.parsenet import ParseNet, ParseNetConfig

SIZE = 32


def noise_photo(height: int = 97, width: int = 131, depth: type = np.uint8):
    return Photo(np.random.default_rng(0).integers(0, np.iinfo(depth).max, (height, width, 3), dtype=depth))


def smooth_photo(height: int = 97, width: int = 131, depth: type = np.uint8):
    """Cosines, which go on smoothly when the border mirrors them."""
    y, x = (np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in (height, width))
    planes = [0.5 + 0.2 * (a * x + (1 - a) * y[:, None]) for a in (0.2, 0.5, 0.8)]
    return Photo(np.round(np.stack(planes, -1) * np.iinfo(depth).max).astype(depth))


def copy_of(photo: Photo):
    return Photo(photo.levels.copy())


def random_matrix(rng: np.random.Generator, photo: Photo):
    """A square of 8 to 160 px somewhere in the photo, partly outside of it more often than not."""
    matrix = similarity(SIZE / np.exp(rng.uniform(np.log(8), np.log(160))), rng.uniform(-180, 180))
    middle = rng.uniform(0, 1, 2) * (photo.width, photo.height)
    matrix[:, 2] = (SIZE - 1) / 2 - matrix[:, :2] @ middle
    return matrix


def outside(photo: Photo, matrix: np.ndarray, margin: float = 0.5):
    """Pixels whose centre is not in the square; `margin` beyond the centres of its first and last pixels."""
    y, x = np.indices((photo.height, photo.width))
    place = mapped(matrix, np.stack([x, y], -1))
    return ~((place > -margin) & (place < SIZE - 1 + margin)).all(-1)


def differences(photo: Photo, before: Photo):
    return np.abs(photo.levels.astype(int) - before.levels.astype(int))


def test_the_photo_comes_back_from_a_network_that_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    rough, smooth = noise_photo(), smooth_photo()
    for _ in range(200):
        matrix = random_matrix(rng, rough)
        photo = copy_of(rough)
        face = crop(photo, matrix, SIZE)
        paste(photo, face, face, matrix)
        assert np.array_equal(photo.levels, rough.levels)
        photo = copy_of(smooth)
        face = crop(photo, matrix, SIZE)
        paste(photo, face, face, matrix, PasteSettings(way="face"))
        assert differences(photo, smooth).max() <= 1
        assert not differences(photo, smooth)[outside(photo, matrix)].any()


@pytest.mark.parametrize("way", ["change", "face", "published"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_outside_of_the_square_every_bit_stays(way: str, depth: type) -> None:
    rng, before = np.random.default_rng(2), noise_photo(depth=depth)
    for _ in range(20):
        matrix, photo = random_matrix(rng, before), copy_of(before)
        paste(photo, crop(photo, matrix, SIZE), torch.rand(3, SIZE, SIZE), matrix, PasteSettings(way=way))
        changed = differences(photo, before).any(-1)
        assert not changed[outside(photo, matrix, 0.5 if way != "published" else 1 + 2 * scale_of(matrix))].any()


@pytest.mark.parametrize("way", ["change", "face"])
@pytest.mark.parametrize(("depth", "step"), [(np.uint8, 1), (np.uint16, 2)])
def test_a_constant_added_leaves_no_seam(way: str, depth: type, step: int) -> None:
    before, added = smooth_photo(depth=depth), 0.25
    matrix = centred(0.5, 30, before, SIZE)
    photo = copy_of(before)
    face = crop(photo, matrix, SIZE)
    paste(photo, face, face + added, matrix, PasteSettings(way=way))
    most = np.iinfo(depth).max
    change = (photo.levels.astype(float) - before.levels) / most * 2
    feather = 0.15 * SIZE / scale_of(matrix)  # px of the photo
    allowed = added * 1.5 / feather * 2**0.5 + step * 2 / most + (0.01 if way == "face" else 0)
    for axis in (0, 1):
        assert np.abs(np.diff(change, axis=axis)).max() <= allowed
    assert change[48, 65] == pytest.approx(added, abs=0.01)


@pytest.mark.parametrize("way", ["change", "face"])
def test_the_feather_has_an_effect(way: str) -> None:
    sums = []
    for feather in (0.05, 0.15, 0.4):
        photo = smooth_photo()
        matrix = centred(0.5, 0, photo, SIZE)
        paste(photo, face := crop(photo, matrix, SIZE), face + 0.2, matrix, PasteSettings(way, feather))
        sums.append(differences(photo, smooth_photo()).sum())
    assert sums[0] > 1.1 * sums[1] > 1.1 * sums[2]


@pytest.mark.parametrize("way", ["change", "face"])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_face_lands_on_its_place_in_an_enlarged_photo(way: str, factor: int) -> None:
    small = Photo(np.full((60, 80, 3), 100, np.uint8))
    matrix = similarity(0.9, 20, 3, -8)
    face = crop(small, matrix, 64)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    spot = torch.exp(-((x - 30.3) ** 2 + (y - 33.6) ** 2) / 18)
    for times in (1, 2):  # a network that enlarges puts it there too
        photo = Photo(small.levels.repeat(factor, 0).repeat(factor, 1).astype(np.uint16) * 257)
        restored = torch.nn.functional.interpolate((face + spot)[None], scale_factor=times, mode="bicubic")[0]
        paste(photo, face, restored, scaled(matrix, factor), PasteSettings(way=way))
        weight = photo.levels[..., 0].astype(float) - 100 * 257
        weight *= weight > 0.02 * weight.max()
        rows, columns = np.indices(weight.shape)
        found = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        expected = (mapped(inverse(matrix), (30.3, 33.6)) + 0.5) * factor - 0.5
        assert np.abs(found - expected).max() < 0.05 * factor


@pytest.mark.parametrize("factor", [2, 4])
def test_an_enlarged_photo_comes_back_too(factor: int) -> None:
    small = noise_photo(30, 40)
    matrix = centred(1.5, 12, small, SIZE)
    photo = Photo(cv2.resize(small.levels, None, fx=factor, fy=factor, interpolation=cv2.INTER_LANCZOS4))
    before, face = copy_of(photo), crop(small, matrix, SIZE)
    paste(photo, face, face, scaled(matrix, factor))
    assert np.array_equal(photo.levels, before.levels)


def test_detail_finer_than_the_network_stays() -> None:
    before = noise_photo()
    matrix, photo = centred(0.3, 0, before, SIZE), copy_of(before)
    paste(photo, face := crop(photo, matrix, SIZE), face + 0.05, matrix)
    inner = photo.levels[30:60, 50:80].astype(float), before.levels[30:60, 50:80].astype(float)
    assert np.corrcoef(inner[0].ravel(), inner[1].ravel())[0, 1] > 0.99


def test_a_small_face_is_not_aliased() -> None:
    checks = (torch.arange(256)[:, None] + torch.arange(256)) % 2 * 0.8 - 0.4
    for way in ("change", "face"):
        photo = Photo(np.full((60, 60, 3), 128, np.uint8))
        matrix = centred(256 / 21, 10, photo, 256)
        paste(photo, torch.zeros(3, 256, 256), checks.expand(3, -1, -1), matrix, PasteSettings(way=way))
        assert np.abs(photo.levels.astype(int) - 128).max() <= 3


def test_overlapping_faces_share_the_change() -> None:
    before = smooth_photo()
    matrices = [similarity(0.5, degrees, x, y) for degrees, x, y in ((0, -5, -8), (0, -20, -9), (20, -12, -25))]
    faces = [crop(before, matrix, SIZE) for matrix in matrices]
    results = []
    for order in ((0, 1, 2), (2, 0, 1)):
        photo = copy_of(before)
        for k in order:
            others = [matrix for j, matrix in enumerate(matrices) if j != k]
            paste(photo, faces[k], faces[k] + 0.2, matrices[k], others=others)
        results.append(photo)
    change = results[0].levels.astype(int) - before.levels.astype(int)
    assert change.min() >= 0
    assert 24 <= change.max() <= 28  # 0.2 is 25.5 levels; three times rounded
    assert np.abs(np.diff(change, axis=1)).max() <= 0.2 * 127.5 * 1.5 / 9.6 * 2 + 2
    assert differences(results[0], results[1]).max() <= 2


def test_faces_that_only_come_near_do_not_disturb_each_other() -> None:
    alone, beside = smooth_photo(), smooth_photo()
    matrix, other = similarity(1, 0, -10, -10), similarity(1, 0, -50, -10)
    face = crop(alone, matrix, SIZE)
    paste(alone, face, face + 0.2, matrix)
    paste(beside, face, face + 0.2, matrix, others=[other])
    assert np.array_equal(alone.levels, beside.levels)


def test_a_face_outside_of_the_photo_changes_nothing() -> None:
    for way in pasting.WAYS:
        for x, y in ((-500, 0), (200, 0), (0, -500), (0, 200)):
            photo, face = noise_photo(), torch.zeros(3, SIZE, SIZE)
            paste(photo, face, face + 1, similarity(1, 0, x, y), PasteSettings(way=way))
            assert np.array_equal(photo.levels, noise_photo().levels)


@pytest.mark.parametrize("way", ["change", "face", "published"])
def test_a_photo_smaller_than_its_face(way: str) -> None:
    photo = noise_photo(5, 7)
    matrix = centred(9, 15, photo, 256)
    assert bounds(matrix, 256)[0] < -5
    face = crop(photo, matrix, 256)
    paste(photo, face, face + 0.5, matrix, PasteSettings(way=way))
    assert photo.levels.mean() > noise_photo(5, 7).levels.mean() + 30


def test_strips_are_invisible(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for strip in (2**20, 300):
        monkeypatch.setattr(pasting, "STRIP", strip)
        photo = smooth_photo()
        matrix = centred(0.4, 33, photo, SIZE)
        paste(
            photo, crop(photo, matrix, SIZE), torch.from_numpy(image_u8(SIZE, SIZE, 4)).permute(2, 0, 1) / 255, matrix
        )
        results.append(photo)
    assert differences(*results).max() <= 1


def test_a_mask_says_where() -> None:
    photo, before, mask = smooth_photo(), smooth_photo(), torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1
    matrix = similarity(1, 0, -40, -30)
    for way in pasting.WAYS:
        photo = smooth_photo()
        paste(photo, face := crop(photo, matrix, SIZE), face + 0.2, matrix, PasteSettings(way=way), mask=mask)
        changed = differences(photo, before).any((0, 2))
        assert changed[45:55].all()
        assert not changed[58:].any()


def test_ring_takes_the_colour_of_the_photo() -> None:
    sums = {}
    for colour in pasting.COLOURS:
        photo = smooth_photo()
        matrix = centred(0.5, 0, photo, SIZE)
        face = crop(photo, matrix, SIZE)
        paste(
            photo, face, face * 0.8 + torch.tensor([0.2, -0.1, 0.1]).view(3, 1, 1), matrix, PasteSettings(colour=colour)
        )
        sums[colour] = differences(photo, smooth_photo()).max()
    assert sums["none"] > 20
    assert sums["ring"] <= 1


def test_the_published_paste() -> None:
    golden, pixels = arrays("paste_back"), image_u8(300, 400, 31)
    matrix = to_template(golden["landmarks"], 512)
    face = published_crop(Photo(pixels), matrix, 512)
    restored = (((face + 1) * 127.5).round() + 40).clamp(0, 255) / 127.5 - 1
    recipes = (  # they differ in how the photo was enlarged
        ("x1_bgr_both_every2", 1, 2, cv2.INTER_LINEAR),
        ("facexlib_x2_bgr_every3", 2, 3, cv2.INTER_LANCZOS4),
        ("codeformer_x2_bgr_every3", 2, 3, cv2.INTER_LINEAR),
    )
    for name, factor, step, kernel in recipes:
        photo = Photo(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=kernel))
        paste(photo, face, restored, scaled(matrix, factor), PasteSettings(way="published", upscale=factor))
        assert np.abs(photo.levels[::step, ::step, ::-1].astype(int) - golden[name]).max() <= 2, name


@pytest.mark.parametrize(("factor", "step"), [(1, 2), (2, 4)])
def test_the_published_mask(factor: int, step: int) -> None:
    golden = arrays("paste_back")
    back = golden[f"inverse_facexlib_x{factor}_after_offset"]
    soft = pasting._published_mask(back, 512, (400 * factor, 300 * factor), factor)[::step, ::step]
    # recorded with positions in steps of 1/32 px, which OpenCV 5 has no more; 1e-3 is a quarter of an 8-bit level
    np.testing.assert_allclose(soft, golden[f"soft_mask_x{factor}_every{step}"], atol=1e-3)


def test_what_cannot_be_pasted() -> None:
    photo, face = noise_photo(), torch.zeros(3, SIZE, SIZE)
    for wrong in (face[None], face[:1], face[:, 1:]):
        with pytest.raises(BadInput, match="one square face"):
            paste(photo, wrong, face, similarity(1, 0))
    with pytest.raises(BadInput, match="one square face"):
        paste(photo, face, face, similarity(1, 0), mask=face)
    for settings in ({"way": "glue"}, {"colour": "red"}, {"feather": -0.1}, {"feather": 0.6}):
        with pytest.raises(BadInput):
            PasteSettings(**settings)


@pytest.mark.parametrize("size", [64, 512])
def test_a_parsing_mask_is_full_on_a_face_and_empty_at_the_border(size: int) -> None:
    net = fill_module(ParseNet(ParseNetConfig(width=2, widest=4, blocks=1))).eval()
    for wanted, middle in ((1, 1.0), (17, 0.0)):  # skin, neck
        net.out_mask_conv.conv2d.bias.data = 1000.0 * torch.nn.functional.one_hot(torch.tensor(wanted), 19)
        mask = parsing_mask(net, torch.zeros(3, size, size))
        assert mask.shape == (1, size, size)
        assert mask[0, size // 2, size // 2] == pytest.approx(middle, abs=1e-5)
        assert mask[0, 0].max() < (1e-6 if size == 512 else 1e-3)
        assert 0 <= mask.min() <= mask.max() <= 1
