"""The pieces that the paper's tables are made of: degraded photos, targets, restorers, restored photos, each made once.

Every piece has a folder of its own, named by a fingerprint of all that it depends on. So tables share pieces without
knowing of each other, and an interrupted table resumes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unfade.atomic import atomic_write
from unfade.diffusion.load import load_prior, loaded_prior
from unfade.errors import BadInput
from unfade.evaluation.evaluate import evaluate
from unfade.images.pairing import without_namesakes
from unfade.jobs.journal import Entry
from unfade.jobs.runs import Run, open_run
from unfade.paper.printed import CAMERAS, REAL
from unfade.paper.scores import Values
from unfade.paper.settings import first_stage, settings_of
from unfade.paper.tables import SWINIR, By, Learning, Pseudo, Restored, Scale, Way, learning_of
from unfade.progress import Progress, silent
from unfade.recipes.adapt_settings import AdaptSettings
from unfade.recipes.compare import load_own
from unfade.recipes.rehearse import RehearseSettings, on_truth, prepare, split
from unfade.recipes.tuning import finetune_to_file
from unfade.restorers.load import head_of, load_restorer, loaded_restorer
from unfade.stages.crop import take_aligned
from unfade.stages.degrade import camera_degradation
from unfade.stages.finetune import Pair
from unfade.stages.methods import METHODS, run_method
from unfade.stages.restore import restore_faces
from unfade.stages.targets import make_targets
from unfade.store.checkpoints import card_path, sha256_of
from unfade.store.seeds import fingerprint
from unfade.zoo.models import find_weights

DEGRADATIONS = {name: camera_degradation(name.split()[1], int(name[0])) for name in CAMERAS}
WEIGHTS, SCORES, PICTURES = "restorer.safetensors", "scores.json", "pictures"


@dataclass(frozen=True)
class Photos:
    """Degraded photos, and their truth if there is one."""

    folder: Path
    learn: Sequence[Path]  # photos to adapt to; a smaller number is always the first part of a larger one
    score: Sequence[Path]  # others, which are scored

    @property
    def name(self) -> str:
        """A fingerprint of the photos and their truth."""
        return self.folder.name

    @property
    def truth(self) -> Path:
        """The folder that scored photos are compared with: the truth or, without one, the photos themselves."""
        truth = self.folder / "truth" / "score"
        return truth if truth.is_dir() else self.folder / "photos" / "score"


@dataclass
class Folders:
    """The folders of pieces in `out`, with a record of which pieces were made and what failed."""

    out: Path
    progress: Progress = field(default=silent, kw_only=True)
    failures: dict[tuple[str, str], None] = field(default_factory=dict, kw_only=True)  # (file, reason), each once
    made: set[str] = field(default_factory=set, kw_only=True)  # names of folders that this process has made or checked

    def _folder(self, kind: str, *parts: object) -> Path:
        return self.out / f"{kind}-{fingerprint(*parts)}"

    @contextmanager
    def _run(self, kind: str, *parts: object, files: Sequence[Path] = ()) -> Iterator[Run]:
        """The run folder of a piece, whose settings are everything that the piece depends on."""
        folder = self._folder(kind, *parts)
        with open_run(folder, {kind: parts}, files=files, progress=self.progress) as run:
            yield run
        self.made.add(folder.name)

    def _is_made(self, run: Run) -> bool:
        """Whether this process has already made or checked the piece."""
        return run.folder.name in self.made

    def _note(self, entries: Sequence[Entry]) -> None:
        self.failures |= {(entry.item, entry.reason): None for entry in entries if entry.status != "done"}


@dataclass
class PhotoSets(Folders):
    """Makes the degraded photos of each camera, and resizes the real ones, unless they exist."""

    scale: Scale
    faces: Sequence[Path] = ()  # clean and aligned, to be degraded
    real: Sequence[Path] = ()  # aligned photos without a truth
    most: int = 0  # largest number of photos to adapt to, and of photos to score; 0: all
    device: str = "cpu"
    sets: dict[str, Photos] = field(default_factory=dict)  # made or checked by this process, by camera

    def photos(self, name: str) -> Photos:
        """The photos of a camera, or the real ones. Raises BadInput if there are too few."""
        if name not in self.sets:
            self.sets[name] = self._photos(name)
        return self.sets[name]

    def _photos(self, name: str) -> Photos:
        found, others = without_namesakes(self.real if name == REAL else self.faces)
        self.failures |= dict.fromkeys(others)
        parts = split(found, RehearseSettings(most=self.most))
        parts["score"] = parts["score"][: self.most or None]
        size = head_of(self.scale.restorers[SWINIR]).size
        contents = {part: [(path.name, sha256_of(path)) for path in paths] for part, paths in parts.items()}
        with self._run("photos", name, size, contents) as run:
            if name == REAL:
                self._note(_real(parts, run, size))
            else:
                self.failures |= dict.fromkeys(prepare(run, parts, DEGRADATIONS[name], size=size, seed=0))
        learn, score = (
            [path for source in parts[part] if (path := run.folder / "photos" / part / f"{source.stem}.png").exists()]
            for part in ("learn", "score")
        )
        return Photos(run.folder, learn, score)


class Runs(PhotoSets):
    """Makes the pieces that a table needs, unless they exist."""

    def pictures(self, way: Way, photos: Photos, name: str) -> Path:
        """The folder of the results of a way for the photos that are scored."""
        if isinstance(way, Pseudo):
            settings = settings_of(self.scale, way.restorer, name, Learning(way.targets))
            return self.targets(settings, photos, "score")
        if isinstance(way, By):
            return self._by(way, photos, name)
        assert isinstance(way, Restored)
        spec = self.restorer(way.restorer, way.learning, photos, name)
        settings = settings_of(self.scale, way.restorer, name, way.learning or Learning())
        fidelity = settings.fidelity if way.fidelity is None else way.fidelity
        return self._restored(spec, fidelity, photos)

    def restorer(self, part: str, learning: Learning | None, photos: Photos, name: str) -> str:
        """The name or file of a restorer, fine-tuned on the photos if `learning` says how."""
        if learning is None:
            return self.scale.restorers[part]
        settings = settings_of(self.scale, part, name, learning)
        learn = photos.learn[: learning.photos]
        if learning.on_truth:
            settings, targets = on_truth(settings), photos.folder / "truth" / "learn"
        elif learning.targets.method:
            targets = self._by(By(learning.targets.method), photos, name, "learn")
        else:
            targets = self.targets(settings, photos, "learn")
        return str(self._finetuned(settings, learn, targets))

    def targets(self, settings: AdaptSettings, photos: Photos, side: str) -> Path:
        """The pseudo targets of one part of the photos, "learn" or "score"."""
        key = fingerprint(_weights(settings.restorer, settings.prior), settings.fidelity)
        with self._run("targets", photos.name, side, settings.targets.identity(), key) as run:
            if not self._is_made(run):
                restorer = load_restorer(settings.restorer, fidelity=settings.fidelity, device=self.device)
                prior = load_prior(settings.prior, device=self.device)
                faces, pictures = getattr(photos, side), run.within(PICTURES)
                self._note(make_targets(faces, pictures, restorer, prior, settings=settings.targets, key=key))
        return run.folder / PICTURES

    def values(self, way: Way, name: str) -> Values:
        """The scores of a way on a set of photos."""
        photos = self.photos(name)
        pictures = self.pictures(way, photos, name)
        real = name == REAL
        metrics = self.scale.real_metrics if real else self.scale.metrics
        reference = self.scale.real_reference if real else self.scale.reference
        made = sorted(path.stem for path in photos.score if (pictures / path.name).exists())
        parts: list[Any] = [pictures.parent.name, photos.name, metrics, reference]
        parts += [made] if len(made) < len(photos.score) else []
        file = self._folder("scores", *parts) / SCORES
        with self._run("scores", *parts, files=[file]):
            if not file.exists():
                found = evaluate(
                    pictures, truth=photos.truth, reference=reference, metrics=metrics, stems=made, device=self.device
                )
                scores = {
                    "files": found.scores.files if found.scores else {},
                    "sets": found.sets.values if found.sets else {},
                }
                atomic_write(file, json.dumps(scores, indent=1) + "\n")
        return Values(**json.loads(file.read_text()))

    def _finetuned(self, settings: AdaptSettings, learn: Sequence[Path], targets: Path) -> Path:
        pairs = [Pair(face, targets / face.name) for face in learn if (targets / face.name).exists()]
        key, piece = _weights(settings.restorer, settings.prior), targets.relative_to(self.out).parts[0]
        parts = ("restorer", piece, [pair.face.name for pair in pairs], settings.identity(), key)
        weights = self._folder(*parts) / WEIGHTS
        with self._run(*parts, files=[weights, card_path(weights)]) as run:
            if not self._is_made(run):
                restorer = loaded_restorer(settings.restorer, fidelity=settings.fidelity, device=self.device)
                prior = loaded_prior(settings.prior, device=self.device)
                finetune_to_file(
                    restorer, prior, pairs, weights, settings, clean=[], replace_older=True, progress=self.progress
                )
        return weights

    def _restored(self, spec: str, fidelity: float | None, photos: Photos) -> Path:
        key = sha256_of(find_weights(spec, "restorer"))
        with self._run("restored", photos.name, fidelity, key) as run:
            if not self._is_made(run):
                network = load_restorer(spec, fidelity=fidelity, device=self.device)
                self._note(restore_faces(photos.score, run.within(PICTURES), network, key=key))
        return run.folder / PICTURES

    def _by(self, way: By, photos: Photos, name: str, side: str = "score") -> Path:
        method, _ = self.scale.methods[way.method]
        if method not in METHODS:
            return self._restored(method, None, photos)
        spec = (
            self.restorer(SWINIR, way.learning, photos, name) if way.learning else first_stage(self.scale, way.method)
        )
        own = METHODS[method].own
        key = fingerprint(_weights(spec, self.scale.prior), sha256_of(find_weights(own, "guide")) if own else "")
        with self._run("method", photos.name, side, method, key) as run:
            if not self._is_made(run):
                models = load_restorer(spec, device=self.device), load_prior(self.scale.prior, device=self.device)
                guide = load_own(own, device=self.device) if own else None
                faces, pictures = getattr(photos, side), run.within(PICTURES)
                self._note(run_method(method, faces, pictures, *models, own=guide, key=key))
        return run.folder / PICTURES


def lacking(runs: Runs, way: Way, name: str) -> str:
    """The reason why a row cannot be made from these photos; "" if it can."""
    learning = learning_of(way)
    if learning is None or learning.photos is None:
        return ""
    count = len(runs.photos(name).learn)
    return f"there are {count} photos to adapt to" if learning.photos >= count else ""


def _real(parts: Mapping[str, list[Path]], run: Run, size: int) -> list[Entry]:
    """Resize photos without a truth."""
    entries = []
    for part, paths in parts.items():
        taken = take_aligned(paths, run.within("photos", part), size=size)
        if not any(entry.status == "done" for entry in taken):
            raise BadInput(f"None of the {len(paths)} photos to {part} could be used; the first: {taken[0].reason}")
        entries += taken
    return entries


def _weights(restorer: str, prior: str) -> dict[str, str]:
    """The hashes of the models' files, without loading them, since results made with them may already exist."""
    return {
        "restorer": sha256_of(find_weights(restorer, "restorer")),
        "prior": sha256_of(find_weights(prior, "prior")),
    }
