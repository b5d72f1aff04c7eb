"""The paper's tables: what each asks for, and small ones made from the beginning to the end."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from adapt_settings import small
from tiny_models import write_faces
from unfade.errors import BadInput, UnknownModel
from unfade.evaluation.evaluate import NAMES
from unfade.recipes import table_runs, tables
from unfade.recipes.compare import FIRST
from unfade.recipes.rehearse import ROWS, RehearseSettings
from unfade.recipes.table_runs import as_markdown, device_name, make_table
from unfade.recipes.tables import (
    SCALES,
    SHARE,
    TABLES,
    Comparison,
    Rehearsals,
    Scale,
    base_settings,
    named,
    needs,
    with_targets,
)
from unfade.restorers.load import load_restorer
from unfade.stages.methods import METHODS
from unfade.stages.targets import TargetSettings
from unfade.zoo.models import MODELS

Models = tuple[Path, Path]


@pytest.fixture
def tiny(models: Models, monkeypatch: pytest.MonkeyPatch) -> RehearseSettings:
    """Tables at the scale `tiny` take seconds."""
    scale = Scale(str(models[0]), str(models[1]), ("psnr", "ssim"), None, (FIRST, "ours-short"))
    settings = RehearseSettings(small(*models), learn=0.5)
    monkeypatch.setitem(SCALES, "tiny", scale)
    monkeypatch.setattr(table_runs, "base_settings", lambda scale, restorer=None: settings)
    return settings


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("name", TABLES)
def test_every_table_names_what_there_is(name: str, scale: Scale) -> None:
    table = TABLES[name]
    assert set(needs(table, scale)) <= set(MODELS)
    assert set(scale.metrics) <= set(NAMES)
    if isinstance(table, Rehearsals):
        assert set(table.rows) <= {*ROWS, SHARE}
        assert set(table.cameras) <= set(tables.CAMERAS)
    else:
        assert isinstance(table, Comparison)
        assert all(
            method in METHODS or method == FIRST or method in MODELS for method in table.methods or scale.methods
        )


@pytest.mark.parametrize("name", [n for n, t in TABLES.items() if isinstance(t, Rehearsals) and n != "codeformer"])
def test_variants_differ_and_can_be_followed(name: str) -> None:
    table = TABLES[name]
    assert isinstance(table, Rehearsals)
    variants = table.variants(base_settings(SCALES["builtin"]))
    assert len({repr(settings) for settings in variants.values()}) == len(variants)
    assert bool(table.varied) == (len(variants) > 1)
    for settings in variants.values():
        settings.adapt.targets.check(128)


def test_settings_are_in_the_papers_units() -> None:
    small_ones = base_settings(SCALES["builtin"])
    targets = with_targets(small_ones, start=900, free_from=180, factor=8, begin_with="face").adapt.targets
    assert (targets.start, targets.free_from, targets.factor, targets.begin_with) == (45, 9, 2, "face")
    whole = replace(small_ones, adapt=replace(small_ones.adapt, targets=TargetSettings()))
    targets = with_targets(whole, start=600, free_from=360).adapt.targets
    assert (targets.start, targets.free_from) == (150, 90)
    assert with_targets(small_ones) == small_ones
    assert tables.starts(small_ones)["600"] == tables.factors(small_ones)["16"] == small_ones
    assert set(tables.parts_of_codeformer(small_ones)) == {"codes", "fusion"}


def test_tables_are_known_by_name_and_number() -> None:
    assert [named(name) for name in ("21", "N", "1", "14", "27")] == ["N", "N", "cameras", "cameras", "costs"]
    numbers = [number for table in TABLES.values() for number in table.numbers]
    assert len(set(numbers)) == len(numbers)
    with pytest.raises(BadInput, match="no table 99"):
        named("99")


def test_rehearsals_side_by_side(tiny: RehearseSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_faces(tmp_path / "faces", 6)
    made = make_table("begin-with", tmp_path / "faces", tmp_path / "out", scale="tiny")
    assert [(row["begin with"], row[""]) for row in made.rows] == [
        (start, row) for start in ("restored", "face") for row in ("targets", "adapted", SHARE)
    ]
    told = json.loads((tmp_path / "out" / "table.json").read_text())
    assert told["table"] == "begin-with"
    assert told["faces"].startswith("6 in ")
    assert f"| 4x moderate | face | {SHARE} |" in made.file.read_text()
    bounds = [tmp_path / "out" / f"4x-moderate-{start}" / "supervised.safetensors" for start in ("restored", "face")]
    assert bounds[0].read_bytes() == bounds[1].read_bytes()
    nothing_failed = SimpleNamespace(failures=[])
    monkeypatch.setattr(
        table_runs, "rehearse", lambda *args, **rest: nothing_failed
    )  # all is there: a second call only reads
    again = make_table("begin-with", tmp_path / "faces", tmp_path / "out", scale="tiny")
    assert as_markdown(again) == made.file.read_text()


def test_the_share_is_that_of_the_gap() -> None:
    rows = {"pre-trained": {"a": 1.0, "b": 2.0}, "adapted": {"a": 1.5, "b": 3.0}, "supervised": {"a": 2.0, "b": 2.0}}
    share = table_runs._share(rows)
    assert share["a"] == 0.5
    assert math.isnan(share["b"])


def test_rows_of_more_photos_than_there_are_are_left_out(tiny: RehearseSettings, tmp_path: Path, monkeypatch) -> None:
    seen: list[int] = []

    def rehearse(faces: Path, out: Path, camera: object, settings: RehearseSettings, **rest: object) -> SimpleNamespace:
        seen.append(settings.most)
        return SimpleNamespace(failures=[])

    monkeypatch.setattr(table_runs, "rehearse", rehearse)
    monkeypatch.setattr(table_runs, "_scores", lambda *args: {"psnr": 1.0})
    write_faces(tmp_path / "faces", 30)
    made = make_table("photos", tmp_path / "faces", tmp_path / "out", scale="tiny")
    assert seen == [20, 0]
    assert {row["photos"] for row in made.rows} == {"20", "all"}


def test_methods_and_first_stages(tiny: RehearseSettings, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 6)
    made = make_table("methods", tmp_path / "faces", tmp_path / "out", scale="tiny")
    assert [row["method"] for row in made.rows] == [FIRST, "ours-short"]
    assert all(math.isfinite(row["psnr"]) for row in made.rows)  # type: ignore[arg-type]
    stages = make_table("13", tmp_path / "faces", tmp_path / "stages", scale="tiny")
    assert [(row["first stage"], row["method"]) for row in stages.rows] == [
        (stage, method) for stage in ("pre-trained", "adapted") for method in (FIRST, "difface", "dr2")
    ]
    before, after = (row["psnr"] for row in stages.rows if row["method"] == FIRST)
    assert before != after


def test_costs_are_measured_and_the_machine_is_named(tiny: RehearseSettings, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    made = make_table("27", tmp_path / "faces", tmp_path / "out", scale="tiny")
    first, ours = made.rows
    assert list(first) == ["method", "parameters, M", "s per face", "peak MB"]
    assert first["parameters, M"] == sum(p.numel() for p in load_restorer(models[0]).parameters()) / 1e6
    assert ours["parameters, M"] != first["parameters, M"]
    assert first["s per face"] > 0  # type: ignore[operator]
    assert made.about["device"] == device_name("cpu") != ""


def test_what_is_missing_is_said_before_anything_begins(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "none"))
    write_faces(tmp_path / "faces", 2)
    with pytest.raises(UnknownModel, match="unfade models pull swinir-512"):
        make_table("21", tmp_path / "faces", tmp_path / "out", scale="paper")
    with pytest.raises(BadInput, match="set `scale` to paper"):
        make_table("5", tmp_path / "faces", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    refused = run("table", "21")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--faces FOLDER" in refused.err
    refused = run("table", "--list", "--scale", "large")
    assert "There is no scale large" in refused.err


def test_the_list(run) -> None:
    words = run("table", "--list", "--scale", "paper")
    assert "ffhq-512" in words.out
    listed = run("table", "--list", "--json").json
    assert [row["name"] for row in listed["tables"]] == list(TABLES)
    assert run("table", "--list", "--quiet").out == ""


def test_the_command(run, tiny: RehearseSettings, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    command = ("table", "methods", "--faces", tmp_path / "faces", "--out", tmp_path / "out", "--scale", "tiny")
    words = run(*command)
    assert "ours-short" in words.out
    assert "made in " in words.out
    found = run(*command, "--json").json
    assert [row["method"] for row in found["rows"]] == [FIRST, "ours-short"]
    assert Path(found["file"]).exists()


def test_bad_faces_are_named_and_the_others_go_on(run, tiny: RehearseSettings, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 3)
    (tmp_path / "faces" / "broken.png").write_bytes(b"no picture")
    command = (
        "table",
        "methods",
        "--faces",
        tmp_path / "faces",
        "--out",
        tmp_path / "out",
        "--scale",
        "tiny",
        "--json",
    )
    found = run(*command)
    assert found.code == 1
    assert [name for name, _ in found.json["failures"]] == ["broken.png"]
    assert len(found.json["rows"]) == 2
