"""Settings of a whole adaptation that takes a second or two."""

from dataclasses import replace
from pathlib import Path

from unfade.recipes.adapt import SMALL_ADAPT, AdaptSettings
from unfade.restorers.image_level import ImageLossSettings
from unfade.stages.targets import TargetSettings


def small(restorer: Path | str, prior: Path | str) -> AdaptSettings:
    """12 steps of a tiny prior, 12 of the optimiser with a checkpoint every 3, all loss terms on."""
    loop = replace(
        SMALL_ADAPT.finetune.loop, steps=12, batch=4, micro_batch=2, checkpoint_every=3, validate_every=6, bf16=False
    )
    return replace(
        SMALL_ADAPT,
        restorer=str(restorer),
        prior=str(prior),
        targets=TargetSettings(spacing="20", start=12, free_from=7, factor=4, batch=2),
        finetune=replace(SMALL_ADAPT.finetune, loop=loop),
        losses=ImageLossSettings(perceptual_weight=0.5, gan_weight=0.1, discriminator_features=8),
    )
