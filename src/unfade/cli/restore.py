"""The command `unfade restore`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command, of_entries
from unfade.cli.settings import Find, Results, Share
from unfade.progress import Progress

if TYPE_CHECKING:
    from unfade.jobs.journal import Entry

Photos = Annotated[
    str,
    typer.Argument(
        metavar="PHOTOS",
        help="Folder of photos, searched with its subfolders, or a single photo. With --fleet also an address in an "
        "object store, such as s3://bucket/photos.",
    ),
]
Out = Annotated[str, f.option(f.BASIC, "Folder for the results; with --fleet also such an address.", "--out")]


@command
def restore(
    photos: Photos,
    out: Out,
    restorer: f.Restorers = None,
    aligned: f.Aligned = False,
    fidelity: f.Fidelity = None,
    batch: Annotated[int, f.option(f.BASIC, "Faces restored together.")] = 8,
    device: f.Device = "auto",
    fleet: f.Fleet = None,
    *,
    share: Share,
    find: Find,
    results: Results,
    progress: Progress,
) -> Outcome:
    """Restore the faces in PHOTOS, or in videos, with any restorer, adapted or not; names and formats are kept."""
    from unfade.jobs.runs import shards_of
    from unfade.jobs.stores import is_store
    from unfade.recipes.restore import BUILT_IN, passed_over
    from unfade.recipes.restore import restore as run

    settings = results.settings(find, aligned=aligned, fidelity=fidelity, batch=batch)
    model, portion = restorer or BUILT_IN, share.portion()
    shards = [portion.shard]
    if fleet is None:
        entries = run(photos, out, model, settings, aligned=aligned, portion=portion, device=device, progress=progress)
    else:
        from unfade.fleet.cluster import Worker
        from unfade.fleet.cluster import restore as by_fleet

        work = Worker(photos, out, model, settings, aligned, device)
        entries = by_fleet(work, fleet=fleet, portion=portion, progress=progress)
        shards = [] if is_store(out) else shards_of(Path(out))
    unread = passed_over(photos, out, aligned=aligned, portion=portion)
    done = of_entries(entries, out, shards=shards, passed_over=unread)
    return with_maps(done, entries) if results.trust else done


def with_maps(done: Outcome, entries: "list[Entry]") -> Outcome:
    """The outcome with the number of trust maps; the notes say why a photo has none."""
    from unfade.stages.trust_maps import MAP

    count = sum(entry.outputs[-1].endswith(MAP) for entry in entries if entry.status == "done")
    return replace(done, result={**done.result, "trust_maps": count}, lines=[*done.lines, f"{count} trust maps"])
