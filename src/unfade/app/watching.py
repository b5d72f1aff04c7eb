"""What an adaptation has made so far, by its run folder: while it runs, in this process or another, and afterwards."""

from dataclasses import dataclass
from pathlib import Path

from unfade.recipes.adapt import WEIGHTS
from unfade.recipes.adapt_report import curves_of
from unfade.recipes.tuning import history_so_far
from unfade.report.curves import Curve
from unfade.training.loop import History


@dataclass(frozen=True)
class SoFar:
    """What is in a run folder now."""

    folder: Path
    targets: tuple[Path, ...]  # pseudo targets of the last round, the newest first
    history: History  # of its fine-tuning, up to the last checkpoint
    report: Path | None  # None: the run has not come to its end

    @property
    def curves(self) -> list[Curve]:
        """The losses and the scores of held-out faces, as the report shows them."""
        return curves_of(self.history)


def so_far(run: Path) -> SoFar:
    """What the adaptation in that folder has made; nothing, if there is no such folder."""
    newest = sorted(run.glob("targets/[!.]*.png"), key=lambda path: path.stat().st_mtime, reverse=True)
    report = run / "report.html"
    return SoFar(run, tuple(newest), history_so_far(run / WEIGHTS), report if report.exists() else None)
