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
    restorer: f.Restorers = None,
    aligned: f.Aligned = False,
    fidelity: f.Fidelity = None,
    batch: Annotated[int, f.option(f.BASIC, "Faces restored together.")] = 8,
    device: f.Device = "auto",
    *,
    share: Share,
    find: Find,
    results: Results,
    progress: Progress,
) -> Outcome:
    """Restore the faces in PHOTOS, or in videos, with any restorer, adapted or not; names and formats are kept."""
    from unfade.recipes.restore import BUILT_IN, passed_over
    from unfade.recipes.restore import restore as run

    settings = results.settings(find, aligned=aligned, fidelity=fidelity, batch=batch)
    which: Any = {"aligned": aligned, "portion": share.portion()}
    entries = run(photos, out, restorer or BUILT_IN, settings, **which, device=device, progress=progress)
    return of_entries(entries, out, shard=which["portion"].shard, passed_over=passed_over(photos, out, **which))
