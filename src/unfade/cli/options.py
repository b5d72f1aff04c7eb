"""Flags that several commands share, and how they become settings."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from unfade.recipes.adapt_settings import AdaptSettings
    from unfade.restorers.families import Losses

S = TypeVar("S")

Out = Annotated[Path, typer.Option("--out", help="Folder that is filled.")]
OutFile = Annotated[Path, typer.Option("--out", help="File of weights to write, ending in .safetensors.")]
Restorer = Annotated[str, typer.Option(help="Name of a restorer, a .safetensors file, or a run folder.")]
Prior = Annotated[str, typer.Option(help="Name of a prior or a .safetensors file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
PRECISIONS = "float32, or bfloat16 where the device computes in it."
Precision = Annotated[str, typer.Option(help=PRECISIONS)]

Start = Annotated[int | None, typer.Option(help="K: noise level to start from, in respaced steps.")]
FreeFrom = Annotated[int | None, typer.Option(help="L: respaced step below which the prior runs free.")]
Factor = Annotated[int | None, typer.Option(help="N of the low-pass filter, at the prior's size.")]
Spacing = Annotated[str | None, typer.Option(help="How many of the 1000 steps are kept: 250, 100, ddim50, ...")]
Update = Annotated[str | None, typer.Option(help="ddpm, ddim or ddim-eta0.5.")]
Agreement = Annotated[
    float | None,
    typer.Option(
        help="Leave out targets whose colours differ from the photo's so many times as much as the median target's do; "
        "0: learn from all."
    ),
]
ByDamage = Annotated[
    bool | None,
    typer.Option(
        "--by-damage/--same-start", help="Noise less damaged faces by less than K says; for restorers of one step."
    ),
]
BeginWith = Annotated[
    str | None,
    typer.Option(help="restored, or face: the prior begins with the face, not the restorer's attempt."),
]
Fidelity = Annotated[
    float | None,
    typer.Option(
        help="0..1, for CodeFormer and restorers of one step (0.5 by default): 0 for the cleanest face, 1 for the "
        "closest to the input."
    ),
]
Refine = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=3,
        help="For restorers of one step: evaluations after the first, which bring back texture; 0 is smooth.",
    ),
]
Strength = Annotated[
    float, typer.Option(help="0..1: blends each result with its input; 0 is the input, 1 the restored picture.")
]

Rounds = Annotated[
    int | None,
    typer.Option(help="How often targets are made and learned from; later ones begin with the adapted attempts."),
]
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
Redegraded = Annotated[
    float | None,
    typer.Option(
        help="Share of the faces learned from that are targets damaged as the photos are, by a fitted degradation."
    ),
]
HoldOut = Annotated[float | None, typer.Option(help="Share of the pairs that is only watched.")]
Perceptual = Annotated[str | None, typer.Option(help="prior, lpips or none.")]
PerceptualWeight = Annotated[float | None, typer.Option(help="Weight of the perceptual term.")]
GanWeight = Annotated[float | None, typer.Option(help="Weight of the adversarial term; 0: no discriminator.")]
CodeLosses = Annotated[
    str | None, typer.Option(help="For CodeFormer: codes, or fusion: its feature fusion learns too, from pictures.")
]
Real = Annotated[Path | None, typer.Option(help="Folder of clean faces for the discriminator.")]


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
                   perceptual: str | None, code_losses: str | None = None, fidelity: float | None = None,
                   strength: float | None = None, rounds: int | None = None,
                   refine: int | None = None, agreement: float | None = None) -> "AdaptSettings":  # fmt: skip
    """The defaults for this restorer and prior, with every flag that was given.

    Raises BadInput for flags of another family of restorers.
    """
    from unfade.recipes.adapt_settings import settings_for

    base = settings_for(restorer, prior)
    tuning = changed(base.finetune, loop=changed(base.finetune.loop, seed=seed, **loop), **finetune)
    return changed(
        base,
        targets=changed(base.targets, seed=seed, **targets),
        finetune=tuning,
        losses=_losses(_kind_of(base.losses, code_losses), losses, perceptual),
        perceptual=perceptual,
        fidelity=fidelity,
        strength=strength,
        rounds=rounds,
        refine=refine,
        agreement=agreement,
    )


def _kind_of(base: "Losses", code_losses: str | None) -> "Losses":
    """The losses that --code-losses names; those of the family if it was not given."""
    from unfade.errors import BadInput
    from unfade.restorers.code_level import CODE_LOSSES, CodeLossSettings

    if code_losses is None:
        return base
    if not isinstance(base, CodeLossSettings):
        raise BadInput("--code-losses is for a CodeFormer, and this restorer learns on pictures: leave it out.")
    if code_losses not in CODE_LOSSES:
        raise BadInput(f"There are no code losses named {code_losses}; there are: {', '.join(CODE_LOSSES)}.")
    return CODE_LOSSES[code_losses]


def _losses(base: "Losses", weights: dict[str, float | None], perceptual: str | None) -> "Losses":
    """The losses with the weights that were given, of the terms that compare pictures."""
    from unfade.errors import BadInput
    from unfade.restorers.families import picture_losses
    from unfade.restorers.image_level import ImageLossSettings

    given = [name for name, value in {**weights, "perceptual": perceptual}.items() if value is not None]
    pictures = picture_losses(base)
    if pictures is None:
        if given:
            raise BadInput(
                f"--{given[0].replace('_', '-')} is about pictures, but this restorer learns on codes: leave it out, "
                "or say --code-losses fusion."
            )
        return base
    if isinstance(base, ImageLossSettings):
        return changed(base, **weights)
    return changed(base, image=changed(pictures, **weights))
