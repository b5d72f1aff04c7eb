"""Photos -> restored photos, with any restorer."""

import json
from dataclasses import asdict
from pathlib import Path

from unfade.images.files import list_images
from unfade.images.photo_files import find_photos
from unfade.progress import Progress, silent
from unfade.recipes.provenance import provenance_of
from unfade.recipes.sources import FindSettings
from unfade.restorers.load import load_restorer
from unfade.stages.restore import check_strength, choices, restore_faces
from unfade.stages.restore_photos import Parts, PhotoSettings, restore_photos
from unfade.store.checkpoints import sha256_of
from unfade.store.runs import Entry, open_run
from unfade.store.zoo import find_weights

EVERY_FACE = FindSettings()
PLAIN = PhotoSettings()


def restore(
    photos: Path,
    out: Path,
    restorer: str | Path = "small-restorer",
    *,
    find: FindSettings | None = EVERY_FACE,
    settings: PhotoSettings = PLAIN,
    provenance: bool = True,
    fidelity: float | None = None,
    strength: float = 1.0,
    batch: int = 8,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[Entry]:
    """Restore the faces of a folder of photos, or of one photo, into `out`; one entry for each photo.

    `restorer` is a name, a .safetensors file or the folder of an adaptation. Photos keep their names, folders, formats
    and metadata; `provenance` adds to the metadata what made them. `find` None: the pictures are square face crops
    already; they are written as PNG at the restorer's size, and `settings` says nothing about them. `fidelity` in 0..1
    is for a family that has such a choice (0.5 for CodeFormer by default); `strength` in 0..1 blends every face with
    what it was. Run it again and it goes on where it stopped. Raises BadInput, UnknownModel, or OutputConflict when
    `out` was made otherwise.
    """
    photos, out = Path(photos), Path(out)
    key = sha256_of(find_weights(restorer, "restorer"))
    check_strength(strength)
    network = load_restorer(restorer, fidelity=fidelity, device=device)
    made = choices(network, strength)
    identity: dict[str, object] = {"restorer_sha256": key, **made}
    about = {"photos": str(photos)}
    if find is None:
        faces = list_images(photos)
        journal = open_run(out, {"restore": identity}, about=about, inputs=[photos])
        return restore_faces(
            faces, out, network, journal=journal, strength=strength, batch=batch, key=key, progress=progress
        )
    found, finder = find_photos(photos, without=out), find.finder(network.size, device=device)
    identity |= {"find": find.identity(), "photos": asdict(settings), "provenance": provenance}
    journal = open_run(out, {"restore": identity}, about=about, inputs=[found.root])
    parts = Parts(provenance=provenance_of(restorer, key, made, settings) if provenance else None)
    return restore_photos(
        found, out, network, finder, settings, parts,
        journal=journal, strength=strength, batch=batch, key=json.dumps(identity, sort_keys=True), progress=progress,
    )  # fmt: skip
