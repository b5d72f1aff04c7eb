"""Export to ONNX and back: the same pictures, one sentence for everything that cannot be."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adapt_settings import small
from recorded import fill_module, picture
from tiny_models import write_faces
from unfade.cli import main
from unfade.errors import BadCheckpoint, BadInput, OutputConflict
from unfade.faces.detectors import load_detector
from unfade.faces.identity import load_embedder
from unfade.hosts.check import random_faces
from unfade.hosts.export import export
from unfade.hosts.settings import LEVEL, ExportSettings
from unfade.images.files import read_image
from unfade.recipes.adapt import adapt
from unfade.recipes.restore import RestoreSettings, restore
from unfade.restorers.base import Restorer
from unfade.restorers.load import head_of, load_restorer
from unfade.restorers.onnx import OnnxRestorer
from unfade.restorers.picture_layout import WORDS, Layout, layout_of
from unfade.store.checkpoints import sha256_of
from unfade.store.onnx_files import refuse_external
from unfade.zoo.models import find_weights

Models = tuple[Path, Path]
EXTRA = ("onnx", "onnxscript", "onnxruntime")
needs_extra = pytest.mark.skipif(
    not all(find_spec(name) for name in EXTRA), reason="the extra `onnx` is not installed: pip install unfade[onnx]"
)


class Toy(nn.Module):
    """A convolution: torch exports it ten times faster than a SwinIR."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return image + 0.1 * self.conv(image)


@pytest.fixture(scope="module")
def toy(models: Models) -> Iterator[Restorer]:
    """What `export` loads in place of the file it is told."""
    restorer = load_restorer(models[0])
    restorer.net = fill_module(Toy())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unfade.hosts.export.load_restorer", lambda spec, **how: restorer)
        yield restorer


@pytest.fixture(scope="module")
def exported(toy: Restorer, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy with any number of faces per run."""
    return export(models[0], tmp_path_factory.mktemp("onnx") / "toy.onnx").path


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@needs_extra
@pytest.mark.parametrize("batch", [None, 2], ids=["dynamic", "fixed"])
def test_the_built_in_restorer_comes_out_the_same(
    batch: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unfade.hosts.export.load_restorer", load_restorer)  # in any order, no toy
    done = export("small-restorer", tmp_path / "small.onnx", ExportSettings(batch=batch))
    assert done.checked.difference <= 1e-4
    loaded, network = load_restorer(done.path), load_restorer()
    assert isinstance(loaded, OnnxRestorer)
    assert (loaded.size, loaded.batch) == (128, batch)
    faces = picture(128, 128, 5).repeat(3, 1, 1, 1) * torch.tensor([1.0, 0.5, -1.0]).view(3, 1, 1, 1)
    with torch.no_grad():
        assert difference(loaded(faces), network(faces)) <= 1e-4
    assert loaded.metadata["restorer_sha256"] == sha256_of(find_weights("small-restorer", "restorer"))
    assert loaded.metadata["licence"] == "CC BY-NC-SA 4.0"
    assert (loaded.metadata["template"], loaded.metadata["size"]) == ("ffhq", "128")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"], "one file, nothing beside it"


@needs_extra
@pytest.mark.parametrize("opset", [18, 23])
def test_the_opset_is_the_one_asked_for(opset: int, toy: Restorer, models: Models, tmp_path: Path) -> None:
    import onnx

    path = export(models[0], tmp_path / "toy.onnx", ExportSettings(opset=opset)).path
    assert {row.domain: row.version for row in onnx.load(path).opset_import}[""] == opset


@needs_extra
def test_nothing_is_said_of_packages_that_it_does_not_need(toy: Restorer, models: Models, tmp_path: Path) -> None:
    """In a process of its own, since torch looks for them once."""
    export_it = "import sys; from unfade.hosts.export import export; export(*sys.argv[1:])"
    command = [sys.executable, "-c", export_it, models[0], tmp_path / "tiny.onnx"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""


@needs_extra
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_what_programs_look_for(batch: int, exported: Path, toy: Restorer) -> None:
    """Names, shapes and any number of faces."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, given.name) == ("input", "output")
    assert taken.shape == given.shape == ["batch", 3, 32, 32]
    faces = random_faces(batch, 32, seed=batch)
    (restored,) = session.run(["output"], {"input": faces.numpy()})
    with torch.no_grad():
        assert difference(torch.from_numpy(restored), toy(faces).clamp(-1, 1)) <= 1e-5


@needs_extra
@pytest.mark.parametrize(
    ("layout", "mean_and_std"),
    [
        (Layout(values="unit"), ("0.0", "1.0")),
        (Layout(colours="bgr"), ("0.5", "0.5")),
        (Layout(axes="nhwc"), ("0.5", "0.5")),
        (Layout("bgr", "bytes", "nhwc"), ("0.0", str(1 / 255))),
    ],
    ids=str,
)
@torch.no_grad()
def test_the_layout_of_its_pictures(
    layout: Layout, mean_and_std: tuple[str, str], toy: Restorer, models: Models, tmp_path: Path
) -> None:
    import onnxruntime

    path = export(models[0], tmp_path / "toy.onnx", ExportSettings(layout=layout)).path
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    face = random_faces(1, 32, seed=4)
    restored = toy(face).clamp(-1, 1)[0].permute(1, 2, 0).numpy()
    picture = (face[0].permute(1, 2, 0).numpy() + 1) / 2  # what a program would do by itself
    picture = picture if layout.values != "signed" else picture * 2 - 1
    picture = picture if layout.values != "bytes" else np.rint(picture * 255).astype(np.uint8)
    picture = picture[..., ::-1] if layout.colours == "bgr" else picture
    picture = picture if layout.axes == "nhwc" else picture.transpose(2, 0, 1)
    (shown,) = session.run(None, {"input": np.ascontiguousarray(picture[None])})
    shown = shown[0] if layout.axes == "nhwc" else shown[0].transpose(1, 2, 0)
    shown = shown[..., ::-1] if layout.colours == "bgr" else shown
    low, high = {"signed": (-1, 1), "unit": (0, 1), "bytes": (0, 255)}[layout.values]
    shown = (shown.astype(np.float32) - low) / (high - low) * 2 - 1
    assert np.abs(shown - restored).max() <= (2 * LEVEL if layout.values == "bytes" else 1e-5)
    loaded = load_restorer(path)
    assert isinstance(loaded, OnnxRestorer)
    assert loaded.layout == layout
    assert difference(loaded(face), toy(face).clamp(-1, 1)) <= (2 * LEVEL if layout.values == "bytes" else 1e-5)
    assert (loaded.metadata["mean"], loaded.metadata["std"]) == mean_and_std


@needs_extra
@torch.no_grad()
def test_weights_of_16_bits(toy: Restorer, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = load_restorer(models[0])
    wide.net = fill_module(nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 3, 3, padding=1)))
    monkeypatch.setattr("unfade.hosts.export.load_restorer", lambda spec, **how: wide)
    whole = export(models[0], tmp_path / "whole.onnx")
    half = export(models[0], tmp_path / "half.onnx", ExportSettings(dtype="float16"))
    assert half.path.stat().st_size < 0.75 * whole.path.stat().st_size
    faces = random_faces(2, 32, seed=1)
    apart = difference(OnnxRestorer(whole.path)(faces), OnnxRestorer(half.path)(faces))
    assert 0 < apart <= LEVEL


@needs_extra
def test_a_batch_restores_as_its_faces_do_alone(toy: Restorer, exported: Path, models: Models, tmp_path: Path) -> None:
    fixed = OnnxRestorer(export(models[0], tmp_path / "fixed.onnx", ExportSettings(batch=4)).path)
    faces = random_faces(5, 32, seed=1)
    alone = torch.cat([OnnxRestorer(exported)(face[None]) for face in faces])
    assert difference(OnnxRestorer(exported)(faces), alone) <= 1e-5
    assert difference(fixed(faces), alone) <= 1e-5


@needs_extra
@torch.no_grad()
def test_restore_runs_it(toy: Restorer, exported: Path, tmp_path: Path) -> None:
    faces = write_faces(tmp_path / "photos", 3)
    entries = restore(tmp_path / "photos", tmp_path / "out", exported, RestoreSettings(batch=2), aligned=True)
    assert [entry.status for entry in entries] == ["done"] * 3
    for face in faces:
        restored = toy(read_image(face)[None])[0].clamp(-1, 1)
        assert difference(read_image(tmp_path / "out" / face.name), restored) <= 1.01 / 255


@needs_extra
def test_it_restores_but_does_not_learn(exported: Path, models: Models, tmp_path: Path) -> None:
    assert head_of(exported).size == 32
    write_faces(tmp_path / "photos", 2)
    settings = small(exported, models[1])
    quick = replace(settings, targets=replace(settings.targets, start=2, free_from=1))
    with pytest.raises(BadInput, match="can restore but not learn"):
        adapt(tmp_path / "photos", tmp_path / "run", quick, aligned=True)
    restorer = load_restorer(exported)
    for refuses in (restorer.objective, restorer.trainable, restorer.config):
        with pytest.raises(BadInput, match="can restore but not learn"):
            refuses(*(() if refuses != restorer.objective else (None,)))


@needs_extra
def test_a_file_that_differs_is_not_kept(toy: Restorer, models: Models, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="differs from the network by"):
        export(models[0], tmp_path / "toy.onnx", ExportSettings(tolerance=-1.0))
    assert not list(tmp_path.iterdir())


@needs_extra
def test_a_network_that_cannot_be_exported(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Turning(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image if float(image.mean()) > 0 else -image

    turning = load_restorer(models[0])
    turning.net = Turning()
    monkeypatch.setattr("unfade.hosts.export.load_restorer", lambda spec, **how: turning)
    with pytest.raises(BadInput, match="cannot be exported this way") as caught:
        export(models[0], tmp_path / "toy.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@needs_extra
def test_other_files_are_refused(exported: Path, tmp_path: Path) -> None:
    import onnx

    (tmp_path / "half.onnx").write_bytes(exported.read_bytes()[:1000])
    foreign = onnx.load(exported)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    for name, message in {
        "half": "is not a file that onnxruntime can run",
        "foreign": "has no metadata about its faces",
    }.items():
        with pytest.raises(BadCheckpoint, match=message) as caught:
            load_restorer(tmp_path / f"{name}.onnx")
        assert "\n" not in str(caught.value)


@needs_extra
def test_an_exported_one_is_not_exported_again(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unfade.hosts.export.load_restorer", load_restorer)
    with pytest.raises(BadInput, match="already an exported restorer"):
        export(exported, tmp_path / "again.onnx")


@needs_extra
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_onnxruntime_lacks(exported: Path) -> None:
    with pytest.raises(BadInput, match="onnxruntime-gpu"):
        OnnxRestorer(exported, "cuda")


def test_where_it_may_be_written(models: Models, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"must end in \.onnx"):
        export(models[0], tmp_path / "tiny.pth")
    (tmp_path / "tiny.onnx").touch()
    with pytest.raises(OutputConflict, match="is there already"):
        export(models[0], tmp_path / "tiny.onnx")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": 0}, "1 face or more"),
        ({"opset": 9}, "18..23"),
        ({"to": "caffe"}, "`to` to be one of onnx, spandrel, published, got caffe"),
        ({"dtype": "int8"}, "float32 or float16"),
        ({"to": "spandrel", "batch": 1}, "`batch` is for ONNX files"),
        ({"to": "published", "fidelity": 0.5}, "`fidelity` is for ONNX files"),
    ],
)
def test_settings_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ExportSettings(**values)


def test_without_the_extra(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXTRA:
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "some.onnx").touch()
    with pytest.raises(BadInput, match=r"pip install unfade\[onnx\]"):
        load_restorer(tmp_path / "some.onnx")
    with pytest.raises(BadInput, match=r"pip install unfade\[onnx\]"):
        export(models[0], tmp_path / "tiny.onnx")


@pytest.mark.parametrize("words", [["grey"], ["rgb", "bgr"], [""]])
def test_layouts_with_two_words_of_a_kind_are_refused(words: list[str]) -> None:
    with pytest.raises(BadInput, match="at most one word of each"):
        layout_of(words)


def test_layouts_are_inverted() -> None:
    face = random_faces(2, 8, seed=0)
    for words in product(*WORDS.values()):
        layout = layout_of(words[::-1])
        assert str(layout) == ",".join(words)
        assert layout.picture_of(face).dtype == layout.dtype
        assert difference(layout.face_of(layout.picture_of(face)), face) <= (LEVEL if "bytes" in words else 1e-6)


def test_random_faces_follow_from_the_seed() -> None:
    faces = random_faces(2, 32, seed=3)
    assert faces.shape == (2, 3, 32, 32)
    assert faces.abs().max() <= 1
    assert torch.equal(faces, random_faces(2, 32, seed=3))
    assert not torch.equal(faces, random_faces(2, 32, seed=4))


@needs_extra
def test_the_command(
    toy: Restorer, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*args: object) -> str:
        monkeypatch.setattr(sys, "argv", ["unfade", "models", "export", str(models[0]), *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0
        return capsys.readouterr().out

    out = run("--out", tmp_path / "fixed.onnx", "--fixed-batch", 3, "--opset", 19, "--layout", "unit,bgr", "--json")
    assert json.loads(out)["difference"] <= 1e-3
    assert OnnxRestorer(tmp_path / "fixed.onnx").batch == 3
    assert json.loads(out)["metadata"]["layout"] == "bgr,unit,nchw"
    assert json.loads(run("--out", tmp_path / "half.onnx", "--dtype", "float16", "--json"))["allowed"] > 0.007
    assert "it differs from the network by at most" in run("--out", tmp_path / "any.onnx")
    assert run("--out", tmp_path / "quiet.onnx", "--quiet") == ""


# Files that refer to other files


def field(number: int, content: bytes) -> bytes:
    """A part of a protobuf message that holds bytes or a message."""
    return bytes([*varint(number << 3 | 2), *varint(len(content))]) + content


def varint(value: int) -> list[int]:
    return [value] if value < 128 else [value & 127 | 128, *varint(value >> 7)]


NAMED = field(13, field(1, b"location") + field(2, b"../secret.bin"))
FLAGGED, FLAGGED_LONGER = b"\x70\x01", b"\x70\x81\x80\x00"  # data_location = EXTERNAL, also in more bytes than needed
INSIDE, WHOLE = b"\x70\x00", field(9, b"\0\0\0\0")
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "initializer": lambda tensor: field(7, field(5, tensor)),
    "after another": lambda tensor: field(7, field(5, WHOLE) + field(5, tensor)),
    "sparse": lambda tensor: field(7, field(15, field(1, tensor))),
    "constant": lambda tensor: field(7, field(1, field(5, field(5, tensor)))),
    "in a branch": lambda tensor: field(7, field(1, field(5, field(6, field(5, tensor))))),
    "function": lambda tensor: field(25, field(7, field(5, field(10, tensor)))),
    "training": lambda tensor: field(20, field(2, field(5, tensor))),
}


@pytest.mark.parametrize("tensor", [NAMED, FLAGGED, FLAGGED_LONGER], ids=["named", "flagged", "flagged longer"])
@pytest.mark.parametrize("place", PLACES)
def test_weights_in_other_files_are_refused(tmp_path: Path, place: str, tensor: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"\x08\x0a" + PLACES[place](WHOLE + tensor))
    with pytest.raises(BadCheckpoint, match=r"a\.onnx keeps its weights in other files, which are not opened; save"):
        refuse_external(path)
    path.write_bytes(b"\x08\x0a" + PLACES[place](WHOLE + INSIDE))
    refuse_external(path)
    for end in range(len(path.read_bytes())):
        (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:end])
        refuse_external(tmp_path / "cut.onnx")  # what is damaged is left to whoever reads it


@pytest.mark.parametrize("reads", [load_restorer, load_embedder, load_detector])
def test_whatever_reads_onnx_refuses_weights_in_other_files(tmp_path: Path, reads: Callable[[Path], object]) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x08\x0a" + PLACES["initializer"](NAMED))
    with pytest.raises(BadCheckpoint, match=r"a\.bin keeps its weights in other files"):
        reads(path)


@needs_extra
def test_a_file_that_onnx_itself_split_is_refused(exported: Path, tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "split.onnx"
    onnx.save(onnx.load(exported), path, save_as_external_data=True, size_threshold=0)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(BadCheckpoint, match="keeps its weights in other files"):
        load_restorer(path)
