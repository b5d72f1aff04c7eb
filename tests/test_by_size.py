"""Restorers of several sizes as one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unfade
from command import Run
from marked import Dimmer, load
from recorded import fill_module
from tiny_models import RESTORER, write_faces
from unfade.errors import BadInput
from unfade.nets.swinir import SwinIR
from unfade.recipes.restore import RestoreSettings, load_restoration
from unfade.restorers.by_size import REDUCED, BySize, size_for
from unfade.restorers.image_level import SwinIRRestorer
from unfade.restorers.load import loaded_restorers, save_restorer
from unfade.restorers.one_step import OneStepRestorer
from unfade.stages.restore import choices, restore_batch
from unfade.store.checkpoints import sha256_of


@given(st.floats(1, 1e4), st.sets(st.sampled_from([32, 64, 128, 256, 512]), min_size=1))
def test_a_face_is_hardly_reduced_where_that_can_be(side: float, sizes: set[int]) -> None:
    ordered = sorted(sizes)
    size = size_for(side, ordered)
    assert size in sizes
    assert side <= REDUCED * size or size == ordered[-1]
    assert not any(side <= REDUCED * smaller for smaller in ordered if smaller < size)


def test_the_sizes_of_the_built_in_ones() -> None:
    assert [size_for(side, (128, 256)) for side in (20, 160, 161, 4000)] == [128, 128, 256, 256]


def test_each_batch_goes_to_its_own() -> None:
    both = BySize([Dimmer(64), Dimmer(32)])
    assert (both.size, both.sizes) == (32, (32, 64))
    for size in (32, 64):
        face = torch.rand(2, 3, size, size) * 2 - 1
        assert torch.equal(restore_batch(face, both), face * 0.5)
    assert [one.together for one in both.restorers] == [[2], [2]]


def test_it_can_neither_learn_nor_be_saved(tmp_path: Path) -> None:
    both = BySize([Dimmer(32), Dimmer(64)])
    for use in (lambda: both.objective(None), both.trainable, lambda: save_restorer(tmp_path / "x.safetensors", both)):
        with pytest.raises(BadInput, match="name one of them as `restorer`"):
            use()
    with pytest.raises(BadInput, match="Expected one `restorer` of each size"):
        BySize([Dimmer(32), Dimmer(32)])


@pytest.fixture
def files(models: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Restorers of 32 and of 64 px."""
    large = SwinIRRestorer(SwinIR(replace(RESTORER, img_size=32)), 64)
    save_restorer(tmp_path / "large.safetensors", fill_module(large))
    return models[0], tmp_path / "large.safetensors"


def test_its_hash_is_that_of_all_in_any_order(files: tuple[Path, Path]) -> None:
    one, two = (loaded_restorers(specs, device="cpu") for specs in (files, files[::-1]))
    assert one.sha256 == two.sha256
    assert one.sha256 == ", ".join(map(sha256_of, files)), "so that records name the weights"
    assert loaded_restorers(files[:1], device="cpu").sha256 == sha256_of(files[0])


def test_the_command_takes_several(run: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    """Of aligned faces, the larger one is restored as by the larger restorer alone, and the smaller one likewise."""
    (small,), (large,) = write_faces(tmp_path / "faces", 1), write_faces(tmp_path / "faces", 1, size=64, first=1)
    flags = [flag for file in files for flag in ("--restorer", file)]
    assert run("restore", tmp_path / "faces", "--aligned", "--out", tmp_path / "both", *flags).code == 0
    for face, file, other in ((small, *files), (large, *files[::-1])):
        for restorer, equal in ((file, True), (other, False)):
            out = tmp_path / f"{face.stem}-{restorer.stem}"
            unfade.restore(face, out, restorer, aligned=True)
            assert np.array_equal(load(out / face.name), load(tmp_path / "both" / face.name)) is equal
    refused = run("restore", tmp_path / "faces", "--out", tmp_path / "none", *flags, *flags)
    assert refused.code == 2
    assert "one --restorer of each size, got those of 32, 32, 64, 64 px" in refused.err


@pytest.mark.parametrize("order", [1, -1])
def test_a_result_names_each_restorer_with_its_hash(files: tuple[Path, Path], order: int) -> None:
    specs = files[::order]
    told = load_restoration(specs, RestoreSettings(), aligned=True, device="cpu").parts.provenance
    assert told is not None
    assert told.model == ", ".join(file.name for file in specs)
    assert told.sha256 == ", ".join(map(sha256_of, specs))


def test_choices_reach_all_of_them() -> None:
    both = loaded_restorers(("small-restorer", "small-restorer-256"), fidelity=0.9, refine=1, device="cpu").network
    assert choices(both) == {"fidelity": 0.9, "refine": 1.0}
    assert isinstance(both, BySize)
    for one in both.restorers:
        assert isinstance(one, OneStepRestorer)
        assert (one.settings.fidelity, one.settings.refine) == (0.9, 1)


def test_no_restorer_at_all_is_refused() -> None:
    with pytest.raises(BadInput, match="Name a restorer"):
        loaded_restorers([])
