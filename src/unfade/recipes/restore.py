"""Photos -> restored photos, with any restorer."""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from unfade.devices import Device, choose_device
from unfade.errors import BadInput, UnknownModel
from unfade.images.enlarge import enlarged
from unfade.images.photo_files import Found, Provenance, find_photos, find_pictures, join_passed_over
from unfade.images.video import find_videos
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.runs import open_run
from unfade.progress import Progress, silent
from unfade.recipes.photo_report import REPORT, report_restored
from unfade.recipes.provenance import provenance_of
from unfade.recipes.sources import FILLED, FindSettings, Masking, likeness_for, masking_for, only_faces
from unfade.restorers.base import Restorer
from unfade.restorers.load import load_restorer
from unfade.restorers.upscale import load_upscaler
from unfade.stages.background import through
from unfade.stages.photos import Finder, Framed
from unfade.stages.restore import check_strength, choices, restore_faces
from unfade.stages.restore_photos import Enlarge, Parts, PhotoSettings, restore_photos
from unfade.stages.video import restore_videos
from unfade.stages.views import FacesToo
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import fingerprint
from unfade.zoo.models import find_weights

EVERY_FACE = FindSettings()
PLAIN = PhotoSettings()
SIZES = ("photo", "restorer")  # whose size results have


def restore(
    photos: str | Path,
    out: str | Path,
    restorer: str | Path = "small-restorer",
    *,
    aligned: bool = False,
    size: str = "photo",
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
    report: bool = False,
    bf16: bool = False,
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
    square face crops in FFHQ's framing, those of the folder itself: nothing is found, and nothing is around them. They
    keep their size too, what the restorer changed is brought to it; with `size` "restorer", not "photo", results are
    PNG files of the restorer's size. `fidelity` in 0..1 and `refine` in 0..3 are for families that have such a choice;
    `strength` in 0..1 blends every face with what it was. With `bf16` the restorer computes in bfloat16 where the
    device has it. `report` writes report.html into `out`: every photo before and after. Run it again and it goes on
    where it stopped. Raises BadInput, UnknownModel, or OutputConflict when `out` was made otherwise.
    """
    photos, out, device = Path(photos), Path(out), choose_device(device)
    key = sha256_of(find_weights(restorer, "restorer"))
    _check(aligned, find, settings, strength, background=background, mask=mask)
    own_size = _is_own(size, aligned=aligned, plain=settings == PLAIN and embedder is None and provenance)
    network, made = _loaded(restorer, strength, bf16, fidelity=fidelity, refine=refine, device=device)
    identity: dict[str, object] = {"restorer_sha256": key, **made}
    how: Any = {"strength": strength, "batch": batch, "progress": progress}
    run: Any = {"about": {"photos": str(photos)}, "files": [out / REPORT] * report}
    if own_size:
        return _restored_plainly(photos, out, network, identity, run, report, key=key, **how)
    around, likeness = background_of(background, settings, device=device), likeness_for(embedder, device=device)
    looked = _Looked.at(photos, out, network.size, None if aligned else find, mask, device)
    settings = replace(settings, paste=FILLED.paste) if aligned else settings
    identity |= {"find": looked.identity, "photos": asdict(settings), "provenance": provenance} | around.identity
    identity |= looked.masking.identity
    told = around.told(provenance_of(restorer, key, made, settings)) if provenance else None
    parts = Parts(around.enlarge, likeness, told, around.recrop, mask=looked.masking.mask)
    how["key"] = fingerprint(identity, {} if embedder is None else {"embedder": str(embedder)})
    with open_run(out, {"restore": identity}, inputs=[looked.photos.root], **run) as journal:
        entries = looked.restored(out, network, settings, parts, journal=journal, **how)
        if report:
            looked.report(out, entries, identity, network.size, settings.scale, journal, progress)
        return entries


def _loaded(restorer: str | Path, strength: float, bf16: bool, **how: Any) -> tuple[Restorer, dict[str, float]]:
    """The restorer at its precision, and what its results depend on besides the weights."""
    network = load_restorer(restorer, **how)
    network.bf16 = bf16
    return network, choices(network, strength)


def _restored_plainly(
    photos: Path, out: Path, network: Restorer, identity: dict[str, object], run: Any, report: bool,
    *, progress: Progress, **how: Any,
) -> list[Entry]:  # fmt: skip
    """Aligned faces to PNG files of the restorer's size, with a `report` if asked for."""
    faces = find_pictures(photos)
    with open_run(out, {"restore": identity}, inputs=[faces.root], **run) as journal:
        entries = restore_faces(faces.paths, out, network, journal=journal, progress=progress, **how)
        if report:
            report_restored(out, faces, entries, identity, journal, progress)
        return entries


@dataclass(frozen=True)
class _Looked:
    """What there is to restore, and where its faces are."""

    photos: Found
    films: Found
    finder: Finder
    identity: object  # what the faces depend on
    masking: Masking = Masking()

    @staticmethod
    def at(
        place: Path, out: Path, size: int, find: FindSettings | None, mask: str | Path | None, device: str
    ) -> "_Looked":
        """Aligned faces where there is nothing to `find`. Raises BadInput where there is no photo."""
        if find is None:
            found = find_pictures(place)
            return _Looked(found, Found(place, ()), Framed(found.root, size), "aligned")
        masking = masking_for(mask, device=device)
        return _Looked(*_photos_and_videos(place, out), find.finder(size, device=device), find.identity(), masking)

    def restored(self, out: Path, network: Restorer, settings: PhotoSettings, parts: Parts, **how: Any) -> list[Entry]:
        """Photos and films through the restorer, one entry for each."""
        entries: list[Entry] = []
        for some, work in ((self.photos, restore_photos), (self.films, restore_videos)):
            if some.names:
                entries += work(some, out, network, self.finder, settings, parts, **how)
        return entries

    def report(
        self, out: Path, entries: list[Entry], settings: dict[str, object], size: int, scale: int, journal: Journal,
        progress: Progress,
    ) -> None:  # fmt: skip
        """Write the page of what `restored` gave; a photo that is a face has no faces besides."""
        faces = None if isinstance(self.finder, Framed) else FacesToo(self.finder, size, scale)
        report_restored(out, self.photos, entries, settings, journal, progress, faces=faces, films=self.films)


def _check(
    aligned: bool, find: FindSettings, settings: PhotoSettings, strength: float, **named: str | Path | None
) -> None:
    """Raises BadInput for a strength outside 0..1, and for what changes nothing in aligned faces."""
    check_strength(strength)
    if not aligned:
        return
    written: Any = {"colour": False, "kind": None, "quality": None, "sidecar": False}
    around = replace(settings, **written) != PLAIN
    only_faces(find=find != EVERY_FACE, settings=around, **{name: value is not None for name, value in named.items()})


def _is_own(size: str, *, aligned: bool, plain: bool) -> bool:
    """Whether results are of the restorer's own size.

    Raises BadInput for what is no size, for whole photos, and for choices about how photos are written.
    """
    if size not in SIZES:
        raise BadInput(f"Results have the `size` of the {' or of the '.join(SIZES)}, got {size}.")
    if size == "photo":
        return False
    if not aligned:
        raise BadInput("`size` restorer is for faces: say `aligned` if these are square face crops, or leave it out.")
    if not plain:
        raise BadInput("`size` restorer gives plain PNG files: leave it out, or all that says how photos are written.")
    return True


def passed_over(photos: str | Path, out: str | Path, *, aligned: bool = False) -> tuple[tuple[str, int], ...]:
    """Endings of the pictures and films that `restore` does not read in a folder, with how many each has."""
    if aligned:
        return find_pictures(Path(photos)).passed_over
    found, films = _photos_and_videos(Path(photos), Path(out))
    return join_passed_over(found.passed_over, films.passed_over)


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
