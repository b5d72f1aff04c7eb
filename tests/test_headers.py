"""Headers of weights that anybody could have written: refused in one sentence, or those of the file."""

import copy
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unfade.errors import BadCheckpoint
from unfade.restorers.load import RESTORERS, head_of, load_restorer
from unfade.store.checkpoints import read_weights
from unfade.store.headers import check_described, read_config, whole_size
from unfade.zoo.architectures import ARCHITECTURES
from unfade.zoo.models import BUILT_IN, path_of

BUILDS: dict[str, Any] = {**{name: known.build for name, known in ARCHITECTURES.items()}, **RESTORERS}
HERE = Path("odd.safetensors")
SECONDS = 20  # that any of them may take on a busy machine
ODD: list[Any] = [
    *(None, -1, 0, 1, 3, 7, 65, 1000, 65_000, 10**9, 10**30, 1.5, -0.5, "", "x", True, [], {}, {"a": 1}),
    *([1], [0], [-1], ["a"], [[1]], [None], [4] * 100, [60_000] * 4, [10**9], float("nan"), float("inf")),
]
FILES = [*{row.architecture: row.name for row in BUILT_IN if row.architecture != "onnx"}.values()]  # one of each


def read(name: str) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    path = path_of(next(row for row in BUILT_IN if row.name == name))
    with safe_open(path, "pt") as file:
        header = file.metadata()
    return header["architecture"], json.loads(header["config"]), load_file(path)


def mutated(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each setting, also those within another, left out or with each of the odd values; and one too many."""
    for key, value in config.items():
        yield {name: part for name, part in config.items() if name != key}
        yield from ({**config, key: odd} for odd in ODD)
        if isinstance(value, list):
            yield from ({**config, key: part} for part in (value[:-1], [*value, value[-1]], value[::-1]))
        if isinstance(value, dict):
            yield from ({**config, key: part} for part in mutated(value))
    yield {**copy.deepcopy(config), "more": 1}


@pytest.mark.parametrize("name", FILES)
def test_odd_settings_are_refused_or_those_of_the_file(name: str) -> None:
    architecture, config, state = read(name)
    shapes = {key: value.shape for key, value in state.items()}
    check_described(partial(BUILDS[architecture], config), state, HERE)
    told: list[str] = []
    for odd in mutated(config):
        begin = time.monotonic()
        try:
            found = read_config(json.dumps(odd), HERE)
            network = check_described(partial(BUILDS[architecture], found), state, HERE)
        except BadCheckpoint as error:
            told.append(str(error))
        else:
            assert all(value.is_meta for value in network.parameters()), "no memory was taken"
            size = sum(value.numel() for value in network.state_dict().values())
            assert size < 3 * sum(map(torch.Size.numel, shapes.values())) + (1 << 27), odd
        assert time.monotonic() - begin < SECONDS, odd
    assert told or not config, "where there are settings, odd ones are refused"
    assert all(text.startswith("odd.safetensors does not describe a network that its weights fit: ") for text in told)
    assert not any("\n" in text for text in told)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"a"', "[" * 100_000, '{"a": ' * 9 + "1" + "}" * 9])
def test_a_configuration_is_an_object(text: str) -> None:
    with pytest.raises(BadCheckpoint, match=r"^odd\.safetensors does not describe"):
        read_config(text, HERE)


@pytest.mark.parametrize("size", [None, 0, -1, 1.0, "128", True, 2049, 10**30, [128]])
def test_a_size_is_a_whole_number_in_range(size: object) -> None:
    with pytest.raises(BadCheckpoint, match=r"a whole number of 1\.\.2048 is expected"):
        whole_size(size, HERE)
    assert whole_size(128, HERE) == 128


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"embed_dim": 10**9}, "embed_dim is 1000000000"),
        ({"depths": [60_000] * 4}, "cannot be built"),
        ({"heads": "4"}, "heads is '4', not of type int"),
        ({"size": "128"}, "pictures of '128' px"),
        ({"window": 3}, "must be a multiple of its window 3"),
        ({"embed_dim": 124}, "is of another architecture"),
    ],
)
def test_such_a_file_is_refused_by_name(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    architecture, config, state = read("small-swinir")
    path = tmp_path / "mine.safetensors"
    save_file(state, path, {"architecture": architecture, "config": json.dumps({**config, **change})})
    with pytest.raises(BadCheckpoint) as caught:
        load_restorer(path, device="cpu")
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_weights_of_nan_are_named(tmp_path: Path) -> None:
    architecture, config, state = read("damage")
    key = next(name for name, value in state.items() if value.is_floating_point())
    state[key] = torch.full_like(state[key], torch.nan)
    save_file(state, tmp_path / "a.safetensors", {"architecture": architecture, "config": json.dumps(config)})
    with pytest.raises(BadCheckpoint, match=rf"a\.safetensors holds values that are not numbers \(NaN, first in {key}"):
        read_weights(tmp_path / "a.safetensors")


def test_whole_numbers_in_place_of_fractions_are_refused(tmp_path: Path) -> None:
    architecture, config, state = read("small-swinir")
    key = next(name for name in state if name.endswith("norm1.weight"))
    state[key] = state[key].to(torch.int64)
    path = tmp_path / "a.safetensors"
    save_file(state, path, {"architecture": architecture, "config": json.dumps(config)})
    with pytest.raises(BadCheckpoint, match=rf"{key} is of shape \(128,\) and torch\.int64 in the file"):
        load_restorer(path, device="cpu")


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt", ""])
def test_an_own_file_is_known_by_its_content(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mine{ending}"
    path.write_bytes(path_of(next(row for row in BUILT_IN if row.name == "small-swinir")).read_bytes())
    assert head_of(path).architecture == load_restorer(path, device="cpu").architecture == "swinir"
