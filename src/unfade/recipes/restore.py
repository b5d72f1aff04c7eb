"""Photos -> restored photos, with any restorer."""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from unfade.devices import Device, choose_device
from unfade.errors import BadInput, UnknownModel
from unfade.images.enlarge import enlarged
from unfade.images.files import list_images
from unfade.images.photo_files import Found, Provenance, find_photos
from unfade.images.video import find_videos
from unfade.jobs.journal import Entry
from unfade.jobs.runs import open_run
from unfade.progress import Progress, silent
from unfade.recipes.provenance import provenance_of
from unfade.recipes.sources import FindSettings, likeness_for, masking_for, only_faces
from unfade.restorers.load import load_restorer
from unfade.restorers.upscale import load_upscaler
from unfade.stages.background import through
from unfade.stages.restore import check_strength, choices, restore_faces
from unfade.stages.restore_photos import Enlarge, Parts, PhotoSettings, restore_photos
from unfade.stages.video import restore_videos
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import fingerprint
from unfade.store.zoo import find_weights

EVERY_FACE = FindSettings()
PLAIN = PhotoSettings()


def restore(
    photos: str | Path,
    out: str | Path,
    restorer: str | Path = "small-restorer",
    *,
    aligned: bool = False,
    find: FindSettings = EVERY_FACE,
    settings: PhotoSettings = PLAIN,
    background: str | Path | None = None,
    embedder: str | Path | None = None,
    mask: str | Path | None = None,
    provenance: bool = True,
    fidelity: float | None = None,
    refine: int | None = None,
    strength: float = 1.0,
    batch: int = 8,
    device: Device = "auto",
    progress: Progress = silent,
) -> list[Entry]:
    """Restore the faces of a folder of photos, or of one photo, into `out`; one entry for each photo.

    Videos are taken as photos are where PyAV is installed (the extra `video`); see `stages.video.restore_videos`.
    `restorer` is a name, a .safetensors file or the folder of an adaptation. Photos keep their names, folders, formats
    and metadata; `provenance` adds to the metadata what made them. `background` says what becomes of the rest of a
    photo, see `background_of`. `embedder` is the name or file of what tells whether a result still resembles the face:
    None for the built-in one, "none" for nothing. `mask` is that of a network that parses faces, so that only
    the face goes back: None for ParseNet where it was pulled, "none" for the whole square. With `aligned` pictures are
    square face crops in FFHQ's framing, written as PNG at the restorer's size, and none of all this is about them.
    `fidelity` in 0..1 and `refine` in 0..3 are for families that have such a choice; `strength` in 0..1 blends every
    face with what it was. Run it again and it goes on where it stopped. Raises BadInput, UnknownModel, or
    OutputConflict when `out` was made otherwise.
    """
    photos, out, device = Path(photos), Path(out), choose_device(device)
    key = sha256_of(find_weights(restorer, "restorer"))
    check_strength(strength)
    network = load_restorer(restorer, fidelity=fidelity, refine=refine, device=device)
    made = choices(network, strength)
    identity: dict[str, object] = {"restorer_sha256": key, **made}
    how: Any = {"strength": strength, "batch": batch, "progress": progress}
    if aligned:
        only_faces(find=find != EVERY_FACE, settings=settings != PLAIN, background=background is not None,
                   embedder=embedder is not None, mask=mask is not None, provenance=not provenance)  # fmt: skip
        faces = list_images(photos)
        with open_run(out, {"restore": identity}, about={"photos": str(photos)}, inputs=[photos]) as journal:
            return restore_faces(faces, out, network, journal=journal, key=key, **how)
    around, masking = background_of(background, settings, device=device), masking_for(mask, device=device)
    likeness = likeness_for(embedder, device=device)
    (found, films), finder = _photos_and_videos(photos, out), find.finder(network.size, device=device)
    identity |= {"find": find.identity(), "photos": asdict(settings), "provenance": provenance}
    identity |= {**around.identity, **masking.identity}
    told = around.told(provenance_of(restorer, key, made, settings)) if provenance else None
    parts = Parts(around.enlarge, likeness, told, around.recrop, mask=masking.mask)
    named = {} if embedder is None else {"embedder": str(embedder)}  # asked for later, it is asked about every photo
    how["key"] = fingerprint(identity, named)
    with open_run(out, {"restore": identity}, about={"photos": str(photos)}, inputs=[found.root]) as journal:
        entries = []
        for some, work in ((found, restore_photos), (films, restore_videos)):
            if some.names:
                entries += work(some, out, network, finder, settings, parts, journal=journal, **how)
        return entries


def _photos_and_videos(place: Path, out: Path) -> tuple[Found, Found]:
    """Raises BadInput where there is neither."""
    films = find_videos(place, without=out)
    if films.names and place.is_file():
        return Found(place.parent, ()), films
    try:
        return find_photos(place, without=out), films
    except BadInput:
        if not films.names:
            raise
        return Found(place, ()), films


@dataclass(frozen=True)
class Background:
    """What becomes of a photo around its faces."""

    identity: dict[str, object]  # what results depend on
    enlarge: Enlarge | None = None  # None: nothing becomes of it
    recrop: bool = False  # it changes faces too

    def told(self, made_by: Provenance) -> Provenance:
        """With what results say of how they were made."""
        return replace(made_by, settings=json.dumps({**json.loads(made_by.settings), **self.identity}, sort_keys=True))


def background_of(name: str | Path | None, settings: PhotoSettings, *, device: str = "cpu") -> Background:
    """ "none" leaves everything outside of the faces as it is, "lanczos" enlarges it, a model (by its name in the table
    or its file) restores it and brings it to its scale, which may be 1.

    None is "none" at scale 1, else "lanczos". Raises BadInput for "none" at another scale, and what `load_upscaler`
    raises.
    """
    name = str(name or ("none" if settings.scale == 1 else "lanczos"))
    if name == "none" and settings.scale != 1:
        raise BadInput(f"Photos {settings.scale} times as large need a background: say lanczos, or name a model.")
    if name == "none" or (name == "lanczos" and settings.scale == 1):
        return Background({})
    scale: dict[str, object] = {"scale": settings.scale}
    if name == "lanczos":
        return Background({"background": name, **scale}, partial(enlarged, scale=settings.scale))
    try:
        upscaler = load_upscaler(name, device)
    except UnknownModel as error:
        raise UnknownModel(f"{error} Without a model, `background` is none or lanczos.") from error
    identity = {"background": "model", "background_sha256": sha256_of(find_weights(name, "upscaler")), **scale}
    return Background(identity, through(upscaler, scale=settings.scale, colour=settings.colour), recrop=True)
