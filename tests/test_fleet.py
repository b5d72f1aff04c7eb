"""`unfade restore --fleet`: shards on a Ray cluster of this machine, on several nodes, one of them killed."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from command import Result, Run
from tiny_models import write_faces
from unfade.atomic import is_temporary
from unfade.errors import BadInput, OutputConflict, UnfadeError
from unfade.fleet import cluster
from unfade.fleet.cluster import Ended, Share, Worker
from unfade.images.finding import Found
from unfade.jobs.gather import gather
from unfade.jobs.journal import Entry
from unfade.jobs.runs import open_run, shards_of
from unfade.jobs.shards import EVERYTHING, Shard, every_share, share_of
from unfade.progress import silent
from unfade.recipes.restore import RestoreSettings

HERE = Path(__file__).parent
DYING = """
import os, pickle, sys
from pathlib import Path
from types import SimpleNamespace
from unfade.fleet import cluster
from unfade.images.finding import Found
from unfade.jobs.shards import Shard

class Dying:
    def __init__(self, log):
        self.log = log
    def __call__(self, rows):
        (shard, *_), = map(pickle.loads, rows["share"])
        with open(self.log, "a") as file:
            file.write(f"{shard}\\n")
        if shard.index == 2:
            os._exit(1)
        return {"ended": [pickle.dumps((shard, []))]}

cluster.Worker = Dying
nothing = Found(Path("."), ())
shares = [(Shard(i, 4), nothing, nothing) for i in range(1, 5)]
with cluster._cluster("auto") as there:
    ended = [*cluster._ended(SimpleNamespace(log=sys.argv[1]), shares, 1, {"num_cpus": 1})]
print(*sorted(str(shard) for shard, _ in ended))
"""
Models = tuple[Path, Path]
SETTINGS = RestoreSettings(embedder="none", batch=1)
needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="the extra `fleet` is not installed")


def words(photos: Path, out: Path, models: Models, *more: object) -> list[object]:
    usual = ("--aligned", "--identity", "none", "--batch", 1, "--device", "cpu", "--json")
    return ["restore", photos, "--out", out, "--restorer", models[0], *usual, *more]


def pictures_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png") if not is_temporary(path.name)}


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    write_faces(tmp_path / "faces", 40)
    return tmp_path / "faces"


@pytest.fixture
def by_hand(run: Run, faces: Path, models: Models, tmp_path: Path) -> dict[str, bytes]:
    """The results of an undisturbed run."""
    assert run(*words(faces, tmp_path / "by hand", models)).code == 0
    return pictures_in(tmp_path / "by hand")


# Without Ray


def test_all_shares_at_once_are_those_of_the_shards() -> None:
    found = Found(Path("photos"), tuple(Path(f"a/{i}.png") for i in range(200)))
    assert [tuple(share.names) for share in every_share(found, 7)] == [Shard(i, 7).of(found).names for i in range(1, 8)]
    assert [tuple(share.names) for share in every_share(found, 1)] == [found.names]
    assert Shard(share_of("x.png", 9), 9).holds("x.png")


def worker(out: Path, models: Models) -> Worker:
    return Worker("faces", str(out), models[0], SETTINGS, True, "cpu")


def ended(made: Worker, *shares: Share) -> list[Ended]:
    return [pickle.loads(row) for row in made({"share": [pickle.dumps(share) for share in shares]})["ended"]]


def test_a_process_loads_its_networks_once_and_works_as_shards_do(
    faces: Path, models: Models, tmp_path: Path, by_hand: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = [], cluster.load_restoration
    monkeypatch.setattr(cluster, "load_restoration", lambda *a, **b: loaded.append(1) or load(*a, **b))
    names = tuple(Path(path.name) for path in sorted(faces.iterdir()))
    shares = zip([Shard(i, 3) for i in (1, 2, 3)], every_share(Found(faces, names), 3), strict=True)
    found = ended(worker(tmp_path / "out", models), *[(shard, of, Found(faces, ())) for shard, of in shares])
    assert (len(loaded), [shard for shard, _ in found]) == (1, shards_of(tmp_path / "out"))
    assert [len(entries) for _, entries in found if isinstance(entries, list)] == [
        sum(Shard(i, 3).holds(name.name) for name in names) for i in (1, 2, 3)
    ]
    assert pictures_in(tmp_path / "out") == by_hand
    assert gather([tmp_path / "out"]).adds_up


def test_errors_of_a_shard_are_returned(
    faces: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run(tmp_path / "out", {"other": 1}, shard=Shard(1, 2)):
        pass
    share = (Shard(1, 2), Found(faces, (Path("face00.png"),)), Found(faces, ()))
    ((_, error),) = ended(worker(tmp_path / "out", models), share)
    assert isinstance(error, OutputConflict)
    monkeypatch.setattr(cluster, "load_restoration", lambda *a, **b: {}["unforeseen"])
    ((_, error),) = ended(worker(tmp_path / "new", models), share)
    assert isinstance(error, RuntimeError)
    assert "KeyError: 'unforeseen'" in str(error)


def by_fleet(faces: Path, out: Path, answers: Any, monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """`restore` with a fleet that does what `answers` says."""

    @contextmanager
    def two_cores(fleet: str) -> Iterator[dict[str, float]]:
        yield {"CPU": 2.0}

    def said(worker: object, shares: Iterable[Share], count: int, needs: object) -> Iterator[Ended]:
        assert (count, needs) == (2, {"num_cpus": 1})
        return (answer for share in shares if (answer := answers(share[0])))

    monkeypatch.setattr(cluster, "_cluster", two_cores)
    monkeypatch.setattr(cluster, "_ended", said)
    monkeypatch.setattr(cluster, "find_spec", lambda name: True)
    work = Worker(str(faces), str(out), "small-restorer", SETTINGS, True, "auto")
    return cluster.restore(work, fleet="auto", portion=EVERYTHING, progress=silent)


def test_shards_that_are_lost_or_elsewhere_are_told(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(shard: Shard) -> Ended | None:
        return None if shard.index == 2 else (shard, [])

    with pytest.raises(UnfadeError, match=r"Shard 2/3 was given up: its process died 4 times"):
        by_fleet(faces, tmp_path / "out", some, monkeypatch)
    with pytest.raises(BadInput, match="another folder on another machine"):
        by_fleet(faces, tmp_path / "out", lambda shard: (shard, [Entry("restored", "a", "done")]), monkeypatch)
    with pytest.raises(BadInput, match="too bad"):
        by_fleet(faces, tmp_path / "out", lambda shard: (shard, BadInput("too bad")), monkeypatch)
    assert by_fleet(faces, tmp_path / "out", lambda shard: (shard, []), monkeypatch) == []


def test_a_run_keeps_its_number_of_shards(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(tmp_path / "out", {}, shard=Shard(1, 5)):
        pass
    asked: list[Shard] = []
    by_fleet(faces, tmp_path / "out", lambda shard: asked.append(shard) or (shard, []), monkeypatch)
    assert asked == [Shard(i, 5) for i in range(1, 6)]


def test_the_device_of_each_process() -> None:
    there = {"CPU": 16.0, "GPU": 2.0}
    assert cluster._processes("auto", there) == ("cuda", 2, {"num_gpus": 1})
    assert cluster._processes("cuda:1", there) == ("cuda", 2, {"num_gpus": 1})
    assert cluster._processes("cpu", there) == ("cpu", 16, {"num_cpus": 1})
    assert cluster._processes("auto", {"CPU": 3.0}) == ("cpu", 3, {"num_cpus": 1})
    with pytest.raises(BadInput, match="no GPU; choose another `device`"):
        cluster._processes("cuda", {"CPU": 3.0})


def test_what_a_fleet_cannot_do_is_refused(
    run: Run, faces: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*more: object) -> Result:
        result = run(*words(faces, tmp_path / "out", models, "--fleet", "auto", *more))
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        return result

    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert 'pip install "unfade[fleet]"' in refused().err
    monkeypatch.setattr(cluster, "find_spec", lambda name: True)
    for more in (("--shard", "1/2"), ("--report",)):
        assert refused(*more).err.endswith("into shards itself: leave out --shard and --report, or --fleet.\n")
    assert not (tmp_path / "out").exists()


def test_ray_is_not_imported_without_a_fleet(faces: Path, models: Models, tmp_path: Path) -> None:
    code = "import sys, unfade.fleet.cluster, unfade.cli; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# With Ray


def started(*args: object, code: str = "", address: str | None = None) -> "subprocess.Popen[str]":
    places = os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = {**inherited, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    environment |= {"RAY_ADDRESS": address} if address else {}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    program = ["-c", code] if code else ["-m", "unfade"]
    return subprocess.Popen([sys.executable, *program, *map(str, args)], env=environment, **pipes)


def result_of(process: "subprocess.Popen[str]") -> Result:
    out, err = process.communicate()
    return Result(process.returncode, out, err)


def family(first: int) -> set[int]:
    """A process and all below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, more = set[int](), {first}
    while more:
        found |= more
        more = {pid for pid, parent in parents.items() if parent in found} - found
    return found


def listening(pids: Iterable[int]) -> set[str]:
    """The addresses at which processes accept connections, in hexadecimal."""
    lines = [line.split() for kind in ("tcp", "tcp6") for line in Path("/proc/net", kind).read_text().splitlines()[1:]]
    sockets = {f"socket:[{line[9]}]": line[1].split(":")[0] for line in lines if line[3] == "0A"}
    found = set()
    for pid in pids:
        try:
            found |= {sockets.get(str(path.readlink()), "") for path in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
    return found - {""}


@needs_ray
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_fleet_on_this_machine(faces: Path, models: Models, tmp_path: Path, by_hand: dict[str, bytes]) -> None:
    (faces / "cut.png").write_bytes(b"no picture")
    process = started(*words(faces, tmp_path / "out", models, "--fleet", "auto"))
    seen = set[str]()
    while process.poll() is None:
        seen |= listening(family(process.pid))
        time.sleep(0.2)
    result = result_of(process)
    assert (result.code, result.counts) == (1, {"found": 41, "done": 40, "skipped": 0, "failed": 1, "no_face": 0})
    assert [name for name, _ in result.json["failures"]] == ["cut.png"]
    assert all(line.startswith("restored: ") for line in result.err.splitlines()), "Ray says nothing"
    assert seen
    assert seen <= {"0100007F", "0000000000000000FFFF00000100007F", f"{'0' * 24}01000000"}, "127.0.0.1 and ::1"
    assert pictures_in(tmp_path / "out") == by_hand
    found = gather([tmp_path / "out"])
    assert (found.adds_up, found.shards, found.counts.found) == (True, 3, 41)


@needs_ray
def test_a_shard_that_processes_die_of_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    result = result_of(started(tmp_path / "log", code=DYING))
    assert (result.code, result.out, result.err) == (0, "1/4 3/4 4/4\n", "")
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["1/4", *["2/4"] * (1 + cluster.TRIES), "3/4", "4/4"]


@needs_ray
def test_no_cluster_at_an_address(run: Run, faces: Path, models: Models, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        for address in (f"127.0.0.1:{taken.getsockname()[1]}", "head", "ray://127.0.0.1:1"):
            result = run(*words(faces, tmp_path / "out", models, "--fleet", address))
            assert (result.code, result.err.count("\n")) == (2, 1)
            assert result.err.startswith(f"No Ray cluster at {address} answers")
            assert result.err.endswith("give --fleet as HOST:PORT.\n")


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_a_node_and_then_the_command_are_killed_at_work(
    models: Models, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    faces, out = tmp_path / "faces", tmp_path / "out"
    write_faces(faces, 150)
    assert run(*words(faces, tmp_path / "by hand", models)).code == 0
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        lost, _ = nodes.add_node(num_cpus=1), nodes.add_node(num_cpus=1)
        process = started(*words(faces, out, models, "--fleet", nodes.address))
        _wait_for(out, 1, process)
        nodes.remove_node(lost, allow_graceful=False)
        _wait_for(out, 60, process)
        process.send_signal(signal.SIGKILL)
        assert result_of(process).code == -signal.SIGKILL
        time.sleep(5)  # until its processes have ended
        assert 60 <= len(pictures_in(out)) < 150
        assert not gather([out]).adds_up
        result = result_of(started(*words(faces, out, models, "--fleet", "auto"), address=nodes.address))
    finally:
        nodes.shutdown()
    assert (result.code, result.counts["done"]) == (0, 150)
    found = gather([out])
    assert (found.adds_up, found.counts.done, found.doubles) == (True, 150, [])
    assert pictures_in(out) == pictures_in(tmp_path / "by hand")
    assert not [path for path in out.iterdir() if is_temporary(path.name)]


def _wait_for(out: Path, count: int, process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + 300
    while len(pictures_in(out)) < count:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
