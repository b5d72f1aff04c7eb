"""A training in two processes, as torchrun starts them, is that of one process."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from command import Run
from ranks_child import OBJECTIVES, image_objective, outcome
from tiny_models import write_faces
from toys import one_thread
from unfade.devices import automatic
from unfade.errors import BadInput
from unfade.nets.discriminator import UNetDiscriminatorSN, pass_by
from unfade.processes import leads
from unfade.training.ranks import Ranks

HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with one_thread():
        yield


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    """Two processes of a script or module on the CPU."""
    places = os.pathsep.join([str(HERE.parent / "src"), str(HERE), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make of all trainings."""
    place = tmp_path_factory.mktemp("ranks")
    ended = torchrun(HERE / "ranks_child.py", place)
    assert ended.returncode == 0, ended.stderr
    return place


def assert_close(found: Any, expected: Any) -> None:
    """Within 1e-5, all the way down."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_close(found[name], value)
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, torch.Tensor | float):
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=0, atol=1e-5)
    else:
        assert found == expected


@pytest.mark.parametrize("kind", ["whole", "resumed"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_learn_what_one_learns(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    expected = outcome(name, tmp_path / "checkpoint")
    assert [row["step"] for row in expected["history"]["losses"]] == [10, 13]  # type: ignore[index]
    found = [torch.load(folder / f"{name}-{kind}-{rank}.pt") for rank in (0, 1)]
    for each in found:
        assert_close(each, expected)
    for one, other in zip(found[0]["model"].values(), found[1]["model"].values(), strict=True):
        assert torch.equal(one, other), "bit for bit the same in both"


def test_a_checkpoint_of_two_processes_is_one_processs_and_the_other_way_round(folder: Path, tmp_path: Path) -> None:
    for name in OBJECTIVES:
        outcome(name, tmp_path / name)
        both = [torch.load(path) for path in (folder / f"{name}-whole.training", tmp_path / name)]
        for state in both:
            del state["clock"]
        assert_close(*both)


def test_skipping_a_part_changes_the_spectral_norms_as_its_passes_do() -> None:
    networks = [image_objective() for _ in range(2)]
    model = nn.Conv2d(3, 3, 1)
    networks[0](model, *torch.rand(2, 1, 3, 8, 8))["gan"].backward()
    networks[0].after_backward()
    networks[1].skip()
    for one, other in zip(*(n.discriminator.buffers() for n in networks if n.discriminator), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    before = [b.clone() for b in networks[1].buffers()]
    pass_by(networks[1], 0)
    assert all(torch.equal(one, other) for one, other in zip(before, networks[1].buffers(), strict=True))
    assert before, "there are norms"
    assert isinstance(networks[0].discriminator, UNetDiscriminatorSN)


def test_every_part_is_some_processs_and_each_needs_one() -> None:
    skipped: list[None] = []
    parts = [[*Ranks(rank, 2).own("abcde", lambda: skipped.append(None))] for rank in (0, 1)]
    assert parts == [[(0, "a"), (2, "c"), (4, "e")], [(1, "b"), (3, "d")]]
    assert len(skipped) == 5
    Ranks(0, 4).check(8, 2)
    with pytest.raises(BadInput, match="A `batch` of 8 in parts of 8 leaves some of 4 processes without a part; set"):
        Ranks(0, 4).check(8, 8)


def test_only_the_first_of_them_speaks(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("RANK", "1")
    assert leads(), "other programs use that name too"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not leads()
    assert (run("models", "list").out, run("models", "list", "--json").out) == ("", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert automatic() == "cuda:1"
    monkeypatch.setenv("RANK", "0")
    assert run("models", "list").out


def test_finetune_under_torchrun(
    run: Run, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_faces(tmp_path / "faces", 6)
    write_faces(tmp_path / "targets", 6, first=50)
    for path in (tmp_path / "targets").iterdir():
        path.rename(path.with_name(f"face{int(path.stem[4:]) - 50:02d}.png"))
    words = ("finetune", tmp_path / "faces", tmp_path / "targets", "--restorer", models[0], "--prior", models[1])
    learning = ("--steps", 4, "--batch", 4, "--hold-out", 0, "--redegraded", 0, "--gan-weight", 0.1, "--json")
    common = (*words, *learning, "--device", "cpu", "--precision", "float32")
    assert run(*common, "--micro-batch", 2, "--out", tmp_path / "one.safetensors").code == 0
    ended = torchrun("-m", "unfade", *common, "--micro-batch", 2, "--out", tmp_path / "two.safetensors")
    assert (ended.returncode, ended.stdout.count("\n")) == (0, 1), ended.stderr
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert_close(two, one)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        f"{name}.{kind}" for name in ("one", "two") for kind in ("safetensors", "json")
    }
    monkeypatch.setattr("unfade.training.loop.joined", lambda device: Ranks(0, 4))
    refused = run(*common, "--micro-batch", 2, "--out", tmp_path / "three.safetensors")
    assert refused.err.endswith("set --micro-batch to 1 or less, or start fewer processes.\n")
