"""Adapt a face restorer to a folder of someone's own degraded photos.

The names below are imported when they are first used, so that `import unfade` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unfade.degradations.fitted import FittedDegradation
    from unfade.degradations.fitted_file import load_degradation
    from unfade.devices import choose_device
    from unfade.diffusion.load import load_prior
    from unfade.diffusion.prior import DiffusionPrior
    from unfade.errors import (
        BadCheckpoint,
        BadInput,
        DiskFull,
        Diverged,
        OutputConflict,
        UnfadeError,
        UnknownModel,
        UnreadableImage,
    )
    from unfade.evaluation.evaluate import Evaluation, evaluate
    from unfade.evaluation.ntire import Ntire, evaluate_ntire
    from unfade.faces.detect import DetectSettings
    from unfade.faces.paste import PasteSettings
    from unfade.jobs.gather import Gathered, gather
    from unfade.jobs.journal import Counts, Entry
    from unfade.jobs.shards import Portion, Shard
    from unfade.progress import Progress
    from unfade.recipes.adapt import Adapted, adapt
    from unfade.recipes.adapt_settings import SMALL_ADAPT, AdaptSettings, settings_for
    from unfade.recipes.inspect import Inspected, inspect
    from unfade.recipes.restore import Restoration, RestoreSettings, load_restoration, restore
    from unfade.recipes.sources import FindSettings
    from unfade.restorers.base import Restorer
    from unfade.restorers.code_level import CodeLossSettings
    from unfade.restorers.image_level import ImageLossSettings
    from unfade.restorers.load import load_restorer
    from unfade.restorers.one_step import OneStepSettings
    from unfade.stages.finetune import FinetuneSettings
    from unfade.stages.photos import Choice
    from unfade.stages.restore_photos import PhotoSettings
    from unfade.stages.targets import TargetSettings
    from unfade.training.loop import LoopSettings

    __version__: str

__all__ = [
    "SMALL_ADAPT",
    "AdaptSettings",
    "Adapted",
    "BadCheckpoint",
    "BadInput",
    "Choice",
    "CodeLossSettings",
    "Counts",
    "DetectSettings",
    "DiffusionPrior",
    "DiskFull",
    "Diverged",
    "Entry",
    "Evaluation",
    "FindSettings",
    "FinetuneSettings",
    "FittedDegradation",
    "Gathered",
    "ImageLossSettings",
    "Inspected",
    "LoopSettings",
    "Ntire",
    "OneStepSettings",
    "OutputConflict",
    "PasteSettings",
    "PhotoSettings",
    "Portion",
    "Progress",
    "Restoration",
    "RestoreSettings",
    "Restorer",
    "Shard",
    "TargetSettings",
    "UnfadeError",
    "UnknownModel",
    "UnreadableImage",
    "__version__",
    "adapt",
    "choose_device",
    "evaluate",
    "evaluate_ntire",
    "gather",
    "inspect",
    "load_degradation",
    "load_prior",
    "load_restoration",
    "load_restorer",
    "restore",
    "settings_for",
]

_ROOMS = {  # where the names are defined, as the imports above say it to type checkers
    "degradations.fitted": ("FittedDegradation",),
    "degradations.fitted_file": ("load_degradation",),
    "devices": ("choose_device",),
    "diffusion.load": ("load_prior",),
    "diffusion.prior": ("DiffusionPrior",),
    "errors": (
        "BadCheckpoint",
        "BadInput",
        "DiskFull",
        "Diverged",
        "OutputConflict",
        "UnfadeError",
        "UnknownModel",
        "UnreadableImage",
    ),
    "faces.detect": ("DetectSettings",),
    "faces.paste": ("PasteSettings",),
    "jobs.gather": ("Gathered", "gather"),
    "jobs.journal": ("Counts", "Entry"),
    "jobs.shards": ("Portion", "Shard"),
    "progress": ("Progress",),
    "recipes.adapt": ("Adapted", "adapt"),
    "recipes.adapt_settings": ("SMALL_ADAPT", "AdaptSettings", "settings_for"),
    "evaluation.ntire": ("Ntire", "evaluate_ntire"),
    "recipes.inspect": ("Inspected", "inspect"),
    "recipes.restore": ("Restoration", "RestoreSettings", "load_restoration", "restore"),
    "evaluation.evaluate": ("Evaluation", "evaluate"),
    "recipes.sources": ("FindSettings",),
    "restorers.base": ("Restorer",),
    "restorers.code_level": ("CodeLossSettings",),
    "restorers.image_level": ("ImageLossSettings",),
    "restorers.load": ("load_restorer",),
    "restorers.one_step": ("OneStepSettings",),
    "stages.finetune": ("FinetuneSettings",),
    "stages.photos": ("Choice",),
    "stages.restore_photos": ("PhotoSettings",),
    "stages.targets": ("TargetSettings",),
    "training.loop": ("LoopSettings",),
}
_PLACES = {name: f"unfade.{room}" for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("unfade")
    if name not in _PLACES:
        raise AttributeError(f"module 'unfade' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
