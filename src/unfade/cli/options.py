"""Flags that several commands share, and how they become settings."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from unfade.recipes.adapt_settings import AdaptSettings
    from unfade.restorers.families import Losses

S = TypeVar("S")

# Panels of the help, in this order.
BASIC, FACES, PRIOR, TRAINING, OUTPUT = "Basic", "Faces", "Prior", "Training", "Output"
# Settings of the built-in models, which the help names; those of other restorers are of their family.
USUAL: dict[str, object] = {
    "start": 6, "free_from": 3, "factor": 4, "spacing": "20", "update": "ddim", "begin_with": "restored",
    "by_damage": True, "agreement": 3.0, "rounds": 1, "steps": 80, "batch": 8, "micro_batch": 8, "learning_rate": 1e-4,
    "flip": True, "hold_out": 0.1, "redegraded": 1.0, "perceptual": "prior", "perceptual_weight": 0.5,
    "gan_weight": 0.0, "precision": "bfloat16",
}  # fmt: skip


def option(panel: str, text: str, *names: str, usual: str = "", **how: Any) -> Any:
    """A flag in a panel of the help; `usual` is the name of the setting in USUAL that its text ends with."""
    told = f"{text} Default: {_in_words(USUAL[usual])}." if usual else text
    return typer.Option(*names, help=told, rich_help_panel=panel, **how)


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


Out = Annotated[Path, option(BASIC, "Folder that is filled.", "--out")]
OutFile = Annotated[Path, option(BASIC, "File of weights to write, ending in .safetensors.", "--out")]
Restorer = Annotated[str, option(BASIC, "Name of a restorer, a .safetensors file, or a run folder.")]
Prior = Annotated[str, option(BASIC, "Name of a prior or a .safetensors file.")]
Device = Annotated[str, option(BASIC, "auto, cpu, cuda, cuda:1, mps.")]
Seed = Annotated[int, option(BASIC, "Seed of everything random.")]
Json = Annotated[bool, option(OUTPUT, "Print one JSON object instead of words.", "--json")]
Quiet = Annotated[bool, option(OUTPUT, "Print nothing but errors.", "--quiet")]
PRECISIONS = "float32, or bfloat16 where the device computes in it."
Precision = Annotated[str, option(BASIC, PRECISIONS)]
TunedPrecision = Annotated[str | None, option(BASIC, PRECISIONS, usual="precision")]

Start = Annotated[int | None, option(PRIOR, "K: noise level to start from, in respaced steps.", usual="start")]
FreeFrom = Annotated[int | None, option(PRIOR, "L: respaced step below which the prior runs free.", usual="free_from")]
Factor = Annotated[int | None, option(PRIOR, "N of the low-pass filter, at the prior's size.", usual="factor")]
Spacing = Annotated[
    str | None, option(PRIOR, "How many of the 1000 steps are kept: 250, 100, ddim50, ...", usual="spacing")
]
Update = Annotated[str | None, option(PRIOR, "ddpm, ddim, ddim-eta0.5, or dpm++ (few steps, sharp).", usual="update")]
Agreement = Annotated[
    float | None,
    option(
        PRIOR,
        "Leave out targets whose colours differ from the photo's so many times as much as the median target's do; "
        "0: learn from all.",
        usual="agreement",
    ),
]
ByDamage = Annotated[
    bool | None,
    option(
        PRIOR,
        "Noise less damaged faces by less than K says; for restorers of one step.",
        "--by-damage/--same-start",
        usual="by_damage",
    ),
]
BeginWith = Annotated[
    str | None,
    option(PRIOR, "restored, or face: the prior begins with the face, not the restorer's attempt.", usual="begin_with"),
]
Fidelity = Annotated[
    float | None,
    option(
        BASIC,
        "0..1, for CodeFormer and restorers of one step (0.5 by default): 0 for the cleanest face, 1 for the closest "
        "to the input.",
    ),
]
Refine = Annotated[
    int | None,
    option(
        OUTPUT,
        "For restorers of one step: evaluations after the first, which bring back texture; 0 is smooth. Default: the "
        "restorer's own.",
        min=0,
        max=3,
    ),
]
Strength = Annotated[
    float, option(OUTPUT, "0..1: blends each result with its input; 0 is the input, 1 the restored picture.")
]

Rounds = Annotated[
    int | None,
    option(
        TRAINING,
        "How often targets are made and learned from; later ones begin with the adapted attempts.",
        usual="rounds",
    ),
]
Steps = Annotated[int | None, option(TRAINING, "Optimiser steps.", usual="steps")]
Batch = Annotated[int | None, option(TRAINING, "Pictures per optimiser step.", usual="batch")]
MicroBatch = Annotated[
    int | None, option(TRAINING, "Pictures per forward pass; gradients are accumulated.", usual="micro_batch")
]
LearningRate = Annotated[float | None, option(TRAINING, "Learning rate to begin with.", usual="learning_rate")]
Workers = Annotated[
    int | None,
    option(
        TRAINING,
        "Processes that prepare batches; 0: a thread. Default: what the cores and the work ask for.",
        min=0,
    ),
]
Flip = Annotated[bool | None, option(TRAINING, "Mirror half of the pairs.", "--flip/--no-flip", usual="flip")]
Redegraded = Annotated[
    float | None,
    option(
        TRAINING,
        "Share of the faces learned from that are targets damaged as the photos are, by a fitted degradation.",
        usual="redegraded",
    ),
]
HoldOut = Annotated[float | None, option(TRAINING, "Share of the pairs that is only watched.", usual="hold_out")]
Perceptual = Annotated[str | None, option(TRAINING, "prior, lpips or none.", usual="perceptual")]
PerceptualWeight = Annotated[
    float | None, option(TRAINING, "Weight of the perceptual term.", usual="perceptual_weight")
]
GanWeight = Annotated[
    float | None, option(TRAINING, "Weight of the adversarial term; 0: no discriminator.", usual="gan_weight")
]
CodeLosses = Annotated[
    str | None,
    option(
        TRAINING,
        "For CodeFormer: codes (default), or fusion: its feature fusion learns too, from pictures.",
    ),
]
Real = Annotated[Path | None, option(TRAINING, "Folder of clean faces for the discriminator. Default: the targets.")]


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
