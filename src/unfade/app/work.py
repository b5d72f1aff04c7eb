"""The work behind the page: restoring a user's photos as the user wants it, and adapting to them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unfade.app.looking import looked_at
from unfade.app.users import User
from unfade.atomic import atomic_write
from unfade.devices import Device
from unfade.errors import BadInput
from unfade.jobs.shards import Portion
from unfade.progress import Progress, silent
from unfade.recipes.adapt import WEIGHTS, adapt
from unfade.recipes.adapt_settings import settings_for
from unfade.recipes.restore import BUILT_IN, RestoreSettings, restore
from unfade.recipes.sources import FindSettings
from unfade.restorers.families import family_of
from unfade.restorers.load import head_of
from unfade.stages.photos import Choice
from unfade.store.checkpoints import read_card
from unfade.store.seeds import fingerprint
from unfade.zoo.models import MODELS, path_of

EVERY = 20  # steps of fine-tuning between two checkpoints, from which the curves are drawn


def restorers_for(user: User) -> dict[str, str]:
    """The restorers that a user can choose, by their names on the page: what is installed, and own adaptations."""
    here = [name for name, model in MODELS.items() if model.kind == "restorer" and path_of(model).exists()]
    runs = sorted((user.folder / "runs").glob(f"*/{WEIGHTS}"))
    return {name: name for name in here} | {f"adapted from {path.parent.name}": str(path.parent) for path in runs}


@dataclass(frozen=True)
class Wanted:
    """What a user has chosen."""

    user: User
    restorer: str = "small-restorer"  # a key of `restorers_for`: no other file can be named
    strength: float = 1.0  # 0..1
    fidelity: float = 0.5  # 0..1; without effect on restorers that have none
    steps: int = 80  # of adapting
    left_out: Mapping[str, Collection[int]] = field(default_factory=dict)  # numbers of faces, by photo

    @property
    def spec(self) -> str:
        """The restorer's name or run folder. Raises BadInput for one that the user does not have."""
        known = restorers_for(self.user)
        if self.restorer not in known:
            raise BadInput(f"There is no restorer {self.restorer}; there are: {', '.join(known)}.")
        return known[self.restorer]

    def result(self, name: str) -> Path | None:
        """The result of a photo for what is chosen now, if it was made."""
        which = self._which(name)
        path = self._place(which) / "restored" / name
        return path if which and path.exists() else None

    def restore(self, device: Device = "auto", progress: Progress = silent) -> list[str]:
        """Restore all photos, those together whose same faces are used; returns a sentence for each without a result.

        Results that were made before are kept. Raises UnfadeError.
        """
        groups: dict[str, list[str]] = {}
        for name in self.user.names:
            groups.setdefault(self._which(name), []).append(name)
        said = [f"{name}: all of its faces are left out." for name in groups.pop("", [])]
        has = family_of(head_of(self.spec).architecture).fidelity is not None
        restorer = BUILT_IN if self.spec == BUILT_IN[0] else self.spec  # by the size of each face, as the command does
        for which, names in groups.items():
            place, find = self._place(which), FindSettings(choice=Choice(which))
            atomic_write(place / "photos.txt", "\n".join(names))
            settings = RestoreSettings(find, fidelity=self.fidelity if has else None, strength=self.strength)
            how: Any = {"portion": Portion(manifest=place / "photos.txt"), "device": device, "progress": progress}
            entries = restore(self.user.photos, place / "restored", restorer, settings, **how)
            said += [entry.reason.replace(f"{self.user.photos}/", "") for entry in entries if entry.status != "done"]
        return said

    def adapt(self, device: Device = "auto", progress: Progress = silent) -> list[str]:
        """Adapt to all photos, or resume that; returns a sentence for each that has no result. Raises UnfadeError."""
        settings = settings_for(self.spec)
        loop = replace(settings.finetune.loop, steps=self.steps, checkpoint_every=EVERY)
        settings = replace(settings, finetune=replace(settings.finetune, loop=loop))
        done = adapt(self.user.photos, self.run, settings, device=device, progress=progress)
        return [reason.replace(f"{self.user.folder}/", "") for _, reason in done.failures]

    @property
    def run(self) -> Path:
        """The folder of an adaptation; the same restorer and number of steps resume it."""
        return self.user.folder / "runs" / f"{Path(self.spec).name}, {self.steps} steps"

    def _which(self, name: str) -> str:
        """The faces of a photo to use; "" if all are left out."""
        left_out = self.left_out.get(name)
        faces = range(len(looked_at(self.user.photos / name).boxes)) if left_out else ()
        return ",".join(str(i) for i in faces if i not in (left_out or ())) if left_out else "all"

    def _place(self, which: str) -> Path:
        """The folder of results that are made in one way."""
        weights = read_card(Path(self.spec) / WEIGHTS).get("fingerprint")
        made = self.strength, self.fidelity, which
        return self.user.folder / "results" / fingerprint(self.spec, weights, made)[:16]
