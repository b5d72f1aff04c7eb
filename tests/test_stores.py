"""Photos and results in object stores: in memory, and on a server that speaks S3."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pytest

from command import Run
from test_fleet import SETTINGS, Models, pictures_in, words
from tiny_models import write_faces
from unfade.errors import BadInput, OutputConflict
from unfade.fleet.cluster import Worker
from unfade.images.finding import WRITTEN, Found, find_photos
from unfade.jobs.gather import gather
from unfade.jobs.journal import Entry
from unfade.jobs.shards import EVERYTHING, Portion, Shard
from unfade.jobs.stores import Store, is_store, photos_in, shards_in
from unfade.recipes.restore import passed_over

PHOTOS, OUT = "memory://archive/photos", "memory://archive/out"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """`PHOTOS`, with five faces."""
    made = Store.at(PHOTOS)
    for path in write_faces(tmp_path / "faces", 5):
        made.keep(path.name, path.parent)
    yield made
    made.fs.store.clear()


def shares(found: Found, count: int) -> list[tuple[Shard, Found, Found]]:
    return [(shard := Shard(i, count), shard.of(found), Found(found.root, ())) for i in range(1, count + 1)]


def restored(models: Models, count: int = 2) -> list[Entry]:
    worker = Worker(PHOTOS, OUT, models[0], SETTINGS, True, "cpu")
    found = [worker._ended(*share)[1] for share in shares(photos_in(PHOTOS, OUT, EVERYTHING), count)]
    assert all(isinstance(entries, list) for entries in found), found
    return [entry for entries in found if isinstance(entries, list) for entry in entries]


def fetched(address: str, folder: Path) -> Path:
    """What is in a store, as files."""
    there = Store.at(address)
    for name in there.names():
        there.fetch(name, folder)
    return folder


def test_photos_are_found_by_their_endings(store: Store, tmp_path: Path) -> None:
    for name in ("more/a.JPG", ".hidden/b.png", "c.txt", "d.cr2", "e.mp4", "f.mp4", "out/g.png"):
        store.fs.pipe_file(f"{store.root}/{name}", b"some")
    found = photos_in(PHOTOS, f"{PHOTOS}/out", EVERYTHING)
    assert [name.as_posix() for name in found.names] == [*(f"face0{i}.png" for i in range(5)), "more/a.JPG"]
    assert found.passed_over == ((".mp4", 2), (".cr2", 1)) == passed_over(PHOTOS, f"{PHOTOS}/out")
    assert len(photos_in(PHOTOS, OUT, EVERYTHING, flat=True).names) == 5
    assert photos_in(PHOTOS, OUT, Portion(Shard(1, 2))).names == Shard(1, 2).of(found).names
    store.fs.pipe_file("/other/d.cr2", b"")
    store.fs.pipe_file("/other/e.mp4", b"")
    with pytest.raises(BadInput, match=r"holds no photos but 1 \.cr2, 1 \.mp4; expected"):
        photos_in("memory://other", OUT, EVERYTHING)
    with pytest.raises(BadInput, match="leave out `manifest`"):
        photos_in(PHOTOS, OUT, Portion(manifest=tmp_path / "list"))
    with pytest.raises(OutputConflict, match="is also the input"):
        photos_in(PHOTOS, f"{PHOTOS}/", EVERYTHING)


def test_results_of_earlier_runs_are_no_photos(store: Store, tmp_path: Path) -> None:
    for name in (
        "old/run.json",
        "old/journal-1-of-2.jsonl",
        "old/a.png",
        "old/more/run.json",
        "old/more/journal.jsonl",
    ):
        store.fs.pipe_file(f"{store.root}/{name}", b"{}")
    for name in ("mine/run.json", "mine/b.png", "old-ones/c.png"):  # no run has filled these
        store.fs.pipe_file(f"{store.root}/{name}", b"{}")
    found = photos_in(PHOTOS, OUT, EVERYTHING)
    assert [name.as_posix() for name in found.names][-2:] == ["mine/b.png", "old-ones/c.png"]
    assert len(found.names) == 7
    assert found.passed_over == ((WRITTEN, 1),)
    assert find_photos(fetched(PHOTOS, tmp_path / "there")).passed_over == found.passed_over


def test_results_are_those_of_a_folder(store: Store, models: Models, run: Run, tmp_path: Path) -> None:
    assert run(*words(tmp_path / "faces", tmp_path / "by hand", models)).code == 0
    assert [entry.status for entry in restored(models)] == ["done"] * 5
    out = fetched(OUT, tmp_path / "out")
    assert pictures_in(out) == pictures_in(tmp_path / "by hand")
    assert (gather([out]).adds_up, gather([out]).counts.done) == (True, 5)
    assert {name for name in Store.at(OUT).names() if not name.endswith(".png")} == {
        "run.json", *(f"{kind}-{i}-of-2.jsonl" for kind in ("journal", "items") for i in (1, 2)),
    }  # fmt: skip


def test_what_is_done_is_kept_and_what_is_missing_is_made_again(
    store: Store, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored(models)
    before = {name: Store.at(OUT).fs.cat_file(f"/archive/out/{name}") for name in Store.at(OUT).names()}
    kept: list[str] = []
    keep = Store.keep
    monkeypatch.setattr(Store, "keep", lambda self, name, folder: kept.append(name) or keep(self, name, folder))
    assert [entry.status for entry in restored(models)] == ["done"] * 5
    assert not [name for name in kept if name.endswith(".png")]
    Store.at(OUT).remove("face03.png")
    restored(models)
    assert [name for name in kept if name.endswith(".png")] == ["face03.png"]
    after = {name: Store.at(OUT).fs.cat_file(f"/archive/out/{name}") for name in Store.at(OUT).names()}
    assert {k: v for k, v in after.items() if "journal" not in k} == {
        k: v for k, v in before.items() if "journal" not in k
    }


def test_a_photo_that_has_become_unreadable_loses_its_result(store: Store, models: Models) -> None:
    restored(models)
    store.fs.pipe_file(f"{store.root}/face01.png", b"no picture")
    store.remove("face02.png")
    worker = Worker(PHOTOS, OUT, models[0], SETTINGS, True, "cpu")
    all_five = Found(Path(PHOTOS), tuple(Path(f"face0{i}.png") for i in range(5)))
    statuses = {entry.item: entry.status for share in shares(all_five, 2) for entry in worker._ended(*share)[1]}  # type: ignore[union-attr]
    assert [statuses[f"face0{i}.png"] for i in range(5)] == ["done", "failed", "failed", "done", "done"]
    assert [name for name in Store.at(OUT).names() if name.endswith(".png")] == [f"face0{i}.png" for i in (0, 3, 4)]


@pytest.mark.parametrize("stored", [0, 1, 3])
def test_a_shard_that_is_killed_before_its_end_is_made_again(
    store: Store, models: Models, monkeypatch: pytest.MonkeyPatch, stored: int
) -> None:
    class Killed(BaseException):
        pass

    (share, _) = shares(photos_in(PHOTOS, OUT, EVERYTHING), 2)

    def until_killed(self: Store, name: str, folder: Path, *, keep: Any = Store.keep) -> None:
        if len(self.names()) == stored:
            raise Killed
        keep(self, name, folder)

    monkeypatch.setattr(Store, "keep", until_killed)
    with pytest.raises(Killed):
        Worker(PHOTOS, OUT, models[0], SETTINGS, True, "cpu")._ended(*share)
    monkeypatch.undo()
    assert len(Store.at(OUT).names()) == stored
    assert shards_in(OUT, 2) == [Shard(1, 2), Shard(2, 2)]
    assert [entry.status for entry in restored(models)] == ["done"] * 5
    assert shards_in(OUT, 7) == [Shard(1, 2), Shard(2, 2)]


def test_a_place_with_files_of_others_is_refused(store: Store, tmp_path: Path) -> None:
    store.fs.pipe_file("/archive/out/theirs.png", b"theirs")
    with pytest.raises(OutputConflict, match="holds files, but no run; name another place as `out`"):
        shards_in(OUT, 3)
    assert shards_in(str(tmp_path), 3) == [Shard(i, 3) for i in (1, 2, 3)]


def test_names_do_not_lead_out_of_the_copies(store: Store, tmp_path: Path) -> None:
    store.fs.store["/archive/photos/../escaped.png"] = store.fs.store["/archive/photos/face00.png"]
    store.fetch("../escaped.png", tmp_path / "inner")
    assert not (tmp_path / "escaped.png").exists()


def test_addresses_that_cannot_be_used(run: Run, models: Models, tmp_path: Path) -> None:
    assert is_store("s3://bucket/photos")
    assert not is_store(tmp_path)
    with pytest.raises(BadInput, match="nothing://a cannot be used"):
        Store.at("nothing://a")
    refused = run("restore", "s3://b/p", "--out", tmp_path / "out")
    assert (refused.code, refused.err) == (
        2, "Object stores are read and written by a fleet: set --fleet, to auto for this machine.\n",
    )  # fmt: skip

    class Broken:
        def cat_file(self, key: str) -> bytes:
            raise RuntimeError("no network")

    with pytest.raises(BadInput, match=r"s3://b cannot be used \(RuntimeError: no network\); check the address"):
        Store("s3://b", Broken(), "b").fetch("x.png", tmp_path)


@pytest.mark.skipif(
    not all(map(find_spec, ("ray", "s3fs", "moto"))), reason="needs the extra `fleet`, s3fs and moto[server]"
)
@pytest.mark.filterwarnings("ignore")
def test_a_fleet_with_s3(models: Models, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    write_faces(tmp_path / "faces", 20)
    assert run(*words(tmp_path / "faces", tmp_path / "by hand", models)).code == 0
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        files: Any = fsspec.filesystem("s3")
        files.mkdir("archive")
        files.put(str(tmp_path / "faces"), "archive/photos", recursive=True)
        command = words(Path("x"), Path("y"), models, "--fleet", "auto")
        command[1], command[3] = "s3://archive/photos", "s3://archive/out"
        places = os.pathsep.join([str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
        said = subprocess.run(
            [sys.executable, "-m", "unfade", *map(str, command)],
            env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        )  # fmt: skip
        assert (said.returncode, '"done": 20' in said.stdout, '"out": "s3://archive/out"' in said.stdout) == (
            0, True, True,
        ), said.stderr  # fmt: skip
        out = fetched("s3://archive/out", tmp_path / "out")
    finally:
        server.stop()
    assert pictures_in(out) == pictures_in(tmp_path / "by hand")
    assert (gather([out]).adds_up, gather([out]).counts.done) == (True, 20)
