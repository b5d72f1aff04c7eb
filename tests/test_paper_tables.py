"""The printed numbers: they are read as they are printed, checked against each other, and stand on the page."""

import importlib.util
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from command import Run
from unfade.paper.consistency import Checked, check_tables
from unfade.paper.costs import RESTORERS, WALKS
from unfade.paper.printed import CAMERAS, MEANS, REAL, Line, Printed, printed_tables
from unfade.paper.tables import COSTS, NAMES, OURS, TABLES, Learning, Restored, as_usual
from unfade.report.document import METRICS

ROOT = Path(__file__).parents[1]
PRINTED = printed_tables()


def page_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper_page", ROOT / "tools" / "paper_page.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_tables_are_there() -> None:
    assert tuple(PRINTED) == NAMES
    assert {*TABLES, COSTS} == set(NAMES)
    assert PRINTED["6"].title == "table 6"
    assert PRINTED["fig9"].title == "figure 9"


@pytest.mark.parametrize("name", NAMES)
def test_printed_rows_are_made(name: str) -> None:
    table = PRINTED[name]
    known = {*TABLES.get(name, {}), *WALKS, *RESTORERS, "one step of the prior", "one part (which is not legible)"}
    assert {line.label for line in table.lines} <= known
    assert {line.photos for line in table.lines} <= set(table.sets)
    assert set(table.sets) <= {*CAMERAS, *MEANS, REAL, "512 px"}
    assert len({(line.label, line.photos) for line in table.lines}) == len(table.lines)
    if name not in ("5", "17", "18", "27", "fig9", "fig15"):  # where rows are added, or none is printed
        assert {line.label for line in table.lines} == set(TABLES[name])
    for line in table.lines:
        assert all(line.value(metric) > 0 or line.cells[metric] == "?" for metric in table.metrics)


@pytest.mark.parametrize("name", NAMES)
def test_claims_are_what_is_printed(name: str) -> None:
    table = PRINTED[name]
    for claim in table.claims:
        better, worse = (table.line(label, claim.photos) for label in (claim.better, claim.worse))
        assert better
        assert worse
        assert METRICS[claim.metric].better * (better.value(claim.metric) - worse.value(claim.metric)) > 0, claim


@pytest.fixture(scope="module")
def checked() -> Checked:
    """The printed tables as they are, checked once."""
    return check_tables()


def test_the_check_finds_what_is_wrong(checked: Checked) -> None:
    assert (checked.repeated, checked.means, checked.costs) == (155, 80, 10)
    told = [
        (found.table, found.sentence.split(",")[0].split(":")[0].split(" has ")[0]) for found in checked.contradictions
    ]
    assert told == [
        ("1", "SwinIR"), ("8", "weight 0.5"), ("14", "SwinIR"), ("25", "our targets"), ("25", "GFPGAN"), ("25", "VQFR"),
        ("27", "DifFace"), ("27", "PG-Diff"), ("27", "PG-Diff takes 15.95 s"), ("27", "GFPGAN"), ("27", "VQFR"),
    ]  # fmt: skip
    sentences = {found.table: found.sentence for found in reversed(checked.contradictions)}
    assert sentences["1"].endswith("PSNR, SSIM, LPIPS are those of SwinIR, 8x moderate in table 1.")
    assert sentences["8"].endswith("PSNR, SSIM, LPIPS, FID are those of CodeFormer + ours, 8x moderate in table 1.")
    assert "PSNR 21.87 (the mean is 22.14" in sentences["25"]
    swapped = [found.sentence for found in checked.contradictions if found.sentence.startswith("GFPGAN, severe")]
    assert swapped[0].endswith("these are the means of VQFR.")
    assert sentences["27"] == "DifFace has 159.59 M parameters; counted are 159.79 M."


def corrected(name: str, label: str, photos: str, *cells: str) -> Printed:
    """A table with other numbers in one row."""
    table = PRINTED[name]
    new = Line(label, photos, dict(zip(table.metrics, cells, strict=True)))
    return replace(table, lines=[new if (line.label, line.photos) == (label, photos) else line for line in table.lines])


def test_correct_numbers_are_not_mentioned(checked: Checked) -> None:
    pretrained = ("SwinIR", "4x moderate", "23.57", ".6391", ".4851", "74.12")
    tables = {**PRINTED, "1": corrected("1", *pretrained), "14": corrected("14", *pretrained)}
    tables["25"] = corrected("25", "our targets", "severe, mean", "22.15", ".6205", ".4641", "44.01", "57.38", "4.35")
    found = {(c.table, c.sentence.split(",")[0]) for c in check_tables(tables).contradictions}
    before = {(c.table, c.sentence.split(",")[0]) for c in checked.contradictions}
    assert before - found == {("1", "SwinIR"), ("14", "SwinIR"), ("25", "our targets")}
    assert found < before


@pytest.mark.parametrize(
    ("name", "row", "told"),
    [
        ("12", ("free from 600", "4x severe", "21.54", ".5487", ".4581", "48.72"), "(free from 600) PSNR 21.54"),
        ("2", ("DR2", "8x, mean", "20.43", ".5658", ".4815", "54.94"), "DR2, 8x, mean: PSNR 20.43 (the mean is 20.33"),
        ("26", ("SwinIR", "8x mild", "25.32", ".6909", ".4173", "66.43"), "LPIPS are those of SwinIR, 8x mild"),
        ("27", ("CodeFormer", "512 px", "94.21", ".0274"), "CodeFormer has 94.21 M parameters; counted are 94.11 M."),
    ],
)  # fmt: skip
def test_new_misprints_are_found(checked: Checked, name: str, row: tuple[str, ...], told: str) -> None:
    new = {*check_tables({**PRINTED, name: corrected(name, *row)}).contradictions} - {*checked.contradictions}
    assert told in " ".join(found.sentence for found in new)


def test_equal_ways_are_one_run() -> None:
    usual = Restored("SwinIR", Learning())
    assert as_usual(Restored("SwinIR", Learning(losses=OURS))) == usual
    assert as_usual(Restored("SwinIR", Learning(losses=(1, 1, 1)))) != usual
    assert as_usual(TABLES["7"]["1, 0.1, 0.1"]) == as_usual(TABLES["6"]["L1 + LPIPS + GAN"]) == usual
    assert math.isnan(PRINTED["11"].lines[0].value("lpips"))


def test_the_command(run: Run) -> None:
    words = run("table", "--check")
    assert words.code == 0
    assert "155 repeated cells, 80 means and 10 numbers of table 27 compared; 11 rows are inconsistent:" in words.out
    assert "table 8: weight 0.5, 4x severe has PSNR 22.28" in words.out
    assert len(run("table", "--check", "--json").json["contradictions"]) == 11
    assert run("table", "--check", "--quiet").out == ""


def test_the_page_has_every_number_and_nothing_that_was_not_run(tmp_path: Path) -> None:
    tool, text = page_tool(), (ROOT / "docs" / "paper.md").read_text()
    assert tool.page(text) == text, "run python tools/paper_page.py"
    bare = tool.page(text, tmp_path)
    for table in PRINTED.values():
        assert f"### {table.title.capitalize()}: {table.caption}\n" in bare
        for line in table.lines:
            cells = " | ".join(line.cells[metric] for metric in table.metrics)
            row = re.escape(f"| {line.label} | {line.photos} | {cells} | ")
            assert re.search(rf"{row}(not run|this scale has no [^|]+) \|", bare) or name_is_unmade(line)
    learn = "this scale has no restorer that learns from codes"
    assert bare.count(f"| {learn} |") > 3, "table 5, of which no row can be made, among others"
    told = {
        "models": "a, b", "device": "cpu", "photos": "9 in faces", "most": 2,
        "rows": [{"label": "L1", "photos": "4x moderate", "note": "",
                  "values": {"psnr_matched": {"value": 20.0, "low": 19.0, "high": 21.0}}}],
        "claims": [{"metric": "lpips", "better": "L1 + LPIPS", "worse": "L1", "photos": "4x moderate",
                    "tried with": "feature_distance", "verdict": "seen",
                    "difference": {"value": 0.1, "low": 0.05, "high": 0.15}}],
    }  # fmt: skip
    (tmp_path / "table-6.json").write_text(json.dumps(told))
    ours = tool.page(text, tmp_path)
    assert "| L1 | 4x moderate | 25.06 | .7207 | .4587 | 92.04 | .3151 | 41.72 | 20.00 (19.00 to 21.00) |" in ours
    assert "- L1 + LPIPS better than L1 in feature distance, 4x moderate: seen (by 0.1000, 0.0500 to 0.1500)." in ours


def name_is_unmade(line: Line) -> bool:
    return line.label == "one part (which is not legible)"
