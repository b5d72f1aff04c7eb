"""Restore photos and videos with any restorer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from unfade.declared import as_declared
from unfade.devices import Device, choose_device
from unfade.errors import BadInput, UnknownModel, refuse_below
from unfade.faces.restoring import Enlarge
from unfade.images.enlarge import enlarged
from unfade.images.film_input import by_endings, find_videos
from unfade.images.finding import ENDINGS, NOT_READ, REPORT, Found, find_pictures, join_passed_over
from unfade.images.provenance import Provenance
from unfade.jobs.journal import Entry
from unfade.jobs.runs import Run, open_run
from unfade.jobs.shards import EVERYTHING, LAYOUTS, WHOLE, Portion, Shard
from unfade.jobs.stores import is_store, photos_in
from unfade.own_modes import own_modes
from unfade.progress import Progress, silent
from unfade.recipes.photo_report import report_restored
from unfade.recipes.sources import (
    FILLED,
    Finding,
    FindSettings,
    Masking,
    likeness_for,
    masking_for,
    only_faces,
    provenance_of,
)
from unfade.restorers.base import Restorer
from unfade.restorers.load import each_of, loaded_restorers
from unfade.restorers.upscale import loaded_upscaler
from unfade.stages.background import through
from unfade.stages.photos import Finder, Framed
from unfade.stages.restore import check_strength, choices, restore_faces
from unfade.stages.restore_photos import Parts, PhotoSettings, restore_photos
from unfade.stages.video import restore_videos
from unfade.stages.views import FacesToo
from unfade.store.seeds import fingerprint

EVERY_FACE = FindSettings()
PLAIN = PhotoSettings()
BUILT_IN = ("small-restorer", "small-restorer-256")
SIZES = ("photo", "restorer")  # the size of results: the photo's or the restorer's


@dataclass(frozen=True)
class RestoreSettings:
    """How photos are restored, with any restorer. Raises BadInput for a strength outside 0..1 or a batch below 1."""

    find: FindSettings = EVERY_FACE  # which faces of whole photos are used
    whole: PhotoSettings = PLAIN  # how results are pasted and written
    size: str = "photo"  # one of SIZES; "restorer", for aligned faces only, writes PNG files of the restorer's size
    background: str | Path | None = None  # what to do with the photo around the faces, see `background_of`
    embedder: str | Path | None = None  # face embedding that compares person and result: name, file or "none"
    mask: str | Path | None = None  # parser that limits the pasted area: name, file, "none"; None: see `masking_for`
    provenance: bool = True  # record in the metadata of results how they were made
    fidelity: float | None = None  # 0..1; None: the family's default, if any
    refine: int | None = None  # 0..3; None: the restorer's own, if it can refine
    strength: float = 1.0  # 0..1: blends every restored face with the original
    trust: bool = False  # write a map beside each result of how much of it is guessed; see `faces.trust`
    batch: int = 8  # faces restored together
    bf16: bool = False  # run the restorer in bfloat16 where the device supports it
    report: bool = False  # write report.html to `out`: every photo before and after, its faces and notes
    output_layout: str = "names"  # a name in LAYOUTS: "hashed" spreads those of a folder over 4096

    def __post_init__(self) -> None:
        check_strength(self.strength)
        refuse_below(1, self, "batch")

    def check(self, *, aligned: bool) -> None:
        """Raises BadInput for settings without effect on aligned faces, and a `size` that whole photos cannot have."""
        if self.size not in SIZES:
            raise BadInput(f"Expected `size` to be {' or '.join(SIZES)}, got {self.size}.")
        if self.output_layout not in LAYOUTS:
            raise BadInput(f"Expected `output_layout` to be {' or '.join(LAYOUTS)}, got {self.output_layout}.")
        if aligned:
            whole = replace(self.whole, colour=False, kind=None, quality=None, sidecar=False)  # faces know these too
            only_faces(
                find=self.find != EVERY_FACE,
                whole=whole != PLAIN,
                background=self.background is not None,
                mask=self.mask is not None,
            )
        if self.size == "restorer" and not aligned:
            raise BadInput(
                "`size` restorer is for aligned faces: set `aligned` if these are square face crops, or leave it out."
            )
        written_plainly = self.whole == PLAIN and self.embedder is None and self.provenance and not self.trust
        if self.size == "restorer" and not (written_plainly and self.output_layout == "names"):
            raise BadInput(
                "`size` restorer writes plain PNG files: leave it out, or leave out the settings for writing photos."
            )


def restore(
    photos: str | Path,
    out: str | Path,
    restorer: str | Path | Sequence[str | Path] = BUILT_IN,
    settings: RestoreSettings = RestoreSettings(),
    *,
    aligned: bool = False,
    portion: Portion = EVERYTHING,
    device: Device = "auto",
    progress: Progress = silent,
) -> list[Entry]:
    """Restore the faces in a folder of photos, or in one photo, and write the photos to `out`; one entry per photo.

    Videos are restored too if PyAV is installed (the extra `video`); see `stages.video.restore_videos`. `restorer` is a
    name, a .safetensors file or the folder of an adaptation, or several of them with different sizes: each face then
    goes through the one that suits its size in the photo (`restorers.by_size.size_for`), those of videos through the
    smallest. Photos keep their names, subfolders, formats and metadata. With `aligned`, the pictures are square face
    crops in FFHQ's framing, and only those of the folder itself are used, without face detection. They keep their size
    too: the restorer's changes are resized to it. Run it again to resume an interrupted run. `portion` restricts the
    run to a shard of the photos, or to those that a manifest lists. Raises BadInput, UnknownModel, or OutputConflict if
    `out` was made in another way.
    """
    _check_run(photos, out, settings, portion)
    restoration = load_restoration(restorer, settings, aligned=aligned, device=device)
    return restoration.restore(photos, out, portion=portion, progress=progress)


@own_modes()
def load_restoration(
    restorer: str | Path | Sequence[str | Path] = BUILT_IN,
    settings: RestoreSettings = RestoreSettings(),
    *,
    aligned: bool = False,
    device: Device = "auto",
) -> "Restoration":
    """Load every network that a restoration needs, once for many calls, as in a server.

    `unfade.restore` does the same for one call, with the same arguments. Raises BadInput and UnknownModel as that does.
    """
    settings = as_declared(settings)
    settings.check(aligned=aligned)
    device = choose_device(device)
    loaded = loaded_restorers(restorer, fidelity=settings.fidelity, refine=settings.refine, device=device)
    loaded.network.bf16 = settings.bf16
    made = choices(loaded.network, settings.strength)
    finding = None if aligned else settings.find.loaded(device=device)
    masking = Masking() if aligned else masking_for(settings.mask, device=device)
    whole = replace(settings.whole, paste=FILLED.paste) if aligned else settings.whole
    identity: dict[str, object] = {"restorer_sha256": loaded.sha256, **made}
    if settings.size == "restorer":
        return Restoration(settings, loaded.network, finding, whole, identity, loaded.sha256)
    around = background_of(settings.background, whole, device=device)
    likeness = likeness_for(settings.embedder, device=device)
    identity |= {"find": finding.identity() if finding else "aligned", "photos": asdict(whole)}
    identity |= {"provenance": settings.provenance, **around.identity, **masking.identity}
    hashes = ", ".join(part.sha256 for part in each_of(loaded))  # in the order of their names
    provenance = around.added_to(provenance_of(restorer, hashes, made, whole)) if settings.provenance else None
    trust = None
    if settings.trust:  # it imports what only adaptations need
        from unfade.recipes.trust import trust_for

        trust = trust_for(loaded)
    identity |= {"trust": fingerprint(trust.by_size, trust.missing)} if trust else {}
    parts = Parts(around.enlarge, likeness, provenance, around.recrop, masking.mask, trust)
    key = fingerprint(identity, {} if settings.embedder is None else {"embedder": str(settings.embedder)})
    identity |= {} if settings.output_layout == "names" else {"output_layout": settings.output_layout}
    return Restoration(settings, loaded.network, finding, whole, identity, key, parts)


@dataclass(frozen=True)
class Restoration:
    """A restoration whose networks are loaded; made by `load_restoration`."""

    settings: RestoreSettings
    network: Restorer
    finding: Finding | None  # None: the pictures are aligned faces
    whole: PhotoSettings
    identity: Mapping[str, object]  # what a run depends on, for run.json
    key: str  # hash of what its results depend on
    parts: Parts = Parts()

    @own_modes()
    def restore(
        self,
        photos: str | Path,
        out: str | Path,
        *,
        portion: Portion = EVERYTHING,
        progress: Progress = silent,
    ) -> list[Entry]:
        """Restore the photos in a folder, or one photo, as `unfade.restore` does; one entry per photo."""
        _check_run(photos, out, self.settings, portion)
        photos, out = Path(photos), Path(out)
        found, films = photos_and_videos(photos, out, aligned=self.finding is None, portion=portion)
        return self.restore_found(found, films, out, asked=str(photos), shard=portion.shard, progress=progress)

    def restore_found(
        self,
        photos: Found,
        films: Found,
        out: Path,
        *,
        asked: str,
        shard: Shard = WHOLE,
        progress: Progress = silent,
    ) -> list[Entry]:
        """Restore photos and films, which are those of a shard; one entry for each. `asked` is what the user named.

        Raises OutputConflict if `out` was made in another way.
        """
        settings, network, report = self.settings, self.network, [out / REPORT] * self.settings.report
        finder = self.finding.finder(network.size) if self.finding else Framed(photos.root, network.size)
        items = (name.as_posix() for found in (photos, films) for name in found.names)
        with open_run(
            out,
            {"restore": self.identity},
            about={"photos": asked},
            inputs=[photos.root],
            files=report,
            shard=shard,
            items=items,
            progress=progress,
        ) as run:
            entries = self._restored(photos, films, run, finder)
            if settings.report:
                alone = self.finding or settings.trust  # an aligned face is its photo, but the map is of the face
                faces = FacesToo(finder, network.size, self.whole.scale) if alone else None
                report_restored(run, photos, entries, self.identity, faces=faces, films=films)
            return entries

    def _restored(self, photos: Found, films: Found, run: Run, finder: Finder) -> list[Entry]:
        strength, batch, key = self.settings.strength, self.settings.batch, self.key
        if self.settings.size == "restorer":
            return restore_faces(photos.paths, run, self.network, strength=strength, batch=batch, key=key)
        given = run, self.network, finder, self.whole, self.parts
        place, entries = LAYOUTS[self.settings.output_layout], []
        if photos.names:
            entries += restore_photos(photos, *given, strength=strength, batch=batch, key=key, place=place)
        if films.names:
            entries += restore_videos(films, *given, strength=strength, batch=batch, key=key, place=place)
        return entries


def _check_run(photos: str | Path, out: str | Path, settings: RestoreSettings, portion: Portion) -> None:
    """Raises BadInput for what a restoration on this machine, or of a part of the photos, cannot do."""
    if is_store(photos) or is_store(out):
        raise BadInput("Object stores are read and written by a fleet: set `fleet`, to auto for this machine.")
    if settings.report and not portion.shard.is_whole:
        raise BadInput("A report shows all photos of a run: leave out `report`, or `shard`.")


def passed_over(
    photos: str | Path, out: str | Path, *, aligned: bool = False, portion: Portion = EVERYTHING
) -> tuple[tuple[str, int], ...]:
    """The file endings of pictures and videos that `restore` cannot read, with their counts; none for a manifest."""
    if portion.manifest:
        return ()
    if aligned and not is_store(photos):
        return find_pictures(Path(photos)).passed_over
    found, films = photos_and_videos(photos, out, aligned=aligned)
    if is_store(photos):  # of which only photos are restored
        return found.passed_over
    others = tuple(item for item in found.passed_over if item[0] not in (*ENDINGS, *NOT_READ))
    return join_passed_over(others, films.passed_over)


def photos_and_videos(
    place: str | Path, out: str | Path, *, aligned: bool = False, portion: Portion = EVERYTHING
) -> tuple[Found, Found]:
    """The photos and videos at a place; of aligned faces, the pictures; of an object store, only photos.

    Raises BadInput if there are none.
    """
    if is_store(place):
        found = photos_in(str(place), out, portion, flat=aligned)
        return found, Found(found.root, ())
    place, out = Path(place), Path(out)
    if aligned:
        return portion.pictures(place), Found(place, ())
    if portion.manifest:
        return by_endings(portion.photos(place, out))
    films = find_videos(place, without=out)
    if films.names and place.is_file():
        return Found(place.parent, ()), portion.shard.of(films)
    try:
        return portion.photos(place, out), portion.shard.of(films)
    except BadInput:
        if not films.names:
            raise
        return Found(place, ()), portion.shard.of(films)


@dataclass(frozen=True)
class Background:
    """How a photo is changed around its faces."""

    identity: dict[str, object]  # what results depend on
    enlarge: Enlarge | None = None  # None: it is left as it is
    recrop: bool = False  # whether `enlarge` changes faces too

    def added_to(self, made_by: Provenance) -> Provenance:
        """The provenance, with the treatment of the background added."""
        return replace(made_by, settings=json.dumps({**json.loads(made_by.settings), **self.identity}, sort_keys=True))


def background_of(name: str | Path | None, settings: PhotoSettings, *, device: str = "cpu") -> Background:
    """How to treat what is outside the faces: "none" leaves it, "lanczos" enlarges it, and a model, by its name or
    file, restores it at the scale of the results, which may be 1.

    None stands for "none" at scale 1, and for "lanczos" at others. Raises BadInput for "none" at another scale than 1,
    and whatever `loaded_upscaler` raises.
    """
    name = str(name or ("none" if settings.scale == 1 else "lanczos"))
    if name == "none" and settings.scale != 1:
        raise BadInput(f"Photos {settings.scale} times as large need a `background`: lanczos, or a model.")
    if name == "none" or (name == "lanczos" and settings.scale == 1):
        return Background({})
    scale: dict[str, object] = {"scale": settings.scale}
    if name == "lanczos":
        return Background({"background": name, **scale}, partial(enlarged, scale=settings.scale))
    try:
        upscaler = loaded_upscaler(name, device)
    except UnknownModel as error:
        raise UnknownModel(f"{error} Without a model, `background` is none or lanczos.") from error
    identity = {"background": "model", "background_sha256": upscaler.sha256, **scale}
    return Background(identity, through(upscaler.network, scale=settings.scale, colour=settings.colour), recrop=True)
