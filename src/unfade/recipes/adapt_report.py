"""The report of an adaptation, from what its run folder holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unfade.faces.identity import Likeness
from unfade.images.files import read_image
from unfade.jobs.journal import Counts, Entry
from unfade.metrics.reference import psnr, ssim
from unfade.recipes.photo_report import SHOWN, shown_faces, shown_photos
from unfade.report.listings import Listing, named, notes, undone
from unfade.report.page import Curve, Report
from unfade.report.pictures import address_of
from unfade.stages.finetune import became_worse
from unfade.stages.restore import LEFT_ALONE
from unfade.stages.views import Views
from unfade.training.loop import History

Metric = Callable[[Tensor, Tensor], Tensor]  # (restored, truth), both (B, 3, H, W) in [-1, 1] -> (B,)

NAMED = 10  # faces that a warning names

COLUMNS = {"input": "faces", "pre-trained": "pretrained", "target": "targets"}  # folders of the run
FILES = {
    "restored photos": "restored",
    "the adapted restorer": "restorer.safetensors",
    "its card": "restorer.json",
    "the journal: what became of every item": "journal.jsonl",
    "the settings of the run": "run.json",
}

CURVES = {
    "l1": "L1 loss",
    "perceptual": "perceptual loss",
    "gan": "adversarial loss",
    "feature": "feature loss",
    "code": "cross-entropy of the codes",
    "held_out_l1": "held-out pairs: mean absolute difference",
    "held_out_perceptual": "held-out pairs: feature distance",
    "redegraded_l1": "held-out clean faces, damaged as the photos: mean absolute difference",
    "redegraded_perceptual": "held-out clean faces, damaged as the photos: feature distance",
}


@dataclass(frozen=True)
class Ran:
    """What the stages of a run left to be told."""

    photos: Sequence[Entry]
    faces: Sequence[Entry]  # of the restored faces
    targets: Sequence[Entry]
    left_out: Sequence[str]  # names of the faces whose targets were not learned from
    folder: str  # of the run, where restored faces lie
    history: History
    views: Mapping[str, Views]  # of whole photos, by name

    @property
    def done(self) -> list[Entry]:
        """The faces that were restored."""
        return [entry for entry in self.faces if entry.status == "done"]


def report_of(
    run: Path,
    ran: Ran,
    settings: Mapping[str, object],
    *,
    truth: Mapping[str, Path],
    metrics: Mapping[str, Metric],
    likeness: Likeness | None = None,
) -> Report:
    """The page of a run: its photos, its faces, and the counts of its photos.

    `truth` maps stems to clean versions, where there are any: PSNR, SSIM and `metrics` are computed against these.
    `likeness` compares a face with its result, and the page warns of results that are no longer the same person.
    """
    columns = {**COLUMNS, "adapted": ran.folder}
    counts = Counts.of(ran.photos)
    return Report(
        title="unfade: adapted to your photos",
        summary=_summary(counts, len(ran.done)),
        counts=counts.as_dict(),
        scores=_scores(run, columns, ran.done, truth, metrics),
        curves=[Curve(title, points) for name, title in CURVES.items() if (points := ran.history.curve(name))],
        settings=settings,
        faces=shown_faces(
            {entry.item: _files(run, columns, entry.output, truth) for entry in ran.done},
            run,
            notes={entry.item: "; ".join(entry.notes) for entry in ran.done},
        ),
        photos=shown_photos(ran.photos, run / "restored", ran.views, run),
        lists=_lists(ran),
        files={what: address_of(run / file, run) for what, file in FILES.items()},
        warnings=_warnings(len(ran.done))
        + _kept(ran.history)
        + _left_out(ran.left_out)
        + _left_alone(ran)
        + _strangers(run, columns, ran.done, likeness),
    )


def _summary(counts: Counts, faces: int) -> str:
    return f"{counts.found} photos found, {counts.done} restored, with {faces} faces, by a restorer adapted to them."


def _warnings(faces: int) -> list[str]:
    few = [f"Only {faces} faces: an adapted restorer may be worse than the pre-trained one below about 20."]
    more = [f"The page shows the {SHOWN} of {faces} faces that changed most; the folder restored/ holds all."]
    return (few if faces < 20 else []) + (more if faces > SHOWN else [])


def _kept(history: History) -> list[str]:
    """What is said where adapting would have done harm."""
    if not became_worse(history):
        return []
    return ["Adapting made held-out faces worse, so the pre-trained restorer was kept: results are its own."]


def _left_out(names: Sequence[str]) -> list[str]:
    """What is said of targets that disagreed with their photos."""
    if not names:
        return []
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"{len(names)} targets disagreed with their photos and were left out: {', '.join(names[:NAMED])}{more}."]


def _left_alone(ran: Ran) -> list[str]:
    count = len(_unchanged(ran))
    return [f"{count} faces were already sharper than the restorer can draw: left as they were."] if count else []


def _unchanged(ran: Ran) -> list[str]:
    return [entry.item for entry in ran.done if any(note.endswith(LEFT_ALONE) for note in entry.notes)]


def _lists(ran: Ran) -> list[Listing]:
    """What a user may look for by name; the first ones add up to the counts."""
    return [
        *undone(ran.photos),
        *undone(ran.targets, ": targets"),
        *named("Left alone", _unchanged(ran), "Faces that were already sharper than the restorer can draw."),
        *named("Targets left out", ran.left_out, "Their colours disagreed with the photo's."),
        *notes(ran.photos),
    ]


def _strangers(run: Path, columns: Mapping[str, str], done: list[Entry], likeness: Likeness | None) -> list[str]:
    """A warning of the results that are not taken for the same person's as their faces, the least alike first."""
    if likeness is None:
        return []
    folders = [run / columns[name] for name in ("input", "adapted")]
    apart = {e.output: likeness.distance(*(read_image(folder / e.output) for folder in folders)) for e in done}
    strange = sorted(((far, name) for name, far in apart.items() if likeness.tells_apart(far)), reverse=True)
    if not strange:
        return []
    named = ", ".join(f"{name} ({far:.2f})" for far, name in strange[:NAMED])
    more = f" and {len(strange) - NAMED} more" if len(strange) > NAMED else ""
    told = (
        f"{len(strange)} of {len(done)} faces no longer resemble themselves (identity distance over {likeness.limit})"
    )
    return [f"{told}: {named}{more}."]


def _files(run: Path, columns: Mapping[str, str], name: str, truth: Mapping[str, Path]) -> dict[str, Path]:
    paths = {column: run / folder / name for column, folder in columns.items()}
    if Path(name).stem in truth:
        paths["truth"] = truth[Path(name).stem]
    return {column: path for column, path in paths.items() if path.exists()}


def _scores(
    run: Path,
    columns: Mapping[str, str],
    done: Sequence[Entry],
    truth: Mapping[str, Path],
    more: Mapping[str, Metric],
) -> list[dict[str, object]]:
    """Mean scores against the truth, of the faces that have one of the same size."""
    metrics = {"psnr": psnr, "ssim": ssim, **more}
    rows: list[dict[str, object]] = []
    for column in ("input", "pre-trained", "target", "adapted"):
        pairs = [(run / columns[column] / e.output, truth.get(Path(e.output).stem)) for e in done]
        images = [(read_image(a)[None], read_image(b)[None]) for a, b in pairs if b and a.exists()]
        if not images:
            continue
        with torch.no_grad():
            means = {name: float(torch.cat([f(a, b) for a, b in images]).mean()) for name, f in metrics.items()}
        rows.append({"against the truth": column, **means, "faces": len(images)})
    return rows
