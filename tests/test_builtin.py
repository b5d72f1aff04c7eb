"""What comes with the package: models that have learned something, samples with their truth, the demonstration."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import unfade.recipes.demo
from unfade.diffusion.denoising import Denoising
from unfade.diffusion.load import load_prior
from unfade.diffusion.sampler import ImageNoise
from unfade.images.files import read_image
from unfade.images.filters import resize
from unfade.images.finding import list_images
from unfade.metrics.reference import psnr
from unfade.recipes.adapt_settings import SAMPLES
from unfade.recipes.demo import QUICK, demo
from unfade.restorers.load import load_restorer
from unfade.store.checkpoints import read_card
from unfade.zoo.models import MODELS, path_of

SETS = {"photos": "truth", "held_out_photos": "held_out_truth"}


def pictures(folder: str, count: int = 8) -> Tensor:
    return torch.stack([read_image(path) for path in list_images(SAMPLES / folder)[:count]])


@pytest.mark.parametrize(
    ("name", "megabytes"),
    [
        ("small-prior", 30),
        ("small-prior-256", 30),
        ("small-restorer", 30),
        ("small-restorer-256", 30),
        ("small-swinir", 6),
    ],
)
def test_models_are_small_and_have_a_card(name: str, megabytes: int) -> None:
    path = path_of(MODELS[name])
    assert path.stat().st_size <= megabytes * 1e6
    card = read_card(path)
    for field in ("licence", "data", "recipe", "steps", "held_out", "intended_use", "not_for", "trained_with"):
        assert card[field], field
    assert card["licence"] == MODELS[name].licence == "CC BY-NC-SA 4.0"


@pytest.mark.parametrize("name", ["small-prior", "small-prior-256"])
def test_the_prior_knows_faces(name: str) -> None:
    """At t = 200 it explains most of the noise; a prior that knows nothing would leave an error of 1."""
    prior = load_prior(name)
    x0 = resize(pictures("truth"), prior.size, prior.size)
    noise = ImageNoise(range(len(x0)))(x0)
    with torch.no_grad():
        error = Denoising(prior.predicts).per_image(prior.unet, x0, torch.full((len(x0),), 200), noise)
    assert error.mean() < 0.1


def test_the_restorer_restores() -> None:
    photo, truth = pictures("held_out_photos"), pictures("held_out_truth")
    with torch.no_grad():
        restored = load_restorer()(photo).clamp(-1, 1)
    assert (psnr(restored, truth) - psnr(photo, truth)).mean() > 1


def test_samples_are_pairs_and_held_out_ones_are_apart() -> None:
    contents = set()
    total = 0
    for photos, truth in SETS.items():
        names = [path.name for path in list_images(SAMPLES / photos)]
        assert names == [path.name for path in list_images(SAMPLES / truth)]
        for path in list_images(SAMPLES / photos):
            assert read_image(path).shape == (3, 128, 128)
            contents.add(hashlib.sha256(path.read_bytes()).hexdigest())
        total += len(names)
    assert total == len(contents) >= 48
    draws = json.loads((SAMPLES / "draws.json").read_text())["degradation"]
    assert len(draws) == total
    assert (SAMPLES / "README.md").exists()


@pytest.fixture
def few_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photos to adapt to and three to score on: the whole set takes minutes."""
    for folder, count in {"photos": 4, "truth": 4, "held_out_photos": 3, "held_out_truth": 3}.items():
        (tmp_path / "samples" / folder).mkdir(parents=True)
        for path in list_images(SAMPLES / folder)[:count]:
            shutil.copy(path, tmp_path / "samples" / folder)
    monkeypatch.setattr(unfade.recipes.demo, "SAMPLES", tmp_path / "samples")
    return tmp_path / "samples"


def test_the_demonstration(few_samples: Path, tmp_path: Path) -> None:
    loop = replace(QUICK.finetune.loop, steps=2, batch=2, micro_batch=2, validate_every=2)
    settings = replace(
        QUICK,
        targets=replace(QUICK.targets, spacing="10", start=3, free_from=2),
        finetune=replace(QUICK.finetune, loop=loop),
    )
    done = demo(tmp_path / "demo", settings)
    assert (done.faces, done.held_out) == (4, 3)
    assert set(done.pretrained) == set(done.adapted) == {"psnr", "ssim", "feature_distance", "identity_distance"}
    assert done.pretrained != done.adapted
    assert done.peak_memory_mb > 0
    learned = {path.name for path in (tmp_path / "demo" / "targets").iterdir()}
    assert learned.isdisjoint(path.name for path in list_images(few_samples / "held_out_photos"))
    page = done.report.read_text()
    assert "held out: never learned from" in page
    assert "the scores are for 3 others" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
