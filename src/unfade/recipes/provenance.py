"""The record in a result's metadata of how it was made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from unfade.images.provenance import Provenance
from unfade.stages.restore_photos import PhotoSettings


def provenance_of(
    restorer: str | Path | Sequence[str | Path], sha256: str, choices: Mapping[str, float], settings: PhotoSettings
) -> Provenance:
    """The provenance for the metadata of results; it contains no path of the user's machine."""
    how = json.dumps({**choices, **asdict(settings.paste)}, sort_keys=True)
    names = [restorer] if isinstance(restorer, str | Path) else restorer
    return Provenance(f"unfade {version('unfade')}", ", ".join(Path(name).name for name in names), sha256, how)
