"""Write the tables of docs/paper.md anew: what is printed in the paper, and beside it what was made.

    python tools/paper_page.py [DIR]

DIR is what `unfade table NAME --out DIR` has filled; its table.json files are kept in docs/paper, from where the page
takes them. A table that is not there has "not run" in place of our numbers.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from unfade.evaluation.gap import Estimate
from unfade.paper.printed import Claim, Printed, printed_tables
from unfade.paper.scores import Verdict
from unfade.paper.settings import missing
from unfade.paper.tables import NAMES, SCALES, TABLES, Share
from unfade.paper.text import Row, claim_lines, side_by_side

PAGE = Path(__file__).parents[1] / "docs" / "paper.md"
KEPT = PAGE.parent / "paper"
BEGIN, END = "<!-- tools/paper_page.py writes from here -->", "<!-- to here -->"
NOT_RUN = "not run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?")
    args = parser.parse_args()
    if args.results:
        KEPT.mkdir(exist_ok=True)
        for file in sorted(args.results.glob("table-*/table.json")):
            shutil.copy(file, KEPT / f"{file.parent.name}.json")
    PAGE.write_text(page(PAGE.read_text()))


def page(text: str, kept: Path = KEPT) -> str:
    """The page with its tables as they are now."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    parts = [line for name in NAMES for line in section(printed_tables()[name], kept)]
    return before + "\n".join([BEGIN, "", *parts, END]) + after


def section(printed: Printed, kept: Path) -> list[str]:
    """Lines of Markdown about one table."""
    file = kept / f"table-{printed.name}.json"
    told = json.loads(file.read_text()) if file.exists() else None
    rows = [_row(row) for row in told["rows"]] if told else _not_run(printed)
    claims = [_verdict(claim) for claim in told["claims"]] if told else []
    about = [_about(told)] if told else []
    title = f"### {printed.title.capitalize()}: {printed.caption}"
    return [title, "", *side_by_side(printed, rows), *claim_lines(claims), *about, *([""] if about else [])]


def _about(told: dict[str, Any]) -> str:
    made = f"Made with {told['models']} on {told['device']}"
    if told["photos"] == "none":
        return f"{made}, {told['threads']} threads, torch {told['torch']}."
    return f"{made}; {told['photos']}, at most {told['most']}."


def _not_run(printed: Printed) -> list[Row]:
    """The rows of a table that was not made, and why each cannot be, if it cannot."""
    notes = dict.fromkeys((line.label for line in printed.lines if printed.name not in TABLES), NOT_RUN)
    for label, way in TABLES.get(printed.name, {}).items():
        notes[label] = (not isinstance(way, Share) and missing(SCALES["builtin"], way)) or NOT_RUN
    return [Row(label, photos, note=note) for photos in printed.sets for label, note in notes.items()]


def _row(told: dict[str, Any]) -> Row:
    return Row(told["label"], told["photos"], {m: _estimate(v) for m, v in told["values"].items()}, told["note"])


def _verdict(told: dict[str, Any]) -> Verdict:
    claim = Claim(*(told[name] for name in ("metric", "better", "worse", "photos")))
    return Verdict(
        claim, told["tried with"], told["verdict"], _estimate(told["difference"]) if told["difference"] else None
    )


def _estimate(told: dict[str, float | None]) -> Estimate:
    return Estimate(*(float("nan") if told[name] is None else told[name] for name in ("value", "low", "high")))


if __name__ == "__main__":
    main()
