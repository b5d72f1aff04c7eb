"""A run folder has one run at a time, and its files are its own: no command replaces a file that it did not write."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from command import Result
from tiny_models import write_faces
from toys import save_pictures
from unfade.errors import OutputConflict
from unfade.evaluation.pairs import Scores
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.runs import HOLDER, LOCK, open_run
from unfade.progress import silent
from unfade.store.checkpoints import check_output, read_card, write_card

HOLD = """
import sys, time
from pathlib import Path
from unfade.jobs.runs import open_run
with open_run(Path(sys.argv[1]), {}):
    print("held", flush=True)
    time.sleep(600)
"""
Models = tuple[Path, Path]
Run = Callable[..., Result]


def test_a_killed_holder_does_not_block_the_next_run(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OutputConflict) as caught, open_run(tmp_path, {}):
            pass
        said = str(caught.value)
        assert said.startswith(f"{tmp_path} is being filled by another run (process {process.pid} on ")
        assert said.endswith("; wait for it, or name another `out`.")
        inside = tmp_path / "restored" / "again"
        with pytest.raises(OutputConflict, match="again lies in a folder of another run: "), open_run(inside, {}):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert (tmp_path / HOLDER).exists()
    with open_run(tmp_path, {}):
        assert f"process {os.getpid()} on" in (tmp_path / HOLDER).read_text()
        with open_run(inside, {}):  # a run of this process may hold others
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "restored", LOCK}


def test_a_run_that_fails_leaves_the_folder_free(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), open_run(tmp_path, {}):
            raise KeyboardInterrupt


def test_the_command_says_who_is_at_work(run: Run, tmp_path: Path) -> None:
    save_pictures(tmp_path / "truth", ["a.png"], size=32)
    command = ("degrade", tmp_path / "truth", "--out", tmp_path / "out", "--kind", "blind")
    assert run(*command).code == 0
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    with open_run(tmp_path / "out", settings):
        refused = run(*command)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert f"(process {os.getpid()} on " in refused.err
    assert run(*command).code == 0


def test_an_item_with_a_file_in_its_way_is_skipped_and_one_that_is_there_twice_is_done(
    run: Run, tmp_path: Path
) -> None:
    save_pictures(tmp_path / "in", ["a.png", "b.png"], size=32)
    (tmp_path / "in" / "twin.png").write_bytes((tmp_path / "in" / "a.png").read_bytes())
    commands = {
        "degraded": ("degrade", tmp_path / "in", "--kind", "blind"),
        "prepared": ("data", "prepare", "folder", tmp_path / "in", "--size", 32),
    }
    for name, command in commands.items():
        assert run(*command, "--out", tmp_path / name, "--quiet").code == 0
        (tmp_path / f"other {name}").mkdir()
        (tmp_path / f"other {name}" / "b.png").write_text("mine")
        result = run(*command, "--out", tmp_path / f"other {name}", "--json")
        assert (result.code, result.json["failed"]) == (1, 0)
        assert "is there already" in dict(result.json["failures"])["b.png"]


# Files that no stage makes


def test_a_claimed_file_is_the_runs_own_from_then_on(tmp_path: Path) -> None:
    own = [tmp_path / "run" / name for name in ("report.html", "sub/weights")]
    for _ in range(2):
        with open_run(tmp_path / "run", {}, files=own):
            own[0].write_text("a report")
    claimed = Journal(tmp_path / "run" / "journal.jsonl").stage("own")
    assert [entry.output for entry in claimed] == ["report.html", "sub/weights"]
    more = tmp_path / "run" / "table.md"
    more.write_text("mine")
    with (
        pytest.raises(OutputConflict, match=r"table\.md is there already"),
        open_run(tmp_path / "run", {}, files=[more]),
    ):
        pass


@pytest.mark.parametrize("name", ["report.html", "journal.jsonl"])
def test_a_new_run_leaves_no_trace_where_it_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(OutputConflict), open_run(tmp_path, {}, files=[tmp_path / "report.html"]):
        pass
    assert {path.name for path in tmp_path.iterdir()} - {LOCK} == {name}


def test_who_takes_run_json_away_may_go_on_with_other_settings(tmp_path: Path) -> None:
    done = Entry("faces", "a.png", "done", outputs=("a.png",))
    with open_run(tmp_path, {"seed": 0}, files=[tmp_path / "report.html"]) as begun:
        begun.journal.record(done)
        (tmp_path / "report.html").write_text("a report")
    (tmp_path / "run.json").unlink()
    with open_run(tmp_path, {"seed": 1}, files=[tmp_path / "report.html"]) as again:
        assert again.journal.stage("faces") == [done]


def test_a_run_killed_at_its_first_line_goes_on(tmp_path: Path) -> None:
    own = tmp_path / "report.html"
    with open_run(tmp_path, {}, files=[own]):
        pass
    lines = (tmp_path / "journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(lines[:20])
    with open_run(tmp_path, {}, files=[own]) as again:
        assert [entry.output for entry in again.journal.stage("own")] == ["report.html"]


def test_stages_write_below_a_run_and_record_in_its_journal(tmp_path: Path) -> None:
    progress = partial(silent)
    with open_run(tmp_path / "run", {}, progress=progress) as whole:
        below = whole.within("photos", "learn")
    assert (whole.folder, below.folder) == (tmp_path / "run", tmp_path / "run" / "photos" / "learn")
    assert whole.journal is below.journal
    assert whole.journal.path == tmp_path / "run" / "journal.jsonl"
    assert whole.progress is below.progress is progress


OWN = {
    "adapt": ("report.html", "restorer.safetensors", "restorer.json"),
    "compare": ("report.html", "table.json", "sheet.png"),
    "rehearse": ("report.html", "supervised.safetensors", "supervised.json"),
    "degrade": ("degradation.jsonl",),
    "data prepare folder": ("manifest.jsonl", "train.txt", "test.txt"),
}


@pytest.mark.parametrize(("command", "name"), [(command, name) for command, names in OWN.items() for name in names])
def test_no_command_replaces_a_file_that_it_did_not_write(
    run: Run, models: Models, tmp_path: Path, command: str, name: str
) -> None:
    write_faces(tmp_path / "faces", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    nets = ("--restorer", models[0], "--prior", models[1])
    flags = {"data prepare folder": ("--size", 32, "--split", 1, 1), "degrade": (), "adapt": (*nets, "--aligned")}
    refused = run(*command.split(), tmp_path / "faces", "--out", tmp_path / "out", *flags.get(command, nets))
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert refused.err.startswith(f"{tmp_path / 'out' / name} is there already")
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == []
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_scores_replace_no_file(run: Run, tmp_path: Path) -> None:
    (picture,) = save_pictures(tmp_path / "results", ["a.png"], size=32)
    before = picture.read_bytes()
    refused = run("evaluate", picture.parent, "--truth", picture.parent, "--csv", picture)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == f"{picture} is there already and was not made by this run; move it, or write elsewhere.\n"
    with pytest.raises(OutputConflict):
        Scores({"a.png": {"psnr": 1.0}}, {}).write_csv(picture)
    assert picture.read_bytes() == before


def test_a_training_replaces_no_card(tmp_path: Path) -> None:
    weights, checkpoint = tmp_path / "a.safetensors", tmp_path / "a.training"
    check_output(weights, checkpoint)
    weights.with_suffix(".json").write_text("[3]")
    with pytest.raises(OutputConflict, match=r"a\.json is there already and was made in another way"):
        check_output(weights, checkpoint)
    assert read_card(weights) == {}
    checkpoint.touch()
    with pytest.raises(OutputConflict, match=r"a\.json is there already"):  # not that of the training either
        check_output(weights, checkpoint)
    write_card(weights, {"kind": "prior"})
    check_output(weights, checkpoint)
    weights.write_text("mine")
    with pytest.raises(OutputConflict, match=r"a\.safetensors is there already"):
        check_output(weights, checkpoint)


def test_an_entry_is_open_where_another_run_may_do_more() -> None:
    def entry(status: str, key: str = "") -> Entry:
        return Entry("faces", "a.png", status, key)  # type: ignore[arg-type]

    assert [entry("failed").is_open, entry("skipped").is_open, entry("skipped", "k").is_open] == [True, True, False]
    assert not any(entry(status).is_open for status in ("done", "no_face", "begun"))
