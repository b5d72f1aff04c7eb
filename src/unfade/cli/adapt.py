"""The command `unfade adapt`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command, gone_lines, passed_over_lines, sum_line
from unfade.cli.settings import Find, Learning, Targets, suited_settings
from unfade.progress import Progress

if TYPE_CHECKING:
    from unfade.recipes.adapt import Adapted

Truth = Annotated[
    Path | None, f.option(f.OUTPUT, "Folder of clean versions, if you have them; the report then has scores.")
]


@command
def adapt(
    photos: f.Photos,
    out: f.Out,
    aligned: f.Aligned = False,
    restorer: f.Suited = None,
    prior: f.Prior = None,
    fidelity: f.Fidelity = None,
    precision: f.TunedPrecision = None,
    seed: f.Seed = 0,
    device: f.Device = "auto",
    *,
    find: Find,
    targets: Targets,
    agreement: f.Agreement = None,
    rounds: f.Rounds = None,
    real: f.Real = None,
    learning: Learning,
    truth: Truth = None,
    refine: f.Refine = None,
    strength: f.Strength = 1.0,
    identity: f.Identity = None,
    mask: f.Mask = None,
    progress: Progress,
) -> Outcome:
    """Adapt a restorer to PHOTOS and restore them with it; the report shows every step."""
    from unfade.recipes.adapt import adapt as run

    found = find.settings(aligned=aligned)
    own = {"fidelity": fidelity, "refine": refine, "strength": strength, "agreement": agreement, "rounds": rounds}
    settings = suited_settings(restorer, prior, seed, targets, learning, precision, **own)
    done = run(
        photos,
        out,
        settings,
        aligned=aligned,
        find=found,
        real=real,
        truth=truth,
        embedder=identity,
        mask=mask,
        device=device,
        progress=progress,
    )
    return _outcome(done)


def _outcome(done: "Adapted") -> Outcome:
    """Its last lines name the files that were made."""
    counts = done.counts.as_dict()
    restored = done.restorer.parent / "restored"
    places = {"restorer": str(done.restorer), "restored": str(restored), "report": str(done.report)}
    fitted = {} if done.degradation is None else {"degradation": str(done.degradation)}
    return Outcome(
        {
            **counts,
            "begun_with": done.begun_with,
            "seconds": done.seconds,
            "passed_over": dict(done.passed_over),
            "of_gone_photos": [*done.of_gone],
            **places,
            "degradation": fitted.get("degradation"),
        },
        [
            sum_line(counts),
            f"adapted: {done.begun_with}",
            *passed_over_lines(done.passed_over),
            *gone_lines(done.of_gone),
        ],
        failures=done.failures,
        notes=done.notes,
        warnings=done.warnings,
        last=[f"{name}: {path}" for name, path in {**places, **fitted}.items()],
        failed=counts["failed"] + counts["skipped"],
    )
