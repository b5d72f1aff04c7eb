"""The report of an adaptation, from what its run folder holds."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from unfade.faces.identity import Likeness
from unfade.images.files import encode, read_image
from unfade.jobs.journal import Counts, Entry
from unfade.metrics.reference import psnr, ssim
from unfade.report.page import Curve, Face, Report
from unfade.stages.finetune import became_worse
from unfade.training.loop import History

Metric = Callable[[Tensor, Tensor], Tensor]  # (restored, truth), both (B, 3, H, W) in [-1, 1] -> (B,)

SHOWN = 300  # faces on the page: about 15 MB at 128 px
NAMED = 10  # faces that a warning names

COLUMNS = {"input": "faces", "pre-trained": "pretrained", "target": "targets"}  # folders of the run

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


def report_of(
    run: Path,
    faces: list[Entry],
    counts: Counts,
    failures: list[tuple[str, str]],
    history: History,
    settings: Mapping[str, object],
    *,
    left_out: list[str],
    left_alone: int,
    restored: str,
    truth: Mapping[str, Path],
    metrics: Mapping[str, Metric],
    likeness: Likeness | None = None,
) -> Report:
    """The page of a run: its faces, and the counts of its photos.

    `left_out` are the faces whose targets were not learned from, `left_alone` counts those that came back as they
    were, `restored` is the folder of the restored faces. `truth` maps stems to clean versions, where there are any:
    PSNR, SSIM and `metrics` are computed against these. `likeness` compares a face with its result, and the page warns
    of results that are no longer the same person.
    """
    done = [entry for entry in faces if entry.status == "done"]
    columns = {**COLUMNS, "adapted": restored}
    return Report(
        title="unfade: adapted to your photos",
        summary=_summary(counts, len(done)),
        counts=counts.as_dict(),
        scores=_scores(run, columns, done, truth, metrics),
        curves=[Curve(title, points) for name, title in CURVES.items() if (points := history.curve(name))],
        settings=settings,
        failures=failures,
        faces=[_face(run, columns, entry, truth) for entry in done[:SHOWN]],
        warnings=_warnings(done)
        + _kept(history)
        + _left_out(left_out)
        + _left_alone(left_alone)
        + _strangers(run, columns, done, likeness),
    )


def _summary(counts: Counts, faces: int) -> str:
    return f"{counts.found} photos found, {counts.done} restored, with {faces} faces, by a restorer adapted to them."


def _warnings(done: list[Entry]) -> list[str]:
    few = [f"Only {len(done)} faces: an adapted restorer may be worse than the pre-trained one below about 20."]
    more = [f"The page shows the first {SHOWN} of {len(done)} faces; the folder restored/ holds all."]
    return (few if len(done) < 20 else []) + (more if len(done) > SHOWN else [])


def _kept(history: History) -> list[str]:
    """What is said where adapting would have done harm."""
    if not became_worse(history):
        return []
    return ["Adapting made held-out faces worse, so the pre-trained restorer was kept: results are its own."]


def _left_out(names: list[str]) -> list[str]:
    """What is said of targets that disagreed with their photos."""
    if not names:
        return []
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"{len(names)} targets disagreed with their photos and were left out: {', '.join(names[:NAMED])}{more}."]


def _left_alone(count: int) -> list[str]:
    return [f"{count} faces were already sharper than the restorer can draw: left as they were."] if count else []


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
