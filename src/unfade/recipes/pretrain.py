"""Train a prior or a restorer on a folder of clean, aligned faces."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfade.degradations.blind import BlindSettings, blind_pair, draw_blind
from unfade.degradations.generic import generic
from unfade.devices import device_of
from unfade.diffusion.denoising import Denoising, DenoisingSettings, denoising_score, draw_noising, noised
from unfade.diffusion.features import PriorFeatures
from unfade.diffusion.load import load_prior
from unfade.errors import BadInput
from unfade.metrics.reference import psnr
from unfade.nets.architecture import Kind
from unfade.nets.doubling import doubled as doubled_unet
from unfade.nets.swinir import SMALL, SwinIR, SwinIRConfig
from unfade.nets.unet import UNet, UNetConfig
from unfade.processes import leads
from unfade.progress import Progress, silent
from unfade.recipes.training_record import checkpoint_of, made_of, thinned
from unfade.restorers.base import Restorer
from unfade.restorers.image_level import ImageLossSettings, SwinIRRestorer, discriminator_for
from unfade.restorers.load import load_restorer, one_step_of_prior, save_restorer
from unfade.restorers.one_step import OneStepRestorer, OneStepSettings, doubled
from unfade.store.checkpoints import save_weights, start_from, trained_alone, write_card
from unfade.store.seeds import seed_for
from unfade.training.batches import Order, Pictures, find_training_pictures, flip
from unfade.training.loader import Batch, spare_workers
from unfade.training.loop import History, LoopSettings, train
from unfade.training.modes import seeded
from unfade.training.objective import Objective
from unfade.zoo.load import load_network
from unfade.zoo.models import find_weights

SMALL_PRIOR = UNetConfig(
    size=128,
    channels=64,
    channel_mult=(1, 2, 2, 4),
    res_blocks=(1, 1, 1, 1),
    attention_sizes=(16, 8),
    learned_variance=False,
    patch=2,
    detail=16,
)

PRIOR_LOOP = LoopSettings(
    steps=6000,
    batch=16,
    micro_batch=16,
    learning_rate=3e-4,
    final_learning_rate=1e-5,
    schedule="trapezoid",
    warmup=200,
    clip=1.0,
    ema=0.999,
    ema_ramp=True,
    bf16=True,
    checkpoint_every=200,
)


@dataclass(frozen=True)
class PriorRecipe:
    """How the built-in prior was trained."""

    network: UNetConfig = SMALL_PRIOR
    loop: LoopSettings = PRIOR_LOOP
    denoising: DenoisingSettings = DenoisingSettings()
    weights: Mapping[str, float] = field(default_factory=dict)  # how often to use each subfolder's pictures; default 1
    start: str | Path | None = None  # name or file of a prior to start from; None: random weights
    doubled: bool = False  # begin with the prior `start`, folded for faces twice as large, instead of `network`


# Of four pixels, the mean has half the noise of each: at twice the size, a step hides as much of a face as one of half
# the noise does (Hoogeboom et al. 2023), so the steps that the method uses reach further up.
DOUBLED_PRIOR_RECIPE = PriorRecipe(
    loop=replace(PRIOR_LOOP, steps=4000, batch=8, micro_batch=8, final_learning_rate=5e-6),
    denoising=DenoisingSettings(early_until=800),
    doubled=True,
)


@dataclass(frozen=True)
class PriorBatches:
    """The batch of each training step of a prior: x0 (B, 3, size, size), steps t (B,) and noise of x0's shape."""

    pictures: Pictures
    order: Order
    recipe: PriorRecipe

    def __call__(self, step: int) -> Batch:
        loop = self.recipe.loop
        draws = self.order.step(step, loop.batch)
        x0 = torch.stack([flip(self.pictures[draw.item], draw, loop.seed) for draw in draws])
        return x0, *draw_noising(x0, step, seed=loop.seed, settings=self.recipe.denoising)


def pretrain_prior(
    faces: Path,
    out: Path,
    recipe: PriorRecipe = PriorRecipe(),
    *,
    held_out: Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    progress: Progress = silent,
) -> History:
    """Train a prior on the pictures below `faces` and write it to `out` with a card; resumable.

    `held_out` is a folder of faces for validation. `workers` processes prepare the batches. If it is None, there are
    none when training on a CPU with all pictures kept decoded in memory, since little work is left for them. Raises
    BadInput for a folder without pictures, OutputConflict if `out` exists but was not begun by such a training,
    or while another is at work on it.
    """
    checkpoint = checkpoint_of(out)
    network = _fresh_prior(recipe)
    recipe = replace(recipe, network=network.config)
    paths, weights = find_training_pictures(faces, recipe.weights)
    pictures = Pictures(paths, recipe.network.size)
    order = Order(weights, seed=recipe.loop.seed)
    network.to(device)

    if workers is None:
        workers = 0 if pictures.all_kept and device == "cpu" else spare_workers()  # noise alone keeps a GPU waiting
    size, predicts = recipe.network.size, recipe.network.predicts
    validate = denoising_score(_held_out(held_out, size), predicts=predicts) if held_out else None
    with trained_alone(out):
        history = train(
            network,
            Denoising(predicts, recipe.denoising.weighting).to(device),
            PriorBatches(pictures, order, recipe),
            recipe.loop,
            workers=workers,
            checkpoint=checkpoint,
            made_of=made_of(recipe, faces, paths, {"prior": [recipe.start]}),
            validate=validate,
            progress=progress,
            label="prior",
        )
        if leads():
            save_weights(out, network, architecture="unet", config=asdict(recipe.network), dtype=torch.float16)
            write_card(out, _card("prior", recipe, paths, history))
    return history


def _fresh_prior(recipe: PriorRecipe) -> UNet:
    """The network before training. Raises BadInput for a prior to start from that is missing or predicts otherwise."""
    with seeded(torch.device("cpu"), recipe.loop.seed):
        if not recipe.doubled:
            network = UNet(recipe.network)
            _check_prediction(recipe, _go_on_from(recipe.start, "prior", network))
            return network
        if recipe.start is None:
            raise BadInput("Only a prior of a folded U-Net can be doubled; name one as `start`.")
        return doubled_unet(load_network(recipe.start, "prior").network)


RESTORER_LOOP = replace(PRIOR_LOOP, steps=3000, learning_rate=4e-4, warmup=100, ema=0.995)


@dataclass(frozen=True)
class RestorerRecipe:
    """How the older built-in restorer was trained: on the blind degradation, as in the paper (Appendix B.1)."""

    network: SwinIRConfig = SMALL
    from_prior: str | None = None  # name or file of a prior whose network becomes the restorer, instead of `network`
    entry: OneStepSettings = OneStepSettings()  # the noise levels at which faces enter that network
    doubled: bool = False  # begin with the restorer `start`, folded for faces twice as large
    noised: float = 0.0  # share of the faces with white noise instead of the blind degradation, as a prior learns from
    generic: float = 0.0  # share of the faces with generic degradation instead: noise of any colour and grain
    size: int = 128  # side of the faces in pixels; with `from_prior`, the prior's
    loop: LoopSettings = RESTORER_LOOP
    losses: ImageLossSettings = ImageLossSettings(perceptual_weight=0, gan_weight=0)
    prior: str = "small-prior"  # its features are compared by the perceptual term, if that has a weight
    blind: BlindSettings = BlindSettings()
    weights: Mapping[str, float] = field(default_factory=dict)  # how often to use each subfolder's pictures; default 1
    start: str | Path | None = None  # name or file of a restorer to start from; None: random weights


# The prior's network has already learned faces, so fewer steps and a smaller discriminator are enough.
ONE_STEP_RECIPE = RestorerRecipe(
    from_prior="small-prior",
    noised=0.15,
    generic=0.25,
    loop=replace(RESTORER_LOOP, steps=1500, learning_rate=1e-4, final_learning_rate=5e-6, checkpoint_every=50),
    losses=ImageLossSettings(
        perceptual_weight=0.5, gan_weight=0, texture_weight=0.4, discriminator_lr=2e-4, discriminator_features=32
    ),
)


@dataclass(frozen=True)
class RestorerBatches:
    """The batch of each training step of a restorer: freshly degraded faces and truth, both (B, 3, size, size)."""

    pictures: Pictures
    order: Order
    recipe: RestorerRecipe

    def __call__(self, step: int) -> Batch:
        loop = self.recipe.loop
        pairs = [
            _degraded(flip(self.pictures[draw.item], draw, loop.seed), draw.position, self.recipe)
            for draw in self.order.step(step, loop.batch)
        ]
        return torch.stack([face for face, _ in pairs]), torch.stack([truth for _, truth in pairs])


def pretrain_restorer(
    faces: Path,
    out: Path,
    recipe: RestorerRecipe = RestorerRecipe(),
    *,
    held_out: Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    progress: Progress = silent,
) -> History:
    """Train a restorer on the pictures below `faces`, freshly degraded in each step, and write it to `out`; resumable.

    `held_out` is a folder of clean faces for validation. `workers` processes prepare the batches; None: as many as
    `spare_workers` returns. Raises BadInput for a folder without pictures, OutputConflict if `out` exists but was not
    begun by such a training, or while another is at work on it.
    """
    checkpoint = checkpoint_of(out)
    restorer = _fresh_restorer(recipe)
    recipe = replace(recipe, size=restorer.size)
    paths, weights = find_training_pictures(faces, recipe.weights)
    pictures = Pictures(paths, recipe.size)
    order = Order(weights, seed=recipe.loop.seed)
    compared = recipe.prior if recipe.losses.perceptual_weight else None
    models: dict[Kind, list[object]] = {"restorer": [recipe.start], "prior": [recipe.from_prior, compared]}
    restorer.to(device)

    with trained_alone(out):
        history = train(
            restorer,
            _objective(restorer, recipe, device),
            RestorerBatches(pictures, order, recipe),
            recipe.loop,
            workers=spare_workers() if workers is None else workers,
            checkpoint=checkpoint,
            made_of=made_of(recipe, faces, paths, models),
            validate=_restoration_score(held_out, recipe) if held_out else None,
            progress=progress,
            label="restorer",
        )
        if leads():
            save_restorer(out, restorer, dtype=torch.float16)
            write_card(out, _card("restorer", recipe, paths, history))
    return history


def _fresh_restorer(recipe: RestorerRecipe) -> Restorer:
    """The restorer before training. Raises BadInput if another than a one-step restorer is to be doubled."""
    begun = None if recipe.start is None or recipe.from_prior else load_restorer(recipe.start, device="cpu")
    if recipe.doubled:
        if not isinstance(begun, OneStepRestorer):
            raise BadInput("Only a one-step restorer can be doubled; name one as `start`.")
        return doubled(begun)
    if isinstance(begun, OneStepRestorer):
        return begun
    if recipe.from_prior is not None:
        restorer: Restorer = one_step_of_prior(recipe.from_prior, recipe.entry)
    else:
        with seeded(torch.device("cpu"), recipe.loop.seed):
            restorer = SwinIRRestorer(SwinIR(recipe.network), recipe.size)
    _go_on_from(recipe.start, "restorer", restorer)
    return restorer


def _go_on_from(start: str | Path | None, kind: Kind, network: nn.Module) -> Mapping[str, Any] | None:
    """Load the weights of the model to start from, and return its configuration; None: random weights."""
    return None if start is None else start_from(network, find_weights(start, kind))


def _check_prediction(recipe: PriorRecipe, begun_as: Mapping[str, Any] | None) -> None:
    """Raises BadInput for a prior that predicts something else: keys and shapes are the same, so loading succeeds."""
    predicts = recipe.network.predicts
    if begun_as is not None and (before := begun_as.get("predicts", "eps")) != predicts:
        raise BadInput(f"{recipe.start} predicts {before}, not {predicts}; start from a prior that predicts the same.")


def _objective(restorer: Restorer, recipe: RestorerRecipe, device: str) -> Objective:
    losses, perceptual = recipe.losses, None
    if losses.perceptual_weight:
        perceptual = PriorFeatures(load_prior(recipe.prior, device=device).unet, shifted=True)
    return restorer.objective(
        losses,
        perceptual=perceptual,
        discriminator=discriminator_for(losses, recipe.loop.seed, torch.device(device)),
        micro_batches=recipe.loop.micro_batches,
    )


def _degraded(truth: Tensor, position: int | str, recipe: RestorerRecipe) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed_for("blind", recipe.loop.seed, position))
    kind = rng.random() if recipe.noised or recipe.generic else 1.0
    if kind < recipe.noised:
        return noised(truth, rng, highest=recipe.entry.highest), truth
    if kind < recipe.noised + recipe.generic:
        return generic(truth, rng), truth
    return blind_pair(truth, draw_blind(rng, size=recipe.size, settings=recipe.blind))


def _restoration_score(folder: Path, recipe: RestorerRecipe) -> Callable[[nn.Module], dict[str, float]]:
    """Scores a restorer by the PSNR of held-out faces with fixed degradations, before and after restoring."""
    recipe = replace(recipe, noised=0, generic=0)  # so that every restorer is scored on the same faces
    pairs = [_degraded(truth, f"held out {i}", recipe) for i, truth in enumerate(_held_out(folder, recipe.size))]

    def score(restorer: nn.Module) -> dict[str, float]:
        device = device_of(restorer)
        before, after = [], []
        for face, truth in pairs:
            restored = restorer(face[None].to(device)).float().clamp(-1, 1).cpu()
            before.append(psnr(face[None], truth[None]))
            after.append(psnr(restored, truth[None]))
        return {"degraded_psnr": float(torch.cat(before).mean()), "restored_psnr": float(torch.cat(after).mean())}

    return score


def _held_out(folder: Path, size: int) -> list[Tensor]:
    paths, _ = find_training_pictures(folder, {})
    pictures = Pictures(paths, size)
    return [pictures[i] for i in range(len(pictures))]


def _card(kind: str, recipe: PriorRecipe | RestorerRecipe, paths: list[Path], history: History) -> dict[str, object]:
    """The facts that a training knows; whoever publishes the model adds data, licence and intended use."""
    return {
        "kind": kind,
        "recipe": {**asdict(recipe), "start": recipe.start and str(recipe.start)},
        "steps": recipe.loop.steps,
        "pictures": len(paths),
        "losses": thinned(history.losses),
        "held_out": history.validations,
        "waiting_for_data": round(history.waiting, 4),
    }
