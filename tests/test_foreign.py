"""Weights as people's training leaves them: the network is found in all of its wrappings, by content alone."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from unfade.errors import BadCheckpoint
from unfade.nets.swinir import SwinIR, SwinIRConfig
from unfade.store.foreign import read_foreign, versions
from unfade.zoo.convert import recognise

State = dict[str, Tensor]
CONFIG = SwinIRConfig(img_size=16, embed_dim=24, depths=(2, 2), heads=2, unshuffle=4, upscale=4)


@pytest.fixture(scope="module")
def state() -> State:
    return SwinIR(CONFIG).state_dict()


def other(state: State) -> State:
    return {key: torch.zeros_like(value) for key, value in state.items()}


def under(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "bare": dict,
    **{f"under {p}": under(p) for p in ("module.", "_orig_mod.", "net_g.", "model.", "generator.", "netG.", "net.",
                                        "module._orig_mod.", "_orig_mod.module.net_g.", "ema_model.")},
    **{f"in {name}": (lambda state, name=name: {name: state, "iter": 5, "optimizer": {"state": {}}})
       for name in ("params_ema", "params", "state_dict", "model", "g", "G", "net_g", "generator", "ema", "mine")},
    "ema first": lambda state: {"params": other(state), "params_ema": state},
    "ema that is none": lambda state: {"params": state, "params_ema": None},
    "ema that is empty": lambda state: {"params": state, "params_ema": {}},
    "beside a discriminator": lambda state: {"g": state, "d": {"conv.weight": torch.zeros(1)}, "g_optim": {}},
    "in lightning": lambda state: {"epoch": 3, "state_dict": {**under("net_g.")(state), **under("net_d.")(
        {"conv.weight": torch.zeros(1)}), **under("loss.vgg.")({"weight": torch.zeros(1)})}, "optimizer_states": [{}]},
    "ema in lightning": lambda state: {"state_dict": under("net_g.")(other(state)) | under("net_g_ema.")(state)},
    "twice": lambda state: {"model": {"state_dict": under("module.model.")(state)}},
    "counted by thop": lambda state: state | {
        "total_ops": torch.zeros(1), "total_params": torch.zeros(1), "conv_first.total_ops": torch.zeros(1)},
    "averaged by torch": lambda state: under("module.")(state) | {"n_averaged": torch.tensor(5)},
    "of parameters": lambda state: {
        key: torch.nn.Parameter(value) if value.is_floating_point() else value for key, value in state.items()},
}  # fmt: skip


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_network_is_found(state: State, tmp_path: Path, wrapping: str, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    torch.save(WRAPPINGS[wrapping](state), path)
    found = recognise(read_foreign(path), [path])
    assert found.architecture == "swinir"
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[key], value) for key, value in state.items())


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".bin", ".pth", ".ckpt", ""])
def test_safetensors_under_any_ending(state: State, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    path.write_bytes(save(under("module.")(state)))
    assert read_foreign(path).keys() == state.keys()


def test_a_prefix_that_belongs_to_the_names_is_not_lost() -> None:
    state = {"model.0.weight": torch.zeros(1)}
    assert [list(version) for version in versions(state)] == [["model.0.weight"], ["0.weight"]]


def test_values_of_nan_are_named(state: State, tmp_path: Path) -> None:
    key = "conv_first.1.weight"
    torch.save({"params": state | {key: state[key] * torch.nan}}, tmp_path / "a.pth")
    with pytest.raises(
        BadCheckpoint, match=rf"a\.pth holds values that are not numbers \(NaN, first in {key}\)"
    ) as said:
        read_foreign(tmp_path / "a.pth")
    assert "`" not in str(said.value), "no setting would help"


def test_an_onnx_file_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"\x08\x0a\x12\x07pytorch")
    with pytest.raises(BadCheckpoint, match=r"a\.pth is an ONNX file"):
        read_foreign(tmp_path / "a.pth")


@pytest.mark.parametrize("place", range(0, 46, 3))
def test_a_broken_directory_of_an_archive(state: State, tmp_path: Path, place: int) -> None:
    stream = io.BytesIO()
    torch.save(state, stream)
    content = bytearray(stream.getvalue())
    with zipfile.ZipFile(stream) as archive:
        start = archive.start_dir
    content[start + place : start + place + 3] = b"\xff\xff\xff"
    (tmp_path / "a.pth").write_bytes(content)
    try:
        found = read_foreign(tmp_path / "a.pth")
    except BadCheckpoint as error:
        assert "a.pth is damaged" in str(error)  # noqa: PT017 - or it is read
    else:
        assert found.keys() == state.keys(), "a byte that says nothing of the content"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>sign in</html>", "a web page; open its address in a browser"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "the pointer that Git LFS leaves"),
    ],
)
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_what_came_in_place_of_weights_is_named(tmp_path: Path, content: bytes, said: str, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint, match=f"{path} holds no weights; it is {said}"):
        read_foreign(path)
