"""Published checkpoints through the real path: written in their layouts, imported by the command line, loaded, run."""

import hashlib
import json
import os
import pickle
import re
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from command import RunModels
from networks import B32
from recorded import arrays, fill_module, image_u8, picture, subsampled
from unfade.diffusion.load import load_prior
from unfade.errors import BadCheckpoint, BadInput, OutputConflict, UnknownModel
from unfade.images.files import from_bytes
from unfade.nets.arcface import ArcFace, ArcFaceConfig, grey
from unfade.nets.architecture import fixed
from unfade.nets.codeformer import CodeFormer, CodeFormerConfig, with_size
from unfade.nets.discriminator import UNetDiscriminatorSN
from unfade.nets.gfpgan import GFPGAN, GFPGANConfig
from unfade.nets.maniqa import MANIQA, MANIQAConfig
from unfade.nets.musiq import MUSIQ, MUSIQConfig
from unfade.nets.parsenet import ParseNet, ParseNetConfig
from unfade.nets.retinaface import MOBILENET025, RetinaFace
from unfade.nets.stylegan_discriminator import StyleGANDiscriminator, StyleGANDiscriminatorConfig
from unfade.nets.swinir import SwinIR, SwinIRConfig
from unfade.nets.unet import UNETS, UNet, UNetConfig
from unfade.nets.vqfr import VQFR, VQFRConfig
from unfade.nets.vqgan import VQAutoEncoder, VQGANConfig, VQGANDiscriminator
from unfade.restorers.load import load_restorer, save_restorer
from unfade.store.checkpoints import read_card, read_weights, sha256_of
from unfade.zoo.architectures import ARCHITECTURES
from unfade.zoo.convert import import_files
from unfade.zoo.download import DownloadSettings
from unfade.zoo.load import load_network
from unfade.zoo.models import MODELS, path_of
from unfade.zoo.published import Download
from unfade.zoo.pulling import pull

Run = Callable[..., tuple[int, str, str]]
SWINIR = SwinIRConfig(img_size=16, embed_dim=24, depths=(2, 2), heads=2, unshuffle=4, upscale=4)
VQGAN = VQGANConfig(size=32, channels=32, channel_mult=(1, 1, 2), attention_sizes=(8,), codes=16, code_channels=8)
CODEFORMER = CodeFormerConfig(VQGAN, dim=32, heads=4, layers=2, fusion_sizes=(16, 32))
GFPGAN16 = GFPGANConfig(size=16, style_features=8, narrow=1 / 64, mapping_layers=2)
VQFR32 = VQFRConfig(32, 32, (1, 2, 2), res_blocks=1, codes=16, code_channels=8, input_channels=4)
ARCFACE = ArcFaceConfig(size=32, width=4, blocks=(1, 1, 1, 1), embedding=8)
PARSENET = ParseNetConfig(classes=5, width=4, widest=8, halvings=2, blocks=1)
MUSIQ8 = MUSIQConfig(hidden=24, mlp=32, heads=2, layers=2, patch=8, grid=4, longer_sides=(16, 24), width=32)
MANIQA64 = MANIQAConfig(size=64, width=24, heads=3, hidden=32)
full_size = pytest.mark.skipif(not os.environ.get("UNFADE_FULL_SIZE"), reason="minutes: set UNFADE_FULL_SIZE=1")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("UNFADE_OFFLINE", raising=False)
    return tmp_path / "weights"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small shapes beside the published ones, for networks whose shapes do not tell all."""
    more = {"unet": B32, "vqgan": VQGAN, "gfpgan": GFPGAN16, "vqfr": VQFR32, "arcface": ARCFACE, "parsenet": PARSENET,
            "musiq": MUSIQ8, "maniqa": MANIQA64}  # fmt: skip
    for name, config in more.items():
        known = ARCHITECTURES[name]
        both = partial(lambda state, known, config: [*known.configs(state), *fixed(config)(state)],
                       known=known, config=config)  # fmt: skip
        monkeypatch.setitem(ARCHITECTURES, name, replace(known, configs=both))
    tiny = replace(ARCHITECTURES["codeformer"], configs=lambda state: [with_size(CODEFORMER)])
    monkeypatch.setitem(ARCHITECTURES, "codeformer", tiny)


def keys_with(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def junk(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in state.items()}


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda s: s,
    "module": lambda s: keys_with("module.", s),
    "params_ema": lambda s: {"params_ema": s},
    "both": lambda s: {"params": junk(s), "params_ema": s},
    "params": lambda s: {"params": s},
    "state_dict": lambda s: {"state_dict": keys_with("module.", s), "epoch": 3},
    "ema": lambda s: {"ema": s, "step": 5},
    "nested": lambda s: {"model": {"state_dict": keys_with("module.net.", s)}},
}


def published(path: Path, network: nn.Module, layout: str = "bare", **how: Any) -> Path:
    """Write a network as its authors would."""
    torch.save(LAYOUTS[layout](network.state_dict()), path, **how)
    return path


def imported(run_models: Run, path: Path, name: str) -> Path:
    code, out, err = run_models("import", path, "--as", name, "--json")
    assert (code, err) == (0, "")
    return Path(json.loads(out)["path"])


def assert_recorded(found: Tensor, golden: dict[str, np.ndarray], name: str, atol: float) -> None:
    want = torch.from_numpy(golden[name] if name in golden else golden[f"{name}.vals"])
    values = found if name in golden else subsampled(found, golden, name)
    torch.testing.assert_close(values, want, atol=atol, rtol=0)


# Published layouts, small networks


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_swinir_from_every_layout(run_models: RunModels, tmp_path: Path, layout: str) -> None:
    net = fill_module(SwinIR(SWINIR))
    path = imported(run_models, published(tmp_path / "a.pth", net, layout), "mine")
    golden = arrays("swinir_tiny")
    restorer = load_restorer("mine")
    assert restorer.size == 64
    assert read_weights(path).state.keys() == net.state_dict().keys(), "the published keys"
    restored = restorer(torch.from_numpy(golden["x"]) * 2 - 1)
    assert_recorded((restored + 1) / 2, golden, "out", 2e-5)


@torch.no_grad()
@pytest.mark.parametrize("file", ["a.PTH", "a.pt", "a.pkl", "a.Ckpt", "a", "a.SafeTensors", "old.pth"])
def test_the_ending_does_not_matter(run_models: RunModels, tmp_path: Path, file: str) -> None:
    net = fill_module(SwinIR(SWINIR))
    if file.lower().endswith("safetensors"):
        save_file(net.state_dict(), tmp_path / file)
    else:
        published(tmp_path / file, net, _use_new_zipfile_serialization=file != "old.pth")
    golden = arrays("swinir_tiny")
    imported(run_models, tmp_path / file, "mine")
    restored = load_restorer("mine")(torch.from_numpy(golden["x"]) * 2 - 1)
    assert_recorded((restored + 1) / 2, golden, "out", 2e-5)


@torch.no_grad()
def test_a_prior(run_models: RunModels, tmp_path: Path, small: None) -> None:
    imported(run_models, published(tmp_path / "a.pt", fill_module(UNet(B32)), "module"), "mine")
    golden, prior = arrays("unet_b32"), load_prior("mine")
    assert prior.size == 32
    assert_recorded(prior.unet(torch.from_numpy(golden["x"]), torch.from_numpy(golden["t"])), golden, "y", 3e-5)


@torch.no_grad()
@pytest.mark.parametrize(("net", "size"), [(CodeFormer(CODEFORMER), 32), (GFPGAN(GFPGAN16), 16)])
def test_restorers(run_models: RunModels, tmp_path: Path, small: None, net, size: int) -> None:
    fill_module(net).eval()
    imported(run_models, published(tmp_path / "a.pth", net, "both"), "mine")
    restorer, face = load_restorer("mine"), picture(size, size, 3)
    assert restorer.size == size
    torch.testing.assert_close(restorer(face), net(face))


NETWORKS = {
    "vqgan": (VQAutoEncoder(VQGAN), "params_ema"),
    "arcface": (ArcFace(ARCFACE), "module"),
    "parsenet": (ParseNet(PARSENET), "bare"),
    "retinaface-mobilenet": (RetinaFace(MOBILENET025), "module"),
    "unet-discriminator": (UNetDiscriminatorSN(16), "params"),
    "vqgan-discriminator": (VQGANDiscriminator(8, 3), "params"),
    "vqfr": (VQFR(VQFR32), "params_ema"),
    "musiq": (MUSIQ(MUSIQ8), "bare"),
    "maniqa": (MANIQA(MANIQA64), "bare"),
    "stylegan2-discriminator": (StyleGANDiscriminator(StyleGANDiscriminatorConfig(64, 2, 1 / 32)), "params"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_come_back_whole(run_models: RunModels, tmp_path: Path, small: None, name: str) -> None:
    net, layout = NETWORKS[name]
    state = fill_module(net).state_dict()
    path = imported(run_models, published(tmp_path / "a.pth", net, layout), "mine")
    loaded = load_network("mine", ARCHITECTURES[name].kind).network
    assert type(loaded) is type(net)
    assert not loaded.training
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    card = read_card(path)
    assert card["kind"] == ARCHITECTURES[name].kind
    assert card["sha256"] == sha256_of(path)
    assert card["files"][0]["sha256"] == sha256_of(tmp_path / "a.pth")


def test_what_no_score_depends_on_is_left_out(run_models: RunModels, tmp_path: Path, small: None) -> None:
    net = fill_module(MANIQA(MANIQA64))
    more = {"vit.norm.bias": torch.ones(24), "vit.head.bias": torch.ones(9), "vit.blocks.10.norm1.bias": torch.ones(24)}
    torch.save(net.state_dict() | more, tmp_path / "a.pt")
    imported(run_models, tmp_path / "a.pt", "mine")
    assert load_network("mine", "quality").network.state_dict().keys() == net.state_dict().keys()


def test_statistics_are_tensors_or_arrays(run_models: RunModels, tmp_path: Path) -> None:
    mean, cov = np.arange(4) / 3, np.eye(4) / 3
    for file, values in (("a.pth", (mean, cov)), ("b.pth", (torch.from_numpy(mean), torch.from_numpy(cov)))):
        torch.save(dict(zip(("mean", "cov"), values, strict=True)), tmp_path / file)
        imported(run_models, tmp_path / file, file[0])
    for name in "ab":
        assert torch.equal(load_network(name, "statistics").network.cov, torch.from_numpy(cov)), "no digit is lost"


# Full size


@torch.no_grad()
def test_the_published_face_embedding(run_models: RunModels, tmp_path: Path) -> None:
    imported(run_models, published(tmp_path / "a.pth", fill_module(ArcFace()), "module"), "mine")
    golden = arrays("arcface18")
    net = load_network("mine", "identity").network
    assert_recorded(net(grey(picture(512, 512, 51, count=2))), golden, "embedding", 1e-4)


@torch.no_grad()
def test_the_published_detector(run_models: RunModels, tmp_path: Path) -> None:
    imported(run_models, published(tmp_path / "a.pth", fill_module(RetinaFace()), "module"), "mine")
    golden, net = arrays("retinaface_resnet50"), load_network("mine", "detector").network
    assert_recorded(net(from_bytes(image_u8(320, 256, 61))[None]).boxes, golden, "loc", 5e-4)


def test_the_papers_swinir(run_models: RunModels, tmp_path: Path) -> None:
    path = imported(run_models, published(tmp_path / "swinir_gan_v1.pth", fill_module(SwinIR())), "swinir-512")
    assert path == path_of(MODELS["swinir-512"])
    assert load_restorer("swinir-512").net.config == SwinIRConfig()


@full_size
@torch.no_grad()
@pytest.mark.parametrize(
    ("net", "name", "golden"),
    [
        (CodeFormer, "codeformer", ("codeformer_forward", "out_w0.5_adain")),
        (GFPGAN, "gfpgan", ("gfpganv1clean", "out")),
    ],
)
def test_the_published_restorers(run_models: RunModels, tmp_path: Path, net, name: str, golden) -> None:
    imported(run_models, published(tmp_path / "a.pth", fill_module(net()), "params_ema"), "mine")
    restorer = load_restorer("mine")
    assert restorer.architecture == name
    assert_recorded(restorer(picture(512, 512, 11)), arrays(golden[0]), golden[1], 5e-4)


@full_size
@torch.no_grad()
def test_the_published_parser(run_models: RunModels, tmp_path: Path) -> None:
    imported(run_models, published(tmp_path / "a.pth", fill_module(ParseNet())), "mine")
    assert_recorded(
        load_network("mine", "parser").network(picture(512, 512, 11)), arrays("parsenet"), "mask_logits", 5e-4
    )


@full_size
@pytest.mark.parametrize("config", UNETS)
def test_the_published_priors(run_models: RunModels, tmp_path: Path, config) -> None:
    net = fill_module(UNet(config))
    imported(run_models, published(tmp_path / "a.pt", net, "module"), "mine")
    loaded = load_prior("mine")
    assert isinstance(loaded.unet, UNet)
    assert loaded.unet.config == config
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in loaded.unet.state_dict().items())


# Names, hashes and cards


def known(monkeypatch: pytest.MonkeyPatch, name: str, path: Path, *urls: str) -> None:
    """Let a row of the table be this file."""
    download = Download(path.name, sha256_of(path), path.stat().st_size, urls)
    monkeypatch.setitem(MODELS, name, replace(MODELS[name], downloads=(download,), size=0))


def test_a_known_hash_gives_the_name(
    run_models: RunModels, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = published(tmp_path / "renamed.bin", fill_module(SwinIR(SWINIR)))
    known(monkeypatch, "swinir-512-l1", path)
    code, out, _ = run_models("import", path)
    assert (code, out) == (0, f"swinir-512-l1: {folder / 'swinir-512-l1.safetensors'}\n")
    card = read_card(folder / "swinir-512-l1.safetensors")
    assert (card["licence"], card["commercial"], card["notes"]) == ("S-Lab 1.0", False, [])
    assert run_models("verify")[1].endswith("swinir-512-l1: unchanged\n")
    assert run_models("import", path)[0] == 0, "the same again changes nothing"
    assert "leave --as mine out" in run_models("import", path, "--as", "mine")[2]


def test_another_hash_than_the_rows_names_both(run_models: RunModels, tmp_path: Path, folder: Path) -> None:
    path = published(tmp_path / "codeformer.pth", fill_module(SwinIR(SWINIR)))
    code, _, err = run_models("import", path, "--as", "codeformer")
    assert code == 2
    assert sha256_of(path) in err
    assert "1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7" in err
    assert not folder.exists()


def test_an_unknown_hash_needs_a_name_and_is_recorded(run_models: RunModels, tmp_path: Path, folder: Path) -> None:
    path = published(tmp_path / "a.pth", fill_module(SwinIR(SWINIR)))
    for wrong in ((), ("--as", "../up"), ("--as", "a b"), ("--as", ".hidden")):
        code, _, err = run_models("import", path, *wrong)
        assert (code, err.count("\n")) == (2, 1)
        assert "give --as (letters" in err
    assert "comes with unfade" in run_models("import", path, "--as", "small-restorer")[2]
    code, out, _ = run_models("import", path, "--as", "mine")
    assert (code, out.count(f"unfade does not know this file (SHA-256 {sha256_of(path)})")) == (0, 1)
    listed = json.loads(run_models("list", "--json", "--kind", "restorer")[1])["models"]
    assert "mine" in [row["name"] for row in listed]
    assert "mine" in run_models("list")[1]
    assert json.loads(run_models("show", "mine", "--json")[1])["card"]["files"][0]["bytes"] == path.stat().st_size
    assert run_models("path", "mine")[1] == f"{folder / 'mine.safetensors'}\n"


def test_a_row_without_a_hash_says_what_it_saw(
    run_models: RunModels, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "swinir-512", replace(MODELS["swinir-512"], size=64))
    path = published(tmp_path / "SwinIR_GAN_v1.pth", fill_module(SwinIR(SWINIR)))
    code, out, _ = run_models("import", path)
    assert (code, out.splitlines()[0]) == (0, f"swinir-512: {folder / 'swinir-512.safetensors'}")
    assert f"no hash was known for it; the one seen, {sha256_of(path)}, is recorded in its card" in out
    assert read_card(folder / "swinir-512.safetensors")["files"] == [
        {"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size}
    ]


def test_a_taken_name_is_not_overwritten(run_models: RunModels, tmp_path: Path, folder: Path) -> None:
    run_models("import", published(tmp_path / "a.pth", fill_module(SwinIR(SWINIR))), "--as", "mine")
    before = sha256_of(folder / "mine.safetensors")
    code, _, err = run_models(
        "import", published(tmp_path / "b.pth", fill_module(SwinIR(SWINIR), "other.")), "--as", "mine"
    )
    assert (code, "is there already and was made from another file" in err) == (2, True)
    assert sha256_of(folder / "mine.safetensors") == before


def test_own_restorers_can_be_named_too(run_models: RunModels, tmp_path: Path) -> None:
    run_models("import", published(tmp_path / "a.pth", fill_module(SwinIR(SWINIR))), "--as", "first")
    save_restorer(tmp_path / "own.safetensors", load_restorer("first"))
    imported(run_models, tmp_path / "own.safetensors", "second")
    assert load_restorer("second").net.state_dict().keys() == load_restorer("first").net.state_dict().keys()


def test_networks_that_are_not_built_here_are_kept_by_their_hash(
    run_models: RunModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = published(tmp_path / "RestoreFormer.pth", nn.Linear(2, 2), "params_ema")
    assert (
        "is of no network that unfade has (first keys: bias, weight)" in run_models("import", path, "--as", "mine")[2]
    )
    known(monkeypatch, "restoreformer", path)
    code, out, _ = run_models("import", path)
    assert (code, "unfade has no network restoreformer" in out) == (0, True)
    assert read_weights(path_of(MODELS["restoreformer"])).state.keys() == {"weight", "bias"}


def test_onnx_files_are_kept_as_they_are(
    run_models: RunModels, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sface.onnx").write_bytes(b"a graph")
    known(monkeypatch, "sface", tmp_path / "sface.onnx")
    assert run_models("import", tmp_path / "sface.onnx")[0] == 0
    assert (folder / "sface.onnx").read_bytes() == b"a graph"
    assert run_models("verify", "sface")[1] == "sface: unchanged\n"


def test_an_import_killed_at_its_end_can_be_done_again(
    run_models: RunModels, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "sface.onnx").write_bytes(b"a graph")
    known(monkeypatch, "sface", tmp_path / "sface.onnx")
    with monkeypatch.context() as patch:
        patch.setattr("unfade.zoo.convert.write_card", killed)
        run_models("import", tmp_path / "sface.onnx")
    assert run_models("import", tmp_path / "sface.onnx")[0] == 0
    assert run_models("verify", "sface")[1] == "sface: unchanged\n"


def test_an_onnx_file_with_weights_in_other_files_is_not_imported(run_models, tmp_path, folder, monkeypatch):
    tensor = bytes([13 << 3 | 2, 3, 10, 1, 97])  # external_data, with an entry
    (tmp_path / "sface.onnx").write_bytes(bytes([8, 10, 7 << 3 | 2, 7, 5 << 3 | 2, 5]) + tensor)
    known(monkeypatch, "sface", tmp_path / "sface.onnx")
    assert "sface.onnx keeps its weights in other files" in refused(
        run_models, tmp_path / "sface.onnx", folder, "--as", "sface"
    )


# Bad files


def refused(run_models: Run, path: Path, folder: Path, *name: str) -> str:
    """What is said of a file that is refused; nothing of it stays."""
    code, out, err = run_models("import", path, *(name or ("--as", "mine")))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not folder.exists() or not list(folder.iterdir())
    return err


class Trap:
    def __init__(self, sprung: Path):
        self.sprung = sprung

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.sprung,)


@pytest.mark.parametrize("how", ["pickle", "new", "old"])
def test_a_file_that_would_run_code_is_not_run(run_models: RunModels, tmp_path: Path, folder: Path, how: str) -> None:
    trap = {"params_ema": fill_module(SwinIR(SWINIR)).state_dict(), "more": Trap(tmp_path / "sprung")}
    if how == "pickle":
        (tmp_path / "a.pth").write_bytes(pickle.dumps(trap["more"], protocol=2))
    else:
        torch.save(trap, tmp_path / "a.pth", _use_new_zipfile_serialization=how == "new")
    said = refused(run_models, tmp_path / "a.pth", folder)
    assert re.search(r"holds more than plain weights \(.+\), so nothing in it was run or used; get the file from", said)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(trap["more"]))
    assert (tmp_path / "sprung").exists(), "it is a trap"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("how", ["new", "old", "safetensors"])
def test_half_a_file(run_models: RunModels, tmp_path: Path, folder: Path, share: float, how: str) -> None:
    path = tmp_path / f"a.{'safetensors' if how == 'safetensors' else 'pth'}"
    net = fill_module(SwinIR(SWINIR))
    if how == "safetensors":
        save_file(net.state_dict(), path)
    else:
        published(path, net, _use_new_zipfile_serialization=how == "new")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    wanted = "is damaged or no file of weights" if share else "is empty"
    assert wanted in refused(run_models, path, folder)


@pytest.mark.parametrize("length", [2**63, 2**40, 3 * 10**9, 90_000_000])
def test_a_header_that_claims_gigabytes(run_models: RunModels, tmp_path: Path, folder: Path, length: int) -> None:
    (tmp_path / "a.bin").write_bytes(length.to_bytes(8, "little") + b"{" + b" " * 100)
    assert "not a whole safetensors file" in refused(run_models, tmp_path / "a.bin", folder)


def test_tensors_that_claim_gigabytes(run_models: RunModels, tmp_path: Path, folder: Path) -> None:
    head = json.dumps({"w": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    assert "not a whole safetensors file" in refused(run_models, tmp_path / "a.safetensors", folder)
    wide = fill_module(SwinIR(SWINIR)).state_dict() | {"norm.weight": torch.zeros(1).expand(2**40)}
    torch.save(wide, tmp_path / "a.pth")
    assert "norm.weight has shape (1099511627776,) instead of (24,)" in refused(run_models, tmp_path / "a.pth", folder)


def test_an_archive_that_unpacks_to_more(run_models: RunModels, tmp_path: Path, folder: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 22))
    assert "it unpacks to more than it holds" in refused(run_models, tmp_path / "a.pth", folder)


def test_what_does_not_fit_is_named(run_models: RunModels, tmp_path: Path, folder: Path) -> None:
    state = fill_module(SwinIR(SWINIR)).state_dict()
    wrong = {
        "norm.bias is missing": {k: v for k, v in state.items() if k != "norm.bias"},
        "extra.weight is unknown": state | {"extra.weight": torch.zeros(2)},
        "norm.bias has shape (25,) instead of (24,)": state | {"norm.bias": torch.zeros(25)},
        "norm.bias is torch.int64 instead of torch.float32": state | {"norm.bias": torch.zeros(24).long()},
        "norm.bias is torch.complex64 instead": state | {"norm.bias": torch.zeros(24, dtype=torch.complex64)},
        "conv_first.1.bias is missing, ": {k: v for k, v in state.items() if not k.endswith("bias")},
    }
    for said, broken in wrong.items():
        torch.save(broken, tmp_path / "a.pth")
        err = refused(run_models, tmp_path / "a.pth", folder)
        assert f"looks like a swinir, but {said}" in err
        assert err.count(" is missing") <= 4
    assert " more; give the file as it was published" in err, "a few are named, the others are counted"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": torch.zeros(2)}, "is of no network that unfade has (first keys: a)"),
        ({"step": 3}, "holds step among its weights, a int"),
        ({"a": torch.zeros(2), 3: torch.zeros(2)}, "holds 3 among its weights"),
        ({"a": torch.eye(2).to_sparse()}, "holds a among its weights"),
        ([torch.zeros(2)], "holds a list without weights"),
        ({}, "holds a dict without weights"),
        (torch.zeros(3), "holds a Tensor without weights"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_files_without_a_network(run_models: RunModels, tmp_path: Path, folder: Path, content, said: str) -> None:
    torch.save(content, tmp_path / "a.pth")
    assert said in refused(run_models, tmp_path / "a.pth", folder)


def test_no_file_at_all(run_models: RunModels, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.pth").mkdir()
    assert "There is no file" in refused(run_models, tmp_path / "a.pth", folder)
    (tmp_path / "b.txt").write_text("hello, this is text")
    assert "is damaged or no file of weights" in refused(run_models, tmp_path / "b.txt", folder)


def test_another_network_under_a_rows_name(run_models: RunModels, tmp_path: Path, folder: Path, small: None) -> None:
    discriminator = published(tmp_path / "a.pth", UNetDiscriminatorSN(8))
    said = refused(run_models, discriminator, folder, "--as", "vqfr-2")
    assert "holds a unet-discriminator, but vqfr-2 is a vqfr" in said
    prior = published(tmp_path / "DR2_FFHQ.pkl", fill_module(UNet(B32)))
    assert "is for 32 px, but ffhq-256-dr2 is for 256 px" in refused(run_models, prior, folder, "--quiet")


def test_no_space_left(run_models: RunModels, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = published(tmp_path / "a.pth", fill_module(SwinIR(SWINIR)))
    for where in ("save_file", "write_card"):
        with monkeypatch.context() as patch:
            patch.setattr(f"unfade.zoo.convert.{where}", full)
            assert "the disk is full" in refused(run_models, path, folder)


def test_loading_names_what_is_wrong(run_models: RunModels, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UnknownModel, match="unfade models pull parsenet"):
        load_network("parsenet", "parser")
    run_models("import", published(tmp_path / "a.pth", fill_module(SwinIR(SWINIR))), "--as", "mine")
    with pytest.raises(BadCheckpoint, match=r"holds a restorer \(swinir\), not a parser"):
        load_network(folder / "mine.safetensors", "parser")
    save_file({}, folder / "odd.safetensors", {"architecture": "parsenet", "config": '{"wide": 3}'})
    with pytest.raises(BadCheckpoint, match="its network cannot be built"):
        load_network(folder / "odd.safetensors", "parser")


# Pulling


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """(address, folder) of a server of files."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", tmp_path / "served"
        server.shutdown()
        thread.join()


def test_pull_asks_for_the_licence_once(
    run_models: RunModels, served: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, files = served
    path = published(files / "swinir.pth", fill_module(SwinIR(SWINIR)))
    known(monkeypatch, "swinir-512-l1", path, address + "swinir.pth")
    code, out, err = run_models("pull", "swinir-512-l1")
    assert (code, out) == (2, "")
    assert "S-Lab 1.0, not for commercial use" in err
    assert "add --accept-licence" in err
    assert not folder.exists()
    with pytest.raises(BadInput, match="accept that with `unfade models pull"):
        pull("swinir-512-l1")
    code, out, _ = run_models("pull", "swinir-512-l1", "--accept-licence")
    assert (code, out) == (0, f"swinir-512-l1: {folder / 'swinir-512-l1.safetensors'}\n")
    assert sorted(p.name for p in folder.rglob("[!.]*") if p.is_file()) == [
        "accepted_licences.json", "swinir-512-l1.json", "swinir-512-l1.safetensors",
    ]  # fmt: skip
    card = read_card(folder / "swinir-512-l1.safetensors")
    assert card["files"] == [
        {"file": "swinir.pth", "sha256": sha256_of(path), "bytes": path.stat().st_size, "url": address + "swinir.pth"}
    ]
    assert "it was there already" in run_models("pull", "swinir-512-l1")[1]
    (folder / "swinir-512-l1.safetensors").unlink()
    assert run_models("pull", "swinir-512-l1")[0] == 0, "the licence is remembered"
    assert "comes with unfade" in run_models("pull", "small-prior")[2]


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2)])
def test_on_a_terminal_the_licence_is_a_question(
    run_models: RunModels, served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    address, files = served
    path = published(files / "swinir.pth", fill_module(SwinIR(SWINIR)))
    known(monkeypatch, "swinir-512-l1", path, address + "swinir.pth")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    result = run_models("pull", "swinir-512-l1", "--quiet")
    assert result[0] == code
    assert "Do you accept it?" in result[2]


def test_pull_from_a_mirror_without_a_known_hash(
    run_models: RunModels, served: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, files = served
    path = published(files / "own.pth", fill_module(UNetDiscriminatorSN(8)))
    nowhere = replace(MODELS["vqfr-2"], kind="discriminator", architecture="unet-discriminator", size=0,
                      downloads=(Download("own.pth"),))  # fmt: skip
    monkeypatch.setitem(MODELS, "vqfr-2", nowhere)
    assert "has no address that unfade knows; find own.pth" in run_models("pull", "vqfr-2")[2]
    failed = run_models("pull", "vqfr-2", "--mirror", address + "nothing.pth")[2]
    assert "could not be fetched" in failed
    assert "`unfade models import own.pth --as vqfr-2`" in failed
    code, out, _ = run_models("pull", "vqfr-2", "--mirror", address)
    assert (code, f"the one seen, {sha256_of(path)}, is recorded" in out) == (0, True)
    assert "passed over" not in out


def test_a_mirror_that_gives_nothing_is_named(run_models, served, folder, monkeypatch):
    address, files = served
    path = published(files / "own.pth", fill_module(UNetDiscriminatorSN(8)))
    row = replace(MODELS["vqfr-2"], kind="discriminator", architecture="unet-discriminator", size=0,
                  downloads=(Download("own.pth", sha256_of(path), urls=(address + "own.pth",)),))  # fmt: skip
    monkeypatch.setitem(MODELS, "vqfr-2", row)
    code, out, err = run_models("pull", "vqfr-2", "--mirror", "htp:/own.pth")
    assert (code, err) == (0, "")
    assert "note: passed over: htp:/own.pth is not an http or https address" in out


def test_a_wrong_hash_deletes_nothing(served: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, files = served
    path = published(files / "own.pth", fill_module(UNetDiscriminatorSN(8)))
    known(monkeypatch, "realesrgan-x2", path, address + "own.pth")
    path.write_bytes(path.read_bytes()[::-1])
    folder.mkdir()
    (folder / "mine.safetensors").write_bytes(b"mine")
    quick = DownloadSettings(tries=1)
    with pytest.raises(BadCheckpoint, match=hashlib.sha256(path.read_bytes()).hexdigest()):
        pull("realesrgan-x2", settings=quick)
    assert [p.name for p in folder.rglob("[!.]*") if p.is_file()] == ["mine.safetensors"]


def test_a_download_that_is_not_a_network_is_not_resumed(
    served: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, files = served
    torch.save({"a": torch.zeros(2)}, files / "VQFR_v2.pth")
    download = Download("VQFR_v2.pth", urls=(address + "VQFR_v2.pth",))
    monkeypatch.setitem(MODELS, "vqfr-2", replace(MODELS["vqfr-2"], downloads=(download,)))
    with pytest.raises(BadCheckpoint, match="no network that unfade has"):
        pull("vqfr-2")
    assert not [p for p in folder.rglob("[!.]*") if p.is_file()]


def test_two_processes_do_not_fetch_one_model(
    served: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, files = served
    path = published(files / "own.pth", fill_module(UNetDiscriminatorSN(8)))
    known(monkeypatch, "realesrgan-x2", path, address + "own.pth")
    monkeypatch.setitem(MODELS, "realesrgan-x2", replace(MODELS["realesrgan-x2"], architecture="unet-discriminator"))

    @contextmanager
    def meanwhile(label: str, total: int, *, start: int = 0) -> Iterator[Callable[[float], None]]:
        with pytest.raises(OutputConflict, match="realesrgan-x2 is being fetched by another process; wait for it"):
            pull("realesrgan-x2")
        yield lambda amount: None

    assert pull("realesrgan-x2", progress=meanwhile).path.exists()
    assert "there already" in pull("realesrgan-x2").notes[0]


def test_configurations_are_kept_in_the_header(tmp_path: Path, small: None) -> None:
    torch.save(fill_module(UNet(B32)).state_dict(), tmp_path / "a.pth")
    config = read_weights(import_files([tmp_path / "a.pth"], name="mine").path).config
    assert UNetConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}) == B32
    assert config.keys() == asdict(B32).keys()
