"""A fitted degradation as a file: it degrades as before, no face can be seen in it, and other files are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import unfade
from recorded import picture
from unfade.degradations.fitted import FittedDegradation, FittedDraw, fit
from unfade.degradations.fitted_file import (
    DEGRADATION,
    degradation_file,
    is_made_of,
    load_degradation,
    save_degradation,
    with_phases,
    without_phases,
)
from unfade.degradations.rings import rings_of
from unfade.diffusion.load import loaded_prior
from unfade.errors import BadCheckpoint, BadInput
from unfade.images.tone import to_grey
from unfade.restorers.load import load_restorer
from unfade.store.foreign import read_foreign

SIZE, COUNT = 32, 6


@pytest.fixture(scope="module")
def targets() -> Tensor:
    return torch.cat([picture(SIZE, SIZE, 70 + i) for i in range(COUNT)])


@pytest.fixture(scope="module")
def fitted(targets: Tensor) -> FittedDegradation:
    """With all its parts, and noise that is partly grey."""
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(0))
    photos = (0.8 * targets + 0.1 * (noise + noise[:, :1])).clamp(-1, 1)
    photos[1] = to_grey(photos[1])
    rings = len(rings_of(SIZE))
    return replace(fit(photos, targets), response=torch.linspace(1, 0.5, rings).expand(3, -1).clone())


@pytest.fixture
def file(tmp_path: Path, fitted: FittedDegradation) -> Path:
    save_degradation(tmp_path / DEGRADATION, fitted, made_of="these")
    return tmp_path / DEGRADATION


def changed(file: Path, header: dict[str, str] | None = None, **tensors: Tensor | None) -> Path:
    """The file with other entries; None leaves one out."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        before = dict(opened.metadata())
    content = {**load_file(file), **tensors}
    save_file({k: v for k, v in content.items() if v is not None}, file, {**before, **(header or {})})
    return file


def test_what_is_read_is_what_was_written(file: Path, fitted: FittedDegradation) -> None:
    found = load_degradation(file)
    assert (found.size, len(found.noise)) == (SIZE, COUNT)
    torch.testing.assert_close(found.kernels, fitted.kernels, rtol=2e-3, atol=2e-4)
    assert found.kernels.sum((2, 3)).sub(1).abs().max() < 1e-5
    assert torch.equal(found.strengths, fitted.strengths)
    assert found.response is not None
    assert torch.equal(found.response, fitted.response)
    assert found.grey is not None
    assert found.grey.tolist() == [False, True, False, False, False, False]
    assert torch.equal(found.blocks, fitted.blocks)


def test_power_and_relations_of_the_channels_are_kept(fitted: FittedDegradation, file: Path) -> None:
    def products(noise: Tensor) -> Tensor:
        spectra = torch.fft.rfft2(noise.double(), norm="ortho")
        return torch.einsum("nayx,nbyx->nabyx", spectra, spectra.conj())

    torch.testing.assert_close(products(load_degradation(file).noise), products(fitted.noise), rtol=5e-3, atol=5e-3)


def test_it_degrades_as_without_phases_within_float16(fitted: FittedDegradation, file: Path, targets: Tensor) -> None:
    bare, found = replace(fitted, noise=with_phases(*without_phases(fitted.noise))), load_degradation(file)
    for seed in range(5):
        one, other = (each.damaged(targets[0], np.random.default_rng(seed)) for each in (bare, found))
        assert (one - other).abs().max() < 1 / 255


def test_it_degrades_as_strongly_as_with_phases(fitted: FittedDegradation, file: Path, targets: Tensor) -> None:
    def of(degradation: FittedDegradation) -> Tensor:
        made = [degradation.damaged(targets[0], np.random.default_rng(seed)) for seed in range(300)]
        return torch.stack(made).flatten(2)

    one, other = of(fitted), of(load_degradation(file))
    assert (one.mean(0) - other.mean(0)).abs().mean() < 0.03
    assert float(one.std(0).mean()) == pytest.approx(float(other.std(0).mean()), rel=0.05)
    related = [torch.corrcoef((made - made.mean(0)).transpose(0, 1).flatten(1))[0, 1] for made in (one, other)]
    assert float(related[0]) == pytest.approx(float(related[1]), abs=0.03)


def test_no_face_can_be_seen_in_it(tmp_path: Path, targets: Tensor) -> None:
    """Residuals that are the faces themselves: what is stored is not like them, wherever it is laid on them."""
    point = torch.zeros(COUNT, 3, 3, 3)
    point[..., 1, 1] = 1
    save_degradation(tmp_path / "a.safetensors", FittedDegradation(point, 3 * targets, torch.ones(8)))
    noise = load_degradation(tmp_path / "a.safetensors").noise

    def likeness(one: Tensor, other: Tensor) -> float:
        """The largest correlation at any shift, of what is finer than the coarsest structures."""
        spectra = [torch.fft.fft2(image.mean(0).double()) for image in (one, other)]
        for spectrum in spectra:
            spectrum[:2, :2] = spectrum[:2, -1:] = spectrum[-1:, :2] = spectrum[-1:, -1:] = 0
        product = torch.fft.ifft2(spectra[0] * spectra[1].conj()).real
        powers = [spectrum.abs().square().sum() / product.numel() for spectrum in spectra]
        return float(product.max() / (powers[0] * powers[1]).sqrt())

    own = [likeness(noise[i], targets[i]) for i in range(COUNT)]
    others = [likeness(targets[i - 1], targets[i]) for i in range(COUNT)]
    assert likeness(targets[0], targets[0]) == pytest.approx(1, abs=0.01)
    assert max(own) < 0.6
    assert sum(own) / COUNT < 0.1 + sum(others) / COUNT, "no more like the face than another face is"
    content = load_file(tmp_path / "a.safetensors")
    assert {*content} == {"kernels", "magnitudes", "angles", "strengths", "grey"}
    assert content["angles"].abs().max() <= 3.142


def test_equal_degradations_give_equal_files_without_names(file: Path, fitted: FittedDegradation) -> None:
    save_degradation(file.with_name("again.safetensors"), fitted, made_of="these")
    assert file.read_bytes() == file.with_name("again.safetensors").read_bytes()
    assert file.stat().st_size < 12 * COUNT * SIZE * (SIZE // 2 + 1) + 40_000
    assert b".png" not in file.read_bytes()


def test_a_run_knows_its_own_file(file: Path) -> None:
    assert is_made_of(file, "these")
    assert not is_made_of(file, "others")
    file.write_text("mine")
    assert not is_made_of(file, "these")


# Draws


def test_a_draw_is_the_result(file: Path, targets: Tensor) -> None:
    found = load_degradation(file)
    draw = found.draw(np.random.default_rng(3))
    one, again = (found.applied(targets[2], draw) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, found.applied(targets[2], replace(draw, seed=draw.seed + 1)))
    other = FittedDraw((draw.photo + 2) % COUNT, draw.seed)
    assert not torch.equal(one, found.applied(targets[2], other))
    assert {found.draw(np.random.default_rng(seed)).photo for seed in range(60)} == set(range(COUNT))


def test_faces_become_grey_as_the_photo_was(file: Path, targets: Tensor) -> None:
    found = load_degradation(file)
    assert found.applied(targets[2], FittedDraw(1, 0)).std(0).max() < 1e-6
    assert found.applied(targets[2], FittedDraw(0, 0)).std(0).max() > 0.05


@pytest.mark.parametrize(("size", "photo"), [(16, 0), (SIZE, COUNT), (SIZE, -1)])
def test_draws_that_do_not_fit_are_refused(file: Path, size: int, photo: int) -> None:
    with pytest.raises(BadInput, match=r"Expected a face of shape \(3, 32, 32\) and a photo of 0"):
        load_degradation(file).applied(torch.zeros(3, size, size), FittedDraw(photo, 0))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 3, SIZE, SIZE), (1, SIZE, SIZE)])
def test_faces_of_another_shape_are_refused_without_a_draw_too(file: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="resize the face to the degradation's `size`"):
        load_degradation(file).damaged(torch.zeros(shape), np.random.default_rng(0))


# Files


def test_a_run_folder_stands_for_its_file(file: Path) -> None:
    assert degradation_file(file.parent) == degradation_file(str(file)) == file
    assert unfade.load_degradation(file.parent).size == SIZE


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"There is no file or folder .*nowhere; name a run folder"):
        load_degradation(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=rf"{tmp_path} holds no {DEGRADATION}"):
        load_degradation(tmp_path)


def test_other_files_are_refused_by_name(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, other)
    with pytest.raises(BadInput, match=r"other\.safetensors holds no fitted degradation; name the degradation"):
        load_degradation(other)
    other.write_text("a face")
    with pytest.raises(BadInput, match=r"other\.safetensors holds no fitted degradation"):
        load_degradation(other)
    with pytest.raises(BadInput, match="the format of another version of unfade"):
        load_degradation(changed(file, {"version": "2"}))


def test_what_was_saved_in_its_place_is_named(tmp_path: Path) -> None:
    file = tmp_path / DEGRADATION
    file.touch()
    with pytest.raises(BadCheckpoint, match=r"degradation\.safetensors is empty; copy or download it again"):
        load_degradation(file)
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(BadCheckpoint, match="holds no fitted degradation; it is the pointer that Git LFS leaves"):
        load_degradation(tmp_path)


@pytest.mark.parametrize("read", [load_restorer, loaded_prior, read_foreign])
def test_it_is_not_taken_for_weights(file: Path, read: Callable[[Path], object]) -> None:
    """A run holds it beside the restorer, so that one is easily named in place of the other."""
    with pytest.raises(BadCheckpoint, match=r"holds a fitted degradation, not weights; name the restorer's file") as e:
        read(file)
    assert str(e.value).startswith(str(file))
    file.write_bytes(b"")
    with pytest.raises(BadCheckpoint, match="is empty"):
        read(file)


def test_a_file_that_is_cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadCheckpoint, match=r"degradation\.safetensors is not a readable safetensors file"):
        load_degradation(file)


DAMAGED: dict[str, tuple[dict[str, str], dict[str, Tensor | None], str]] = {
    "missing": ({}, {"angles": None}, "angles is missing"),
    "no kernels": ({}, {"kernels": None}, "with kernels of 0 px"),
    "even kernels": ({}, {"kernels": torch.ones(COUNT, 3, 4, 4).half()}, "with kernels of 4 px"),
    "bright kernels": ({}, {"kernels": torch.ones(COUNT, 3, 5, 5).half()}, "do not keep brightness"),
    "shape": ({}, {"strengths": torch.ones(3)}, r"strengths has the shape \(3,\), but \(8,\) is expected"),
    "size": ({"size": "64"}, {}, "magnitudes has the shape"),
    "huge": ({"size": "99999"}, {}, "states 6 photos of 99999 px"),
    "no count": ({"photos": "many"}, {}, "states 0 photos"),
    "infinite": ({}, {"strengths": torch.full((8,), torch.inf)}, "strengths holds infinite values"),
    "NaN": ({}, {"strengths": torch.full((8,), torch.nan)}, "not numbers"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused_by_name(file: Path, case: str) -> None:
    header, tensors, message = DAMAGED[case]
    with pytest.raises(BadCheckpoint, match=message) as caught:
        load_degradation(changed(file, header, **tensors))
    assert str(caught.value).startswith(str(file))
    assert str(caught.value).count("\n") == 0


def test_rings_of_large_faces() -> None:
    for size in (512, 1024, 2048):
        assert rings_of(size)[-1] >= size / 2**0.5
