"""A user's folder, which stays when the server ends, and the work that is done in it."""

import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from unfade.app.album import Album
from unfade.app.trying import Variant
from unfade.devices import Device
from unfade.errors import BadInput
from unfade.progress import Progress, silent
from unfade.recipes.adapt import WEIGHTS, adapt
from unfade.recipes.adapt_settings import AdaptSettings, settings_for
from unfade.recipes.restore import BUILT_IN
from unfade.zoo.models import installed

TOKEN = re.compile(r"[\w-]{22}", re.ASCII)  # names a user's folder and cannot be guessed
USUAL = "built-in"  # name of what the commands use without `--restorer`
ADAPTED = "adapted from "  # begin of the names of own adaptations
EVERY = 20  # steps of fine-tuning between two checkpoints, from which the curves are drawn


class User(Album):
    """One user: an album named after the token in the user's browser, with results and adaptations."""

    @staticmethod
    def of(work: Path, token: object) -> "User":
        """The user with that token, or a new user if it is no token."""
        known = isinstance(token, str) and TOKEN.fullmatch(token)
        return User(work / (str(token) if known else secrets.token_urlsafe(16)))

    @property
    def restorers(self) -> dict[str, tuple[str, ...]]:
        """What can be chosen, by its name on the page: the built-in pair, single restorers, and own adaptations."""
        runs = [path.parent for path in sorted((self.folder / "runs").glob(f"*/{WEIGHTS}"))]
        adapted = {f"{ADAPTED}{run.name}": (str(run),) for run in runs}
        return {USUAL: BUILT_IN, **{name: (name,) for name in installed("restorer")}, **adapted}


@dataclass(frozen=True)
class Wanted:
    """What a user has chosen. Raises BadInput for a restorer that the user does not have."""

    user: User
    left_out: Mapping[str, Collection[int]] = field(default_factory=dict)  # numbers of faces, by photo
    restorer: str = USUAL  # a key of the user's `restorers`: no other file can be named
    strength: float = 1.0  # 0..1
    fidelity: float = 0.5  # 0..1; without effect on restorers that have none
    steps: int = 80  # of adapting

    def __post_init__(self) -> None:
        if self.restorer not in self.user.restorers:
            raise BadInput(f"There is no restorer {self.restorer}; there are: {', '.join(self.user.restorers)}.")

    @cached_property
    def variant(self) -> Variant:
        """How photos are restored."""
        how = self.user.restorers[self.restorer], self.strength, self.fidelity, self.left_out
        return Variant(self.user.photos, self.user.folder / "results", *how)

    @property
    def run(self) -> Path:
        """The folder of an adaptation; the same restorer and number of steps resume it."""
        return self.user.folder / "runs" / f"{self.restorer.removeprefix(ADAPTED)}, {self.steps} steps"

    def restore(self, device: Device = "auto", progress: Progress = silent) -> list[str]:
        """Restore all photos; returns a sentence for each that has no result. Raises UnfadeError."""
        entries = self.variant.restore(device=device, progress=progress)
        return [entry.reason.replace(f"{self.user.photos}/", "") for entry in entries if entry.status != "done"]

    def adapt(self, device: Device = "auto", progress: Progress = silent) -> list[str]:
        """Adapt to all photos, or resume that; returns what to know about it, a sentence each. Raises UnfadeError."""
        chosen = self._settings if self.restorer == USUAL else self._settings(*self.variant.restorer)
        done = adapt(self.user.photos, self.run, chosen, device=device, progress=progress)
        return [*done.warnings, *(reason.replace(f"{self.user.folder}/", "") for _, reason in done.failures)]

    def _settings(self, restorer: str) -> AdaptSettings:
        settings = settings_for(restorer)
        loop = replace(settings.finetune.loop, steps=self.steps, checkpoint_every=EVERY)
        return replace(settings, finetune=replace(settings.finetune, loop=loop))
