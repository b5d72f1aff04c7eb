"""Settings of whole adaptations that take a few seconds."""

from dataclasses import replace
from pathlib import Path

from unfade.recipes.adapt_settings import SMALL_ADAPT, AdaptSettings
from unfade.restorers.code_level import CodeLossSettings
from unfade.restorers.image_level import ImageLossSettings
from unfade.restorers.load import head_of
from unfade.stages.targets import TargetSettings


def small(restorer: Path | str, prior: Path | str) -> AdaptSettings:
    """Six steps of a tiny prior, six of the optimiser with a checkpoint every two, all loss terms on."""
    loop = replace(
        SMALL_ADAPT.finetune.loop, steps=6, batch=2, micro_batch=1, checkpoint_every=2, validate_every=3, bf16=False
    )
    return replace(
        SMALL_ADAPT,
        restorer=str(restorer),
        prior=str(prior),
        targets=TargetSettings(spacing="20", start=6, free_from=3, factor=4, batch=2),
        finetune=replace(SMALL_ADAPT.finetune, loop=loop),
        losses=ImageLossSettings(perceptual_weight=0.5, gan_weight=0.1, discriminator_features=8),
    )


def small_codes(restorer: Path | str, prior: Path | str) -> AdaptSettings:
    """Four steps of a tiny prior, six on codes with the published schedule and average."""
    base = small(restorer, prior)
    loop = replace(base.finetune.loop, learning_rate=1e-3, schedule="halving", betas=(0.9, 0.99), ema=0.9)
    return replace(
        base,
        targets=replace(base.targets, start=4, free_from=2),
        finetune=replace(base.finetune, loop=loop),
        losses=CodeLossSettings(),
        fidelity=0.5,
    )


def quick(restorer: str, prior: str) -> AdaptSettings:
    """The one of them that suits the restorer."""
    return (small_codes if head_of(restorer).architecture == "codeformer" else small)(restorer, prior)
