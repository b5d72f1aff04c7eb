"""Photos -> restored photos, with any restorer."""

from pathlib import Path

from unfade.images.files import list_images
from unfade.progress import Progress, silent
from unfade.restorers.load import load_restorer
from unfade.stages.restore import check_strength, choices, restore_faces
from unfade.store.checkpoints import sha256_of
from unfade.store.runs import Entry, open_run
from unfade.store.zoo import find_weights


def restore(
    photos: Path,
    out: Path,
    restorer: str | Path = "small-restorer",
    *,
    fidelity: float | None = None,
    strength: float = 1.0,
    batch: int = 8,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[Entry]:
    """Restore a folder of aligned faces into `out`; one entry for each, with the reason of those that failed.

    `restorer` is a name, a .safetensors file or the folder of an adaptation. `fidelity` in 0..1 is for a family that
    has such a choice (0.5 for CodeFormer by default); `strength` in 0..1 blends every result with its input. Run it
    again and it goes on where it stopped. Raises BadInput, UnknownModel, or OutputConflict when `out` was made
    otherwise.
    """
    photos, out = Path(photos), Path(out)
    found = list_images(photos)
    key = sha256_of(find_weights(restorer, "restorer"))
    network = load_restorer(restorer, fidelity=fidelity, device=device)
    check_strength(strength)
    settings = {"restore": {"restorer_sha256": key, **choices(network, strength)}}
    journal = open_run(out, settings, about={"photos": str(photos)}, inputs=[photos])
    return restore_faces(
        found, out, network, journal=journal, strength=strength, batch=batch, key=key, progress=progress
    )
