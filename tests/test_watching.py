"""What an adaptation has made so far, by its run folder."""

import os
from pathlib import Path

import torch

from unfade.app.watching import so_far
from unfade.store.checkpoints import write_card


def test_a_run_is_watched_from_nothing_to_its_report(tmp_path: Path) -> None:
    run, losses = tmp_path / "run", [{"step": 10, "l1": 0.5}, {"step": 20, "l1": 0.25}]
    nothing = so_far(run)
    assert (nothing.targets, nothing.curves, nothing.report) == ((), [], None)
    (run / "targets").mkdir(parents=True)
    for age, name in ((30, "b.png"), (20, "c.png"), (10, "a.png")):
        (run / "targets" / name).touch()
        os.utime(run / "targets" / name, (1e9 - age, 1e9 - age))
    (run / "targets" / ".d.png.0a1b2c3d.unfade.png").touch()  # it is being written
    torch.save({"history": {"losses": losses[:1], "validations": []}}, run / "finetune-0.training")
    begun = so_far(run)
    assert [path.name for path in begun.targets] == ["a.png", "c.png", "b.png"], "the newest first"
    assert [(curve.name, [*curve.points]) for curve in begun.curves] == [("L1 loss", [(10, 0.5)])]
    write_card(run / "restorer.safetensors", {"history": {"losses": losses, "validations": []}})
    (run / "report.html").touch()
    ended = so_far(run)
    assert [*ended.curves[0].points] == [(10, 0.5), (20, 0.25)]
    assert ended.report == run / "report.html"
    assert begun != ended == so_far(run)
