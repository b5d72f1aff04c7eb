"""Adapting a CodeFormer: what learns, what stays, killed and resumed, its file, its fidelity and its flags."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adapt_settings import small, small_codes
from tiny_codeformer import TINY, codeformer, tiny_codeformer
from tiny_models import write_faces
from unfade.errors import BadInput, OutputConflict
from unfade.images.files import read_image
from unfade.nets.codeformer import CodeFormer
from unfade.progress import Advance
from unfade.recipes.adapt import adapt
from unfade.recipes.adapt_settings import SHORT_ADAPT, SMALL_ADAPT, AdaptSettings, settings_for
from unfade.recipes.restore import RestoreSettings, restore
from unfade.restorers.code_level import CODE_LOOP, CODE_LOSSES, CodeLossSettings
from unfade.restorers.families import FAMILIES, Family, family_of, picture_losses
from unfade.restorers.image_level import ImageLossSettings
from unfade.restorers.load import load_restorer, save_restorer
from unfade.stages.targets import TargetSettings
from unfade.store.checkpoints import read_weights
from unfade.training.loop import LoopSettings

__all__ = ["codeformer"]

Models = tuple[Path, Path]
CHILD = Path(__file__).with_name("adapt_child.py")
FROZEN = ("quantize.", "generator.", "fuse_convs_dict.")


@pytest.fixture(scope="module")
def settings(codeformer: Path, models: Models) -> AdaptSettings:
    return small_codes(codeformer, models[1])


@pytest.fixture(scope="module")
def plain(settings: AdaptSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos, and a run with the plain settings."""
    folder = tmp_path_factory.mktemp("plain")
    write_faces(folder / "photos", 2)
    adapt(folder / "photos", folder / "run", settings, aligned=True)
    return folder


def weights(run: Path) -> dict[str, Tensor]:
    return read_weights(run / "restorer.safetensors").state


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_rest_learns_and_the_frozen_parts_stay_bit_identical(plain: Path) -> None:
    before, after = tiny_codeformer().net.state_dict(), weights(plain / "run")
    frozen = {key for key in before if key.startswith(FROZEN)}
    assert frozen
    for key, value in before.items():
        assert torch.equal(after[key], value) == (key in frozen), key
    history = json.loads((plain / "run" / "restorer.json").read_text())["history"]
    assert {"step", "feature", "code"} == history["losses"][0].keys()
    assert "cross-entropy of the codes" in (plain / "run" / "report.html").read_text()


def test_the_result_is_under_the_published_keys(plain: Path) -> None:
    net = CodeFormer(TINY).eval()
    net.load_state_dict(weights(plain / "run"), strict=True)
    face = read_image(plain / "run" / "faces" / "face00.png")[None]
    with torch.no_grad():
        shown = net(face, 0.5, adain=True).clamp(-1, 1)[0]
    assert (shown - read_image(plain / "run" / "restored" / "face00.png")).abs().max() <= 1.01 / 255


class Stopped(Exception):
    pass


@pytest.mark.parametrize("moment", [3, 6])
def test_stopped_and_resumed_equals_uninterrupted(
    moment: int, settings: AdaptSettings, plain: Path, tmp_path: Path
) -> None:
    """In the middle of fine-tuning, and at its end before the last checkpoint."""

    @contextmanager
    def stopping(label: str, total: int, *, start: int = 0) -> Iterator[Advance]:
        done = 0

        def advance(amount: float) -> None:
            nonlocal done
            done += 1
            if label == "fine-tuning" and done == moment:
                raise Stopped

        yield advance

    with pytest.raises(Stopped):
        adapt(plain / "photos", tmp_path / "run", settings, progress=stopping, aligned=True)
    adapt(plain / "photos", tmp_path / "run", settings, aligned=True)
    assert same(weights(tmp_path / "run"), weights(plain / "run"))
    for path in (plain / "run" / "restored").iterdir():
        assert path.read_bytes() == (tmp_path / "run" / "restored" / path.name).read_bytes()


def test_killed_and_resumed_equals_uninterrupted(settings: AdaptSettings, plain: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(CHILD), str(plain / "photos"), str(tmp_path / "run")]
    command += [settings.restorer, settings.prior]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHILD.parent) as process:
        assert process.stdout is not None
        for _ in range(4):  # the label, and three steps: one more than the first checkpoint holds
            while process.stdout.readline() != "fine-tuning\n":
                assert process.poll() is None
        process.kill()
    assert not (tmp_path / "run" / "report.html").exists()
    adapt(plain / "photos", tmp_path / "run", settings, aligned=True)
    assert same(weights(tmp_path / "run"), weights(plain / "run"))


def test_a_second_run_changes_nothing(settings: AdaptSettings, plain: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (plain / "run").rglob("*") if path.suffix != ".html"}
    done = adapt(plain / "photos", plain / "run", settings, aligned=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert done.counts.done == 2


def changed_losses(**values: object) -> Callable[[AdaptSettings], AdaptSettings]:
    return lambda s: replace(s, losses=replace(s.losses, **values))


CHANGES: dict[str, Callable[[AdaptSettings], AdaptSettings]] = {
    "feature weight": changed_losses(feature_weight=0.1),
    "code weight": changed_losses(code_weight=0.0),
    "frozen": changed_losses(frozen=(*CodeLossSettings().frozen, "encoder")),
    "fidelity": lambda s: replace(s, fidelity=1.0),
    "flip": lambda s: replace(s, finetune=replace(s.finetune, flip=False)),
    "schedule": lambda s: replace(
        s, finetune=replace(s.finetune, loop=replace(s.finetune.loop, schedule="cosine"))
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_settings_have_an_effect(
    change: Callable[[AdaptSettings], AdaptSettings], settings: AdaptSettings, plain: Path, tmp_path: Path
) -> None:
    adapt(plain / "photos", tmp_path / "changed", change(settings), aligned=True)
    assert not same(weights(plain / "run"), weights(tmp_path / "changed"))
    with pytest.raises(OutputConflict, match="name another folder"):
        adapt(plain / "photos", plain / "run", change(settings), aligned=True)


def test_the_fusion_learns_from_pictures_and_clean_faces(settings: AdaptSettings, plain: Path, tmp_path: Path) -> None:
    losses = replace(CODE_LOSSES["fusion"], image=ImageLossSettings(discriminator_features=8))
    settings = replace(settings, losses=losses)
    write_faces(tmp_path / "real", 2, first=50)
    loop = replace(settings.finetune.loop, steps=2)
    settings = replace(settings, finetune=replace(settings.finetune, loop=loop))
    runs = {"targets": None, "faces": tmp_path / "real"}
    for name, real in runs.items():
        history = adapt(plain / "photos", tmp_path / name, settings, real=real, aligned=True).history
        assert history.losses[0].keys() == {"step", "feature", "code", "l1", "perceptual", "gan"}
    assert not same(weights(tmp_path / "targets"), weights(tmp_path / "faces"))
    key = "fuse_convs_dict.16.scale.0.weight"
    assert not torch.equal(weights(tmp_path / "faces")[key], tiny_codeformer().net.state_dict()[key])


def test_clean_faces_are_refused_where_nothing_looks_at_them(
    settings: AdaptSettings, plain: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="leave `real` out"):
        adapt(plain / "photos", tmp_path / "run", settings, real=plain / "photos", aligned=True)
    assert not (tmp_path / "run").exists()


def test_losses_of_another_family_are_refused(settings: AdaptSettings, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 1)
    for wrong in (replace(settings, losses=ImageLossSettings()), replace(small(*models), losses=CodeLossSettings())):
        with pytest.raises(BadInput, match=r"learns with \w+LossSettings, not \w+: start from settings_for"):
            adapt(tmp_path / "photos", tmp_path / "run", wrong, aligned=True)
    assert not (tmp_path / "run").exists()


def test_fidelity_reaches_targets_and_results_and_is_remembered(plain: Path, settings: AdaptSettings) -> None:
    run = json.loads((plain / "run" / "run.json").read_text())
    assert run["settings"]["adapt"]["fidelity"] == 0.5
    unsaid = replace(settings, fidelity=None)  # the family's own: the same run
    assert adapt(plain / "photos", plain / "run", unsaid, aligned=True).counts.done == 2
    results = {}
    for fidelity in (None, 0.5, 0.0, 1.0):
        restore(
            plain / "photos", plain / f"w{fidelity}", plain / "run", RestoreSettings(fidelity=fidelity), aligned=True
        )
        results[fidelity] = read_image(plain / f"w{fidelity}" / "face00.png")
    for same in (results[0.5], read_image(plain / "run" / "restored" / "face00.png")):
        assert torch.equal(results[None], same)
    assert not any(torch.equal(results[None], results[other]) for other in (0.0, 1.0))
    with pytest.raises(OutputConflict, match=r"fidelity = 0\.5, now it is 0\.2"):
        restore(plain / "photos", plain / "w0.5", plain / "run", RestoreSettings(fidelity=0.2), aligned=True)


def test_the_paper_decides_the_defaults(codeformer: Path, models: Models) -> None:
    swinir, prior = map(str, models)
    assert settings_for(swinir, prior) == replace(
        SHORT_ADAPT, restorer=swinir, prior=prior, targets=replace(SHORT_ADAPT.targets, factor=1)
    )
    found = settings_for("small-restorer", "small-prior")
    assert found == replace(SMALL_ADAPT, fidelity=0.5)
    tiny = settings_for(str(codeformer), prior)
    assert (tiny.losses, tiny.fidelity, tiny.finetune.flip) == (CodeLossSettings(), 0.5, True)
    assert FAMILIES["codeformer"] == Family(CodeLossSettings(), CODE_LOOP, flip=True, factor=8, fidelity=0.5)
    for image_level in ("swinir", "gfpgan", "spandrel"):
        assert family_of(image_level) == Family(ImageLossSettings(), LoopSettings(), False, 16, None)


def test_a_restorer_of_512_px_is_adapted_as_in_the_paper(models: Models, tmp_path: Path) -> None:
    bigger = replace(TINY, autoencoder=replace(TINY.autoencoder, size=512, attention_sizes=()), fusion_sizes=(256,))
    restorer = tiny_codeformer()
    restorer.net.config, restorer.size = bigger, 512  # only the head of the file is read
    save_restorer(tmp_path / "big.safetensors", restorer)
    found = settings_for(str(tmp_path / "big.safetensors"), str(models[1]))
    assert (found.finetune.loop, found.finetune.flip, found.finetune.hold_out) == (CODE_LOOP, True, 0.1)
    assert found.losses == CodeLossSettings()
    assert found.targets == TargetSettings(factor=8).for_size(32)


def test_only_losses_of_pictures_compare_pictures() -> None:
    assert picture_losses(CODE_LOSSES["codes"]) is None
    assert picture_losses(CODE_LOSSES["fusion"]) == ImageLossSettings()
    assert picture_losses(ImageLossSettings(l1_weight=3)) == ImageLossSettings(l1_weight=3)


def test_what_was_not_chosen_is_not_mentioned(models: Models) -> None:
    """So that runs begun before there was a choice go on."""
    settings = small(*models)
    unsaid = {field.name for field in fields(AdaptSettings)} - settings.identity().keys()
    assert unsaid == {"fidelity", "refine", "strength", "rounds"}
    assert replace(settings, strength=0.5).identity()["strength"] == 0.5


@torch.no_grad()
def test_files_with_the_keys_of_the_restorer_are_read_too(tmp_path: Path) -> None:
    restorer = tiny_codeformer()
    restorer.published = False
    save_restorer(tmp_path / "older.safetensors", restorer)
    assert all(key.startswith("net.") for key in read_weights(tmp_path / "older.safetensors").state)
    again = load_restorer(tmp_path / "older.safetensors")
    assert same(again.net.state_dict(), restorer.net.state_dict())
    save_restorer(tmp_path / "newer.safetensors", again)
    assert same(read_weights(tmp_path / "newer.safetensors").state, again.state_dict())
