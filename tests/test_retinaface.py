"""RetinaFace: parity of both backbones, priors, decoding, and which of overlapping boxes are kept."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recorded import arrays, fill_module, image_u8, manifest, subsampled
from unfade.errors import BadInput
from unfade.images.files import from_bytes, read_image, to_bytes
from unfade.nets.retinaface import (
    MOBILENET025,
    RESNET50,
    RetinaFace,
    RetinaFaceConfig,
    RetinaFaceSettings,
    decode_boxes,
    decode_points,
    detect,
    overlaps,
    priors,
    suppress,
)

SHARED = Path(os.environ.get("UNFADE_SHARED", Path(__file__).parents[2] / "shared"))
WEIGHTS = SHARED / "weights" / "retinaface_mobilenet0.25.pth"
shared = [
    pytest.mark.shared,
    pytest.mark.skipif(not WEIGHTS.exists(), reason="needs the shared folder beside the repository"),
]
TINY = {
    "resnet50": RetinaFaceConfig(width=2, features=8),
    "mobilenet": RetinaFaceConfig(backbone="mobilenet", width=2, features=8),
}


def assert_samples(golden, name: str, values, tolerance: float):
    assert values.numel() == golden[f"{name}.shape"].prod()
    sampled = subsampled(values, golden, name)
    torch.testing.assert_close(sampled, torch.from_numpy(golden[f"{name}.vals"]), atol=tolerance, rtol=0)


def both_classes(scores):
    return torch.stack([1 - scores, scores], dim=-1)


@pytest.fixture(scope="module")
def filled():
    """Offsets of the filled ResNet-50 on the recorded picture."""
    with torch.no_grad():
        return fill_module(RetinaFace()).eval()(from_bytes(image_u8(320, 256, 61))[None])


@pytest.fixture(scope="module")
def trained():
    net = RetinaFace(MOBILENET025)
    state = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
    net.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return net.eval()


@pytest.mark.parametrize(("name", "config"), [("mobilenet025", MOBILENET025), ("resnet50", RESNET50)])
def test_keys_are_the_published_ones(name: str, config) -> None:
    with torch.device("meta"):
        net = RetinaFace(config)
    expected = manifest(f"manifest_retinaface_{name}")
    state = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in net.state_dict().items()
    }
    assert state == {key.removeprefix("module."): value[:2] for key, value in expected["keys"].items()}
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"]


def test_output_is_the_published_one(filled) -> None:
    golden = arrays("retinaface_resnet50")
    assert_samples(golden, "loc", filled.boxes, 5e-4)
    assert_samples(golden, "conf", both_classes(filled.scores), 1e-4)
    assert_samples(golden, "landms", filled.points, 5e-4)


def test_priors_and_decoding_are_the_published_ones(filled) -> None:
    golden, anchors = arrays("retinaface_resnet50"), priors(320, 256, anchors=RESNET50.anchors)
    assert_samples(golden, "priors", anchors, 0)
    assert_samples(golden, "decoded_landms", decode_points(filled.points[0], anchors), 1e-4)
    boxes = subsampled(decode_boxes(filled.boxes[0], anchors), golden, "decoded_boxes")
    # exp() of offsets up to 60 reaches 5000: relative there
    torch.testing.assert_close(boxes, torch.from_numpy(golden["decoded_boxes.vals"]), atol=1e-4, rtol=2e-4)


@pytest.mark.parametrize("number", [pytest.param(k, marks=shared) for k in range(3)])
def test_faces_in_photos_are_the_published_ones(trained, number: int) -> None:
    golden = {key.removeprefix(f"{number}."): value for key, value in arrays("retinaface_mobilenet025").items()}
    photo = read_image(SHARED / "photos" / "whole" / str(golden["pictures"][number]))[None]
    assert list(photo.shape[-2:]) == golden["shape"][:2].tolist()
    if to_bytes(photo[0])[..., ::-1].sum((0, 1)).tolist() != golden["bgr_sum"].tolist():
        pytest.skip("another JPEG decoder than the recorded one")
    with torch.no_grad():
        offsets = trained(photo)
    assert_samples(golden, "loc", offsets.boxes, 1e-4)
    assert_samples(golden, "conf", both_classes(offsets.scores), 1e-5)
    assert_samples(golden, "landms_raw", offsets.points, 2e-4)
    assert_samples(golden, "priors", priors(*photo.shape[-2:], anchors=MOBILENET025.anchors), 0)
    for name, min_score in (("dets_all", 0.02), ("dets_0.6", 0.6)):
        (faces,) = detect(trained, photo, settings=RetinaFaceSettings(min_score=min_score))
        rows, expected = torch.cat([faces.boxes, faces.points.flatten(1)], dim=1), torch.from_numpy(golden[name])
        torch.testing.assert_close(faces.scores, expected[:, 4], atol=1e-4, rtol=0)
        torch.testing.assert_close(rows, expected[:, [0, 1, 2, 3, *range(5, 15)]], atol=2e-2, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("backbone", TINY)
@pytest.mark.parametrize("size", [(64, 64), (33, 70), (8, 8)])
def test_any_size_has_one_prior_for_each_prediction(backbone, size: tuple[int, ...]) -> None:
    net = fill_module(RetinaFace(TINY[backbone])).eval()
    offsets = net(torch.zeros(2, 3, *size))
    count = len(priors(*size, anchors=RESNET50.anchors))
    assert offsets.boxes.shape == (2, count, 4)
    assert offsets.scores.shape == (2, count)
    assert offsets.points.shape == (2, count, 10)


def test_priors_are_squares_around_their_cells() -> None:
    height, width = 40, 64
    anchors = priors(height, width, anchors=RESNET50.anchors) * torch.tensor([width, height, width, height])
    assert len(anchors) == 2 * (5 * 8 + 3 * 4 + 2 * 2)
    assert anchors[0].tolist() == [4, 4, 16, 16]
    assert anchors[1].tolist() == [4, 4, 32, 32]
    assert anchors[2].tolist() == [12, 4, 16, 16]
    torch.testing.assert_close(anchors[-1], torch.tensor([48.0, 48.0, 512.0, 512.0]))


def test_no_offset_is_the_prior_itself() -> None:
    anchors = priors(32, 32, anchors=RESNET50.anchors)
    boxes = decode_boxes(torch.zeros(len(anchors), 4), anchors)
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, anchors[:, :2])
    torch.testing.assert_close(boxes[:, 2:] - boxes[:, :2], anchors[:, 2:])
    points = decode_points(torch.zeros(len(anchors), 10), anchors)
    assert torch.equal(points, anchors[:, None, :2].expand(-1, 5, -1))


def test_overlap_counts_the_last_pixel() -> None:
    box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    others = torch.tensor(
        [[0.0, 0.0, 9.0, 9.0], [5.0, 0.0, 14.0, 9.0], [10.0, 0.0, 19.0, 9.0], [50.0, 50.0, 59.0, 59.0]]
    )
    torch.testing.assert_close(overlaps(box, others), torch.tensor([1.0, 50 / 150, 0.0, 0.0]))


def test_the_most_probable_of_overlapping_boxes_is_kept() -> None:
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 0.0, 10.0, 9.0], [30.0, 0.0, 39.0, 9.0], [5.0, 0.0, 14.0, 9.0]])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.4])
    assert suppress(boxes, scores, overlap=0.5).tolist() == [1, 2, 3]
    assert suppress(boxes, scores, overlap=0.2).tolist() == [1, 2]
    assert suppress(boxes, scores, overlap=1.0).tolist() == [1, 2, 0, 3]


def test_a_box_only_suppresses_while_it_is_kept() -> None:
    chain = torch.tensor([[0.0, 0.0, 9.0, 9.0], [4.0, 0.0, 13.0, 9.0], [8.0, 0.0, 17.0, 9.0]])
    assert suppress(chain, torch.tensor([0.9, 0.8, 0.7]), overlap=0.3).tolist() == [0, 2]


def test_of_equal_scores_the_first_is_kept() -> None:
    assert suppress(torch.zeros(4, 4), torch.ones(4)).tolist() == [0]


def test_no_box_is_kept_of_none() -> None:
    assert suppress(torch.zeros(0, 4), torch.zeros(0)).tolist() == []


def test_boxes_have_the_scale_of_the_configured_anchors() -> None:
    small = replace(TINY["mobilenet"], anchors=((1, 2), (4, 8), (16, 32)))
    nets = [fill_module(RetinaFace(config)).eval() for config in (small, TINY["mobilenet"])]
    everything = RetinaFaceSettings(min_score=0.0, overlap=1.0)
    sides = []
    for net in nets:
        (faces,) = detect(net, torch.zeros(1, 3, 32, 32), settings=everything)
        sides.append(faces.boxes[:, 2:] - faces.boxes[:, :2])
    torch.testing.assert_close(sides[1], 16 * sides[0])


def test_a_photo_without_a_face_gives_empty_results() -> None:
    net = fill_module(RetinaFace(TINY["mobilenet"])).eval()
    first, second = detect(net, torch.zeros(2, 3, 32, 32), settings=RetinaFaceSettings(min_score=1.0))
    for faces in (first, second):
        assert (faces.boxes.shape, faces.scores.shape, faces.points.shape) == ((0, 4), (0,), (0, 5, 2))


@pytest.mark.parametrize("fields", [{"backbone": "vgg"}, {"features": 6}])
def test_impossible_shapes_are_refused(fields: dict[str, int] | dict[str, str]) -> None:
    with pytest.raises(BadInput):
        RetinaFaceConfig(**fields)


def test_a_photo_without_a_batch_is_refused() -> None:
    with pytest.raises(BadInput, match="batch dimension"):
        RetinaFace(TINY["mobilenet"])(torch.zeros(3, 32, 32))


def test_thresholds_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(BadInput, match="80"):
        RetinaFaceSettings(min_score=80)
