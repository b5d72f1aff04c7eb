"""The command `unfade demo`."""

from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import options as o
from unfade.cli.console import finish, progress, table


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder that is filled.")] = Path("unfade-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="The shortest run: to see that everything works.")] = False,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """See the whole story on sample photos with the built-in models, offline."""
    from unfade.recipes.demo import DEMO, QUICK
    from unfade.recipes.demo import demo as run

    settings = QUICK if quick else DEMO
    settings = o.changed(
        settings,
        targets=o.changed(settings.targets, seed=seed),
        finetune=o.changed(settings.finetune, loop=o.changed(settings.finetune.loop, seed=seed)),
    )
    done = run(out, settings, device=device, progress=progress(quiet=quiet))
    if not (as_json or quiet):
        table([
            {"held-out faces": "pre-trained", **done.pretrained},
            {"held-out faces": "adapted", **done.adapted},
        ])  # fmt: skip
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
    finish(result, as_json=as_json, quiet=quiet, lines=lines, failed=len(done.run.failures))
