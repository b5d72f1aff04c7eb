"""Where the faces of an adaptation come from: whole photos, or pictures that are already aligned faces."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Protocol

from unfade.errors import BadInput, UnknownModel
from unfade.faces.align import scale_of
from unfade.faces.detect import DetectSettings
from unfade.faces.detectors import Detector, loaded_detector
from unfade.faces.identity import USUAL_EMBEDDER, Likeness, likeness, load_embedder, load_judge
from unfade.faces.masks import Mask, loaded_mask
from unfade.faces.paste import PasteSettings
from unfade.images.finding import Found, find_photos, find_pictures
from unfade.images.provenance import Provenance
from unfade.jobs.journal import Entry
from unfade.jobs.outputs import Outputs
from unfade.jobs.runs import Run
from unfade.progress import Progress
from unfade.restorers.base import Restorer
from unfade.stages.crop import crop_photos, faces_in, found_before, take_aligned
from unfade.stages.photos import Choice, Finder, Framed, Searching, opened_groups
from unfade.stages.restore import choices
from unfade.stages.restore_photos import STAGE, Parts, PhotoSettings, restore_photos
from unfade.store.seeds import fingerprint
from unfade.zoo.load import Loaded
from unfade.zoo.models import path_of, row_of

USUAL_PARSER = "parsenet"
LOOKED_AT = 128  # px, of crops that are cut only to know how large the faces are
SEARCHED = 24  # pictures in which faces are measured before anything else
FILLED = PhotoSettings(paste=PasteSettings(feather=0.0))  # for photos that a single aligned face fills


@dataclass(frozen=True)
class FindSettings:
    """Which faces of whole photos are found and used."""

    detector: str = "yunet"  # name of a model, or a file
    detect: DetectSettings = DetectSettings()
    choice: Choice = Choice()

    def loaded(self, *, device: str = "cpu") -> "Finding":
        """The settings with the detector loaded. Raises UnknownModel if it is missing."""
        try:
            return Finding(self, loaded_detector(self.detector, device=device))
        except UnknownModel as error:
            hint = "Square face crops need no detector: set `aligned`."
            raise UnknownModel(f"{error} {hint}") from error


@dataclass(frozen=True)
class Finding:
    """Which faces are found, and by which detector."""

    settings: FindSettings
    detector: Loaded[Detector]

    def identity(self) -> dict[str, object]:
        """What the faces depend on, the detector by the hash of its file."""
        return {**asdict(self.settings), "detector": self.detector.sha256}

    def finder(self, size: int) -> Finder:
        """A finder that detects faces and aligns them to `size` px."""
        return Searching(self.detector.network, self.settings.detect, self.settings.choice, size)


def likeness_for(spec: str | Path | None, *, device: str = "cpu") -> Likeness | None:
    """The comparison of a face with its result, by the name or file of a face embedding; None for "none".

    Without a `spec`, the built-in embedding is used. Raises UnknownModel if the named one is missing.
    """
    if spec == "none":
        return None
    return likeness(load_embedder(spec or USUAL_EMBEDDER, device=device), load_judge(device=device))


@dataclass(frozen=True)
class Masking:
    """Which part of a restored face is pasted into its photo."""

    mask: Mask | None = None  # None: the whole square
    identity: Mapping[str, object] = field(default_factory=dict)  # what results depend on


def masking_for(spec: str | Path | None, *, device: str = "cpu") -> Masking:
    """The masks of a face parser, by its name or file; no mask for "none".

    Without a `spec`, ParseNet is used if it has been pulled. Raises UnknownModel if the named one is missing.
    """
    if spec is None:
        spec = USUAL_PARSER if path_of(row_of(USUAL_PARSER)).exists() else "none"
    if spec == "none":
        return Masking()
    loaded = loaded_mask(spec, device=device)
    return Masking(loaded.network, {"mask": loaded.sha256})


class Source(Protocol):
    """A folder of pictures that an adaptation learns from and then restores."""

    def identity(self) -> dict[str, object]:
        """What a run depends on besides the settings of the adaptation."""

    def found(self, run: Path) -> Found:
        """The pictures, without those that the run made itself. Raises BadInput if there are none."""

    def sides(self, run: Path, progress: Progress) -> list[float]:
        """How many pixels the sides of the faces cover in some of the pictures. Raises BadInput if there are none."""

    def take(self, run: Run, size: int) -> tuple[list[Entry], list[Path]]:
        """Write the faces to the folder `faces`. Returns an entry for each picture, and the files of the faces."""

    def restore(self, run: Run, taken: list[Entry], restorer: Loaded[Restorer], strength: float) -> list[Entry]:
        """Write the results to the folder `restored`; one entry for each of those that `take` returned."""


@dataclass(frozen=True)
class AlignedFaces(Source):
    """A folder of square face crops in the framing of FFHQ, or a single one."""

    folder: Path
    likeness: Likeness | None = None  # of a face and its result

    def identity(self) -> dict[str, object]:
        return {}

    def found(self, run: Path) -> Found:
        return find_pictures(self.folder)

    def sides(self, run: Path, progress: Progress) -> list[float]:
        return _sides(self.found(run), Framed(self.folder, LOOKED_AT), progress)

    def take(self, run: Run, size: int) -> tuple[list[Entry], list[Path]]:
        faces = run.within("faces")
        entries = take_aligned(self.found(run.folder).paths, faces, size=size)
        return entries, [faces.folder / entry.output for entry in entries if entry.status == "done"]

    def restore(self, run: Run, taken: list[Entry], restorer: Loaded[Restorer], strength: float) -> list[Entry]:
        done = tuple(Path(entry.item) for entry in taken if entry.status == "done")
        found = replace(self.found(run.folder), names=done)
        framed = Framed(found.root, restorer.network.size)
        photos = _restored(run, found, framed, restorer, strength, FILLED, Parts(likeness=self.likeness))
        for entry in taken:
            if entry.status != "done":  # an earlier result must not pass for one of this run
                Outputs(STAGE, run.within("restored")).withdraw(entry.item)
        by_photo = {entry.item: entry for entry in photos}
        return [by_photo.get(entry.item, entry) for entry in taken]


@dataclass(frozen=True)
class WholePhotos(Source):
    """Photos with any number of faces, in a folder and its subfolders, or a single photo."""

    folder: Path
    find: Finding
    settings: PhotoSettings = PhotoSettings()
    likeness: Likeness | None = None  # of a face and its result
    masking: Masking = Masking()

    def __post_init__(self) -> None:
        if self.settings.scale != 1:
            raise BadInput(
                "An adaptation keeps the size of photos; to enlarge them, run `unfade restore` with its result."
            )

    def identity(self) -> dict[str, object]:
        return {"find": self.find.identity(), "photos": asdict(self.settings), **self.masking.identity}

    def found(self, run: Path) -> Found:
        return find_photos(self.folder, without=run)

    def sides(self, run: Path, progress: Progress) -> list[float]:
        return _sides(self.found(run), self.find.finder(LOOKED_AT), progress)

    def take(self, run: Run, size: int) -> tuple[list[Entry], list[Path]]:
        found, finder, faces = self.found(run.folder), self.find.finder(size), run.within("faces")
        entries = crop_photos(found, faces, finder, size=size, key=fingerprint(self.find.identity()))
        files = faces_in(faces.folder)
        done = [entry.item for entry in entries if entry.status == "done"]
        return entries, [faces.folder / file for photo in done for file in files[photo]]

    def restore(self, run: Run, taken: list[Entry], restorer: Loaded[Restorer], strength: float) -> list[Entry]:
        known, parts = found_before(run.folder / "faces"), Parts(likeness=self.likeness, mask=self.masking.mask)
        key = fingerprint(restorer.sha256, self.identity())
        return _restored(run, self.found(run.folder), known, restorer, strength, self.settings, parts, key)


def _sides(found: Found, find: Finder, progress: Progress) -> list[float]:
    """The sides of the faces in at most SEARCHED pictures, spread over the folder; unreadable ones have none."""
    some = replace(found, names=found.names[:: math.ceil(len(found.names) / SEARCHED)])
    sides = []
    with progress("sizes of faces", len(some.names)) as advance:
        for group in opened_groups(some, find, [LOOKED_AT], lambda name, content: False):
            sides += [LOOKED_AT / scale_of(face.matrix) for item in group for face in item.faces]
            advance(len(group))
    return sides


def _restored(
    run: Run,
    found: Found,
    find: Finder,
    restorer: Loaded[Restorer],
    strength: float,
    settings: PhotoSettings,
    parts: Parts,
    key: str = "",
) -> list[Entry]:
    """Restore photos with the adapted restorer. Without a `key`, results depend on its weights alone."""
    network, sha256, results = restorer.network, restorer.sha256, run.within("restored")
    made_by = provenance_of(f"adapted {network.architecture}", sha256, choices(network, strength), settings)
    parts = replace(parts, provenance=made_by)
    return restore_photos(found, results, network, find, settings, parts, strength=strength, key=key or sha256)


def provenance_of(
    restorer: str | Path | Sequence[str | Path], sha256: str, choices: Mapping[str, float], settings: PhotoSettings
) -> Provenance:
    """The provenance for the metadata of results; it contains no path of the user's machine."""
    how = json.dumps({**choices, **asdict(settings.paste)}, sort_keys=True)
    names = [restorer] if isinstance(restorer, str | PathLike) else restorer
    return Provenance(f"unfade {version('unfade')}", ", ".join(Path(name).name for name in names), sha256, how)


def only_faces(**changed: bool) -> None:
    """Raises BadInput if a setting for whole photos was changed, which has no effect on aligned faces."""
    for name, is_changed in changed.items():
        if is_changed:
            raise BadInput(
                f"`{name}` is for whole photos, but `aligned` says that these are faces: leave out one of them."
            )
