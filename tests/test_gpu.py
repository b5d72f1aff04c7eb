"""What only a GPU can show: nothing waits for it inside a loop, and it computes what the processor computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adapt_settings import small
from networks import B32, CountingNoise, tiny_prior
from recorded import picture
from tiny_models import write_faces
from toys import LOOP, ToyObjective, ToyRestorer, toy_batches
from unfade.diffusion.sampler import UPDATES, ImageNoise
from unfade.faces.identity import load_embedder
from unfade.recipes.adapt import adapt
from unfade.recipes.pretrain import PRIOR_LOOP, PriorRecipe, pretrain_prior
from unfade.stages.targets import TargetSettings, pseudo_target
from unfade.store.checkpoints import read_weights
from unfade.training.loop import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
QUICK = TargetSettings(spacing="20", start=12, free_from=6, factor=4)
Models = tuple[Path, Path]


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Convolutions and products in float32 proper, not in TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def no_waiting() -> Iterator[None]:
    """Inside, whatever makes the host wait for the GPU is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Brought:
    """The draws of the processor, on the GPU."""

    def __init__(self) -> None:
        self.noise = CountingNoise()

    def __call__(self, like: Tensor) -> Tensor:
        return self.noise(like.cpu()).to(like)


def target_on(device: str, settings: TargetSettings = QUICK) -> Tensor:
    face, restorer = picture(32, 32, 1, count=2).to(device), ToyRestorer(32).eval().to(device)
    return pseudo_target(face, restorer, tiny_prior(settings.spacing).to(device), Brought(), settings).cpu()


def test_nothing_waiting_is_noticed() -> None:
    with pytest.raises(RuntimeError), no_waiting():
        torch.ones(1, device="cuda").item()


@pytest.mark.parametrize("update", UPDATES)
def test_the_sampler_does_not_wait(update: str) -> None:
    settings = replace(QUICK, update=update)
    face, prior, restorer = picture(32, 32, 1).cuda(), tiny_prior("20").cuda(), ToyRestorer(32).eval().cuda()
    noise = ImageNoise([1], "cuda")
    first = pseudo_target(face, restorer, prior, noise, settings)  # brings the filters to the GPU
    with no_waiting():
        second = pseudo_target(face, restorer, prior, noise, settings)
    assert torch.isfinite(first).all()
    assert (first != second).any(), "the noise went on"


def test_a_training_step_does_not_wait() -> None:
    class Quiet(ToyObjective):
        def forward(self, model: nn.Module, *batch: Tensor) -> dict[str, Tensor]:
            torch.cuda.set_sync_debug_mode("error")
            return super().forward(model, *batch)

        def after_step(self) -> None:
            torch.cuda.set_sync_debug_mode("default")

    history = train(ToyRestorer(16).cuda(), Quiet(), toy_batches, replace(LOOP, clip=1.0, micro_batch=4))
    assert history.losses[-1]["step"] == LOOP.steps


def test_a_target_is_that_of_the_processor() -> None:
    torch.testing.assert_close(target_on("cuda"), target_on("cpu"), atol=2e-3, rtol=0)


def test_bfloat16_is_near() -> None:
    in_bf16 = target_on("cuda", replace(QUICK, bf16=True))
    full = target_on("cuda")
    assert not torch.equal(in_bf16, full)
    assert (in_bf16 - full).abs().mean() < 0.05


def losses_of(
    folder: Path, name: str, *, device: str = "cuda", workers: int = 0, compiled: bool = False
) -> list[float]:
    """Of 20 steps of a tiny prior."""
    if not (folder / "faces").exists():
        write_faces(folder / "faces", 3)
    loop = replace(PRIOR_LOOP, steps=20, warmup=5, batch=4, micro_batch=4, bf16=False, compile=compiled)
    recipe, out = PriorRecipe(B32, loop), folder / f"{name}.safetensors"
    history = pretrain_prior(folder / "faces", out, recipe, device=device, workers=workers)
    return [value for _, value in history.curve("denoising")]


def test_a_prior_learns_as_on_the_processor(tmp_path: Path) -> None:
    expected = losses_of(tmp_path, "cpu", device="cpu")
    assert expected[1] < 0.9 * expected[0]
    assert losses_of(tmp_path, "cuda") == pytest.approx(expected, rel=0.02)
    assert losses_of(tmp_path, "workers", workers=2) == pytest.approx(expected, rel=0.02)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of its own compiler
def test_a_compiled_prior_learns_the_same(tmp_path: Path) -> None:
    assert losses_of(tmp_path, "a", compiled=True) == pytest.approx(losses_of(tmp_path, "b"), rel=0.02)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_whole_story(bf16: bool, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 5)
    settings = small(*models)
    loop = replace(settings.finetune.loop, bf16=bf16)
    settings = replace(
        settings,
        targets=replace(settings.targets, bf16=bf16),
        finetune=replace(settings.finetune, loop=loop),
    )
    done = adapt(tmp_path / "photos", tmp_path / "run", settings, aligned=True, device="cuda")
    assert done.counts.as_dict() == {"found": 5, "done": 5, "skipped": 0, "failed": 0, "no_face": 0}
    before, after = read_weights(models[0]).state, read_weights(tmp_path / "run" / "restorer.safetensors").state
    assert any(not torch.equal(after[key], before[key]) for key in before)
    assert all(torch.isfinite(value).all() for value in after.values())
    again = adapt(tmp_path / "photos", tmp_path / "run", settings, aligned=True, device="cuda")
    assert again.counts == done.counts


def test_persons_are_the_same_on_the_gpu() -> None:
    faces = picture(128, 128, 3, count=2)
    torch.testing.assert_close(load_embedder(device="cuda")(faces), load_embedder()(faces), atol=1e-4, rtol=0)
