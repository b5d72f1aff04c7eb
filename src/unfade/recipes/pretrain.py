"""From a folder of clean, aligned faces to a prior or a restorer."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unfade.diffusion.denoising import Denoising, DenoisingSettings, denoising_score, draw_noising
from unfade.errors import BadInput
from unfade.nets.unet import UNet, UNetConfig
from unfade.store.checkpoints import save_weights, write_card
from unfade.training.batches import Order, Pictures, find_training_pictures, flip
from unfade.training.loop import Batch, History, LoopSettings, train

Watch = Callable[[Iterable[tuple[int, Batch]], int, int], Iterable[tuple[int, Batch]]]

SMALL_PRIOR = UNetConfig(
    size=128,
    channels=64,
    channel_mult=(1, 2, 2, 4),
    res_blocks=(1, 1, 1, 1),
    attention_sizes=(16, 8),
    learned_variance=False,
    patch=2,
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
)


@dataclass(frozen=True)
class PriorRecipe:
    """How the built-in prior was trained."""

    network: UNetConfig = SMALL_PRIOR
    loop: LoopSettings = PRIOR_LOOP
    denoising: DenoisingSettings = DenoisingSettings()
    weights: Mapping[str, float] = field(default_factory=dict)  # of subfolders of the training pictures


def pretrain_prior(
    faces: Path,
    out: Path,
    recipe: PriorRecipe = PriorRecipe(),  # noqa: B008 - frozen
    *,
    held_out: Path | None = None,
    device: str = "cpu",
    watch: Watch = lambda steps, start, total: steps,
) -> History:
    """Train a prior on the pictures below `faces` and write it to `out` with a card; resumable.

    `held_out` is a folder of faces for validation. Raises BadInput for a folder without pictures.
    """
    paths, weights = find_training_pictures(faces, recipe.weights)
    pictures = Pictures(paths, recipe.network.size)
    order = Order(weights, seed=recipe.loop.seed)
    torch.manual_seed(recipe.loop.seed)
    network = UNet(recipe.network).to(device, memory_format=torch.channels_last)

    def batches(step: int) -> Batch:
        draws = order.step(step, recipe.loop.batch)
        x0 = torch.stack([flip(pictures[d.item], d, recipe.loop.seed) for d in draws])
        return x0, *draw_noising(x0, step, seed=recipe.loop.seed, settings=recipe.denoising)

    validate = denoising_score(_held_out(held_out, recipe.network.size)) if held_out else None
    history = train(
        network,
        Denoising().to(device),
        batches,
        recipe.loop,
        checkpoint=_checkpoint(out),
        validate=validate,
        watch=watch,
    )
    save_weights(out, network, architecture="unet", config=asdict(recipe.network), dtype=torch.float16)
    write_card(out, {"kind": "prior", "recipe": _plain(asdict(recipe)), "pictures": len(paths), **_last(history)})
    return history


def _held_out(folder: Path, size: int) -> list[Tensor]:
    paths, _ = find_training_pictures(folder, {})
    pictures = Pictures(paths, size)
    return [pictures[i] for i in range(len(pictures))]


def _checkpoint(out: Path) -> Path:
    if out.suffix != ".safetensors":
        raise BadInput(f"{out} must end in .safetensors, the format that weights are written in.")
    return out.with_suffix(".training")


def _plain(settings: dict[str, object]) -> dict[str, object]:
    return dict(json.loads(json.dumps(settings)))


def _last(history: History) -> dict[str, object]:
    return {"validation": history.validations[-1] if history.validations else {}, "losses": history.losses[-1:]}
