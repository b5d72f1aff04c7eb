"""The commands `unfade train prior` and `unfade train restorer`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Flags, Outcome, command
from unfade.cli.settings import changed, is_bf16
from unfade.errors import BadInput
from unfade.progress import Progress

if TYPE_CHECKING:
    from unfade.restorers.image_level import ImageLossSettings
    from unfade.training.loop import History, LoopSettings

app = typer.Typer(help="Train a model from clean, aligned faces.", no_args_is_help=True)

OF_RECIPE = "Default: the recipe's, recorded in the card of the result."
Faces = Annotated[Path, typer.Argument(help="Folder of clean, aligned faces, searched with its subfolders.")]
HeldOut = Annotated[Path | None, typer.Option(help="Folder of faces for validation, never trained on.")]
From = Annotated[
    str | None, typer.Option("--from", help="Name or file of a model to start from. Default: random weights.")
]
Weight = Annotated[
    list[str] | None,
    typer.Option(help="SUBFOLDER=WEIGHT: how often its pictures are used, e.g. 0.33; may be given several times."),
]

Steps = Annotated[int | None, typer.Option(help=f"Optimiser steps. {OF_RECIPE}")]
Batch = Annotated[int | None, typer.Option(help=f"Pictures per optimiser step. {OF_RECIPE}")]
MicroBatch = Annotated[
    int | None, typer.Option(help=f"Pictures per forward pass; gradients are accumulated. {OF_RECIPE}")
]
LearningRate = Annotated[float | None, typer.Option(help=f"Initial learning rate. {OF_RECIPE}")]
PerceptualWeight = Annotated[float | None, typer.Option(help=f"Weight of the perceptual term. {OF_RECIPE}")]
GanWeight = Annotated[
    float | None, typer.Option(help=f"Weight of the adversarial term; 0: no discriminator. {OF_RECIPE}")
]
TextureWeight = Annotated[float | None, typer.Option(help=f"Weight of the texture term. {OF_RECIPE}")]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile", help="Compile the network first, which takes a minute or two and pays off in long trainings."
    ),
]


@dataclass(frozen=True)
class Training(Flags):
    """How long, how fast and how precisely a model is trained."""

    steps: Steps = None
    batch: Batch = None
    micro_batch: MicroBatch = None
    learning_rate: LearningRate = None
    precision: Annotated[str | None, typer.Option(help=f.PRECISIONS)] = None
    compile: Compile = None

    def loop(self, usual: "LoopSettings", seed: int) -> "LoopSettings":
        """The training loop of a recipe with every flag that was given."""
        values = asdict(self)
        return changed(usual, seed=seed, bf16=is_bf16(values.pop("precision")), **values)


@app.command("prior")
@command
def prior(
    faces: Faces,
    out: f.OutFile,
    held_out: HeldOut = None,
    weight: Weight = None,
    start: From = None,
    double: Annotated[
        bool, typer.Option("--double", help="Begin with the prior of --from, for faces twice as large.")
    ] = False,
    loss_weighting: Annotated[
        str | None, typer.Option(help="Weights of the noise levels in the loss: min-snr (default), eps (none), v.")
    ] = None,
    seed: f.Seed = 0,
    device: f.Device = "auto",
    workers: f.Workers = None,
    *,
    training: Training,
    progress: Progress,
) -> Outcome:
    """Train a diffusion prior; run it again to resume."""
    from unfade.devices import choose_device
    from unfade.recipes.pretrain import DOUBLED_PRIOR_RECIPE, PriorRecipe, pretrain_prior

    usual = DOUBLED_PRIOR_RECIPE if double else PriorRecipe()
    recipe = replace(usual, weights=_weights(weight or []), start=start)
    denoising = changed(recipe.denoising, weighting=loss_weighting)
    recipe = replace(recipe, loop=training.loop(recipe.loop, seed), denoising=denoising)
    where = choose_device(device)
    history = pretrain_prior(faces, out, recipe, held_out=held_out, device=where, workers=workers, progress=progress)
    return _outcome(history, out)


@app.command("restorer")
@command
def restorer(
    faces: Faces,
    out: f.OutFile,
    held_out: HeldOut = None,
    weight: Weight = None,
    start: From = None,
    from_prior: Annotated[
        str | None, typer.Option(help="Name or file of a prior whose network becomes a one-step restorer.")
    ] = None,
    double: Annotated[
        bool, typer.Option("--double", help="Begin with the one-step restorer of --from, for faces twice as large.")
    ] = False,
    preset: Annotated[str, typer.Option(help="Blind degradation: swinir, gfpgan, codeformer, ...")] = "swinir",
    perceptual_weight: PerceptualWeight = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Name or file of the prior whose features the perceptual term compares; default: small-prior."
        ),
    ] = None,
    gan_weight: GanWeight = None,
    texture_weight: TextureWeight = None,
    discriminator_features: Annotated[
        int | None, typer.Option(help="Channels of the discriminator's first layer; 64 in the published one.")
    ] = None,
    seed: f.Seed = 0,
    device: f.Device = "auto",
    workers: f.Workers = None,
    *,
    training: Training,
    progress: Progress,
) -> Outcome:
    """Train a restorer on faces with a blind degradation; run it again to resume."""
    from unfade.degradations.blind import BLIND_PRESETS
    from unfade.devices import choose_device
    from unfade.recipes.pretrain import ONE_STEP_RECIPE, RestorerRecipe, pretrain_restorer
    from unfade.restorers.load import head_of

    if preset not in BLIND_PRESETS:
        raise BadInput(f"There is no blind degradation named {preset}; there are: {', '.join(BLIND_PRESETS)}.")
    one_step = bool(from_prior) or double or (start is not None and head_of(start).architecture == "one_step")
    recipe = replace(ONE_STEP_RECIPE, from_prior=from_prior, doubled=double) if one_step else RestorerRecipe()
    recipe = replace(recipe, weights=_weights(weight or []), start=start, blind=BLIND_PRESETS[preset])
    weights = {"perceptual_weight": perceptual_weight, "gan_weight": gan_weight, "texture_weight": texture_weight}
    losses = changed(recipe.losses, discriminator_features=discriminator_features, **weights)
    _refuse_unused(losses, prior, discriminator_features)
    recipe = changed(replace(recipe, loop=training.loop(recipe.loop, seed), losses=losses), prior=prior)
    where = choose_device(device)
    history = pretrain_restorer(faces, out, recipe, held_out=held_out, device=where, workers=workers, progress=progress)
    return _outcome(history, out)


def _refuse_unused(losses: "ImageLossSettings", prior: str | None, discriminator_features: int | None) -> None:
    """Raises BadInput for the flags of a term that has no weight."""
    if prior and not losses.perceptual_weight:
        raise BadInput("--prior has no effect without a perceptual term; leave it out, or set --perceptual-weight.")
    if discriminator_features and not losses.gan_weight:
        raise BadInput(
            "--discriminator-features has no effect without an adversarial term; leave it out, or set --gan-weight."
        )


def _outcome(history: "History", out: Path) -> Outcome:
    losses, scores = history.losses[-1:], history.validations[-1:]
    result = {"out": str(out), "losses": losses, "validation": scores, "waiting": history.waiting}
    lines = [f"{name}: {value:.4f}" for row in [*losses, *scores] for name, value in row.items()]
    waited = f"waited for data: {history.waiting:.1%} of the time"
    return Outcome(result, [*lines, waited, f"weights: {out}"])


def _weights(given: list[str]) -> dict[str, float]:
    weights = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            weights[name] = float(value)
        except ValueError as error:
            raise BadInput(f"--weight {text} is not SUBFOLDER=WEIGHT, for example old_scans=0.5.") from error
    return weights
