"""A file that no run wrote is never replaced, whichever command would write one of its name, and the user is told."""

from pathlib import Path

import pytest

from command import Result
from test_degrade_fitted import write_degradation
from tiny_models import write_faces

Models = tuple[Path, Path]
MINE = "mine"
WRITES: dict[str, tuple[str, dict[str, int]]] = {  # arguments, and files below `out` with the exit code
    "degrade FACES --out OUT": ("", {"degradation.jsonl": 2, "face00.png": 1, "run.json": 2, "journal.jsonl": 2}),
    "targets FACES --out OUT": ("models", {"run.json": 2}),
    "finetune FACES FACES --out OUT/w.safetensors": (
        "models few",
        {"w.safetensors": 2, "w.json": 2, "w.degradation.safetensors": 2},
    ),
    "train prior FACES --out OUT/w.safetensors": ("", {"w.safetensors": 2, "w.json": 2, "w.training": 2}),
    "train restorer FACES --out OUT/w.safetensors": ("", {"w.safetensors": 2, "w.json": 2, "w.training": 2}),
    "evaluate FACES --truth FACES --metrics psnr --csv OUT/a.csv": ("", {"a.csv": 2}),
    "compare FACES --out OUT --methods restorer": (
        "models",
        {"report.html": 2, "table.json": 2, "sheet.png": 2, "faces/a.png": 2, "results/restorer/a.png": 2},
    ),
    "data prepare folder FACES --out OUT --size 32 --split 1 1": (
        "",
        {"manifest.jsonl": 2, "train.txt": 2, "test.txt": 2, "train/face01.png": 1, "run.json": 2},
    ),
    "restore FACES --out OUT --aligned --report --sidecar": (
        "restorer",
        {"face00.png": 1, "face00.png.json": 1, "report.html": 2, "run.json": 2, "journal.jsonl": 2},
    ),
    "adapt FACES --out OUT --aligned --rounds 2": (
        "models few",
        {
            **dict.fromkeys(("report.html", "restorer.safetensors", "restorer.json", "run.json", "journal.jsonl"), 2),
            **dict.fromkeys(("round-1/restorer.json", "round-1/targets/a.png", "faces/a.png", "targets/a.png"), 2),
            **dict.fromkeys(("degradation.safetensors", "round-1/degradation.safetensors"), 2),
            **dict.fromkeys(("pretrained/a.png", "restored_faces/a.png"), 2),
        },
    ),
    "rehearse FACES --out OUT": (
        "models",
        {"report.html": 2, "supervised.safetensors": 2, "supervised.json": 2, "truth/a/b": 2, "photos/a": 2},
    ),
    "inspect DAMAGE --out OUT": ("", {"degradation.png": 2}),
    "degrade FACES --out OUT --kind fitted --fitted DAMAGE": ("", {"degradation.jsonl": 2, "face00.png": 1}),
    "demo --quick --out OUT": ("", {"report.html": 2}),
    "models export RESTORER --to spandrel --out OUT/w.safetensors": ("", {"w.safetensors": 2}),
    "models export RESTORER --to published --out OUT/w.pth": ("", {"w.pth": 2}),
    "models import RESTORER --as own": ("", {"own.safetensors": 2, "own.json": 2}),
}  # fmt: skip


def words(command: str, tmp_path: Path, models: Models) -> list[str]:
    places = {"FACES": tmp_path / "faces", "OUT": tmp_path / "out", "RESTORER": models[0]}
    places |= {"DAMAGE": tmp_path / "damage"}
    more = {
        "restorer": ["--restorer", models[0]],
        "models": ["--restorer", models[0], "--prior", models[1]],
        "few": ["--steps", 2, "--batch", 2, "--micro-batch", 2],
    }
    found = [command, *(str(word) for name in WRITES[command][0].split() for word in more[name])]
    text = " ".join(found)
    for name, place in places.items():
        text = text.replace(name, str(place))
    return text.split()


@pytest.mark.parametrize(
    ("command", "file", "code"),
    [(command, file, code) for command, (_, files) in WRITES.items() for file, code in files.items()],
)
def test_a_file_of_somebody_else_is_kept_and_named(
    run, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, file: str, code: int
) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "out"))
    write_faces(tmp_path / "faces", 2)
    write_degradation(tmp_path / "damage")
    (tmp_path / "out" / file).parent.mkdir(parents=True)
    (tmp_path / "out" / file).write_text(MINE)
    result: Result = (
        run(*words(command, tmp_path, models), "--quiet") if code == 2 else run(*words(command, tmp_path, models))
    )
    assert (result.code, (tmp_path / "out" / file).read_text()) == (code, MINE)
    assert str(tmp_path / "out" / file) in (result.err if code == 2 else result.out)
    if code == 2:
        assert (result.out, result.err.count("\n")) == ("", 1)
        assert [path for path in (tmp_path / "out").rglob("*") if path.is_file() and "unfade" not in path.name] == [
            tmp_path / "out" / file
        ]
