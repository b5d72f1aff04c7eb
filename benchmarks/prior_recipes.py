"""Which recipe of the prior is worth most for the same compute?

    python benchmarks/prior_recipes.py FACES --held-out FACES --out FOLDER [--retinaface FILE.pth] [--steps 700]

Every recipe trains a narrow prior (32 channels) of 128 px from nothing for as many operations as --steps steps of the
first one take, the others being changed in one thing. Runs that are there already are kept, so a stopped benchmark
goes on. Prints in Markdown: the squared error of the predicted noise on the held-out faces at three steps (1 for a
network that knows nothing); of pseudo targets for held-out photos of a camera (--camera) the PSNR to the truth and,
with --retinaface, the Frechet distance in the detector's features; and how strong a checkerboard they have, in levels
of 255.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from detector_spaces import retinaface_space
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unfade.degradations.camera import camera
from unfade.diffusion.denoising import DenoisingSettings, denoising_score
from unfade.diffusion.load import load_prior
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.sampler import ImageNoise
from unfade.metrics.distribution import frechet_distance, statistics
from unfade.metrics.reference import psnr
from unfade.nets.unet import UNet
from unfade.paper.pieces import DEGRADATIONS as CAMERAS
from unfade.recipes.adapt_settings import SHORT_TARGETS
from unfade.recipes.pretrain import PRIOR_LOOP, SMALL_PRIOR, PriorRecipe, pretrain_prior
from unfade.restorers.load import load_restorer
from unfade.stages.degrade import CameraDegradation
from unfade.stages.targets import pseudo_target
from unfade.store.seeds import seed_for
from unfade.training.batches import Pictures, find_training_pictures

NARROW = replace(SMALL_PRIOR, channels=32)
LOOP = replace(PRIOR_LOOP, batch=8, micro_batch=8, learning_rate=6e-4, bf16=False, checkpoint_every=100)
FIRST = PriorRecipe(network=NARROW, loop=LOOP, denoising=DenoisingSettings(weighting="eps"))


def network(**changes: object) -> PriorRecipe:
    """The first recipe with another network."""
    return replace(FIRST, network=replace(NARROW, **changes))


def loop(**changes: object) -> PriorRecipe:
    """The first recipe with other settings of the optimiser."""
    return replace(FIRST, loop=replace(FIRST.loop, **changes))


def loss(recipe: PriorRecipe = FIRST, **changes: object) -> PriorRecipe:
    """A recipe with another loss."""
    return replace(recipe, denoising=replace(recipe.denoising, **changes))


# A level at full resolution before the others, as in published networks.
FULL = {"patch": 1, "detail": 0, "channel_mult": (1, 1, 2, 2, 4), "res_blocks": (1, 1, 1, 1, 1)}

RECIPES = {
    "patch 2, detail 16; eps; 6e-4; EMA 0.999": FIRST,
    "patch 1": network(**FULL),
    "predicts v, weighted as v": loss(network(predicts="v"), weighting="v"),
    "weighted min-SNR 5": loss(weighting="min-snr"),
    "learning rate 2e-3": loop(learning_rate=2e-3),
    "learning rate 2e-4": loop(learning_rate=2e-4),
    "no EMA": loop(ema=0.0, ema_ramp=False),
    "EMA 0.99": loop(ema=0.99),
    "predicts v, weighted as eps": network(predicts="v"),
    "patch 2, no detail": network(detail=0),
    "all steps alike": loss(early_share=0.0),
    "batch 16": loop(batch=16, micro_batch=16),
    "EMA 0.9999": loop(ema=0.9999),
}
LEVELS = (20, 200, 650)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--retinaface", type=Path)
    parser.add_argument("--steps", type=int, default=700, help="of the first recipe")
    parser.add_argument("--photos", type=int, default=64, help="held-out faces that targets are made of")
    parser.add_argument("--camera", choices=CAMERAS, default="4x moderate")
    parser.add_argument("--only", nargs="*", choices=RECIPES, default=list(RECIPES), help="recipes; nothing: none")
    parser.add_argument("--priors", nargs="*", default=["small-prior"], help="names or files of others to compare with")
    args = parser.parse_args()
    budget = args.steps * operations(FIRST)
    photos = Photos(args.held_out, args.photos, CAMERAS[args.camera], args.retinaface)
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"{budget / 1e12:.0f} TFLOP each; checkerboard in the truth: {grid(photos.truth):.2f} levels")
    print("| recipe | steps | parameters | " + " | ".join(f"error at {t}" for t in LEVELS), end=" | ")
    print("targets: PSNR | Fréchet | checkerboard |")
    print("| --- |" + " --- |" * (len(LEVELS) + 5))
    for name in args.only:
        recipe = RECIPES[name]
        steps = round(budget / operations(recipe))
        warmup = min(PRIOR_LOOP.warmup, steps // 10)
        shortened = replace(recipe.loop, steps=steps, warmup=warmup)
        out = args.out / f"{name.replace(' ', '-')}.safetensors"
        pretrain_prior(args.faces, out, replace(recipe, loop=shortened))
        print(f"| {name} | {steps} | {row(load_prior(out, device='cpu'), photos)} |", flush=True)
    for name in args.priors:
        prior = load_prior(name, device="cpu")
        print(f"| {name} | - | {row(prior, photos)} |", flush=True)
        if prior.patch > 1:
            prior.patch = 1  # as if it folded nothing
            print(f"| the same, its grid left in | - | {row(prior, photos)} |", flush=True)


def operations(recipe: PriorRecipe) -> int:
    """Of one training step: a backward pass takes twice as many as a forward pass."""
    unet = UNet(recipe.network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(torch.zeros(1, 3, recipe.network.size, recipe.network.size), torch.zeros(1, dtype=torch.long))
    return int(counter.get_total_flops()) * 3 * recipe.loop.batch


class Photos:
    """Held-out faces and how a camera sees them, (B, 3, 128, 128) in [-1, 1]."""

    def __init__(self, faces: Path, count: int, camera: CameraDegradation, detector: Path | None):
        found, _ = find_training_pictures(faces, {})
        every = Pictures(found, NARROW.size)
        self.faces = [every[i] for i in range(len(found))]
        chosen = range(0, len(found), max(1, len(found) // count))[:count]
        self.truth = torch.stack([self.faces[i] for i in chosen])
        self.seen = torch.stack([as_seen(camera, face, i) for i, face in enumerate(self.truth)])
        self.space = retinaface_space(detector) if detector else None

    def score(self, prior: DiffusionPrior) -> dict[str, float]:
        """Errors of the predicted noise over all held-out faces."""
        with torch.no_grad():
            return denoising_score(self.faces, predicts=prior.predicts)(prior.unet)

    def targets(self, prior: DiffusionPrior, *, batch: int = 8) -> Tensor:
        """Pseudo targets like the truth, made with the built-in restorer and the settings of the built-in models."""
        restorer, settings = load_restorer(device="cpu"), SHORT_TARGETS.for_size(prior.size)
        walked = prior.respaced(settings.spacing)
        parts = []
        for start in range(0, len(self.seen), batch):
            faces = self.seen[start : start + batch]
            noise = ImageNoise(range(start, start + len(faces)))
            parts.append(pseudo_target(faces, restorer, walked, noise, settings).clamp(-1, 1))
        return torch.cat(parts)

    def frechet(self, targets: Tensor) -> float:
        """The distance of the two sets in the detector's features; NaN without a detector."""
        if self.space is None:
            return math.nan
        made, true = (self.space(images) for images in (targets, self.truth))
        return frechet_distance(*(statistics(one.reshape(-1, one.shape[-1])) for one in (made, true)))


def as_seen(degradation: CameraDegradation, face: Tensor, index: int) -> Tensor:
    """A camera of its own for each face, always the same."""
    rng = np.random.default_rng(seed_for("recipes of the prior", index))
    return camera(face, degradation.draw(rng, height=face.shape[1], width=face.shape[2]))


def row(prior: DiffusionPrior, photos: Photos) -> str:
    """The numbers of one prior, as cells of a row."""
    targets = photos.targets(prior)
    score = photos.score(prior)
    parameters = sum(p.numel() for p in prior.parameters()) / 1e6
    cells = [f"{parameters:.1f} M", *(f"{score[f'held_out_t{level}']:.5f}" for level in LEVELS)]
    return " | ".join([
        *cells, f"{float(psnr(targets, photos.truth).mean()):.2f}", f"{photos.frechet(targets):.4f}",
        f"{grid(targets):.2f}",
    ])  # fmt: skip


def grid(images: Tensor) -> float:
    """How strong a checkerboard of single pixels is, in levels of 255: rms over blocks of 16 px; (B, 3, H, W)."""
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(images.shape[-2] // 2, images.shape[-1] // 2)
    return float(F.avg_pool2d(images * board, 16).square().mean().sqrt()) * 127.5


if __name__ == "__main__":
    main()
