"""The command `unfade demo`."""

from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command
from unfade.cli.settings import changed
from unfade.progress import Progress


@command
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("unfade-demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Run as few steps as possible, only to see that everything works.")
    ] = False,
    seed: f.Seed = 0,
    device: f.Device = "auto",
    *,
    progress: Progress,
) -> Outcome:
    """Adapt the built-in restorer to sample photos and score it on others; works offline."""
    from unfade.recipes.demo import DEMO, QUICK
    from unfade.recipes.demo import demo as run

    settings = QUICK if quick else DEMO
    settings = changed(
        settings,
        targets=changed(settings.targets, seed=seed),
        finetune=changed(settings.finetune, loop=changed(settings.finetune.loop, seed=seed)),
    )
    done = run(out, settings, device=device, progress=progress)
    result = {
        "pretrained": done.pretrained,
        "adapted": done.adapted,
        "faces": done.faces,
        "held_out": done.held_out,
        "seconds": done.seconds,
        "peak_memory_mb": done.peak_memory_mb,
        "report": str(done.report),
    }
    lines = [
        f"adapted to {done.faces} photos, scored on {done.held_out} others; "
        f"{sum(done.seconds.values()):.0f} s, {done.peak_memory_mb:.0f} MB",
        f"report: {done.report}",
    ]
    rows = [
        {"held-out faces": name, **scores}
        for name, scores in (("pre-trained", done.pretrained), ("adapted", done.adapted))
    ]
    return Outcome(result, lines, failed=len(done.run.failures), rows=rows)
