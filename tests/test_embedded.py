"""unfade inside another program: it works under that program's modes of torch and leaves them as they were."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unfade
from adapt_settings import small
from recorded import picture
from tiny_models import write_faces
from unfade.declared import as_declared
from unfade.images import filters
from unfade.own_modes import own_modes

Models = tuple[Path, Path]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


AROUND: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "float64": lambda: default_dtype(torch.float64),
    "another device": lambda: torch.device("meta"),
    "lower precision": lambda: torch.autocast("cpu", torch.bfloat16),
}


def modes() -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.get_rng_state().sum().item(),
    )


@contextmanager
def all_around() -> Iterator[None]:
    """All of them at once; what they need of torch to be left is looked at inside."""
    with (
        default_dtype(torch.float64),
        torch.autocast("cpu", torch.bfloat16),
        torch.inference_mode(),
        torch.device("meta"),
    ):
        before = modes()
        yield
        assert modes() == before


@own_modes()
def drawing(own: tuple[object, ...]) -> None:
    assert modes()[:-1] == own[:-1]
    torch.rand(3)
    raise KeyboardInterrupt


def results(run: Path) -> dict[str, bytes]:
    files = [run / "restorer.safetensors", *sorted((run / "restored").glob("*.png"))]
    return {path.name: path.read_bytes() for path in files}


def test_an_adaptation_learns_the_same_under_any_modes(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 6)  # so that a degradation is fitted too
    settings = small(*models)
    unfade.adapt(tmp_path / "faces", tmp_path / "plain", settings, aligned=True)
    with all_around():
        unfade.adapt(tmp_path / "faces", tmp_path / "within", settings, aligned=True)
    assert results(tmp_path / "within") == results(tmp_path / "plain")


@pytest.mark.parametrize("name", AROUND)
def test_modes_are_the_own_ones_inside_and_put_back(name: str) -> None:
    with own_modes():
        own = modes()
    with AROUND[name]():
        before = modes()
        assert before != own
        with pytest.raises(KeyboardInterrupt):
            drawing(own)
        assert modes() == before


def test_what_is_loaded_and_scored_does_not_depend_on_modes(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)

    def scored() -> object:
        metrics = ("psnr", "ssim", "feature_distance")
        return unfade.evaluate(tmp_path / "faces", truth=tmp_path / "faces", metrics=metrics).as_dict()

    expected = scored()
    with all_around():
        assert scored() == expected
        restorer, prior = unfade.load_restorer(models[0]), unfade.load_prior(models[1])
        entries = unfade.restore(tmp_path / "faces", tmp_path / "out", models[0], aligned=True)
    assert {entry.status for entry in entries} == {"done"}
    for network in (restorer, prior):
        assert {(p.dtype, p.device.type, p.is_inference()) for p in network.parameters()} == {
            (torch.float32, "cpu", False)
        }


def test_loading_draws_nothing_from_the_global_generator(models: Models) -> None:
    before = torch.get_rng_state()
    unfade.load_restorer(models[0])
    unfade.load_restorer("small-restorer")
    assert torch.equal(torch.get_rng_state(), before)


def test_filters_first_used_in_inference_mode_can_be_trained_with() -> None:
    filters._placed.cache_clear()
    filters._low_pass_matrix.cache_clear()
    filters._resample_matrix.cache_clear()
    with torch.inference_mode():
        filters.low_pass(picture(32, 32, 1), 4)
    image = picture(32, 32, 1).requires_grad_()
    filters.low_pass(image, 4).sum().backward()
    assert image.grad is not None


def test_numbers_of_numpy_are_numbers(models: Models, tmp_path: Path) -> None:
    """As they come from a grid of settings; they are written to run.json and to checkpoints, and found there again."""
    write_faces(tmp_path / "faces", 2)
    plain = small(*models)
    loop = replace(plain.finetune.loop, steps=2e0, learning_rate=np.float64(1e-4), betas=(np.float64(0.9), 0.999))  # type: ignore[arg-type]
    targets = replace(plain.targets, seed=np.int64(1), start=6.0)
    given = replace(plain, targets=targets, finetune=replace(plain.finetune, loop=loop))
    assert unfade.adapt(tmp_path / "faces", tmp_path / "run", given, aligned=True).counts.done == 2
    as_written = as_declared(given)
    assert as_written.targets == replace(plain.targets, seed=1)
    assert as_written.finetune.loop.betas == (0.9, 0.999)
    again = unfade.adapt(tmp_path / "faces", tmp_path / "run", as_written, aligned=True)
    assert again.counts.done == 2
    with pytest.raises(unfade.BadInput, match=r"`start` to be a whole number, got 2\.5"):
        unfade.adapt(
            tmp_path / "faces", tmp_path / "no", replace(plain, targets=replace(targets, start=2.5)), aligned=True
        )
    find = unfade.FindSettings(detect=unfade.DetectSettings(min_face=np.int64(20)))  # type: ignore[arg-type]
    paste = unfade.PasteSettings(feather=np.float32(0.25))  # type: ignore[arg-type]
    settings = unfade.RestoreSettings(find=find, whole=unfade.PhotoSettings(paste=paste), batch=np.int64(2))  # type: ignore[arg-type]
    assert len(unfade.restore(tmp_path / "faces", tmp_path / "out", models[0], settings)) == 2


class Place(os.PathLike[str]):
    """A path of another library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_a_name_alone_is_one_name_and_a_path_of_any_kind_a_path(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    faces, out = Place(tmp_path / "faces"), Place(tmp_path / "out")
    (first, _) = unfade.restore(faces, out, Place(models[0]), aligned=True)  # type: ignore[arg-type]
    assert first.status == "done"
    for metrics in ("psnr", iter(["psnr"])):
        scores = unfade.evaluate(faces, truth=faces, metrics=metrics, stems="face00").scores  # type: ignore[arg-type]
        assert scores is not None
        assert (list(scores.files), list(scores.summary)) == (["face00.png"], ["psnr"])
    for device in (None, 1.5):
        with pytest.raises(unfade.BadInput, match=f"device {device} cannot be used"):
            unfade.load_prior(models[1], device=device)  # type: ignore[arg-type]
