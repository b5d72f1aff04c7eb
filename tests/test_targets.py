"""Pseudo targets: Algorithm 1 from restorer to clean image, without influence of company, and every setting."""

import math
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import CountingNoise, fake_prior, tiny_prior
from recorded import picture
from toys import ToyRestorer
from unfade.diffusion.guidance import LowFrequency
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.sampler import UPDATES, ImageNoise, sample
from unfade.diffusion.schedule import linear_betas, steps_of_noise
from unfade.errors import BadInput
from unfade.images.files import read_image, write_png
from unfade.images.filters import resize
from unfade.jobs.journal import Journal
from unfade.jobs.runs import Run
from unfade.restorers.base import Restorer
from unfade.stages import targets
from unfade.stages.restore import restore_faces
from unfade.stages.targets import TargetSettings, by_start, make_targets, pseudo_target, start_for, together

QUICK = TargetSettings(spacing="20", start=6, free_from=3, factor=4, batch=2)


@pytest.fixture(scope="module")
def prior() -> DiffusionPrior:
    return tiny_prior(QUICK.spacing)


def toy_restorer(size: int = 32) -> nn.Module:
    return ToyRestorer(size).eval()


def targets_of(faces: Tensor, seeds: Iterable[int], prior: DiffusionPrior, settings: TargetSettings = QUICK) -> Tensor:
    return pseudo_target(faces, toy_restorer(), prior, ImageNoise(seeds), settings)


def test_a_target_depends_neither_on_its_batch_nor_on_the_order(prior: DiffusionPrior) -> None:
    faces, seeds = picture(32, 32, 1, count=4), [11, 12, 13, 14]
    together = targets_of(faces, seeds, prior)
    alone = torch.cat([targets_of(faces[i : i + 1], seeds[i : i + 1], prior) for i in range(4)])
    order = [2, 0, 3, 1]
    shuffled = targets_of(faces[order], [seeds[i] for i in order], prior)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(shuffled, together[order], atol=1e-4, rtol=0)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_a_target_is_the_chain_from_the_restored_face(prior: DiffusionPrior) -> None:
    face, restorer = picture(32, 32, 1), toy_restorer()
    target = pseudo_target(face, restorer, prior, CountingNoise(), QUICK)
    guidance = LowFrequency(restorer(face).detach().clamp(-1, 1), 6, 3, 4)
    assert torch.equal(target, sample(prior, guidance, CountingNoise(), face).clamp(-1, 1))
    assert not target.requires_grad


def test_a_target_is_clamped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UPDATES, "loud", lambda: lambda prior, step, noise: 5 * step.x0)
    loud = replace(QUICK, update="loud")
    target = pseudo_target(picture(32, 32, 1), toy_restorer(), fake_prior(spacing="20"), CountingNoise(), loud)
    assert target.abs().max() == 1


def test_the_restored_face_is_clamped_before_the_prior_sees_it(prior: DiffusionPrior) -> None:
    face = picture(32, 32, 1)
    clamped = (5 * face).clamp(-1, 1)

    class Loud(nn.Module):
        def forward(self, face: Tensor) -> Tensor:
            return 5 * face

    loud = pseudo_target(face, Loud(), prior, CountingNoise(), QUICK)
    assert torch.equal(loud, pseudo_target(clamped, nn.Identity(), prior, CountingNoise(), QUICK))


def test_a_prior_of_another_size_gets_the_restored_face_resized(prior: DiffusionPrior) -> None:
    face, restorer = picture(64, 64, 1), toy_restorer(64)
    target = pseudo_target(face, restorer, prior, CountingNoise(), QUICK)
    small = resize(restorer(face).detach().clamp(-1, 1), 32, 32)
    assert target.shape == (1, 3, 32, 32)
    assert torch.equal(target, pseudo_target(small, nn.Identity(), prior, CountingNoise(), QUICK))


def test_the_papers_setting_is_the_default() -> None:
    draws, steps, prior = CountingNoise(), [], fake_prior()
    paper = TargetSettings()
    pseudo_target(picture(32, 32, 1), toy_restorer(), prior, draws, paper, lambda: steps.append(1))
    assert (len(prior.schedule), len(steps), draws.draws) == (250, 150, 211)
    assert (paper.spacing, paper.update, paper.factor) == ("250", "ddpm", 16)


def test_the_filter_keeps_its_width_relative_to_the_face() -> None:
    factors = {size: TargetSettings().for_size(size).factor for size in (1024, 512, 256, 128, 32, 16)}
    assert factors == {1024: 32, 512: 16, 256: 8, 128: 4, 32: 1, 16: 1}
    assert replace(TargetSettings(seed=3, factor=8), factor=2) == TargetSettings(seed=3, factor=8).for_size(128)


def test_k_and_l_move_with_the_noise() -> None:
    few = TargetSettings(spacing="20", start=6, free_from=3)
    assert few.for_noise(1) == few
    twice = few.for_noise(2)
    assert replace(twice, start=6, free_from=3) == few
    noise = [(1 / alpha_bar - 1) ** 0.5 for alpha_bar in np.cumprod(1 - linear_betas())]
    for before, after in ((few.start, twice.start), (few.free_from, twice.free_from)):
        ratios = [noise[1000 * step // 20] / noise[1000 * before // 20] for step in (after - 1, after, after + 1)]
        assert min(ratios, key=lambda ratio: abs(ratio - 2)) == ratios[1]
    assert few.for_noise(1e6).start == 19


class Stepped(ToyRestorer):
    """Says that its faces are degraded as by the noise of these steps."""

    steps = (0, 100, 300)

    def matching_step(self, face: Tensor) -> Tensor:
        return torch.tensor(self.steps)


def test_a_larger_prior_starts_faces_from_a_higher_step() -> None:
    """Noise that hides as much of a face at twice the size is twice as strong."""
    restorer = Stepped(32)
    settings = TargetSettings(spacing="100", start=90, free_from=40, by_damage=True)
    for times in (1, 2):
        prior = DiffusionPrior(nn.Identity(), times * restorer.size, spacing="100")
        prior.register_parameter("place", nn.Parameter(torch.zeros(1)))
        groups = by_start(torch.zeros(3, 3, 32, 32), restorer, prior, settings)
        starts = {i: made.start for made, places in groups for i in places}
        moved = steps_of_noise(times)
        assert starts == {i: start_for(moved[t], prior.schedule.t_model, settings) for i, t in enumerate(Stepped.steps)}
        assert starts[0] == 0 < starts[1] < starts[2]


@pytest.mark.usefixtures("computes_in_bf16")
def test_bfloat16_reaches_the_networks_only() -> None:
    seen: list[torch.dtype] = []

    def answer(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x.flatten(1) @ x.flatten(1).T).dtype)
        assert x.dtype == torch.float32
        return x

    for bf16 in (False, True):
        target = pseudo_target(
            picture(32, 32, 1), toy_restorer(), fake_prior(answer, "20"), CountingNoise(), replace(QUICK, bf16=bf16)
        )
        assert target.dtype == torch.float32
    assert seen == [torch.float32] * 6 + [torch.bfloat16] * 6


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("faces")
    paths = [folder / f"{name}.png" for name in "abc"]
    for path, face in zip(paths, picture(32, 32, 1, count=3), strict=True):
        write_png(path, face)
    return paths


def made(
    faces: Iterable[Path], out: Path, prior: DiffusionPrior, settings: TargetSettings, restorer: Restorer | None = None
) -> dict[str, Tensor]:
    """The targets of the stage, by name."""
    run = Run(out, Journal(out / "journal.jsonl"))
    entries = make_targets(faces, run, restorer or toy_restorer(), prior, settings=settings)
    assert [entry.status for entry in entries] == ["done"] * len(entries)
    return {entry.item: read_image(out / entry.output) for entry in entries}


CHANGES = {
    "spacing": "25",
    "start": 7,
    "free_from": 4,
    "factor": 8,
    "update": "ddim",
    "begin_with": "face",
    "bf16": True,
    "seed": 1,
}


@pytest.fixture(scope="module")
def usual(faces: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return made(faces, tmp_path_factory.mktemp("usual"), tiny_prior(), QUICK)


def test_every_setting_of_the_result_is_tried() -> None:
    assert {field.name for field in fields(TargetSettings)} == {*CHANGES, "batch", "by_damage"}


@pytest.mark.usefixtures("computes_in_bf16")
@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_has_an_effect(
    faces: list[Path], usual: dict[str, Tensor], tmp_path: Path, prior: DiffusionPrior, name: str
) -> None:
    targets = made(faces, tmp_path, prior, replace(QUICK, **{name: CHANGES[name]}))
    assert targets.keys() == usual.keys()
    assert all(not torch.equal(targets[item], usual[item]) for item in usual)


@pytest.mark.parametrize(
    ("device", "size", "expected"), [("cpu", 128, 4), ("cpu", 512, 4), ("cuda", 128, 256), ("cuda", 512, 16)]
)
def test_a_gpu_gets_more_faces_at_once(device: str, size: int, expected: int) -> None:
    assert together(torch.device(device), size) == expected


@pytest.mark.parametrize("batch", [1, 3, None])
def test_the_size_of_the_batch_and_the_order_of_the_files_have_none(
    faces: list[Path], usual: dict[str, Tensor], tmp_path: Path, prior: DiffusionPrior, batch: int | None
) -> None:
    targets = made(reversed(faces), tmp_path, prior, replace(QUICK, batch=batch))
    assert targets.keys() == usual.keys()
    level = 2 / 255  # files are rounded to 8 bit
    assert all((targets[item] - usual[item]).abs().max() <= 1.01 * level for item in usual)
    assert all((targets[item] != usual[item]).float().mean() < 0.01 for item in usual)


def test_the_batch_is_the_number_of_faces_denoised_together(faces: list[Path], tmp_path: Path) -> None:
    sizes: list[int] = []

    def answer(x: Tensor, t: Tensor) -> Tensor:
        sizes.append(len(x))
        return x

    made(faces, tmp_path, fake_prior(answer), replace(QUICK, batch=2))
    assert sizes == [2] * 6 + [1] * 6


def test_faces_of_equal_content_get_equal_targets_and_progress_adds_up(tmp_path: Path, prior: DiffusionPrior) -> None:
    for name in ("first.png", "second.png"):
        write_png(tmp_path / name, picture(32, 32, 1)[0])
    amounts: list[float] = []

    class Told:
        def __init__(self, label, total, *, start: int = 0):
            assert (label, total) == ("targets", 2)

        def __enter__(self):
            return amounts.append

        def __exit__(self, *error):
            return None

    out = tmp_path / "targets"
    run = Run(out, Journal(tmp_path / "journal.jsonl"), Told)
    make_targets(sorted(tmp_path.glob("*.png")), run, toy_restorer(), prior, settings=QUICK)
    assert (out / "first.png").read_bytes() == (out / "second.png").read_bytes()
    assert math.fsum(amounts) == pytest.approx(2)
    assert len(amounts) == QUICK.start + 1


def test_a_grey_face_gets_a_grey_target_and_a_grey_result(tmp_path: Path, prior: DiffusionPrior) -> None:
    write_png(tmp_path / "grey.png", picture(32, 32, 1)[0].mean(0, keepdim=True).expand(3, 32, 32))
    write_png(tmp_path / "red.png", picture(32, 32, 2)[0])
    faces, run = sorted(tmp_path.glob("*.png")), Run(tmp_path, Journal(tmp_path / "journal.jsonl"))
    make_targets(faces, run.within("targets"), toy_restorer(), prior, settings=QUICK)
    restore_faces(faces, run.within("restored"), toy_restorer())
    for folder in ("targets", "restored"):
        grey, red = (read_image(tmp_path / folder / f"{name}.png") for name in ("grey", "red"))
        assert torch.equal(grey[0], grey[1])
        assert torch.equal(grey[1], grey[2])
        assert not torch.equal(red[0], red[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing": "ddim300"}, "spacing ddim300"),
        ({"spacing": "2000"}, "spacing 2000"),
        ({"spacing": "many"}, "spacing many"),
        ({"start": 250}, "`start` to lie in 1..249"),
        ({"start": 0}, "`start` to lie in"),
        ({"factor": 5}, "factor 5 does not divide a side of 32"),
        ({"factor": 32}, "factor 32"),
        ({"begin_with": "noise"}, "`begin_with` to be one of restored, face, got noise"),
        ({"update": "euler"}, "no update named euler; there are: ddpm"),
        ({"batch": 0}, "Expected `batch` to be 1 or more, got 0"),
    ],
)
def test_settings_that_cannot_be_followed_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        TargetSettings(**{"factor": 4, **change}).check(32)
    TargetSettings(factor=4).check(32)


def test_k_follows_the_damage_of_each_face(faces: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = tiny_prior("20")
    restorer = toy_restorer()
    used = []
    original = targets.pseudo_target

    def watched(face, attempt, prior: DiffusionPrior, noise, settings: TargetSettings, *rest):
        used.append((len(face), settings.start, settings.free_from))
        return original(face, attempt, prior, noise, settings, *rest)

    monkeypatch.setattr(targets, "pseudo_target", watched)
    monkeypatch.setattr(restorer, "matching_step", lambda face: torch.tensor([0, 160, 900]), raising=False)
    follow = TargetSettings(spacing="20", start=8, free_from=4, factor=4, by_damage=True, batch=3)
    found = made(faces, tmp_path / "follow", prior, follow, restorer)
    assert used == [(1, 0, 0), (1, 5, 2), (1, 8, 4)]  # steps 0, 53, 105, 158, 210 are not below 160
    clean = read_image(faces[0])
    attempt = restorer(clean[None]).clamp(-1, 1)[0]
    assert (found["a.png"] - attempt).abs().max() < 0.01
    same = made(faces, tmp_path / "same", prior, replace(follow, by_damage=False), restorer)
    assert torch.equal(found["c.png"], same["c.png"])
    assert not torch.equal(found["b.png"], same["b.png"])


@pytest.mark.parametrize(("start", "first"), [(2, 1), (3, 2), (6, 6)])
def test_a_hardly_degraded_face_gets_no_more_noise_than_its_first_step_expects(start: int, first: int) -> None:
    """Noise of the step above, as published, would be left as grain; at higher steps it is as published."""
    prior = tiny_prior()
    added: list[float] = []
    sample_of = prior.q_sample

    def q_sample(x0: Tensor, t: int, noise: Tensor) -> Tensor:
        added.append(t)
        return sample_of(x0, t, noise)

    prior.q_sample = q_sample  # type: ignore[method-assign]
    settings = replace(QUICK, start=start, free_from=start, update="ddim")
    pseudo_target(torch.zeros(1, 3, 32, 32), lambda face: face, prior, ImageNoise([0]), settings)
    assert added == [first]
