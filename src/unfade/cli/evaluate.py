"""The command `unfade evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, Remarks, command, failure_lines, note_lines, passed_over_lines
from unfade.cli.settings import names_in
from unfade.progress import Progress

if TYPE_CHECKING:
    from unfade.evaluation.evaluate import Evaluation


Row = Mapping[str, object]


@command
def evaluate(
    results: Annotated[Path, typer.Argument(help="Folder of results; its subfolders are not read.")],
    truth: Annotated[Path | None, typer.Option(help="Folder of clean versions, with the same file names.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="For fid and kid: folder of clean faces, or name of statistics (fid-ffhq-512).")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated. With --truth: psnr, ssim, psnr_matched, ssim_matched, lpips, lpips_alex, "
            "feature_distance, identity_distance, deg, deg_sface, lmd; with --reference: fid, kid; with "
            "or without: musiq, maniqa, maniqa_pipal, niqe. Default with --truth: the first four, and "
            "identity_distance if the pictures are square; with --reference: fid; with neither: niqe."
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file for the scores of each picture.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="ntire: the identity check of the NTIRE 2025 challenge and four of the six terms "
            "of its score; needs --photos and --subset instead of --truth and --metrics."
        ),
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="For ntire: the degraded faces, with the same names.")] = None,
    subset: Annotated[
        str | None, typer.Option(help="For ntire: the data set of the faces: celeba, lfw, celebchild, wider, webphoto.")
    ] = None,
    shard: f.Shard = None,
    device: f.Device = "auto",
    *,
    progress: Progress,
) -> Outcome:
    """Score a folder of results: against the truth, against a reference set, or without any reference."""
    from unfade.errors import BadInput
    from unfade.evaluation.evaluate import evaluate as run
    from unfade.jobs.shards import Shard

    names = names_in(metrics)
    if protocol or photos or subset:
        if protocol != "ntire" or not photos or not subset or truth or names or csv or shard:
            raise BadInput(
                "--protocol ntire takes --photos FOLDER and --subset NAME, and no --truth, --metrics, --csv, --shard."
            )
        return _evaluate_ntire(results, photos, subset, reference, device, progress)
    found = run(
        results,
        truth=truth,
        reference=reference,
        metrics=names,
        csv=csv,
        shard=Shard.parse(shard),
        device=device,
        progress=progress,
    )
    rows = [{"metric": name, **asdict(mean)} for name, mean in found.scores.summary.items()] if found.scores else []
    return _outcome(found, found.as_dict(), found.failed, rows=rows)


def _outcome(
    found: "Evaluation", result: Row, failed: Remarks, lines: Sequence[str] = (), rows: Sequence[Row] = ()
) -> Outcome:
    """Adds lines for the pictures that were not read, that failed, or that were converted before scoring."""
    left_out = [
        line for place, endings in found.passed_over.items() for line in passed_over_lines(endings, Path(place))
    ]
    about = [*lines, *(found.sets.lines if found.sets else ()), *left_out, *failure_lines(failed)]
    return Outcome(result, [*about, *note_lines(found.notes)], failed=len(failed), rows=rows)


def _evaluate_ntire(
    results: Path, photos: Path, subset: str, reference: str | None, device: str, progress: Progress
) -> Outcome:
    from unfade.evaluation.ntire import REFERENCE, evaluate_ntire

    found = evaluate_ntire(results, photos, subset, reference=reference or REFERENCE, device=device, progress=progress)
    return _outcome(found.evaluation, found.as_dict(), found.failed, found.lines)
