"""Shards of a run: each item in exactly one, at work at the same time in one folder, added up by `unfade gather`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from command import Result, Run
from tiny_models import write_faces
from toys import save_pictures
from unfade.atomic import is_temporary_of, temporary_beside
from unfade.errors import BadInput, OutputConflict
from unfade.images.finding import Found
from unfade.jobs.gather import gather
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.json_lines import JsonLines
from unfade.jobs.runs import HOLDER, LOCK, SHARDS, open_run
from unfade.jobs.shards import WHOLE, Portion, Shard, hashed

NAMES = [f"box {i % 7}/photo_{i:03d}.jpg" for i in range(400)]
HOLD = """
import sys, time
from pathlib import Path
from unfade.jobs.runs import open_run
from unfade.jobs.shards import Shard
with open_run(Path(sys.argv[1]), {}, shard=Shard.parse(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""
Models = tuple[Path, Path]


def pictures_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    write_faces(tmp_path / "truth", 9)
    return tmp_path / "truth"


# Which items are in a shard


def test_every_item_is_in_one_shard_and_shards_are_of_about_one_size() -> None:
    shares = [{name for name in NAMES if Shard(i, 4).holds(name)} for i in range(1, 5)]
    assert sorted(name for share in shares for name in share) == sorted(NAMES)
    assert all(70 < len(share) < 130 for share in shares)
    assert all(WHOLE.holds(name) for name in NAMES)


def test_a_share_depends_on_names_alone() -> None:
    there = Found(Path("photos"), tuple(map(Path, NAMES)))
    some = Found(Path("elsewhere"), tuple(map(Path, reversed(NAMES[::3]))))
    assert {*Shard(2, 3).of(some).names} == {*Shard(2, 3).of(there).names} & {*some.names}
    assert [Shard(i, 5).holds("a.png") for i in range(1, 6)].index(True) == 2, "as in every release: sha256"


def test_photos_whose_results_could_have_one_name_are_in_one_shard() -> None:
    for names in (
        ["a/one.gif", "a/one.png", "a/one.gif.png", "a/one.JPG"],
        ["x.heic", "x.tif.png"],
        ["é.png", "é.mp4"],
    ):
        assert len({tuple(Shard(i, 1000).holds(name) for i in range(1, 1001)) for name in names}) == 1
    days = {next(i for i in range(1, 1001) if Shard(i, 1000).holds(f"2024.01.{day}.jpg")) for day in range(10, 30)}
    assert len(days) > 15, "only endings of pictures are left out"
    assert Shard(1, 2).holds("broken \udcff.png") is not Shard(2, 2).holds("broken \udcff.png")


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "one/two", "-1/4", "1/4/2", "1/999999999"])
def test_a_shard_that_is_none_is_refused_in_one_sentence(run: Run, truth: Path, text: str) -> None:
    refused = run("degrade", truth, "--out", truth.parent / "out", "--shard", text)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert refused.err.startswith("Expected --shard to be I/N")
    assert not (truth.parent / "out").exists()


# At work in one folder


def test_the_shards_of_degrade_give_what_one_run_gives(run: Run, truth: Path, tmp_path: Path) -> None:
    assert run("degrade", truth, "--out", tmp_path / "whole", "--kind", "blind").code == 0
    found = []
    for index in (2, 3, 1):
        done = run("degrade", truth, "--out", tmp_path / "out", "--kind", "blind", "--shard", f"{index}/3", "--json")
        assert done.code == 0
        assert done.counts["found"] == done.counts["done"]
        found.append(done.counts["found"])
    assert sum(found) == 9
    assert pictures_in(tmp_path / "out") == pictures_in(tmp_path / "whole")
    lines = [line for i in (1, 2, 3) for line in JsonLines(tmp_path / "out" / f"degradation-{i}-of-3.jsonl").read()]
    assert sorted(lines, key=str) == sorted(JsonLines(tmp_path / "whole" / "degradation.jsonl").read(), key=str)
    assert not (tmp_path / "out" / "journal.jsonl").exists()
    added = run("gather", tmp_path / "out", "--json")
    assert (added.code, added.json["adds_up"], added.json["expected"], added.counts["done"]) == (0, True, 9, 9)
    assert run("gather", tmp_path / "out").out.endswith("everything adds up\n")


def test_a_whole_run_and_another_number_of_shards_are_refused(run: Run, truth: Path, tmp_path: Path) -> None:
    command = ("degrade", truth, "--out", tmp_path / "out", "--kind", "blind")
    assert run(*command, "--shard", "1/2").code == 0
    for more in ((), ("--shard", "1/3")):
        refused = run(*command, *more)
        assert refused.code == 2
        assert "holds a run made with shards = 2" in refused.err
    assert run(*command, "--shard", "1/1", "--out", tmp_path / "one").code == 0
    assert (tmp_path / "one" / "journal.jsonl").exists(), "1/1 is the whole run"


def held(folder: Path, shard: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder, shard], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def refused(folder: Path, shard: Shard) -> str:
    with pytest.raises(OutputConflict) as caught, open_run(folder, {}, shard=shard):
        pass
    return str(caught.value)


def test_shards_lock_each_other_out_only_by_number(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with held(run, "1/2") as process:
        with open_run(run, {}, shard=Shard(2, 2)) as other:
            other.journal.record(Entry("s", "a", "done"))
        said = refused(run, Shard(1, 2))
        assert f"1-of-2 is being filled by another run (process {process.pid} " in said
        assert "inside lies in a folder of another run" in refused(run / "inside", WHOLE)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout
        process.stdout.close()
    assert (run / SHARDS / "1-of-2" / HOLDER).exists()
    with open_run(run, {}, shard=Shard(1, 2)):
        pass
    assert not (run / SHARDS / "1-of-2" / HOLDER).exists()


def test_a_shard_waits_while_a_run_begins_and_gives_up_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unfade.jobs.runs.PATIENCE", 0.1)
    with open_run(tmp_path, {"shards": 2}):
        assert "is being filled by another run" in refused(tmp_path, Shard(1, 2))
    with open_run(tmp_path, {}, shard=Shard(1, 2)):
        pass


def test_processes_that_begin_together_do_not_race(tmp_path: Path) -> None:
    code = "import sys\nsys.argv[1:1] = []\n" + HOLD.replace("time.sleep(600)", "pass")
    begun = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "run", f"{i}/4"], stdout=subprocess.PIPE)
        for i in range(1, 5)
    ]
    assert [process.communicate()[0] for process in begun] == [b"held\n"] * 4
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"] == {"shards": 4}
    assert {path.name for path in (tmp_path / "run").iterdir() if LOCK not in path.name} == {
        "run.json", SHARDS, *(f"items-{i}-of-4.jsonl" for i in range(1, 5)),
    }  # fmt: skip


def test_a_shard_sweeps_only_what_it_had_begun(tmp_path: Path) -> None:
    long = "a name that is as long as those of archives, " * 2
    with open_run(tmp_path, {}, shard=Shard(1, 2)) as begun:
        for name in ("mine.png", f"{long}1.png"):
            begun.journal.record(Entry("s", name, "begun", outputs=(name,)))
    left: list[Iterator[Path]] = []
    for name in ("mine.png", "theirs.png", f"{long}1.png", f"{long}2.png", "mine.png.png"):
        left.append(temporary_beside(tmp_path / name).gen)  # type: ignore[attr-defined]
        next(left[-1])
    with open_run(tmp_path, {}, shard=Shard(1, 2)):
        there = [path.name for path in tmp_path.glob("*.unfade.png")]
        assert [any(is_temporary_of(n, name) for n in there) for name in ("mine.png", f"{long}1.png")] == [False] * 2
        assert all(
            any(is_temporary_of(n, name) for n in there) for name in ("theirs.png", f"{long}2.png", "mine.png.png")
        )
    for each in left:
        each.close()  # type: ignore[attr-defined]


# Adding up


def shards_of(run: Run, truth: Path, out: Path, *indices: int, count: int = 3, seed: int = 0) -> None:
    for index in indices:
        words = ("degrade", truth, "--out", out, "--kind", "blind", "--seed", seed, "--shard", f"{index}/{count}")
        assert run(*words).code == 0


def added(run: Run, *folders: Path) -> Result:
    found = run("gather", *folders, "--json")
    assert found.code == (0 if found.json["adds_up"] else 1)
    return found


def test_missing_shards_are_named(run: Run, truth: Path, tmp_path: Path) -> None:
    shards_of(run, truth, tmp_path / "out", 2)
    assert added(run, tmp_path / "out").json["missing_shards"] == [1, 3]
    said = run("gather", tmp_path / "out")
    assert (said.code, "shards of 3 that have not begun: 1, 3\n" in said.out) == (1, True)
    assert said.out.endswith("it does not add up\n")


def test_items_without_a_result_are_named(run: Run, truth: Path, tmp_path: Path) -> None:
    shards_of(run, truth, tmp_path, 1, 2, 3)
    journal = max(tmp_path.glob("journal-*"), key=lambda path: path.stat().st_size)
    lines = journal.read_text().splitlines(keepends=True)
    last = json.loads(lines[-1])
    journal.write_text("".join(lines[:-1]))  # as if it had been killed while it wrote its last picture
    found = added(run, tmp_path)
    assert [item for item, _ in found.json["gaps"]] == [last["item"]]
    assert (found.json["expected"], found.counts["done"]) == (9, 8)
    assert f"{last['item']}: {journal} has no result of it; run shard {journal.name[8]}/3 again" in (
        run("gather", tmp_path).out
    )


def test_shards_in_folders_of_their_own(run: Run, truth: Path, tmp_path: Path) -> None:
    places = [tmp_path / str(index) for index in (1, 2, 3)]
    for index, place in enumerate(places, 1):
        shards_of(run, truth, place, index)
    assert added(run, *places).counts["done"] == 9
    assert added(run, *places[1:]).json["missing_shards"] == [1]
    (tmp_path / "link").symlink_to(places[0])
    assert added(run, *places, tmp_path / "link", tmp_path / "1" / ".." / "2").counts["done"] == 9, "each counts once"
    shards_of(run, truth, tmp_path / "again", 1)
    assert {item for item, _ in added(run, *places, tmp_path / "again").json["doubles"]} == {
        line["item"] for line in JsonLines(places[0] / "items-1-of-3.jsonl").read()
    }
    shards_of(run, truth, tmp_path / "other", 1, seed=1)
    found = added(run, tmp_path / "other", *places[1:])
    assert [folder for folder, _ in found.json["others"]] == [str(place) for place in places[1:]]
    assert "made with seed = 0, now it is 1" in found.json["others"][0][1]


def test_two_items_of_one_file_are_named(tmp_path: Path) -> None:
    for index, item in ((1, "a.gif"), (2, "a.png")):
        with open_run(tmp_path, {}, shard=Shard(index, 2), items=[item]) as begun:
            begun.journal.record(Entry("restored", item, "done", outputs=("a.png",)))
    found = gather([tmp_path])
    assert found.doubles == [("a.png", "it was made from a.png and from a.gif")]
    assert not found.adds_up


def test_items_that_failed_are_counted_and_named(run: Run, truth: Path, tmp_path: Path) -> None:
    (truth / "cut.png").write_bytes(b"no picture")
    for index in (1, 2):
        run("degrade", truth, "--out", tmp_path / "out", "--kind", "blind", "--shard", f"{index}/2")
    found = added(run, tmp_path / "out")
    assert (found.counts["found"], found.counts["failed"]) == (10, 1)
    assert [item for item, _ in found.json["failures"]] == ["cut.png"]


def test_what_is_no_run_in_shards(run: Run, truth: Path, tmp_path: Path) -> None:
    assert "holds no run" in run("gather", truth).err
    assert run("degrade", truth, "--out", tmp_path / "whole", "--kind", "blind").code == 0
    assert added(run, tmp_path / "whole").counts["done"] == 9, "a whole run is one shard of one"
    Journal(tmp_path / "whole" / "journal.jsonl").record(Entry("faces", "a", "done"))
    with pytest.raises(BadInput, match=r"a run of several stages \(degraded, faces\)"):
        gather([tmp_path / "whole"])


# Commands


def test_restore_in_shards_with_results_in_many_folders(run: Run, models: Models, truth: Path, tmp_path: Path) -> None:
    words = ("restore", truth, "--aligned", "--restorer", models[0], "--identity", "none", "--batch", 1)
    layout = ("--output-layout", "hashed")
    assert run(*words, "--out", tmp_path / "whole").code == 0
    for index in (1, 2):
        assert run(*words, "--out", tmp_path / "out", "--shard", f"{index}/2", *layout).code == 0
    whole = pictures_in(tmp_path / "whole")
    assert pictures_in(tmp_path / "out") == {hashed(name): content for name, content in whole.items()}
    assert added(run, tmp_path / "out").counts["done"] == 9
    assert "made with output_layout = " in run(*words, "--out", tmp_path / "out", "--shard", "1/2").err
    refused = run(*words, "--out", tmp_path / "x", "--output-layout", "odd")
    assert refused.err == "Expected --output-layout to be names or hashed, got odd.\n"
    assert run(*words, "--out", tmp_path / "x", "--size", "restorer", *layout).code == 2
    refused = run(*words, "--out", tmp_path / "x", "--report", "--shard", "1/2")
    assert refused.err == "A report shows all photos of a run: leave out --report, or --shard.\n"


def test_hashed_folders() -> None:
    assert hashed("a.png") == f"{sha256(b'/a').hexdigest()[:3]}/a.png", "the same in every release"
    folder, middle, name = hashed("2019/IMG 1.jpg").split("/")
    assert (folder, len(middle), name) == ("2019", 3, "IMG 1.jpg")
    assert len({hashed(f"{i}.jpg").split("/")[0] for i in range(40_000)}) == 4096
    assert hashed("one.png")[:3] == hashed("one.gif.png")[:3], "results of one name lie side by side"


def test_targets_in_shards(run: Run, models: Models, truth: Path, tmp_path: Path) -> None:
    quick = ("--start", 1, "--free-from", 1, "--factor", 4, "--spacing", 4, "--batch", 1)
    words = ("targets", truth, "--restorer", models[0], "--prior", models[1], *quick)
    assert run(*words, "--out", tmp_path / "whole").code == 0
    for index in (1, 2):
        assert run(*words, "--out", tmp_path / "out", "--shard", f"{index}/2").code == 0
    assert pictures_in(tmp_path / "out") == pictures_in(tmp_path / "whole")
    assert added(run, tmp_path / "out").counts["done"] == 9


def test_evaluate_in_shards(run: Run, truth: Path, tmp_path: Path) -> None:
    words = ("evaluate", truth, "--truth", truth, "--metrics", "ssim,psnr_matched", "--json")
    whole = run(*words).json["files"]
    files = [run(*words, "--shard", f"{index}/2").json["files"] for index in (1, 2)]
    assert {**files[0], **files[1]} == whole
    assert len(files[0]) + len(files[1]) == 9
    assert "fid scores a whole set: leave out --shard" in run(*words[:4], "--metrics", "fid", "--shard", "1/2").err
    save_pictures(tmp_path / "one", ["a.png"])
    assert "is in shard" in run("evaluate", tmp_path / "one", "--metrics", "niqe", "--shard", "1/5").err


def test_a_share_may_be_empty(run: Run, tmp_path: Path) -> None:
    save_pictures(tmp_path / "one", ["a.png"], size=32)
    for index in range(1, 6):
        shard = ("--shard", f"{index}/5", "--json")
        done = run("degrade", tmp_path / "one", "--out", tmp_path / "out", "--kind", "blind", *shard)
        assert (done.code, done.counts["found"]) == (0, int(index == 3))
    assert added(run, tmp_path / "out").counts["found"] == 1
    assert Portion(Shard(1, 5)).pictures(tmp_path / "one").names == ()
