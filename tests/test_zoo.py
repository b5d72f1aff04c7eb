"""The table of models and the commands that read it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unfade.errors import UnknownModel
from unfade.store.checkpoints import sha256_of, write_card
from unfade.zoo.architectures import ARCHITECTURES
from unfade.zoo.models import BUILT_IN, MODELS, accept, find_named, find_weights, is_accepted, path_of
from unfade.zoo.published import LICENCES, PUBLISHED

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("UNFADE_OFFLINE", raising=False)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


# The rows


def test_rows_are_whole() -> None:
    assert len(MODELS) == len(BUILT_IN) + len(PUBLISHED), "names are unique"
    for model in MODELS.values():
        assert model.licence in LICENCES
        assert model.author
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,19}", model.name), "short enough for the list"
    for model in PUBLISHED:
        assert model.source.startswith("https://")
        for download in model.downloads:
            assert download.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", download.sha256)
            assert all(url.startswith("https://") for url in download.urls)
            assert all(url.endswith("/" + download.file) for url in download.urls)
    hashes = [d.sha256 for model in PUBLISHED for d in model.downloads if d.sha256]
    assert len(hashes) == len(set(hashes))


def test_networks_that_are_not_built_here_are_known_by_their_hash() -> None:
    for model in PUBLISHED:
        if model.architecture in ARCHITECTURES:
            assert ARCHITECTURES[model.architecture].kind == model.kind
            assert ARCHITECTURES[model.architecture].files == len(model.downloads)
        else:
            assert all(download.sha256 for download in model.downloads)


@pytest.mark.parametrize(
    ("name", "file", "tag"),
    [
        ("codeformer", "codeformer.pth", "sczhou/CodeFormer/releases/download/v0.1.0"),
        ("gfpgan-1.4", "GFPGANv1.4.pth", "TencentARC/GFPGAN/releases/download/v1.3.0"),
        ("swinir-512", "swinir_gan_v1.pth", "SamsungLabs/DT-BFR/releases/download/v1.0.0"),
        ("ffhq-512", "iddpm_ffhq512_ema500000.pth", "zsyOAOA/DifFace/releases/download/V1.0"),
    ],
)
def test_addresses_of_releases(name: str, file: str, tag: str) -> None:
    assert MODELS[name].downloads[0].urls == (f"https://github.com/{tag}/{file}",)


# What to do for a model that is not there


def test_the_command_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownModel, match=r"; fetch them with `unfade models pull codeformer`\.$"):
        find_weights("codeformer", "restorer")
    with pytest.raises(UnknownModel, match=r"; find DR2_FFHQ\.pkl .* `unfade models import DR2_FFHQ.pkl --as ffhq-256"):
        find_weights("ffhq-256-dr2", "prior")
    monkeypatch.setenv("UNFADE_OFFLINE", "1")
    with pytest.raises(UnknownModel) as caught:
        find_weights("lpips-vgg", "perceptual")
    said = str(caught.value)
    assert "https://download.pytorch.org/models/vgg16-397923af.pth and https://github.com/" in said
    assert said.endswith("run `unfade models import vgg16-397923af.pth vgg.pth --as lpips-vgg`.")


def test_names_that_the_user_gave_are_found_for_their_kind(folder: Path) -> None:
    (folder / "mine.safetensors").touch()
    assert_unknown("mine", "restorer")  # without a card nobody knows what it is
    write_card(folder / "mine.safetensors", {"kind": "restorer"})
    assert find_weights("mine", "restorer") == find_named("mine") == folder / "mine.safetensors"
    assert_unknown("mine", "prior")
    with pytest.raises(UnknownModel, match=r"there are: small-restorer, .*, mine\.$"):
        find_weights("other", "restorer")


def assert_unknown(name: str, kind: Any) -> None:
    with pytest.raises(UnknownModel, match=f"There is no {kind} named {name}"):
        find_weights(name, kind)


def test_a_licence_is_accepted_once(folder: Path) -> None:
    assert not is_accepted("S-Lab 1.0")
    accept("S-Lab 1.0")
    accept("CC BY-NC-SA 4.0")
    accept("S-Lab 1.0")
    assert is_accepted("S-Lab 1.0")
    assert json.loads((folder / "accepted_licences.json").read_text()) == ["CC BY-NC-SA 4.0", "S-Lab 1.0"]


# The commands


def test_the_list_fits_a_terminal(run_models: Run) -> None:
    code, out, _ = run_models("list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    assert all(name in out for name in MODELS)


def test_the_list_is_narrowed(run_models: Run, folder: Path) -> None:
    path_of(MODELS["parsenet"]).touch()
    rows = json.loads(run_models("list", "--json")[1])["models"]
    assert [row["name"] for row in rows] == list(MODELS)
    assert [row["name"] for row in rows if row["here"]] == [
        "small-prior",
        "small-prior-256",
        "small-restorer",
        "small-restorer-256",
        "small-swinir",
        "damage",
        "demosaic-bayer",
        "yunet",
        "niqe-pristine",
        "dlib-face",
        "parsenet",
    ]
    free = json.loads(run_models("list", "--json", "--licence", "commercial")[1])["models"]
    assert {row["licence"] for row in free} == {n for n, licence in LICENCES.items() if licence.commercial}
    priors = json.loads(run_models("list", "--json", "--kind", "prior")[1])["models"]
    assert {"small-prior", "ffhq-512"} <= {row["name"] for row in priors}
    assert {row["kind"] for row in priors} == {"prior"}
    assert run_models("list", "--kind", "prior", "--licence", "commercial") == (0, "", "")
    assert run_models("list", "--licence", "free")[::2] == (2, "--licence takes commercial, got free.\n")
    assert "There is no kind cat; there are: damage, demosaic" in run_models("list", "--kind", "cat")[2]


def test_one_model_is_shown(run_models: Run) -> None:
    code, out, _ = run_models("show", "swinir-512")
    assert code == 0
    assert "sha256: unknown until first seen" in out
    assert "commercial: no" in out
    assert "The weights are not on this machine; fetch them with `unfade models pull swinir-512`." in out
    assert "1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7" in run_models("show", "codeformer")[1]
    assert "(see https://arxiv.org/abs/2303.06885) and run" in run_models("show", "ffhq-256-dr2")[1], (
        "no address to pull"
    )
    assert run_models("show", "nobody")[0] == 2


def test_what_a_training_wrote_down_step_by_step_is_shown_by_its_last_row(run_models: Run) -> None:
    code, out, _ = run_models("show", "small-prior")
    (line,) = (line for line in out.splitlines() if line.startswith("losses: "))
    assert code == 0
    assert re.fullmatch(r"losses: \{'step': \d+, [^{}]*\} \(the last of \d+\)", line)


def test_built_in_files_are_those_of_their_cards(run_models: Run) -> None:
    built_in = [name for name, model in MODELS.items() if model.built_in]
    assert run_models("verify", *built_in) == (0, "".join(f"{name}: unchanged\n" for name in built_in), "")


def test_paths(run_models: Run, folder: Path) -> None:
    (folder / "sface.onnx").touch()
    assert run_models("path", "sface") == (0, f"{folder / 'sface.onnx'}\n", "")
    assert run_models("path", "small-prior")[1].endswith("small-prior.safetensors\n")
    assert "unfade models pull codeformer" in run_models("path", "codeformer")[2]


def test_changed_files_are_found(run_models: Run, folder: Path) -> None:
    weights = path_of(MODELS["parsenet"])
    weights.write_bytes(b"weights")
    write_card(weights, {"sha256": sha256_of(weights)})
    assert run_models("verify", "parsenet") == (0, "parsenet: unchanged\n", "")
    weights.write_bytes(b"weighty")
    code, out, _ = run_models("verify")
    assert code == 1
    assert re.search(r"  parsenet: changed: sha256 [0-9a-f]{64} was recorded, now it is [0-9a-f]{64}\n", out)
    assert "small-prior: " in out, "without names all that are here are checked"
    assert "There is no model named nobody" in run_models("verify", "nobody")[2]


def test_a_list_opens_no_network() -> None:
    """Nor does it wait for torch."""
    script = (
        "import sys, socket; socket.socket = None; sys.argv = ['unfade', 'models', 'list', '--quiet']\n"
        "from unfade.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
