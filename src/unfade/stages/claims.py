"""Who may write which file: no two inputs the same one, and nobody one that this run did not make."""

from collections.abc import Mapping
from pathlib import Path

from unfade.errors import BadInput
from unfade.store.runs import Entry


def check_unclaimed(source: Path, output: str, taken: Mapping[str, str]) -> None:
    """Raises BadInput when another input has the name of this output already; `taken` maps outputs to inputs."""
    if output in taken:
        raise BadInput(f"{source} would get the same name as {taken[output]}, {output}; rename one of the two.")


def is_strange(target: Path, output: str, before: Entry | None) -> bool:
    """Whether a file is there that this run did not write for this input; `before` is what the journal says of it."""
    return target.exists() and (before is None or before.output != output)


def strange(stage: str, item: str, source: Path, target: Path) -> Entry:
    """The entry of an input that is passed over because of such a file."""
    reason = f"{target} is there already and was not made from {source} by this run; move it or name another folder."
    return Entry(stage, item, "skipped", reason=reason)
