"""The face embedding: parity with the published network and with both ways in which its input is made."""

import cv2
import numpy as np
import pytest
import torch

from recorded import arrays, fill_module, image_u8, manifest, picture, subsampled
from unfade.errors import BadInput
from unfade.nets.arcface import ArcFace, ArcFaceConfig, grey

TINY = ArcFaceConfig(size=32, width=4, blocks=(1, 1, 1, 1), embedding=8)


@pytest.fixture(scope="module")
def net():
    return fill_module(ArcFace()).eval()


def degrees(embeddings):
    cosine = torch.nn.functional.cosine_similarity(*embeddings.double(), dim=0)
    return float(cosine.arccos().rad2deg())


def test_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = ArcFace()
    expected = manifest("manifest_arcface_resnet18")
    state = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in net.state_dict().items()
    }
    assert state == {key.removeprefix("module."): value[:2] for key, value in expected["keys"].items()}
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


@torch.no_grad()
def test_embedding_is_the_published_one(net: ArcFace) -> None:
    golden = arrays("arcface18")
    face = grey(picture(512, 512, 51, count=2))
    assert list(face.shape) == golden["gray128.shape"].tolist()
    sampled = subsampled(face, golden, "gray128")
    torch.testing.assert_close(sampled, torch.from_numpy(golden["gray128.vals"]), atol=1e-6, rtol=0)
    embedding = net(face)
    torch.testing.assert_close(embedding, torch.from_numpy(golden["embedding"]), atol=1e-4, rtol=0)
    assert degrees(embedding) == pytest.approx(float(golden["deg"]), abs=1e-2)


@torch.no_grad()
def test_embedding_of_files_read_as_the_published_metric_does(net: ArcFace) -> None:
    golden = arrays("arcface18")
    greys = [cv2.cvtColor(image_u8(512, 512, seed), cv2.COLOR_RGB2GRAY) for seed in (51, 52)]
    small = np.stack([cv2.resize(g, (128, 128), interpolation=cv2.INTER_LINEAR) for g in greys])
    embedding = net((torch.from_numpy(small)[:, None].float() - 127.5) / 127.5)
    torch.testing.assert_close(embedding, torch.from_numpy(golden["vqfr_embedding"]), atol=1e-4, rtol=0)
    assert degrees(embedding) == pytest.approx(float(golden["vqfr_deg"]), abs=1e-2)


@torch.no_grad()
def test_each_face_of_a_batch_is_embedded_alone() -> None:
    tiny, faces = fill_module(ArcFace(TINY)).eval(), grey(picture(64, 64, 3, count=3), 32)
    alone = torch.cat([tiny(face[None]) for face in faces])
    assert alone.shape == (3, 8)
    torch.testing.assert_close(tiny(faces), alone, atol=1e-5, rtol=1e-5)


def test_grey_of_a_grey_picture_is_itself() -> None:
    level = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(grey(level.expand(1, 3, 16, 16), 16), level, atol=2e-4, rtol=0)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 1, 64, 64)])
def test_another_input_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="use grey first"):
        ArcFace(TINY)(torch.zeros(shape))


def test_a_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(BadInput, match="multiple of 16"):
        ArcFaceConfig(size=100)
