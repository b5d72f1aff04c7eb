"""Batches made ahead: the same whoever makes them, errors that arrive as they were raised, and no process left over."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import unfade.recipes.pretrain
import unfade.training.loader as loader
from networks import B32
from tiny_models import RESTORER, write_faces
from toys import LOOP, Stopped, ToyAdversary, ToyObjective, same_state, state_of, toy_batches, toy_model, trained
from unfade.atomic import atomic_write
from unfade.cli import main
from unfade.degradations.blind import BlindSettings
from unfade.errors import BadInput, UnfadeError, UnreadableImage
from unfade.recipes.pretrain import (
    PriorBatches,
    PriorRecipe,
    RestorerBatches,
    RestorerRecipe,
    pretrain_prior,
    pretrain_restorer,
)
from unfade.store.checkpoints import read_card, read_weights
from unfade.training.batches import Order, Pictures
from unfade.training.loader import Clock, feeding, spare_workers, start_method, watched
from unfade.training.loop import History, train

TRAIN_CHILD = Path(__file__).with_name("train_child.py")
LONG = 60  # seconds, as a machine that is busy with other things may need
SHORT = replace(LOOP, steps=3, batch=2, micro_batch=1)
PRIOR = PriorRecipe(network=B32, loop=SHORT)
RESTORER_RECIPE = RestorerRecipe(network=RESTORER, size=32, loop=SHORT, blind=BlindSettings(reference_size=64))


def made(batches: Any, count: int = 5, **options: Any) -> list[tuple[Tensor, ...]]:
    with feeding(batches, range(count), **options) as feed:
        return list(feed)


def same(one: list[tuple[Tensor, ...]], other: list[tuple[Tensor, ...]]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def no_children() -> bool:
    return not multiprocessing.active_children()


def who_and_how(step: int) -> tuple[Tensor]:
    """The process that makes a batch, and the threads of its libraries."""
    return (torch.tensor([step, os.getpid(), torch.get_num_threads(), cv2.getNumThreads()]),)


def kernel_of(step: int) -> tuple[Tensor]:
    """Uses OpenCV's threads where there are any."""
    return (torch.from_numpy(cv2.resize(np.full((2048, 2048), step, np.float32), (700, 700))),)


# The same whoever makes them


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_come_in_order_from_as_many_processes(workers: int) -> None:
    batches = made(who_and_how, 9, workers=workers)
    assert [int(batch[0][0]) for batch in batches] == list(range(9))
    assert len({int(batch[0][1]) for batch in batches} - {os.getpid()}) == workers
    assert {tuple(batch[0][2:].tolist()) for batch in batches} == {(1, 1)}
    assert no_children()


def test_a_thread_makes_them_for_no_workers() -> None:
    assert {int(batch[0][1]) for batch in made(who_and_how)} == {os.getpid()}


def test_steps_may_begin_anywhere_and_there_may_be_none() -> None:
    for workers in (0, 2):
        with feeding(who_and_how, range(7, 9), workers=workers) as feed:
            assert [int(batch[0][0]) for batch in feed] == [7, 8]
        assert made(who_and_how, 0, workers=workers) == []


def test_fewer_than_no_workers() -> None:
    with pytest.raises(BadInput, match="0 or more workers, got -1"):
        made(who_and_how, workers=-1)


def test_threads_of_opencv_do_not_stop_a_fork() -> None:
    """They are gone in the child, which would wait for them for ever."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        expected = [kernel_of(step) for step in range(3)]
        assert same(made(kernel_of, 3, workers=2), expected)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_the_generator_of_everybody_is_left_alone() -> None:
    before = torch.get_rng_state()
    made(toy_batches, workers=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_is_the_same_for_any_number_of_workers() -> None:
    plain = trained()
    for workers in (1, 2, 3):
        assert same_state(trained(workers=workers), plain)


@pytest.mark.parametrize(("first", "second"), [(0, 2), (3, 0), (2, 1)])
def test_a_stopped_run_goes_on_with_another_number(tmp_path: Path, first: int, second: int) -> None:
    class Stopping(ToyAdversary):
        steps = 0

        def after_step(self) -> None:
            self.steps += 1
            if self.steps == 8:
                raise Stopped
            super().after_step()

    whole, resumed = toy_model(), toy_model()
    history = train(whole, ToyAdversary(), toy_batches, LOOP)
    with pytest.raises(Stopped):
        train(toy_model(), Stopping(), toy_batches, LOOP, checkpoint=tmp_path / "c", workers=first)
    assert no_children()
    again = train(resumed, ToyAdversary(), toy_batches, LOOP, checkpoint=tmp_path / "c", workers=second)
    assert same_state(state_of(resumed), state_of(whole))
    assert again == history


# The recipes


def pictures(folder: Path, **options: Any) -> tuple[Pictures, Order]:
    paths = write_faces(folder, 5)
    return Pictures(paths, 32, **options), Order([1.0] * len(paths), seed=1)


@pytest.mark.parametrize("keep", [0, 3 * 32 * 32 * 2])
def test_batches_of_the_recipes_are_the_same_from_processes(tmp_path: Path, keep: int) -> None:
    parts = pictures(tmp_path, keep=keep)
    for batches in (PriorBatches(*parts, PRIOR), RestorerBatches(*parts, RESTORER_RECIPE)):
        expected = [batches(step) for step in range(4)]
        assert not same(expected[:1], expected[1:2])
        for workers in (0, 1, 2, 3):
            assert same(made(batches, 4, workers=workers), expected)


def test_other_ways_to_start_make_the_same_from_shared_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows, and where CUDA is at work: everything is pickled, the kept pictures by reference."""
    monkeypatch.setattr(loader, "start_method", lambda: "forkserver")
    parts = pictures(tmp_path)
    batches = RestorerBatches(*parts, RESTORER_RECIPE)
    expected = [batches(step) for step in range(3)]
    assert same(made(batches, 3, workers=1), expected)
    assert parts[0]._kept.is_shared()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_kept_pictures_are_not_copied() -> None:
    """In a fresh interpreter. A worker of this one may have more for itself than the pictures: garbage collection
    writes into every page of objects that all the tests before have made, and what is written to is copied.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        assert fresh.submit(private_megabytes, copied=False).result() < 40
        assert fresh.submit(private_megabytes, copied=True).result() > 80


def private_megabytes(*, copied: bool) -> float:
    kept = torch.zeros(400, 256, 256, 3, dtype=torch.uint8)  # 79 MB
    return max(float(batch[0]) for batch in made(PrivateMegabytes(kept, copied), 4, workers=2))


@dataclass(frozen=True)
class PrivateMegabytes:
    """Reads everything, then tells the memory that the process has for itself."""

    kept: Tensor
    copied: bool

    def __call__(self, step: int) -> tuple[Tensor]:
        pictures = self.kept.clone() if self.copied else self.kept
        pictures[::4].sum(dtype=torch.int64)
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return (torch.tensor(float(next(line.split()[1] for line in lines if "Private_Dirty" in line)) / 1024),)


def test_batches_can_be_pickled(tmp_path: Path) -> None:
    parts = pictures(tmp_path)
    for batches in (PriorBatches(*parts, PRIOR), RestorerBatches(*parts, RESTORER_RECIPE)):
        batches(1)  # what it remembers must not stand in the way
        assert same([pickle.loads(pickle.dumps(batches))(2)], [batches(2)])


def pretrained(what: str, faces: Path, out: Path, **options: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    start = {"prior": (pretrain_prior, PRIOR), "restorer": (pretrain_restorer, RESTORER_RECIPE)}[what]
    start[0](faces, out, start[1], **options)
    return read_weights(out).state, read_card(out)


@pytest.mark.parametrize("what", ["prior", "restorer"])
def test_models_are_the_same_for_any_number_of_workers(tmp_path: Path, what: str) -> None:
    write_faces(tmp_path / "faces", 5)
    (one, card), (other, other_card) = (
        pretrained(what, tmp_path / "faces", tmp_path / f"{workers}.safetensors", workers=workers) for workers in (0, 2)
    )
    assert same_state(one, other)
    assert 0 <= card.pop("waiting_for_data") <= 1
    assert 0 <= other_card.pop("waiting_for_data") <= 1
    assert card == other_card


# Errors


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_file_that_cannot_be_read_any_more(tmp_path: Path, workers: int) -> None:
    """Its sentence arrives as it is, from whatever process, and when it is repaired the run goes on."""
    parts = pictures(tmp_path / "faces", keep=0)
    path = parts[0].paths[0]
    content = path.read_bytes()

    @contextmanager
    def breaking(label: str, total: int, *, start: int = 0) -> Iterator[Any]:
        yield lambda amount: atomic_write(path, content[:300])

    def run(**options: Any) -> dict[str, Tensor]:
        model = toy_model()
        settings = replace(LOOP, steps=14, batch=3)
        train(model, ToyObjective(), RestorerBatches(*parts, RESTORER_RECIPE), settings, **options)
        return state_of(model)

    whole = run()
    with pytest.raises(UnreadableImage) as caught:
        run(workers=workers, progress=breaking, checkpoint=tmp_path / "c")
    assert str(caught.value).startswith(f"{path} is damaged or cut off (300 bytes")
    assert "\n" not in str(caught.value)
    assert no_children()
    path.write_bytes(content)
    assert same_state(run(workers=workers, checkpoint=tmp_path / "c"), whole)


def stops(step: int) -> tuple[Tensor, ...]:
    if step == 2:
        raise Stopped("here")
    return toy_batches(step)


def kills_itself(step: int) -> tuple[Tensor, ...]:
    if step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return toy_batches(step)


def test_a_bug_in_a_worker_stays_a_bug() -> None:
    with pytest.raises(Stopped, match=r"(?s)worker process.*Traceback.*here"):
        made(stops, workers=2)
    assert no_children()


def test_a_killed_worker_is_one_sentence() -> None:
    with pytest.raises(
        UnfadeError, match=r"^A process that prepares batches has ended \(.*memory.*`workers`"
    ) as caught:
        train(toy_model(), ToyObjective(), kills_itself, LOOP, workers=2)
    assert "\n" not in str(caught.value)
    assert no_children()


@pytest.mark.parametrize("kind", [ConnectionResetError, FileNotFoundError, EOFError])
def test_a_worker_killed_while_it_passes_a_batch_on(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection may break before the system reports the worker's end."""

    def broken(made: Any) -> None:
        os.kill(made._workers[0].pid, signal.SIGKILL)
        raise kind("the other end is gone")

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__next__", broken)
    with pytest.raises(UnfadeError, match=r"^A process that prepares batches has ended \(.*killed .*`workers`"):
        made(toy_batches, workers=2)
    assert no_children()


def test_an_error_with_all_workers_alive_stays_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(made: Any) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(loader, "DYING", 0.1)
    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__next__", broken)
    with pytest.raises(OSError, match="too many open files"):
        made(toy_batches, workers=2)
    assert no_children()


def test_no_room_in_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: Tensor) -> Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(Tensor, "share_memory_", full)
    with pytest.raises(UnfadeError, match=r"^There is no room for batches in shared memory .* fewer `workers`"):
        made(toy_batches, workers=1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("stop", "method"), [(signal.SIGINT, "forkserver"), (signal.SIGKILL, "fork")])
def test_no_orphans(stop: signal.Signals, method: str, tmp_path: Path) -> None:
    """Neither after Ctrl-C, which reaches the whole group, nor after the training process alone was killed.

    It trains in a fresh interpreter: a fork of this one would wait for threads of OpenCV that did not come along.
    """
    command = [sys.executable, str(TRAIN_CHILD), method]
    with (
        (tmp_path / "errors").open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=TRAIN_CHILD.parent, start_new_session=True
        ) as training,
    ):
        assert training.stdout is not None
        workers = [int(pid) for pid in training.stdout.readline().split()]
        try:
            assert len(workers) == 2
            (os.killpg if stop == signal.SIGINT else os.kill)(training.pid, stop)
            assert training.wait(LONG) == -stop
            deadline = time.monotonic() + LONG
            while (alive := [pid for pid in workers if running(pid)]) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not alive
        finally:  # one that hangs is not left to the tests after it
            for pid in [training.pid, *workers]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    said = (tmp_path / "errors").read_text()
    assert said.count("Traceback") == (stop == signal.SIGINT), f"workers say nothing: {said}"


def stops_the_clock(step: int) -> tuple[Tensor, ...]:
    if step == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return toy_batches(step)


@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGSTOP")
def test_a_worker_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)  # seconds that torch gives it
    with feeding(stops_the_clock, range(9), workers=2) as feed:
        next(feed)
    assert no_children()


def test_only_a_broken_connection_ends_silently(capsys: pytest.CaptureFixture[str]) -> None:
    for error, said in ((ConnectionResetError("gone"), ""), (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug\n")):
        loader._say_no_more(type(error), error, None)
        assert capsys.readouterr().err == said


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# How many, how they begin, and what they save


def test_cuda_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert start_method() == "fork"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert start_method() == "forkserver"
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        assert start_method() == "spawn"


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 1), (9, 8), (64, 8)])
def test_one_core_is_left_to_the_training(cores: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert spare_workers() == workers
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert spare_workers() == workers


def test_recipes_choose_workers_by_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []

    def record(*args: Any, workers: int, **options: Any) -> History:
        chosen.append(workers)
        return History()

    monkeypatch.setattr(unfade.recipes.pretrain, "train", record)
    monkeypatch.setattr(unfade.recipes.pretrain, "spare_workers", lambda: 6)
    write_faces(tmp_path / "faces", 2)
    pretrained("prior", tmp_path / "faces", tmp_path / "a.safetensors")
    pretrained("restorer", tmp_path / "faces", tmp_path / "b.safetensors")
    monkeypatch.setattr(Pictures, "all_kept", False)
    pretrained("prior", tmp_path / "faces", tmp_path / "c.safetensors")
    assert chosen == [0, 6, 6]


class Seconds:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_waiting_is_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = Seconds()
    monkeypatch.setattr(loader, "time", seconds)

    def slow() -> Iterator[tuple[Tensor, ...]]:
        for step in range(4):
            seconds.now += 8 if step == 0 else 0.25
            yield toy_batches(step)

    clock = Clock()
    assert clock.share == 0
    for _ in watched(slow(), clock):
        seconds.now += 0.75
    assert clock.waiting == 3 * 0.25, "the first batch, for which workers start, is not counted"
    assert clock.total == 3 * 0.25 + 4 * 0.75
    assert clock.share == clock.waiting / clock.total


def test_waiting_is_kept_over_a_stop_and_an_older_checkpoint_has_none(tmp_path: Path) -> None:
    def slow(step: int) -> tuple[Tensor, ...]:
        time.sleep(0.02)
        return toy_batches(step)

    path = tmp_path / "c"
    waited = train(toy_model(), ToyObjective(), slow, LOOP, checkpoint=path).waiting
    assert 0 < waited < 1
    state = torch.load(path, weights_only=True)
    kept = Clock(**state["clock"])  # the last file was written before its time could be counted
    assert train(toy_model(), ToyObjective(), slow, LOOP, checkpoint=path).waiting == kept.share > 0
    del state["clock"]
    torch.save(state, path)
    assert train(toy_model(), ToyObjective(), slow, LOOP, checkpoint=path).waiting == 0


# The command line


def run(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["unfade", *map(str, args)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("what", ["prior", "restorer"])
def test_the_flag_arrives_and_the_waiting_is_shown(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[object] = []

    def record(faces: Path, out: Path, recipe: object, *, workers: int | None, **rest: object) -> History:
        seen.append(workers)
        return History(waiting=0.0123)

    monkeypatch.setattr(unfade.recipes.pretrain, f"pretrain_{what}", record)
    args = ("train", what, tmp_path, "--out", tmp_path / "x.safetensors")
    for flags in ((), ("--workers", "0"), ("--workers", "5")):
        assert run(monkeypatch, *args, *flags) == 0
        assert "waited for data: 1.2% of the time" in capsys.readouterr().out
    assert seen == [None, 0, 5]
    assert run(monkeypatch, *args, "--workers", "-1") == 2
    assert run(monkeypatch, *args, "--json") == 0
    assert '"waiting": 0.0123' in capsys.readouterr().out


def test_the_flag_is_the_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_faces(tmp_path / "faces", 3)
    children: list[int] = []

    def counting(self: ToyObjective, model: Any, *batch: Tensor) -> dict[str, Tensor]:
        children.append(len(multiprocessing.active_children()))
        return {"l1": model(batch[0]).mean()}

    monkeypatch.setattr(unfade.recipes.pretrain, "RestorerRecipe", lambda **given: replace(RESTORER_RECIPE, **given))
    monkeypatch.setattr(unfade.restorers.image_level.ImageObjective, "forward", counting)
    for workers in (0, 2):
        out = tmp_path / f"{workers}.safetensors"
        assert run(monkeypatch, "train", "restorer", tmp_path / "faces", "--out", out, "--steps", 4, "--quiet",
                   "--batch", 2, "--device", "cpu", "--precision", "float32", "--workers", workers) == 0  # fmt: skip
        assert children[0] == workers
        children.clear()
