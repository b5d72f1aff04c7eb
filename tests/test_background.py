"""What lies around the faces, through a network: no seams, no other size or depth, and the flags that ask for it."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import unfade.recipes.restore
import unfade.recipes.sources
import unfade.restorers.upscale
from command import Run
from drawn import coloured
from marked import Place, load, save, scene, squares
from recorded import picture
from test_spandrel import compact, needs_extra
from unfade.errors import BadCheckpoint, BadInput, OutputConflict, UnknownModel
from unfade.images.decoding import read_photo
from unfade.images.enlarge import brought_to, enlarged
from unfade.images.photo import Origin, Photo
from unfade.recipes.restore import RestoreSettings, background_of, restore
from unfade.recipes.sources import FindSettings
from unfade.restorers.image_level import from_unit, to_unit
from unfade.restorers.upscale import TILE, Upscaler, loaded_upscaler
from unfade.stages.background import through, tiled
from unfade.stages.restore_photos import Parts, PhotoSettings
from unfade.zoo.load import Loaded


class Looking:
    """A random convolution that looks `reach` px far and gives `factor` times as many."""

    def __init__(self, *, reach: int = 4, factor: int = 1, tile: int = 64) -> None:
        self.tile, self.factor, self.reach = tile, factor, reach
        side, generator = 2 * reach + 1, torch.Generator().manual_seed(0)
        self.kernel = torch.randn(3 * factor**2, 3, side, side, generator=generator) / side
        self.together: list[int] = []

    def whole(self, image: Tensor) -> Tensor:
        seen = torch.nn.functional.conv2d(image, self.kernel, padding=self.reach)
        return torch.nn.functional.pixel_shuffle(torch.tanh(seen), self.factor)

    def __call__(self, image: Tensor, /) -> Tensor:
        assert image.shape[1:] == (3, self.tile, self.tile)
        self.together.append(len(image))
        return self.whole(image)


class Same(Looking):
    """Gives each pixel `factor` times back."""

    def whole(self, image: Tensor) -> Tensor:
        return image.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)


def photo_of(height: int, width: int, dtype: type = np.uint8, seed: int = 3) -> Photo:
    most = np.iinfo(dtype).max
    levels = ((picture(height, width, seed)[0].permute(1, 2, 0).numpy() + 1) / 2 * most).round().astype(dtype)
    return Photo(levels, origin=Origin("PNG", dpi=(300.0, 300.0)), notes=("a note",))


def region(photo: Photo) -> Tensor:
    return photo.region((0, 0, photo.width, photo.height))


@pytest.mark.parametrize(("factor", "scale"), [(1, 1), (2, 2), (4, 4), (4, 2), (2, 1), (4, 1)])
@pytest.mark.parametrize("size", [(64, 64), (120, 176), (64, 200)])
def test_tiles_give_what_the_whole_photo_gives(factor: int, scale: int, size: tuple[int, int]) -> None:
    photo, network = photo_of(*size, np.uint16), Looking(reach=7, factor=factor)
    result = tiled(photo, network, scale=scale)
    expected = brought_to(network.whole(region(photo)[None])[0], size[0] * scale, size[1] * scale)
    assert (result.levels.dtype, result.origin, result.notes) == (np.uint16, photo.origin, photo.notes)
    assert (region(result) - expected).abs().max() <= 1.5 * 2 / 65535


@pytest.mark.parametrize("size", [(65, 130), (127, 63), (5, 9), (1, 1), (203, 71)])
def test_any_size_comes_back_without_visible_seams(size: tuple[int, int]) -> None:
    """A network that changes nothing gives the photo back, whatever the tiles."""
    photo = photo_of(*size)
    assert np.array_equal(tiled(photo, Same(), scale=1).levels, photo.levels)
    large = tiled(photo, Same(factor=2), scale=2)
    assert np.array_equal(large.levels, photo.levels.repeat(2, 0).repeat(2, 1))


def test_a_network_of_less_factor_is_brought_up_by_lanczos() -> None:
    photo = photo_of(120, 120)
    difference = tiled(photo, Same(), scale=2).levels.astype(int) - enlarged(photo, 2).levels
    assert np.abs(difference).max() <= 3, "OpenCV rounds the kernel for 8 bits"


def test_what_looks_farther_goes_over_gradually() -> None:
    """Tiles that differ as much as they can: across the middle of what they share there is no step."""

    class Alternating(Same):
        def whole(self, image: Tensor) -> Tensor:
            return torch.stack([torch.full_like(one, i % 2) for i, one in enumerate(image)])

    result = region(tiled(Photo(np.zeros((64, 160, 3), np.uint8)), Alternating(), scale=1, batch=8))
    steps = result[0].diff(dim=-1).abs()
    assert result[0].max() == 1
    assert steps.max() <= 1 / 16 + 0.01
    assert result[0].diff(dim=0).abs().max() == 0


def test_tiles_go_together_and_are_equal() -> None:
    network = Looking()
    tiled(photo_of(64, 320), network, scale=1, batch=4)
    assert network.together == [4, 4, 1]  # a step of 32


def test_alpha_is_enlarged_and_tone_is_kept() -> None:
    grey = np.repeat(coloured(80)[..., :1], 3, -1)
    photo = Photo(grey, alpha=grey[..., 0], origin=Origin(grey=True))
    result = through(Looking(factor=2), scale=2)(photo)
    assert result.alpha is not None
    assert np.array_equal(result.alpha, enlarged(photo, 2).alpha)
    assert np.ptp(result.levels.astype(int), axis=-1).max() <= 1, "the network gives colours"
    assert np.ptp(through(Looking(factor=2), scale=2, colour=True)(photo).levels.astype(int), axis=-1).max() > 20


def test_threads_take_turns() -> None:
    inside, most = [0], [0]

    class Counting(Same):
        def __call__(self, image: Tensor, /) -> Tensor:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            result = super().__call__(image)
            threading.Event().wait(0.01)
            inside[0] -= 1
            return result

    enlarge, photo = through(Counting(), scale=1), photo_of(64, 64)
    threads = [threading.Thread(target=enlarge, args=(photo,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_values_other_than_numbers_are_refused() -> None:
    class Poisoned(Same):
        def whole(self, image: Tensor) -> Tensor:
            return image * torch.nan

    with pytest.raises(BadInput, match="not numbers"):
        tiled(photo_of(64, 64), Poisoned(), scale=1)


@pytest.mark.parametrize(("tile", "overlap"), [(60, 8), (32, 16)])
def test_tiles_that_are_too_small(tile: int, overlap: int) -> None:
    with pytest.raises(BadInput, match=f"got {tile}"):
        tiled(photo_of(64, 64), Same(tile=tile), scale=1, overlap=overlap)


# In a run


def test_a_face_replaces_what_the_background_made_of_it(tmp_path: Path) -> None:
    """Cropped again, so the face is the restorer's alone and not changed twice."""
    place = Place(tmp_path)
    place.save("a.png", (10, 10, 30))

    def brighter(photo: Photo) -> Photo:
        return replace(photo, levels=(photo.levels // 2 + 100).astype(np.uint8))

    plain = load_after(place, Parts())
    twice = load_after(place, Parts(brighter))
    once = load_after(place, Parts(brighter, recrop=True))
    around = brighter(read_photo(place.photos / "a.png")).levels
    assert np.array_equal(once[56:], around[56:])
    middle = slice(20, 30), slice(20, 30)
    assert np.abs(once[middle] - plain[middle]).max() <= 2
    assert np.abs(twice[middle] - plain[middle]).max() >= 10


def load_after(place: Place, parts: Parts) -> np.ndarray:
    for path in (place.out / "a.png", place.folder / "journal.jsonl"):
        path.unlink(missing_ok=True)
    place.run(parts=parts)
    return load(place.out / "a.png")


# The choice


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photo, and a file that stands for the detector of marks."""
    save(tmp_path / "photos" / "a.png", scene((10, 10, 30), height=80, width=100))
    (tmp_path / "marks.onnx").write_text("marks")
    marks = Loaded(squares, tmp_path / "marks.onnx", "marks", "unknown")
    monkeypatch.setattr(unfade.recipes.sources, "loaded_detector", lambda name, device: marks)
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path


def test_what_the_choices_mean() -> None:
    plain, large = PhotoSettings(), PhotoSettings(scale=2)
    for name, settings in ((None, plain), ("none", plain), ("lanczos", plain)):
        assert background_of(name, settings).enlarge is None
        assert background_of(name, settings).identity == {}
    for name in (None, "lanczos"):
        found = background_of(name, large)
        photo = photo_of(10, 12)
        assert found.enlarge is not None
        assert np.array_equal(found.enlarge(photo).levels, enlarged(photo, 2).levels)
        assert not found.recrop
    with pytest.raises(BadInput, match=r"^Photos 2 times as large need a `background`: lanczos, or a model\.$"):
        background_of("none", large)
    with pytest.raises(UnknownModel, match=r"realesrgan-x2.* none or lanczos"):
        background_of("nonsense", plain)


def test_a_model_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    with pytest.raises(UnknownModel, match="unfade models pull realesrgan-x2"):
        background_of("realesrgan-x2", PhotoSettings())


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"")
    monkeypatch.setattr(unfade.restorers.upscale, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install unfade\[archs\]"):
        loaded_upscaler(tmp_path / "a.pth")


def test_the_flags_arrive(marks: Path, models: tuple[Path, Path], run: Run) -> None:
    args = ("restore", marks / "photos", "--restorer", models[0], "--detector", marks / "marks.onnx", "--device", "cpu")
    result = run(*args, "--out", marks / "out", "--scale", "2", "--sidecar")
    assert result.code == 0, result.err
    assert load(marks / "out" / "a.png").shape == (160, 200, 3)
    told = json.loads((marks / "out" / "a.png.json").read_text())
    assert json.loads(told["settings"])["background"] == "lanczos"
    assert json.loads(told["settings"])["scale"] == 2
    assert run(*args, "--out", marks / "out", "--scale", "4").code == 2, "made otherwise"
    for wrong in (("--scale", "3"), ("--scale", "2", "--background", "none"), ("--background", "nonsense")):
        refused = run(*args, "--out", marks / "other", *wrong)
        assert refused.code == 2
        assert refused.err.count("\n") == 1
    for flag in (("--scale", "2"), ("--background", "lanczos")):
        refused = run(*args[:4], "--aligned", "--out", marks / "other", *flag)
        assert refused.code == 2
        assert flag[0] in refused.err


def test_a_model_is_part_of_what_a_run_is(
    marks: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one.pth", "other.pth"):
        (marks / name).write_text(name)
    toy = Loaded(Looking(factor=2), Path(), "toy", "unknown")
    monkeypatch.setattr(unfade.recipes.restore, "loaded_upscaler", lambda spec, device: replace(toy, path=Path(spec)))
    find = FindSettings(str(marks / "marks.onnx"))
    once = RestoreSettings(find, background=marks / "one.pth")
    (entry,) = restore(marks / "photos", marks / "out", models[0], once)
    assert entry.status == "done"
    before = load(marks / "out" / "a.png")
    expected = through(Looking(factor=2), scale=1)(read_photo(marks / "photos" / "a.png"))
    assert np.array_equal(before[70:], expected.levels[70:]), "cleaned, at its own size"
    assert restore(marks / "photos", marks / "out", models[0], once) == [entry]
    for other in (marks / "other.pth", None):
        with pytest.raises(OutputConflict):
            restore(marks / "photos", marks / "out", models[0], RestoreSettings(find, background=other))


# Through spandrel


@needs_extra
def test_a_network_of_spandrels(tmp_path: Path) -> None:
    torch.save({"params_ema": compact(scale=2)}, tmp_path / "x2.pth")
    upscaler = loaded_upscaler(tmp_path / "x2.pth", tile=64).network
    assert isinstance(upscaler, Upscaler)
    assert (upscaler.factor, upscaler.tile, loaded_upscaler(tmp_path / "x2.pth").network.tile) == (2, 64, TILE)
    image = picture(64, 64, 1, count=2)
    with torch.no_grad():
        expected = from_unit(upscaler.restorer.net(to_unit(image))).clamp(-1, 1)
    given = upscaler(image)
    assert torch.equal(given, expected)
    assert not given.requires_grad
    photo = photo_of(120, 176)
    with torch.no_grad():
        whole = from_unit(upscaler.restorer.net(to_unit(region(photo)[None]))).clamp(-1, 1)[0]
    assert (region(tiled(photo, upscaler, scale=2)) - whole).abs().max() <= 1.5 * 2 / 255


@needs_extra
def test_background_models_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(BadCheckpoint, match="no architecture that spandrel knows"):
        loaded_upscaler(tmp_path / "a.pth")
    torch.save(compact(channels=1), tmp_path / "grey.pth")
    with pytest.raises(BadInput, match="maps 1 to 1"):
        loaded_upscaler(tmp_path / "grey.pth")


@needs_extra
def test_the_row_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `unfade models pull` leaves it: under its published keys, with a head."""
    from safetensors.torch import save_file

    from test_spandrel import rrdb

    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    head = {"architecture": "rrdbnet", "config": "{}"}
    save_file(rrdb(), tmp_path / "realesrgan-x2.safetensors", head)
    upscaler = loaded_upscaler("realesrgan-x2", tile=32).network
    assert upscaler(picture(32, 32, 1)).shape == (1, 3, 32 * upscaler.factor, 32 * upscaler.factor)
    found = background_of("realesrgan-x2", PhotoSettings(scale=2))
    assert found.recrop
    assert found.identity.keys() == {"background", "background_sha256", "scale"}
