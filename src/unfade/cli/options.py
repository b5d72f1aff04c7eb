"""Flags that several commands share, and how they become settings."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from unfade.recipes.adapt import AdaptSettings

S = TypeVar("S")

Out = Annotated[Path, typer.Option("--out", help="Folder that is filled.")]
OutFile = Annotated[Path, typer.Option("--out", help="File of weights to write, ending in .safetensors.")]
Restorer = Annotated[str, typer.Option(help="Name of a restorer, a .safetensors file, or a run folder.")]
Prior = Annotated[str, typer.Option(help="Name of a prior or a .safetensors file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Precision = Annotated[str, typer.Option(help="float32 or bfloat16.")]

Start = Annotated[int | None, typer.Option(help="K: noise level to start from, in respaced steps.")]
FreeFrom = Annotated[int | None, typer.Option(help="L: respaced step below which the prior runs free.")]
Factor = Annotated[int | None, typer.Option(help="N of the low-pass filter, at the prior's size.")]
Spacing = Annotated[str | None, typer.Option(help="How many of the 1000 steps are kept: 250, 100, ddim50, ...")]
Update = Annotated[str | None, typer.Option(help="ddpm, ddim or ddim-eta0.5.")]

Steps = Annotated[int | None, typer.Option(help="Optimiser steps.")]
Batch = Annotated[int | None, typer.Option(help="Pictures per optimiser step.")]
MicroBatch = Annotated[int | None, typer.Option(help="Pictures per forward pass; gradients are accumulated.")]
LearningRate = Annotated[float | None, typer.Option(help="Learning rate to begin with.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0, help="Processes that prepare batches; 0: a thread. Default: what the cores and the work ask for."
    ),
]
Flip = Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the pairs.")]
HoldOut = Annotated[float | None, typer.Option(help="Share of the pairs that is only watched.")]
Perceptual = Annotated[str | None, typer.Option(help="prior, lpips or none.")]
PerceptualWeight = Annotated[float | None, typer.Option(help="Weight of the perceptual term.")]
GanWeight = Annotated[float | None, typer.Option(help="Weight of the adversarial term; 0: no discriminator.")]
Real = Annotated[Path | None, typer.Option(help="Folder of clean faces for the discriminator.")]


def choose_device(name: str) -> str:
    """auto: a GPU if there is one. Raises BadInput for a device that is not there."""
    import torch

    from unfade.errors import BadInput

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"The device {name} cannot be used ({reason}); try --device auto or cpu.") from error
    return name


def is_bf16(precision: str | None) -> bool | None:
    """Whether a precision is bfloat16; None stays None. Raises BadInput for an unknown one."""
    from unfade.errors import BadInput

    known = {"float32": False, "bfloat16": True, None: None}
    if precision not in known:
        raise BadInput(f"There is no precision {precision}; use float32 or bfloat16.")
    return known[precision]


def changed(settings: S, **values: Any) -> S:
    """The settings with every value that was given."""
    return replace(settings, **{k: v for k, v in values.items() if v is not None})  # type: ignore[type-var]


def adapt_settings(restorer: str, prior: str, seed: int, *, targets: Any, loop: Any, finetune: Any, losses: Any,
                   perceptual: str | None) -> "AdaptSettings":  # fmt: skip
    """The defaults for the size of this restorer and prior, with every flag that was given."""
    from unfade.recipes.adapt import settings_for
    from unfade.store.checkpoints import image_size
    from unfade.store.zoo import find_weights

    base = settings_for(image_size(find_weights(restorer, "restorer")), image_size(find_weights(prior, "prior")))
    tuning = changed(base.finetune, loop=changed(base.finetune.loop, seed=seed, **loop), **finetune)
    return changed(
        base,
        restorer=restorer,
        prior=prior,
        targets=changed(base.targets, seed=seed, **targets),
        finetune=tuning,
        losses=changed(base.losses, **losses),
        perceptual=perceptual,
    )
