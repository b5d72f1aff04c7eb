"""What a result says of how it was made."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from unfade.images.photo_files import Provenance
from unfade.stages.restore_photos import PhotoSettings


def provenance_of(
    restorer: str | Path, sha256: str, choices: Mapping[str, float], settings: PhotoSettings
) -> Provenance:
    """For the metadata of results; no path of the user's machine is in it."""
    told = json.dumps({**choices, **asdict(settings.paste)}, sort_keys=True)
    return Provenance(f"unfade {version('unfade')}", Path(restorer).name, sha256, told)
