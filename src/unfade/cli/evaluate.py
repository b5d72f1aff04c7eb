"""The command `unfade evaluate`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfade.cli import options as o
from unfade.cli.console import failure_lines, finish, note_lines, passed_over_lines, progress, table

if TYPE_CHECKING:
    from unfade.evaluation.evaluate import Evaluation


def evaluate(
    results: Annotated[Path, typer.Argument(help="Folder of results.")],
    truth: Annotated[Path | None, typer.Option(help="Folder of clean versions, with the same file names.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="For fid and kid: folder of clean faces, or statistics by name (fid-ffhq-512).")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Comma-separated: psnr, ssim, psnr_matched, ssim_matched, lpips, lpips_alex, "
                          "feature_distance, identity_distance, deg, deg_sface, lmd, fid, kid, and with no truth: "
                          "musiq, maniqa, maniqa_pipal, niqe. Default with --truth: the first four, and of square "
                          "pictures identity_distance; with --reference: fid."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the scores of each file there.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="ntire: the identity check of the NTIRE 2025 challenge and four of the six terms "
                                      "of its score; takes --photos and --subset in place of --truth and --metrics."),
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="For ntire: the degraded faces, with the same names.")] = None,
    subset: Annotated[
        str | None, typer.Option(help="For ntire: where they are from: celeba, lfw, celebchild, wider, webphoto.")
    ] = None,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Score a folder of results: each against its truth, all against a reference set, or each by itself."""
    from unfade.errors import BadInput
    from unfade.evaluation.evaluate import evaluate as run

    names = [name for name in (metrics or "").split(",") if name]
    if protocol or photos or subset:
        if protocol != "ntire" or not photos or not subset or truth or names or csv:
            raise BadInput(
                "--protocol ntire takes --photos FOLDER and --subset NAME, and no --truth, --metrics, --csv."
            )
        _evaluate_ntire(results, photos, subset, reference, device, as_json, quiet)
        return
    found = run(
        results, truth=truth, reference=reference, metrics=names, csv=csv, device=device,
        progress=progress(quiet=quiet),
    )  # fmt: skip
    if found.scores and not (as_json or quiet):
        table([{"metric": name, **asdict(mean)} for name, mean in found.scores.summary.items()])
    lines = [*(found.sets.lines if found.sets else ()), *_about_files(found, found.failed)]
    finish(found.as_dict(), as_json=as_json, quiet=quiet, lines=lines, failed=len(found.failed))


def _about_files(found: "Evaluation", failed: Sequence[tuple[str, str]]) -> list[str]:
    """What was not read, what failed, and what was converted before it was scored."""
    left_out = [
        line for place, endings in found.passed_over.items() for line in passed_over_lines(endings, Path(place))
    ]
    return [*left_out, *failure_lines(failed), *note_lines(found.notes)]


def _evaluate_ntire(
    results: Path, photos: Path, subset: str, reference: str | None, device: str, as_json: bool, quiet: bool
) -> None:
    from unfade.evaluation.ntire import REFERENCE, evaluate_ntire

    found = evaluate_ntire(
        results, photos, subset, reference=reference or REFERENCE, device=device, progress=progress(quiet=quiet)
    )
    lines = [
        *found.lines,
        *(found.evaluation.sets.lines if found.evaluation.sets else ()),
        *_about_files(found.evaluation, found.failed),
    ]
    finish(found.as_dict(), as_json=as_json, quiet=quiet, lines=lines, failed=len(found.failed))
