"""AdaFace: its layout, and faces as it sees them. Its published weights cannot be had here."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from recorded import fill_module, picture
from unfade.errors import BadInput
from unfade.faces.identity import AdaFaceEmbedder, load_embedder, seen_by_sface
from unfade.nets.adaface import AdaFace, AdaFaceConfig
from unfade.nets.architecture import fixed
from unfade.store.checkpoints import save_weights
from unfade.zoo.architectures import ARCHITECTURES
from unfade.zoo.convert import import_files

SMALL = AdaFaceConfig(width=4, blocks=(1, 2, 1, 1), embedding=8)


@pytest.fixture(scope="module")
def net() -> AdaFace:
    return fill_module(AdaFace(SMALL)).eval()


def test_it_is_the_ir_50() -> None:
    with torch.device("meta"):
        net = AdaFace()
    state = net.state_dict()
    assert sum(p.numel() for p in net.parameters()) == 43_585_600
    assert len(net.body) == 24
    assert {key.split(".")[1] for key in state if "shortcut_layer.0" in key} == {"3", "7", "21"}, "where it widens"
    assert state["body.3.shortcut_layer.0.weight"].shape == (128, 64, 1, 1)
    assert state["body.7.res_layer.4.weight"].shape == (256, 256, 3, 3)
    assert state["output_layer.3.weight"].shape == (512, 512 * 7 * 7)
    assert "output_layer.4.weight" not in state, "the last normalisation has no scale"


@torch.no_grad()
def test_a_batch_is_its_faces_and_other_sizes_are_refused(net: AdaFace) -> None:
    batch = picture(112, 112, 1, count=3)
    torch.testing.assert_close(net(batch), torch.cat([net(one[None]) for one in batch]), atol=1e-5, rtol=1e-4)
    with pytest.raises(BadInput, match=r"not \(1, 3, 64, 64\): align them first"):
        net(batch[:1, :, :64, :64])
    with pytest.raises(BadInput, match="multiple of 16 px, not 100"):
        AdaFaceConfig(size=100)


@torch.no_grad()
def test_it_sees_what_sface_sees(net: AdaFace, tmp_path: Path) -> None:
    save_weights(
        tmp_path / "a.safetensors", net, architecture="adaface", config=asdict(SMALL), dtype=torch.float32
    )  # fmt: skip
    embed = load_embedder(tmp_path / "a.safetensors")
    assert isinstance(embed, AdaFaceEmbedder)
    faces = picture(128, 128, 3, count=2)
    bgr = torch.stack([torch.from_numpy(seen_by_sface(face)) for face in faces]).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(embed(faces), F.normalize(net(bgr)))
    assert (embed(faces)[0] - embed(faces)[1]).norm() > 0.01


def test_the_published_file_is_taken_without_its_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setitem(ARCHITECTURES, "adaface", replace(ARCHITECTURES["adaface"], configs=fixed(SMALL)))
    net = fill_module(AdaFace(SMALL))
    state = {f"model.{key}": value for key, value in net.state_dict().items()} | {"head.kernel": torch.zeros(512, 9)}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "adaface_ir50_ms1mv2.ckpt")
    done = import_files([tmp_path / "adaface_ir50_ms1mv2.ckpt"])
    assert (done.name, done.architecture) == ("adaface-ir50", "adaface")
    face = picture(128, 128, 3)
    torch.testing.assert_close(load_embedder("adaface-ir50")(face), AdaFaceEmbedder(net.eval())(face))
