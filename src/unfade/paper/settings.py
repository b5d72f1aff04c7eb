"""The settings and models for the rows of the paper's tables at a scale, and the reasons why some cannot be made."""

from dataclasses import replace

from unfade.diffusion.schedule import respaced
from unfade.paper.tables import OURS, SWINIR, TABLES, Learning, Pseudo, Restored, Scale, Targets, Way, learning_of
from unfade.recipes.adapt_settings import AdaptSettings, as_published, settings_for
from unfade.restorers.code_level import CodeLossSettings
from unfade.restorers.image_level import ImageLossSettings
from unfade.stages.methods import METHODS
from unfade.stages.targets import TargetSettings
from unfade.store.checkpoints import image_size
from unfade.zoo.models import find_weights


def settings_of(scale: Scale, part: str, photos: str, learning: Learning) -> AdaptSettings:
    """How a restorer is adapted for a row. Raises UnknownModel, which says how to get the weights."""
    base = base_settings(scale, first_stage(scale, learning.start_from) or scale.restorers[part])
    size = image_size(find_weights(base.prior, "prior"))
    factor = 16 if part == SWINIR or photos.startswith("8x") else 8  # N, as published
    usual = replace(base.targets, factor=replace(base.targets, factor=factor).for_size(size).factor)
    return replace(base, targets=with_targets(usual, learning.targets, size), losses=losses_of(base, learning))


def base_settings(scale: Scale, restorer: str) -> AdaptSettings:
    """The paper's recipe for a restorer. Raises UnknownModel, which says how to get the weights."""
    return as_published(settings_for(restorer, scale.prior))


def with_targets(usual: TargetSettings, way: Targets, size: int) -> TargetSettings:
    """The settings of a way to make targets, for a prior of that size."""
    steps = len(respaced(usual.spacing))
    given = {
        "start": None if way.start is None else way.start * steps // 1000,
        "free_from": None if way.free_from is None else way.free_from * steps // 1000,
        "factor": None if way.factor is None else replace(usual, factor=way.factor).for_size(size).factor,
        "begin_with": way.begin_with,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(usual, **changes)  # type: ignore[arg-type]


def losses_of(base: AdaptSettings, learning: Learning) -> ImageLossSettings | CodeLossSettings:
    """The losses of a row. The weight of LPIPS has the same ratio to the usual weight as in the paper."""
    if learning.losses is None or isinstance(learning.losses, CodeLossSettings):
        return learning.losses or base.losses
    assert isinstance(base.losses, ImageLossSettings)
    l1, lpips, gan = learning.losses
    return replace(
        base.losses, l1_weight=l1, perceptual_weight=base.losses.perceptual_weight * lpips / OURS[1], gan_weight=gan
    )


def first_stage(scale: Scale, method: str) -> str:
    """The model of a method's first stage; "" if it has none."""
    return scale.methods[method][1] if method else ""


def missing(scale: Scale, way: Way) -> str:
    """The reason why a row cannot be made with the models of a scale; "" if it can, once the models are available."""
    learning = learning_of(way)
    asked = [getattr(way, "method", ""), *((learning.start_from, learning.targets.method) if learning else ())]
    for method in filter(None, asked):
        if method not in scale.methods:
            return f"this scale has no model for {method}"
    if learning and isinstance(learning.losses, CodeLossSettings) and not scale.codes:
        return "this scale has no restorer that learns from codes"
    return ""


def needs(name: str, scale: Scale) -> tuple[str, ...]:
    """The models that a table needs, except those of metrics."""
    found = {scale.prior: None}
    for way in TABLES.get(name, {}).values():
        if isinstance(way, Restored | Pseudo):
            found[scale.restorers[way.restorer]] = None
        method = getattr(way, "method", "")
        if method in scale.methods:
            model, first = scale.methods[method]
            found |= dict.fromkeys(filter(None, (METHODS[model].own if model in METHODS else model, first)))
    return tuple(found)
