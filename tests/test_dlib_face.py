"""The built-in face embedding: parity with dlib, recorded and live, and the chip that stands for dlib's alignment."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recorded import arrays, image_u8, picture
from unfade.errors import BadInput
from unfade.faces.align import TEMPLATE, scale_of
from unfade.faces.chips import FOUND, MEAN_FACE, chips_of, to_chip
from unfade.faces.identity import DLIB_LIMIT, likeness, load_embedder
from unfade.images.files import from_bytes, read_image, to_bytes
from unfade.images.finding import list_images
from unfade.nets.dlib_face import SIDE, DlibFace, padded_sum
from unfade.store.checkpoints import load_state, read_card, read_weights, sha256_of
from unfade.zoo.models import MODELS, path_of

SHARED = Path(os.environ.get("UNFADE_SHARED", Path(__file__).parents[2] / "shared"))
FACES = SHARED / "faces" / "val" / "basemax"  # of people who do not exist, aligned as FFHQ
ROUNDING = 1e-3  # of the embedding: the weights are kept in 16 bits, which moves it by 3e-4
needs_dlib = pytest.mark.skipif(
    not (find_spec("dlib") and find_spec("face_recognition_models") and FACES.exists()),
    reason="needs dlib-bin and face_recognition_models, and the shared folder beside the repository",
)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    path = path_of(MODELS["dlib-face"])
    net = DlibFace().eval()
    load_state(net, read_weights(path).state, path)
    return net


# The network


@torch.no_grad()
def test_the_embedding_is_dlibs(net: nn.Module) -> None:
    chips = torch.stack([from_bytes(image_u8(SIDE, SIDE, seed)) for seed in (61, 62)])
    torch.testing.assert_close(net(chips), torch.from_numpy(arrays("dlib_face")["embedding"]), atol=ROUNDING, rtol=0)


@torch.no_grad()
def test_a_batch_is_its_chips_and_other_sizes_are_refused(net: nn.Module) -> None:
    batch = picture(SIDE, SIDE, 1, count=3)
    torch.testing.assert_close(net(batch), torch.cat([net(chip[None]) for chip in batch]), atol=1e-5, rtol=1e-4)
    with pytest.raises(BadInput, match=r"not \(3, 3, 128, 128\): align first"):
        net(batch[..., :128, :128])


def test_it_has_the_published_layers() -> None:
    with torch.device("meta"):
        net = DlibFace()
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 29
    assert sum(conv.stride == (2, 2) for conv in convolutions) == 5
    assert (net.last.in_features, net.last.out_features) == (256, 128)


def test_what_is_smaller_is_padded_behind() -> None:
    one, other = torch.ones(2, 3, 3, 3), torch.ones(2, 1, 4, 4)
    both = padded_sum(one, other)
    assert both.shape == (2, 3, 4, 4)
    assert torch.equal(both[:, :1, :3, :3], torch.full((2, 1, 3, 3), 2.0))
    assert torch.equal(both[:, 1:, :3, :3], torch.ones(2, 2, 3, 3))
    assert both[:, 0, 3].sum() == both[:, 0, :, 3].sum() == 8
    assert both[:, 1:, 3].abs().max() == both[:, 1:, :, 3].abs().max() == 0


def test_it_comes_with_a_card() -> None:
    path = path_of(MODELS["dlib-face"])
    card = read_card(path)
    assert card["sha256"] == sha256_of(path)
    assert card["licence"] == MODELS["dlib-face"].licence
    assert card["parameters"] == sum(value.numel() for value in DlibFace().parameters())
    assert all(card[field] for field in ("licence_reason", "source", "data", "intended_use", "not_for"))


# The chip


def test_the_mean_face_lies_where_dlib_would_put_it() -> None:
    landed = FOUND @ to_chip(512)[:, :2].T + to_chip(512)[:, 2]
    np.testing.assert_allclose(landed, (MEAN_FACE + 0.25) / 1.5 * SIDE, atol=1.5)
    eyes = TEMPLATE[:2] @ to_chip(512)[:, :2].T + to_chip(512)[:, 2]
    assert eyes[1, 0] - eyes[0, 0] == pytest.approx(52.6, abs=0.5), "px, by the mean face's corners of the eyes"
    assert scale_of(to_chip(128)) == pytest.approx(4 * scale_of(to_chip(512)))


@pytest.mark.parametrize("size", [96, 128, 512])
def test_landmarks_arrive_on_the_chip(size: int) -> None:
    y, x = np.mgrid[:size, :size]
    drawn, radius = np.zeros((1, 3, size, size), np.float32), size / 80
    points = (TEMPLATE + 0.5) * (size / 512) - 0.5
    for px, py in points:
        drawn += np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2)).astype(np.float32)
    (chip,) = (chips_of(torch.from_numpy(drawn) * 2 - 1).numpy() + 1) / 2
    assert chip.shape == (3, SIDE, SIDE)
    for ex, ey in points @ to_chip(size)[:, :2].T + to_chip(size)[:, 2]:
        left, top = int(ex) - 6, int(ey) - 6
        spot = chip[0, top : top + 14, left : left + 14]
        v, u = np.mgrid[:14, :14]
        centre = left + (u * spot).sum() / spot.sum(), top + (v * spot).sum() / spot.sum()
        np.testing.assert_allclose(centre, (ex, ey), atol=0.2)


def test_chips_are_antialiased_and_keep_a_colour() -> None:
    fine = torch.from_numpy(np.indices((512, 512)).sum(0) % 2 * 2.0 - 1).float().expand(1, 3, -1, -1)
    assert chips_of(fine).abs().max() < 0.02
    plain = torch.tensor([0.5, -0.25, 1.0])[None, :, None, None].expand(2, 3, 128, 128)
    torch.testing.assert_close(chips_of(plain), plain[..., :1, :1].expand(2, 3, SIDE, SIDE))


# The distance


def test_a_face_is_itself_and_a_batch_is_its_faces() -> None:
    embedder, faces = load_embedder(), picture(128, 128, 3, count=2)
    alone = torch.cat([embedder(face[None]) for face in faces])
    torch.testing.assert_close(embedder(faces), alone, atol=1e-5, rtol=1e-4)
    alike = likeness(embedder)
    assert alike.limit == DLIB_LIMIT
    assert alike.distance(faces[0], faces[0]) == 0
    assert alike.distance(*faces) == pytest.approx(float((alone[0] - alone[1]).norm()), abs=1e-5)


# dlib itself


@pytest.fixture(scope="module")
def cut() -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Faces where dlib finds one, its chips of them, and its embeddings of these (N, 128)."""
    import dlib  # not among the requirements

    spec: Any = find_spec("face_recognition_models")
    models = Path(spec.submodule_search_locations[0]) / "models"
    detect = dlib.get_frontal_face_detector()
    landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
    embed = dlib.face_recognition_model_v1(str(models / "dlib_face_recognition_resnet_model_v1.dat"))
    faces, chips, vectors = [], [], []
    for path in list_images(FACES)[:24]:
        pixels = to_bytes(read_image(path))
        for box in detect(pixels, 1)[:1]:
            chip = dlib.get_face_chip(pixels, landmarks(pixels, box), SIDE, 0.25)
            faces.append(read_image(path))
            chips.append(from_bytes(chip))
            vectors.append(torch.tensor(embed.compute_face_descriptor(chip), dtype=torch.float32))
    return faces, chips, torch.stack(vectors)


@pytest.mark.shared
@needs_dlib
@torch.no_grad()
def test_embeddings_of_the_chips_are_those_of_dlib(
    net: nn.Module, cut: tuple[list[Tensor], list[Tensor], Tensor]
) -> None:
    _, chips, vectors = cut
    torch.testing.assert_close(net(torch.stack(chips)), vectors, atol=ROUNDING, rtol=0)


@pytest.mark.shared
@needs_dlib
def test_one_fixed_chip_does_for_dlibs_own(cut: tuple[list[Tensor], list[Tensor], Tensor]) -> None:
    faces, _, vectors = cut
    assert len(faces) >= 20
    found = load_embedder()(torch.stack(faces))
    assert (found - vectors).norm(dim=1).median() < 0.2, "0.13 over more faces"
    assert (found - vectors).norm(dim=1).max() < 0.35
    others = torch.pdist(found)
    assert 0.7 < others.median() < 0.9
    assert (others < DLIB_LIMIT).float().mean() < 0.1
