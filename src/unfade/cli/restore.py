"""The command `unfade restore`."""

from typing import Annotated, Any

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command, of_entries
from unfade.cli.settings import Find, Results, Share
from unfade.progress import Progress


@command
def restore(
    photos: f.Photos,
    out: f.Out,
    restorer: f.Restorer = "small-restorer",
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
    from unfade.recipes.restore import passed_over
    from unfade.recipes.restore import restore as run

    settings = results.settings(find, aligned=aligned, fidelity=fidelity, batch=batch)
    which: Any = {"aligned": aligned, "portion": share.portion()}
    how: Any = {**which, "device": device, "progress": progress}
    shards = [share.portion().shard]
    if fleet is None:
        entries = run(photos, out, restorer, settings, **how)
    else:
        from unfade.fleet.cluster import restore as by_fleet

        entries = by_fleet(photos, out, restorer, settings, fleet=fleet, **how)
        shards = shards_of(out)
    return of_entries(entries, out, shards=shards, passed_over=passed_over(photos, out, **which))
