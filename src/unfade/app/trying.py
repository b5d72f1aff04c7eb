"""Restoring the photos of a folder in several variants, each of which keeps its own results."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from unfade.app.looking import looked_at
from unfade.devices import Device
from unfade.errors import BadInput
from unfade.images.finding import Found, find_photos
from unfade.jobs.journal import Entry
from unfade.progress import Progress, silent
from unfade.recipes.restore import BUILT_IN, RestoreSettings, load_restoration
from unfade.recipes.sources import FindSettings
from unfade.restorers.families import family_of
from unfade.restorers.load import head_of
from unfade.stages.photos import Choice
from unfade.stages.restore_photos import STAGE, result_names
from unfade.store.checkpoints import read_card
from unfade.store.seeds import fingerprint
from unfade.zoo.models import find_weights


@dataclass(frozen=True)
class Variant:
    """One variant of restoring: by which restorer, how strongly, and without which faces.

    Changing it never replaces a result, and changing it back finds the former one. Faces are left out photo by photo,
    which a `Choice` cannot do, as it is the same for all photos.
    """

    photos: Path  # folder of photos that differ in their stems, as those of an `Album` do
    out: Path  # folder of all variants
    restorer: Sequence[str] = BUILT_IN  # names or run folders; each face goes through the one that suits its size
    strength: float = 1.0  # 0..1: blends every restored face with the original
    fidelity: float = 0.5  # 0..1; without effect on restorers that have none
    left_out: Mapping[str, Collection[int]] = field(default_factory=dict)  # numbers of faces, from 0, by photo

    def restore(self, *, device: Device = "auto", progress: Progress = silent) -> list[Entry]:
        """Restore the photos that have no result of this variant yet; one entry for each photo.

        Photos of which the faces with the same numbers are used are restored together. Raises what `restore` raises,
        BadInput for two photos of one stem, and UnreadableImage for a photo of which faces are left out.
        """
        groups: dict[str, list[Path]] = {}
        photos = find_photos(self.photos, without=self.out).names
        if len({name.with_suffix("") for name in photos}) < len(photos):
            raise BadInput(f"Two photos in {self.photos} differ in nothing but their endings: rename one of them.")
        for name in photos:
            groups.setdefault(self._faces(name.as_posix()), []).append(name)
        entries = [_without_faces(self.photos, name) for name in groups.pop("", [])]
        has_fidelity = family_of(head_of(self.restorer[0]).architecture).fidelity is not None
        for faces, names in groups.items():
            find, place = FindSettings(choice=Choice(faces)), self._place(faces)
            settings = RestoreSettings(find, fidelity=self.fidelity if has_fidelity else None, strength=self.strength)
            restoration = load_restoration(self.restorer, settings, device=device)
            found, films = Found(self.photos, names), Found(self.photos, ())
            entries += restoration.restore_found(found, films, place, asked=str(self.photos), progress=progress)
        return entries

    def result(self, name: str) -> Path | None:
        """The result of a photo, by its name in the folder, if `restore` has made it."""
        faces = self._faces(name)
        path = self._place(faces) / result_names([Path(name)], None)(name)  # some formats are not written
        return path if faces and path.exists() else None

    def _faces(self, name: str) -> str:
        """The faces of a photo that are used, as a `Choice` names them; "" if all are left out."""
        left_out = self.left_out.get(name)
        return looked_at(self.photos / name).without(left_out) if left_out else "all"

    def _place(self, faces: str) -> Path:
        """The folder of what this variant makes of these faces."""
        return self.out / fingerprint(self._made_by, faces)[:16]

    @cached_property
    def _made_by(self) -> str:
        """What results depend on besides the faces. A run folder may get another restorer, which its card tells."""
        weights = [read_card(find_weights(spec, "restorer")).get("fingerprint") for spec in self.restorer]
        return fingerprint([*self.restorer], weights, self.strength, self.fidelity)


def _without_faces(photos: Path, name: Path) -> Entry:
    reason = f"{photos / name}: all of its faces are left out."
    return Entry(STAGE, name.as_posix(), "no_face", reason=reason)
