"""Photos -> restored photos, with any restorer."""

from pathlib import Path

from unfade.images.files import list_images
from unfade.progress import Progress, silent
from unfade.restorers.load import load_restorer
from unfade.stages.restore import restore_faces
from unfade.store.checkpoints import sha256_of
from unfade.store.runs import Entry, open_run
from unfade.store.zoo import find_weights


def restore(
    photos: Path,
    out: Path,
    restorer: str | Path = "small-restorer",
    *,
    batch: int = 8,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[Entry]:
    """Restore a folder of aligned faces into `out`; one entry for each, with the reason of those that failed.

    `restorer` is a name, a .safetensors file or the folder of an adaptation. Run it again and it goes on where it
    stopped. Raises BadInput, UnknownModel, or OutputConflict when `out` was made with another restorer.
    """
    photos, out = Path(photos), Path(out)
    found = list_images(photos)
    key = sha256_of(find_weights(restorer, "restorer"))
    network = load_restorer(restorer, device=device)
    journal = open_run(out, {"restore": {"restorer_sha256": key}}, about={"photos": str(photos)}, inputs=[photos])
    return restore_faces(found, out, network, journal=journal, batch=batch, key=key, progress=progress)
