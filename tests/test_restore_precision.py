"""bfloat16 in `unfade restore`: it changes results, is near, is remembered, and is no part of older runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from command import Result
from recorded import picture
from tiny_models import write_faces
from toys import ToyRestorer
from unfade.images.files import read_image
from unfade.stages.restore import choices, restore_batch

Models = tuple[Path, Path]


def restored_in(bf16: bool) -> torch.Tensor:
    restorer = ToyRestorer(32).eval()
    restorer.bf16 = bf16
    return restore_batch(picture(32, 32, 1), restorer)


@pytest.mark.usefixtures("computes_in_bf16")
def test_it_is_near_and_comes_back_as_float32() -> None:
    half, full = restored_in(True), restored_in(False)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert (half - full).abs().max() < 0.05


def test_where_the_device_lacks_it_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unfade.precision.has_bf16", lambda device: False)
    assert torch.equal(restored_in(True), restored_in(False))


def test_only_another_precision_than_float32_is_mentioned() -> None:
    restorer = ToyRestorer(16)
    assert choices(restorer) == {}
    restorer.bf16 = True
    assert choices(restorer) == {"bf16": 1.0}


@pytest.mark.usefixtures("computes_in_bf16")
@pytest.mark.parametrize("flags", [("--aligned",), ("--aligned", "--size", "restorer")])
def test_the_flag_has_an_effect_and_is_part_of_the_run(
    run: Callable[..., Result], models: Models, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    (face,) = write_faces(tmp_path / "faces", 1)

    def restore(out: str, precision: str) -> Result:
        command = ("restore", tmp_path / "faces", "--restorer", models[0], "--device", "cpu", *flags)
        return run(*command, "--out", tmp_path / out, "--precision", precision)

    assert [restore(name, name).code for name in ("float32", "bfloat16")] == [0, 0]
    half, full = (read_image(tmp_path / name / face.name) for name in ("bfloat16", "float32"))
    assert not torch.equal(half, full)
    refused = restore("float32", "bfloat16")
    assert (refused.code, "name another folder as --out" in refused.err) == (2, True)
    assert restore("none", "float16").code == 2
