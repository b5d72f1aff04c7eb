"""The report of an adaptation, made from its run folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unfade.degradations.fitted_file import DEGRADATION, load_degradation
from unfade.degradations.measured import damage_of
from unfade.faces.identity import Likeness
from unfade.images.files import read_image
from unfade.jobs.journal import Counts, Entry
from unfade.metrics.reference import psnr, ssim
from unfade.recipes.inspect import in_words
from unfade.recipes.photo_report import CHANGED_MOST, cut_short, shown_faces, shown_photos
from unfade.report.curves import Curve
from unfade.report.document import Report
from unfade.report.listings import Line, Listing, named, notes, undone
from unfade.report.pictures import address_of
from unfade.shown import first_few
from unfade.stages.restore import LEFT_ALONE
from unfade.stages.views import Views
from unfade.training.loop import History

Metric = Callable[[Tensor, Tensor], Tensor]  # (restored, truth), both (B, 3, H, W) in [-1, 1] -> (B,)

ENOUGH = 20  # faces; an adaptation to fewer may be worse than the pre-trained restorer
NAMED = 10  # at most so many faces are named in a warning

RESTORED = "restored_faces"  # folder of the run that holds the restored faces
COLUMNS = {
    "input": "faces",
    "pre-trained": "pretrained",
    "target": "targets",
    "adapted": RESTORED,
}  # folders of the run
FILES = {
    "restored photos": "restored",
    "the adapted restorer": "restorer.safetensors",
    "its card": "restorer.json",
    "the degradation of the photos, as it was fitted": DEGRADATION,
    "the journal: what became of every item": "journal.jsonl",
    "the settings of the run": "run.json",
}

CURVES = {
    "l1": "L1 loss",
    "perceptual": "perceptual loss",
    "texture": "texture loss",
    "gan": "adversarial loss",
    "feature": "feature loss",
    "code": "cross-entropy of the codes",
    "held_out_l1": "held-out pairs: mean absolute difference",
    "held_out_perceptual": "held-out pairs: feature distance",
    "redegraded_l1": "held-out clean faces, degraded like the photos: mean absolute difference",
    "redegraded_perceptual": "held-out clean faces, degraded like the photos: feature distance",
}


@dataclass(frozen=True)
class Ran:
    """The results of a run's stages that the report shows."""

    photos: Sequence[Entry]
    faces: Sequence[Entry]  # of the restored faces
    targets: Sequence[Entry]
    left_out: Sequence[str]  # names of the faces whose targets were not learned from
    history: History
    views: Mapping[str, Views]  # of whole photos, by name
    tuning: Sequence[str] = ()  # warnings about the fine-tuning

    @property
    def done(self) -> list[Entry]:
        """The faces that were restored."""
        return [entry for entry in self.faces if entry.status == "done"]

    @property
    def warnings(self) -> list[str]:
        """What the user should know about the adapted restorer, one sentence each."""
        return [*_few(len(self.done)), *self.tuning, *_left_out(self.left_out)]


def report_of(
    run: Path,
    ran: Ran,
    settings: Mapping[str, object],
    *,
    truth: Mapping[str, Path],
    metrics: Mapping[str, Metric],
    likeness: Likeness | None = None,
) -> Report:
    """The report of a run: its photos, its faces, and the counts of its photos.

    `truth` maps file stems to clean versions, if there are any; PSNR, SSIM and `metrics` are computed against these.
    `likeness` compares each face with its result, and the page warns of results that no longer look like the person.
    """
    counts = Counts.of(ran.photos)
    return Report(
        title="unfade: adapted to your photos",
        summary=_summary(counts, len(ran.done)),
        counts=counts.as_dict(),
        scores=_scores(run, ran.done, truth, metrics),
        curves=curves_of(ran.history),
        settings=settings,
        faces=shown_faces(
            {entry.item: _files(run, entry.output, truth) for entry in ran.done},
            run,
            notes={entry.item: "; ".join(entry.notes) for entry in ran.done},
        ),
        photos=shown_photos(ran.photos, run / "restored", ran.views, run),
        lists=[*_damage(run), *_lists(ran)],
        files={what: address_of(run / file, run) for what, file in FILES.items() if _is_there(run / file)},
        warnings=[
            *cut_short(len(ran.done), CHANGED_MOST, "the folder restored/"),
            *ran.warnings,
            *_left_alone(ran),
            *_strangers(run, ran.done, likeness),
        ],
    )


def curves_of(history: History) -> list[Curve]:
    """The losses and the scores of held-out faces that a history has."""
    return [Curve(title, points) for name, title in CURVES.items() if (points := history.curve(name))]


def _summary(counts: Counts, faces: int) -> str:
    return f"{counts.found} photos found; {counts.done} with {faces} faces restored by a restorer adapted to them."


def _few(faces: int) -> list[str]:
    """A warning about few faces."""
    if faces >= ENOUGH:
        return []
    worse = "an adapted restorer may be worse than the pre-trained one."
    return [f"Only {faces} face{'s' * (faces != 1)}: with fewer than about {ENOUGH}, {worse}"]


def _left_out(names: Sequence[str]) -> list[str]:
    """A warning about targets that disagree with their photos."""
    if not names:
        return []
    found = f"{len(names)} targets disagreed with their photos and were not used"
    if len(names) == 1:
        found = "1 target disagreed with its photo and was not used"
    return [f"{found}: {first_few(names, NAMED)}."]


def _left_alone(ran: Ran) -> list[str]:
    count = len(_unchanged(ran))
    return [f"{count} face{'s' * (count > 1)}{LEFT_ALONE}."] if count else []


def _is_there(file: Path) -> bool:
    """Whether a file is to be listed: too few photos have no degradation."""
    return file.name != DEGRADATION or file.exists()


def _damage(run: Path) -> list[Listing]:
    """What damaged the photos, if a degradation was fitted to them."""
    if not (run / DEGRADATION).exists():
        return []
    words = in_words(damage_of(load_degradation(run / DEGRADATION)))
    about = "As it was fitted to photos and targets, and corrected; `unfade inspect` draws it."
    return [Listing("What damaged these photos", [Line(kind, text) for kind, text in words.items()], about)]


def _unchanged(ran: Ran) -> list[str]:
    return [entry.item for entry in ran.done if any(note.endswith(LEFT_ALONE) for note in entry.notes)]


def _lists(ran: Ran) -> list[Listing]:
    """Lists of items by name; those of the photos add up to the counts."""
    return [
        *undone(ran.photos),
        *undone(ran.targets, ": targets"),
        *named("Left unchanged", _unchanged(ran), "Faces that are hardly degraded, by the restorer's estimate."),
        *named(
            "Targets not used",
            ran.left_out,
            "Their colours disagreed, or they showed another person.",
        ),
        *notes(ran.photos),
    ]


def _strangers(run: Path, done: list[Entry], likeness: Likeness | None) -> list[str]:
    """A warning that names the results that may no longer show the same person, least similar first."""
    if likeness is None:
        return []
    folders = [run / COLUMNS[name] for name in ("input", "adapted")]
    strangers: list[tuple[float, str]] = []
    for entry in done:
        face, result = (read_image(folder / entry.output) for folder in folders)
        far = likeness.distance(face, result)
        strangers += [(far, entry.output)] * likeness.tells_apart(face, far)
    strangers.sort(reverse=True)
    if not strangers:
        return []
    names = [f"{name} ({far:.2f})" for far, name in strangers]
    warning = (
        f"{len(strangers)} of {len(done)} results may no longer show the same person "
        f"(identity distance over {likeness.limit})"
    )
    return [f"{warning}: {first_few(names, NAMED)}."]


def _files(run: Path, name: str, truth: Mapping[str, Path]) -> dict[str, Path]:
    paths = {column: run / folder / name for column, folder in COLUMNS.items()}
    if Path(name).stem in truth:
        paths["truth"] = truth[Path(name).stem]
    return {column: path for column, path in paths.items() if path.exists()}


def _scores(
    run: Path, done: Sequence[Entry], truth: Mapping[str, Path], more: Mapping[str, Metric]
) -> list[dict[str, object]]:
    """Mean scores against the truth, over the faces that have one."""
    metrics = {"psnr": psnr, "ssim": ssim, **more}
    rows: list[dict[str, object]] = []
    for column, folder in COLUMNS.items():
        pairs = [(run / folder / e.output, truth.get(Path(e.output).stem)) for e in done]
        found = [_scores_of(face, clean, metrics) for face, clean in pairs if clean and face.exists()]
        if found:
            means = {name: float(torch.cat([values[name] for values in found]).mean()) for name in metrics}
            rows.append({"against the truth": column, **means, "faces": len(found)})
    return rows


@torch.no_grad()
def _scores_of(face: Path, clean: Path, metrics: Mapping[str, Metric]) -> dict[str, Tensor]:
    pair = read_image(face)[None], read_image(clean)[None]
    return {name: metric(*pair) for name, metric in metrics.items()}
