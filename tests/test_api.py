"""What `import unfade` gives: the README's lines, plain strings for places, names that type checkers see."""

import ast
import re
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import unfade
import unfade.evaluation.evaluate
import unfade.recipes.adapt
import unfade.recipes.restore
from adapt_settings import small
from command import Run
from tiny_models import write_faces
from unfade.devices import automatic, choose_device

ROOT = Path(__file__).parents[1]
Models = tuple[Path, Path]


def test_the_lines_of_the_readme_run(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand there, but with tiny models, and with faces instead of photos."""
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    adapt = partial(unfade.recipes.adapt.adapt, settings=small(*map(str, models)), aligned=True)
    monkeypatch.setattr(unfade.recipes.adapt, "adapt", adapt)
    monkeypatch.setattr(unfade.recipes.restore, "restore", partial(unfade.recipes.restore.restore, aligned=True))
    monkeypatch.chdir(tmp_path)
    write_faces(tmp_path / "photos", 2)
    write_faces(tmp_path / "more photos", 1)
    exec(lines, found := {})  # type: ignore[var-annotated]
    assert found["done"].counts.done == 2
    assert [path.name for path in Path("run/restored").glob("*.png")] != []
    assert Path("run/report.html").exists()
    assert len([*Path("restored").glob("*.png")]) == 1


def test_evaluate_is_what_the_command_does(run: Run, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    faces, table = str(tmp_path / "faces"), str(tmp_path / "scores.csv")
    found = unfade.evaluate(faces, truth=faces, metrics=("psnr",), csv=table)
    assert found.as_dict()["scored"] == 2
    assert Path(table).read_text().startswith("file,psnr\n")
    said = run("evaluate", faces, "--truth", faces, "--metrics", "psnr", "--json").json
    assert said["files"] == found.as_dict()["files"]
    with pytest.raises(unfade.OutputConflict, match=r"scores\.csv"):
        unfade.evaluate(faces, truth=faces, metrics=("psnr",), csv=table)
    with pytest.raises(unfade.BadInput, match="`csv` is for the scores of single pictures"):
        unfade.evaluate(faces, truth=faces, metrics=("fid",), csv=tmp_path / "other.csv")


def test_a_server_loads_its_networks_once(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_faces(tmp_path / "faces", 2)
    faces = sorted((tmp_path / "faces").iterdir())
    restoration = unfade.load_restoration(str(models[0]), aligned=True, device="cpu")
    monkeypatch.setattr(unfade.recipes.restore, "loaded_restorers", None)  # nothing is loaded again
    for face in faces:
        assert [entry.status for entry in restoration.restore(str(face), tmp_path / face.stem)] == ["done"]
    monkeypatch.undo()
    unfade.restore(tmp_path / "faces", tmp_path / "out", models[0], aligned=True, device="cpu")
    for face in faces:
        assert (tmp_path / face.stem / face.name).read_bytes() == (tmp_path / "out" / face.name).read_bytes()
    reported = unfade.load_restoration(models[0], unfade.RestoreSettings(report=True), aligned=True, device="cpu")
    with pytest.raises(unfade.BadInput, match="leave out `report`, or `shard`"):
        reported.restore(faces[0], tmp_path / "shard", portion=unfade.Portion(unfade.Shard(1, 2)))


def test_what_is_about_whole_photos_is_refused_for_faces(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 1)
    whole = {
        "find": unfade.FindSettings(detector="other"), "whole": unfade.PhotoSettings(copy=True), "mask": "none",
        "background": "none",
    }  # fmt: skip
    for name, value in whole.items():
        settings = unfade.RestoreSettings(**{name: value})  # type: ignore[arg-type]
        with pytest.raises(unfade.BadInput, match=f"`{name}` is for whole photos"):
            unfade.restore(tmp_path / "faces", tmp_path / "out", models[0], settings, aligned=True)
    with pytest.raises(unfade.BadInput, match="`mask` is for whole photos"):
        unfade.adapt(tmp_path / "faces", tmp_path / "out", aligned=True, mask="none")
    assert not (tmp_path / "out").exists()


def test_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(Path(unfade.__file__).read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {a.name: node.module for node in typed.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert seen == unfade._PLACES
    assert {*seen, "__version__"} == set(unfade.__all__) <= set(dir(unfade))
    assert len(set(unfade.__all__)) == len(unfade.__all__)
    for name in unfade.__all__:
        assert getattr(unfade, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unfade.nothing  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_package(run: Run) -> None:
    told = run("--version")
    assert (told.code, told.out) == (0, f"unfade {unfade.__version__}\n")


SCRIPT = """
import unfade

settings: unfade.AdaptSettings = unfade.settings_for("small-restorer", "small-prior")
done = unfade.adapt("photos", "run", settings, aligned=True, find=unfade.FindSettings(), device="auto")
try:
    entries: list[unfade.Entry] = unfade.restore("more", "restored", restorer=done.restorer)
except unfade.UnfadeError as error:
    print(error, unfade.__version__)
scores = unfade.evaluate("restored", truth="truth", metrics=["psnr"]).scores
size: int = unfade.load_restorer("run").size + unfade.load_prior().size
"""


@pytest.mark.skipif(not find_spec("mypy"), reason="needs mypy")
def test_scripts_of_users_are_typed(tmp_path: Path) -> None:
    """Under the settings of this repository, which are strict, so that what mypy knows of it already is used."""
    (tmp_path / "good.py").write_text(SCRIPT)
    (tmp_path / "bad.py").write_text("import unfade\n\nunfade.adapt(3, 'run', algined=True)\n")
    command = (
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        "pyproject.toml",
        tmp_path / "good.py",
        tmp_path / "bad.py",
    )
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    wrong = [line for line in said.splitlines() if ": error:" in line]
    assert len(wrong) == 2, said
    assert all("bad.py:3" in line for line in wrong)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == "cpu"
    for cuda, mps, best in ((True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert automatic() == best
    monkeypatch.setattr("unfade.devices.automatic", lambda: "mps")
    assert choose_device() == "mps"
    for call in (choose_device, partial(unfade.load_prior, "small-prior", device="gpu9")):
        with pytest.raises(unfade.BadInput, match="device gpu9 cannot be used"):
            call(device="gpu9")
