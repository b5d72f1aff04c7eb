"""The report of an adaptation, from what its run folder holds."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from unfade.faces.identity import IdentitySettings, Likeness
from unfade.images.files import encode, read_image
from unfade.jobs.journal import Counts, Entry
from unfade.metrics.reference import psnr, ssim
from unfade.report.page import Curve, Face, Report
from unfade.training.loop import History

SHOWN = 300  # faces on the page: about 15 MB at 128 px
NAMED = 10  # faces that a warning names
IDENTITY = IdentitySettings()

COLUMNS = {"input": "faces", "pre-trained": "pretrained", "target": "targets"}  # folders of the run

CURVES = {
    "l1": "L1 loss",
    "perceptual": "perceptual loss",
    "gan": "adversarial loss",
    "feature": "feature loss",
    "code": "cross-entropy of the codes",
    "held_out_l1": "held-out pairs: mean absolute difference",
    "held_out_perceptual": "held-out pairs: feature distance",
}


def report_of(
    run: Path,
    faces: list[Entry],
    counts: Counts,
    failures: list[tuple[str, str]],
    history: History,
    settings: Mapping[str, object],
    *,
    restored: str,
    truth: Mapping[str, Path],
    distance: Callable[[Tensor, Tensor], Tensor],
    similarity: Likeness | None = None,
) -> Report:
    """The page of a run: its faces, and the counts of its photos.

    `restored` is the folder of the restored faces, `truth` maps stems to clean versions, where there are any.
    By `similarity`, of a face and its result, the page warns of results that are no longer the same person.
    """
    done = [entry for entry in faces if entry.status == "done"]
    columns = {**COLUMNS, "adapted": restored}
    return Report(
        title="unfade: adapted to your photos",
        summary=_summary(counts, len(done)),
        counts=counts.as_dict(),
        scores=_scores(run, columns, done, truth, distance),
        curves=[Curve(title, points) for name, title in CURVES.items() if (points := history.curve(name))],
        settings=settings,
        failures=failures,
        faces=[_face(run, columns, entry, truth) for entry in done[:SHOWN]],
        warnings=_warnings(done) + _strangers(run, columns, done, similarity),
    )


def _summary(counts: Counts, faces: int) -> str:
    return f"{counts.found} photos found, {counts.done} restored, with {faces} faces, by a restorer adapted to them."


def _warnings(done: list[Entry]) -> list[str]:
    few = [f"Only {len(done)} faces: an adapted restorer may be worse than the pre-trained one below about 20."]
    more = [f"The page shows the first {SHOWN} of {len(done)} faces; the folder restored/ holds all."]
    return (few if len(done) < 20 else []) + (more if len(done) > SHOWN else [])


def _strangers(
    run: Path, columns: Mapping[str, str], done: list[Entry], similarity: Likeness | None,
    settings: IdentitySettings = IDENTITY,
) -> list[str]:  # fmt: skip
    """A warning of the results that are not taken for the same person's as their faces, the least alike first."""
    if similarity is None:
        return []
    folders = [run / columns[name] for name in ("input", "adapted")]
    alike = {e.output: similarity(*(read_image(folder / e.output) for folder in folders)) for e in done}
    strange = sorted((value, name) for name, value in alike.items() if settings.tells_apart(value))
    if not strange:
        return []
    named = ", ".join(f"{name} ({value:.2f})" for value, name in strange[:NAMED])
    more = f" and {len(strange) - NAMED} more" if len(strange) > NAMED else ""
    told = f"{len(strange)} of {len(done)} faces no longer resemble themselves (similarity below {settings.least})"
    return [f"{told}: {named}{more}."]


def _face(run: Path, columns: Mapping[str, str], entry: Entry, truth: Mapping[str, Path]) -> Face:
    paths = {column: run / folder / entry.output for column, folder in columns.items()}
    stem = Path(entry.output).stem
    if stem in truth:
        paths["truth"] = truth[stem]
    pictures = {column: encode(read_image(path), "JPEG", quality=95) for column, path in paths.items() if path.exists()}
    return Face(entry.item, pictures, "; ".join(entry.notes))


def _scores(
    run: Path,
    columns: Mapping[str, str],
    done: list[Entry],
    truth: Mapping[str, Path],
    distance: Callable[[Tensor, Tensor], Tensor],
) -> list[dict[str, object]]:
    """Mean scores against the truth, of the faces that have one of the same size."""
    metrics = {"psnr": psnr, "ssim": ssim, "feature_distance": distance}
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
