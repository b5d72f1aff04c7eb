"""Where the faces of an adaptation come from: whole photos, or pictures that are already aligned faces."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from unfade.errors import BadInput, UnknownModel
from unfade.faces.detect import DetectSettings
from unfade.faces.detectors import Detector, loaded_detector
from unfade.faces.identity import USUAL_EMBEDDER, Likeness, likeness, load_embedder
from unfade.faces.masks import Mask, loaded_mask
from unfade.faces.paste import PasteSettings
from unfade.images.photo_files import Found, find_photos, find_pictures
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.outputs import Outputs
from unfade.progress import Progress
from unfade.recipes.provenance import provenance_of
from unfade.restorers.base import Restorer
from unfade.stages.crop import crop_photos, faces_in, found_before, take_aligned
from unfade.stages.photos import Choice, Finder, Framed, searching
from unfade.stages.restore import choices, restore_faces
from unfade.stages.restore_photos import STAGE, Parts, PhotoSettings, restore_photos
from unfade.store.seeds import fingerprint
from unfade.zoo.load import Loaded
from unfade.zoo.models import path_of, row_of

USUAL_PARSER = "parsenet"
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
        return searching(self.detector.network, self.settings.detect, self.settings.choice, size)


def likeness_for(spec: str | Path | None, *, device: str = "cpu") -> Likeness | None:
    """The comparison of a face with its result, by the name or file of a face embedding; None for "none".

    Without a `spec`, the built-in embedding is used. Raises UnknownModel if the named one is missing.
    """
    return None if spec == "none" else likeness(load_embedder(spec or USUAL_EMBEDDER, device=device))


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


@dataclass(frozen=True)
class Results:
    """The restored photos and the restored faces."""

    photos: list[Entry]  # one for each photo
    faces: list[Entry]  # one for each face; `output` is a file in `folder`
    folder: str  # subfolder of the run that holds the restored faces


class Source(Protocol):
    """A folder of pictures that an adaptation learns from and then restores."""

    def identity(self) -> dict[str, object]:
        """What a run depends on besides the settings of the adaptation."""

    def found(self, run: Path) -> Found:
        """The pictures, without those that the run made itself. Raises BadInput if there are none."""

    def take(self, run: Path, size: int, journal: Journal, progress: Progress) -> tuple[list[Entry], list[Path]]:
        """Write the faces to run/faces. Returns an entry for each picture, and the files of the faces."""

    def restore(
        self, run: Path, taken: list[Entry], faces: list[Path], restorer: Restorer, key: str, strength: float,
        journal: Journal, progress: Progress,
    ) -> Results:  # fmt: skip
        """Write the results to run/restored; `taken` and `faces` are from `take`, `key` is the hash of the weights."""


@dataclass(frozen=True)
class AlignedFaces(Source):
    """A folder of square face crops in the framing of FFHQ, or a single one."""

    folder: Path
    likeness: Likeness | None = None  # of a face and its result

    def identity(self) -> dict[str, object]:
        return {}

    def found(self, run: Path) -> Found:
        return find_pictures(self.folder)

    def take(self, run: Path, size: int, journal: Journal, progress: Progress) -> tuple[list[Entry], list[Path]]:
        entries = take_aligned(self.found(run).paths, run / "faces", size=size, journal=journal, progress=progress)
        return entries, [run / "faces" / entry.output for entry in entries if entry.status == "done"]

    def restore(
        self, run: Path, taken: list[Entry], faces: list[Path], restorer: Restorer, key: str, strength: float,
        journal: Journal, progress: Progress,
    ) -> Results:  # fmt: skip
        shown = restore_faces(
            faces, run / "restored_faces", restorer,
            journal=journal, strength=strength, key=key, stage="restored_faces",
        )  # fmt: skip
        found = replace(self.found(run), names=tuple(Path(entry.item) for entry in taken if entry.status == "done"))
        made_by = provenance_of(f"adapted {restorer.architecture}", key, choices(restorer, strength), FILLED)
        photos = restore_photos(
            found, run / "restored", restorer, Framed(found.root, restorer.size), FILLED,
            Parts(likeness=self.likeness, provenance=made_by),
            journal=journal, strength=strength, key=key, progress=progress,
        )  # fmt: skip
        for entry in taken:
            if entry.status != "done":  # an earlier result must not pass for one of this run
                Outputs(STAGE, run / "restored", journal).withdraw(entry.item)
        by_photo = {entry.item: entry for entry in photos}
        return Results([by_photo.get(entry.item, entry) for entry in taken], shown, "restored_faces")


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

    def take(self, run: Path, size: int, journal: Journal, progress: Progress) -> tuple[list[Entry], list[Path]]:
        found, finder = self.found(run), self.find.finder(size)
        key = fingerprint(self.find.identity())
        entries = crop_photos(found, run / "faces", finder, size=size, journal=journal, key=key, progress=progress)
        files = faces_in(run / "faces")
        done = [entry.item for entry in entries if entry.status == "done"]
        return entries, [run / "faces" / file for photo in done for file in files[photo]]

    def restore(
        self, run: Path, taken: list[Entry], faces: list[Path], restorer: Restorer, key: str, strength: float,
        journal: Journal, progress: Progress,
    ) -> Results:  # fmt: skip
        shown = restore_faces(
            faces, run / "restored_faces", restorer,
            journal=journal, strength=strength, key=key, stage="restored_faces",
        )  # fmt: skip
        found, known = self.found(run), found_before(run / "faces")
        made_by = provenance_of(f"adapted {restorer.architecture}", key, choices(restorer, strength), self.settings)
        parts = Parts(likeness=self.likeness, provenance=made_by, mask=self.masking.mask)
        photos = restore_photos(
            found, run / "restored", restorer, known, self.settings, parts,
            journal=journal, strength=strength, key=fingerprint(key, self.identity()), progress=progress,
        )  # fmt: skip
        return Results(photos, shown, "restored_faces")


def only_faces(**changed: bool) -> None:
    """Raises BadInput if a setting for whole photos was changed, which has no effect on aligned faces."""
    for name, is_changed in changed.items():
        if is_changed:
            raise BadInput(
                f"`{name}` is for whole photos, but `aligned` says that these are faces: leave out one of them."
            )


def source_of(
    photos: Path, find: FindSettings | None, settings: PhotoSettings, alike: Likeness | None, masking: Masking,
    *, device: str = "cpu",
) -> Source:  # fmt: skip
    """Aligned faces if `find` is None, whole photos otherwise."""
    if find is None:
        return AlignedFaces(photos, alike)
    return WholePhotos(photos, find.loaded(device=device), settings, alike, masking)
