"""The paper's tables, all of them made small from the beginning to the end."""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adapt_settings import quick
from command import Run
from tiny_codeformer import codeformer
from tiny_models import write_faces
from unfade.errors import BadInput, OutputConflict, UnknownModel
from unfade.evaluation.evaluate import NAMES as METRIC_NAMES
from unfade.paper import needs as table_list
from unfade.paper import pieces as table_pieces
from unfade.paper import results as table_results
from unfade.paper import settings as table_settings
from unfade.paper.costs import Cost
from unfade.paper.needs import MOST, PACES, listed, work_of
from unfade.paper.printed import Claim, Printed, cameras_of, printed_tables
from unfade.paper.results import Asked, device_name, make_tables
from unfade.paper.scores import Values, estimates_of, mean_of_sets, verdict_on
from unfade.paper.settings import needs, settings_of, with_targets
from unfade.paper.tables import (
    CODEFORMER,
    COSTS,
    NAMES,
    OURS,
    SCALES,
    SWINIR,
    TABLES,
    By,
    Learning,
    Restored,
    Scale,
    Share,
    Targets,
    tables_named,
)
from unfade.paper.text import Made
from unfade.recipes import tuning
from unfade.recipes.adapt_settings import AdaptSettings
from unfade.restorers.families import FAMILIES, Family
from unfade.stages import methods
from unfade.stages.targets import TargetSettings
from unfade.zoo.models import MODELS

__all__ = ["codeformer"]

REAL_TABLES = ("3", "10")
Models = tuple[Path, Path]


def short(restorer: str, prior: str) -> AdaptSettings:
    """Two steps of everything."""
    base = quick(restorer, prior)
    loop = replace(base.finetune.loop, steps=2, batch=2, micro_batch=2, checkpoint_every=1, validate_every=2)
    targets = replace(base.targets, start=4, free_from=2)
    return replace(base, targets=targets, finetune=replace(base.finetune, loop=loop))


@pytest.fixture
def tiny(models: Models, codeformer: Path, monkeypatch: pytest.MonkeyPatch) -> Scale:
    """Tables at the scale `tiny` take seconds: networks of 32 px, and methods that walk a few steps."""
    swinir, prior = map(str, models)
    scale = Scale(
        {SWINIR: swinir, CODEFORMER: str(codeformer)}, prior,
        {"DifFace": ("difface", swinir), "DR2": ("dr2", swinir)},
        ("psnr_matched", "ssim_matched"), ("psnr_matched",), codes=True, counterparts={"lpips": "ssim_matched"},
    )  # fmt: skip
    monkeypatch.setitem(SCALES, "tiny", scale)
    monkeypatch.setattr(table_settings, "base_settings", lambda scale, restorer: short(restorer, scale.prior))
    walks = {
        "difface": lambda given: methods.DifFace(given.restored, 4),
        "dr2": lambda given: methods.DR2(given.face, 2, 5, 3),
    }
    for name, guide in walks.items():
        monkeypatch.setitem(methods.METHODS, name, replace(methods.METHODS[name], guide=guide, spacing="20"))
    return scale


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """Seven faces and seven photos, of which two are learned from and two are scored."""
    write_faces(tmp_path / "faces", 7)
    write_faces(tmp_path / "photos", 7, first=20)
    return Asked(tmp_path / "out", tmp_path / "faces", tmp_path / "photos", "tiny", 2)


def made(name: str, asked: Asked) -> Made:
    (table,), passed_over = make_tables(name, asked)
    assert passed_over == []
    return table


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("name", TABLES)
def test_every_table_names_what_there_is(name: str, scale: Scale) -> None:
    assert set(needs(name, scale)) <= set(MODELS)
    assert {*scale.metrics, *scale.real_metrics} <= set(METRIC_NAMES)
    for way in TABLES[name].values():
        if isinstance(way, By):
            assert scale.methods.get(way.method, ("difface",))[0] in {*methods.METHODS, *MODELS}
        if isinstance(way, Share):
            assert {way.before, way.after, way.upper} <= set(TABLES[name])


def test_settings_are_in_the_papers_units() -> None:
    builtin = SCALES["builtin"]

    def targets(part: str, photos: str, **how: object) -> TargetSettings:
        return settings_of(builtin, part, photos, Learning(Targets(**how))).targets  # type: ignore[arg-type]

    assert (targets(SWINIR, "4x moderate").start, targets(SWINIR, "4x moderate").free_from) == (30, 18)
    assert [targets(SWINIR, f"{r}x moderate").factor for r in (4, 8)] == [4, 4]  # 16 of 512
    assert [targets(CODEFORMER, f"{r}x severe").factor for r in (4, 8)] == [2, 4]  # 8 and 16 of 512
    other = targets(SWINIR, "4x severe", start=900, free_from=180, factor=8, begin_with="face")
    assert (other.start, other.free_from, other.factor, other.begin_with) == (45, 9, 2, "face")
    whole = with_targets(TargetSettings(), Targets(start=600, free_from=360, factor=16), 512)
    assert whole == TargetSettings()
    base, weighed = (settings_of(builtin, SWINIR, "4x mild", Learning(losses=w)).losses for w in (None, (1, 1, 0.1)))
    assert weighed == replace(base, perceptual_weight=5.0, gan_weight=0.1)  # type: ignore[type-var]


@pytest.mark.parametrize("name", [name for name in TABLES if name not in ("5", "8")])
def test_ways_of_a_table_differ_and_can_be_followed(name: str) -> None:
    ways = TABLES[name]
    assert len({repr(way) for way in ways.values()}) == len(ways)
    for way in ways.values():
        if isinstance(way, Restored) and way.learning:
            for photos in printed_tables()[name].sets:
                settings_of(SCALES["builtin"], way.restorer, photos, way.learning).targets.check(128)


def on_one_set() -> dict[str, Printed]:
    """All tables on the first of their sets of photos."""
    return {name: replace(table, sets=table.sets[:1]) for name, table in printed_tables().items()}


QUICK = ("4", "6", "fig15")  # they share targets, restorers and scores


@pytest.mark.parametrize("names", [QUICK, pytest.param(NAMES, marks=pytest.mark.slow)], ids=["some", "all"])
def test_tables_of_one_command_and_no_piece_is_made_twice(
    names: tuple[str, ...], tiny: Scale, asked: Asked, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {name: table for name, table in on_one_set().items() if name in names}
    monkeypatch.setattr(table_results, "printed_tables", lambda: chosen)
    monkeypatch.setattr(table_results, "tables_named", lambda name: list(chosen))
    tables, passed_over = make_tables("all", asked)
    assert passed_over == []
    assert [table.name for table in tables] == list(chosen)
    assert max(counted.values()) == 1
    assert counted.total() > 3 * len(names)
    for table in tables:
        assert table.file.read_text().startswith(f"# {table.printed.title.capitalize()}: ")
        for row in table.rows:
            assert bool(row.values) != bool(row.note)
    (four, fifteen) = (next(t for t in tables if t.name == name) for name in ("4", "fig15"))
    assert [row.values for row in four.rows] == [row.values for row in fifteen.rows]
    assert {row.note for row in four.rows if "photos" in row.label and row.label != "all photos"} == {
        "there are 2 photos to adapt to"
    }


def test_tables_that_are_made_are_only_read(tiny: Scale, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made("4", asked).file.read_text()

    def never(*args: object, **rest: object) -> None:
        raise AssertionError("was made already")

    monkeypatch.setattr(tuning, "finetune", never)
    monkeypatch.setattr(table_pieces, "evaluate", never)
    assert made("4", asked).file.read_text() == first
    assert made("fig15", asked).rows == made("4", asked).rows  # of the same pieces


PIECES = [
    ("finetune_to_file", "evaluate"),
    pytest.param(("make_targets", "restore_faces"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("pieces", PIECES, ids="-".join)
def test_killed_twice_and_resumed_is_the_same(
    pieces: tuple[str, str], tiny: Scale, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the second piece of a kind has just been made, then again at another kind."""
    whole = made("10", replace(asked, out=tmp_path / "whole"))
    for piece in pieces:
        work, calls = getattr(table_pieces, piece), iter(range(100))

        def killed(*args: object, work=work, calls=calls, **rest: object) -> object:
            result = work(*args, **rest)
            if next(calls) == 1:
                raise KeyboardInterrupt
            return result

        with monkeypatch.context() as patch:
            patch.setattr(table_pieces, piece, killed)
            with pytest.raises(KeyboardInterrupt):
                make_tables("10", asked)
        assert not (asked.out / "table-10" / "table.md").exists()
    again = made("10", asked)
    assert again.file.read_bytes() == whole.file.read_bytes()
    assert _contents(asked.out) == _contents(tmp_path / "whole")


def _contents(out: Path) -> dict[str, bytes]:
    kinds = (".png", ".safetensors")
    return {str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.suffix in kinds}


def test_rows_and_claims(tiny: Scale, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(table_results, "printed_tables", on_one_set)
        table = made("17", asked)
    assert [row.label for row in table.rows[:4]] == [
        "SwinIR",
        "SwinIR + ours",
        "SwinIR on the truth",
        "share of the gap",
    ]
    before, after, upper, share = (row.values["psnr_matched"].value for row in table.rows[:4])
    assert share == pytest.approx((after - before) / (upper - before))
    for row in table.rows[:3]:
        assert row.values["psnr_matched"].low <= row.values["psnr_matched"].value <= row.values["psnr_matched"].high
    mild = made("26", asked)
    assert [verdict.metric for verdict in mild.verdicts] == ["ssim_matched", "psnr_matched"]  # the first is LPIPS'
    told = json.loads((asked.out / "table-26" / "table.json").read_text())
    assert {claim["verdict"] for claim in told["claims"]} <= {"seen", "not seen", "reversed"}
    better, worse = (row.values["psnr_matched"].value for row in (mild.rows[3], mild.rows[2]))
    assert told["claims"][1]["difference"]["value"] == pytest.approx(better - worse)


def test_each_camera_has_its_own_restorers(
    tiny: Scale, asked: Asked, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = {name: replace(table, sets=table.sets[:2]) for name, table in printed_tables().items()}
    monkeypatch.setattr(table_results, "printed_tables", lambda: printed)
    rows = made("17", asked).rows
    assert len([piece for piece in counted if piece.startswith("finetune_to_file")]) == 4  # by targets and by the truth
    alone = {name: replace(table, sets=table.sets[1:]) for name, table in printed.items()}
    monkeypatch.setattr(table_results, "printed_tables", lambda: alone)
    assert made("17", replace(asked, out=asked.out / "alone")).rows == rows[4:]


def test_means_and_verdicts_are_taken_face_by_face(tiny: Scale) -> None:
    one, other = (
        Values({"a.png": {"lpips": a}, "b.png": {"lpips": b}}, {"fid": f}) for a, b, f in ((1, 2, 4), (3, 6, 8))
    )
    mean = mean_of_sets([one, other])
    assert mean == Values({"a.png": {"lpips": 2}, "b.png": {"lpips": 4}}, {"fid": 6})
    assert {name: e.value for name, e in estimates_of(mean).items()} == {"lpips": 3, "fid": 6}
    found = {("x", "4x mild"): one, ("y", "4x mild"): other}
    verdicts = [
        verdict_on(Claim("lpips", *names, "4x mild"), found, SCALES["paper"]).verdict
        for names in (("x", "y"), ("y", "x"), ("x", "x"), ("x", "z"))
    ]
    assert verdicts == ["seen", "reversed", "not seen", "not tried"]
    assert verdict_on(Claim("fid", "x", "y", "4x mild"), found, SCALES["paper"]).verdict == "not tried"


def test_tables_of_real_photos_want_them(tiny: Scale, asked: Asked) -> None:
    table = made("10", replace(asked, faces=None))
    assert {row.photos for row in table.rows} == {"real"}
    assert all(math.isfinite(row.values["psnr_matched"].value) for row in table.rows)
    assert not any(path.parent.name == "truth" for path in asked.out.rglob("*.png"))
    with pytest.raises(BadInput, match="Table 10 is about photos that no command can make: give `photos`"):
        make_tables("10", replace(asked, photos=None))
    tables, passed_over = make_tables("all", Asked(asked.out, photos=asked.photos, scale="tiny", most=2))
    assert [table.name for table in tables] == ["3", "10", COSTS]
    assert len(passed_over) == len(NAMES) - 3
    assert (
        passed_over[0]
        == "table 1: The photos of table 1 are made from clean, aligned faces: give a folder of them as `faces`."
    )


@pytest.fixture(scope="module")
def costs() -> list[Cost]:
    """Costs of each method that nobody had to wait for."""
    return [Cost(line.label, 10**6, seconds=1.0) for line in printed_tables()[COSTS].lines]


@pytest.fixture(autouse=True)
def costs_of_tiny_networks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(table_results, "measured_costs", lambda **how: request.getfixturevalue("costs"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each folder was filled, by the function that fills it."""
    calls: Counter[str] = Counter()

    def count(name: str) -> Callable[..., object]:
        work = getattr(table_pieces, name)

        def wrapped(*args: object, **rest: object) -> object:
            places = [getattr(arg, "folder", arg) for arg in args]  # a run has a folder
            calls[f"{name} {next(place for place in places if isinstance(place, Path))}"] += 1
            return work(*args, **rest)

        return wrapped

    for name in ("prepare", "make_targets", "finetune_to_file", "restore_faces", "run_method", "evaluate"):
        monkeypatch.setattr(table_pieces, name, count(name))
    return calls


def test_what_is_missing_is_named_before_anything_begins(
    run: Run, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(asked.out / "none"))
    with pytest.raises(UnknownModel, match="unfade models pull ffhq-512"):
        make_tables("21", replace(asked, scale="paper"))
    with pytest.raises(BadInput, match="CodeFormer's own losses, which no built-in restorer has: set `scale` to paper"):
        make_tables("5", replace(asked, scale="builtin"))
    assert not asked.out.exists()
    refused = run("table", "21")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--faces FOLDER" in refused.err
    refused = run("table", "21", "--out", asked.out)
    assert "give a folder of them as --faces" in refused.err
    assert "There is no scale large" in run("table", "--list", "--scale", "large").err
    with pytest.raises(BadInput, match="no table 99"):
        tables_named("99")


def test_other_faces_are_another_table(tiny: Scale, asked: Asked) -> None:
    made("26", asked)
    write_faces(asked.faces or Path(), 1, first=40)
    with pytest.raises(OutputConflict, match="holds a run made with photos"):
        make_tables("26", asked)


def test_the_list(run: Run, tiny: Scale) -> None:
    rows = listed("builtin", SCALES["builtin"])
    assert [row["table"] for row in rows] == [*NAMES, "all"]
    assert {row["photos"] for row in rows} == {"faces", "photos", "none", "faces and photos"}
    found = run("table", "--list", "--scale", "paper", "--json").json
    assert [row["table"] for row in found["tables"]] == [*NAMES, "all"]
    assert "RTX 3090" in found["tables"][0]
    assert run("table", "--list", "--quiet").out == ""
    assert f"Times are for {MOST} photos" in run("table", "--list").out


def test_times_of_the_list_follow_from_what_is_made() -> None:
    scale, pace = SCALES["builtin"], PACES["builtin"]
    for part in (SWINIR, CODEFORMER):
        settings = settings_of(scale, part, "4x moderate", Learning())
        loop = settings.finetune.loop
        assert (settings.targets.spacing, loop.steps * loop.batch) == (str(pace.kept), pace.trained[part])
    paper = {SWINIR: Family().loop, CODEFORMER: FAMILIES["codeformer"].loop}
    assert {part: loop.steps * loop.batch for part, loop in paper.items()} == PACES["paper"].trained
    one, other, both = (work_of(names, "builtin", scale, 10) for names in (["1"], ["14"], ["1", "14"]))
    assert {*one.pieces} | {*other.pieces} == {*both.pieces}
    assert {*one.pieces} & {*other.pieces}
    speed = pace.speeds[0]
    targets = next(work for key, work in other.pieces.items() if key[0] == "targets")
    assert targets[0] == 10 * 30
    learned = sum(work[2] * speed.trained[work[1]] for work in other.pieces.values())
    steps = sum(work[0] for work in other.pieces.values())
    assert other.seconds(speed) == pytest.approx(steps * speed.evaluation + learned)
    assert work_of(["7"], "builtin", scale, 10).seconds(speed) > work_of(["6"], "builtin", scale, 10).seconds(speed) > 0
    assert OURS == (1.0, 0.1, 0.1)


def test_the_pieces_of_the_list_are_those_that_are_made(
    tiny: Scale, asked: Asked, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACES, "tiny", PACES["builtin"])
    monkeypatch.setattr(table_results, "printed_tables", on_one_set)
    monkeypatch.setattr(table_list, "printed_tables", on_one_set)
    names = ["13", "14", "24"]
    for name in names:
        make_tables(name, asked)
    kinds = Counter(key[0] for key in work_of(names, "tiny", tiny, 2).pieces)
    done = Counter(key.split()[0] for key in counted)
    assert (kinds["learned"], kinds["method"]) == (done["finetune_to_file"], done["run_method"])
    assert 0 <= kinds["targets"] - done["make_targets"] <= 1, "of so small a network, two settings may be the same"
    assert done["prepare"] == len({c for n in names for s in on_one_set()[n].sets for c in cameras_of(s)})


def test_the_command(run: Run, tiny: Scale, asked: Asked) -> None:
    command = ("table", "26", "--faces", asked.faces, "--out", asked.out, "--scale", "tiny", "--most", 2)
    words = run(*command)
    assert "SwinIR + ours" in words.out
    assert "made in " in words.out
    (found,) = run(*command, "--json").json["tables"]
    assert [row["label"] for row in found["rows"]] == ["SwinIR", "SwinIR + ours"] * 2
    assert (found["most"], found["device"]) == (2, device_name("cpu"))
    assert Path(found["file"]).exists()


def test_bad_faces_are_named_and_the_others_go_on(run: Run, tiny: Scale, asked: Asked) -> None:
    assert asked.faces
    (asked.faces / "broken.png").write_bytes(b"no picture")
    found = run("table", "26", "--faces", asked.faces, "--out", asked.out, "--scale", "tiny", "--json")
    assert found.code == 1
    assert [name for name, _ in found.json["failures"]] == ["broken.png"]
    assert len(found.json["tables"][0]["rows"]) == 4
