"""The built-in restorer that suits the faces of a folder, for an adaptation that names none."""

from collections.abc import Callable
from pathlib import Path
from statistics import median

from unfade.jobs.runs import settings_in
from unfade.progress import Progress, silent
from unfade.recipes.adapt_settings import AdaptSettings
from unfade.recipes.restore import BUILT_IN
from unfade.recipes.sources import Source
from unfade.restorers.by_size import size_for
from unfade.restorers.load import head_of

Settings = AdaptSettings | Callable[[str], AdaptSettings]  # of a run, or what gives them for a built-in restorer


def suited(settings: Settings, source: Source, out: Path, progress: Progress = silent) -> AdaptSettings:
    """The settings of a run in `out`. Raises BadInput if the source has no pictures."""
    return settings if isinstance(settings, AdaptSettings) else settings(_built_in_for(source, out, progress))


def _built_in_for(source: Source, out: Path, progress: Progress) -> str:
    """The one that suits the median of the faces' sizes; that of the run which is continued, so that it stays the same.

    The smallest is for photos in which no face is found.
    """
    begun = settings_in(out).get("adapt", {}).get("restorer")
    if begun in BUILT_IN:
        return str(begun)
    sides, by_size = source.sides(out, progress), {head_of(name).size: name for name in BUILT_IN}
    return by_size[size_for(median(sides), sorted(by_size))] if sides else BUILT_IN[0]
