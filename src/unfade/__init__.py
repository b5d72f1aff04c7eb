"""Adapt a face restorer to a folder of someone's own degraded photos.

The names below are imported when they are first used, so that `import unfade` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unfade.diffusion.load import load_prior
    from unfade.recipes.adapt import adapt
    from unfade.recipes.evaluate import score_folder as evaluate
    from unfade.recipes.restore import restore
    from unfade.restorers.load import load_restorer

__all__ = ["adapt", "evaluate", "load_prior", "load_restorer", "restore"]

_PLACES = {
    "adapt": ("unfade.recipes.adapt", "adapt"),
    "evaluate": ("unfade.recipes.evaluate", "score_folder"),
    "load_prior": ("unfade.diffusion.load", "load_prior"),
    "load_restorer": ("unfade.restorers.load", "load_restorer"),
    "restore": ("unfade.recipes.restore", "restore"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'unfade' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
