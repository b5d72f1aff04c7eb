"""The features of FID and KID: keys and numbers of the published network, and how pictures come to it."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from recorded import arrays, fill_module, image_u8, manifest, picture
from unfade.errors import BadCheckpoint
from unfade.nets.inception import SEEN, Inception, InceptionConfig, inception_state, seen
from unfade.zoo.architectures import ARCHITECTURES
from unfade.zoo.convert import recognise

TINY = InceptionConfig(width=1 / 16)


def lively(net: nn.Module) -> nn.Module:
    """Filled weights, and convolutions that keep the deviation through ReLU: otherwise all pictures look alike."""
    fill_module(net)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Conv2d):
                part.weight *= 2**0.5
    return net.eval()


def levels() -> torch.Tensor:
    """Two pictures that need no resizing, as bytes."""
    return torch.from_numpy(np.stack([image_u8(SEEN, SEEN, seed) for seed in (71, 72)])).permute(0, 3, 1, 2)


def as_tensorflow(bytes_: torch.Tensor) -> torch.Tensor:
    """How the recorded network brings bytes to its range; ours divides by 127.5."""
    return (bytes_.float() - 128) / 128


def test_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        net = Inception()
    expected = manifest("manifest_inception_fid")
    state = {k: [list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in net.state_dict().items()}
    assert state == expected["keys"]
    assert sum(p.numel() for p in net.parameters()) == expected["n_params"] == 23_850_960


@torch.no_grad()
def test_features_are_the_published_ones() -> None:
    """Recorded from torch-fidelity. A pooling that counts its padding is off by 4 %, one kind for both by 11 %."""
    features = lively(Inception())(as_tensorflow(levels()))
    want = torch.from_numpy(arrays("inception_fid")["features"])
    assert (features - want).norm() < 1e-5 * want.norm()
    assert ((features[0] - features[1]) - (want[0] - want[1])).norm() < 1e-3 * (want[0] - want[1]).norm()


@torch.no_grad()
def test_features_and_distance_equal_torch_fidelity(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle_of = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
        distance_of = pytest.importorskip("torch_fidelity.metric_fid").fid_statistics_to_metric
        net = lively(Inception())
        torch.save(net.state_dict(), tmp_path / "weights.pth")
        oracle = oracle_of("inception-v3-compat", ["2048"], str(tmp_path / "weights.pth")).eval()
        pictures = torch.cat([levels(), levels().flip(3), levels().flip(2)])
        features, want = net(as_tensorflow(pictures)), oracle(pictures)[0]
        assert (features - want).norm() < 1e-5 * want.norm()
        moments = [
            {"mu": w.mean(0), "sigma": np.cov(w.T)} for w in (want[:3].double().numpy(), want[3:].double().numpy())
        ]
        theirs = distance_of(*moments, verbose=False)["frechet_inception_distance"]
    from unfade.metrics.distribution import frechet_distance, statistics

    ours = frechet_distance(statistics(features[:3].numpy()), statistics(features[3:].numpy()))
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_a_picture_of_another_size_is_resized_bilinearly() -> None:
    small = picture(64, 48, 3)
    assert seen(small).shape == (1, 3, SEEN, SEEN)
    right = picture(SEEN, SEEN, 3)
    assert torch.equal(seen(right), right)
    with torch.no_grad():
        net = lively(Inception(TINY))
        assert torch.equal(net(small), net(seen(small)))
        alone = torch.cat([net(seen(image)) for image in (small, right)])
        torch.testing.assert_close(net(torch.cat([seen(small), right])), alone, rtol=1e-4, atol=1e-5)


def test_width_scales_the_features() -> None:
    assert TINY.features == 128
    assert lively(Inception(TINY))(picture(75, 75, 1)).shape == (1, 128)


def test_the_published_file_is_recognised() -> None:
    with torch.device("meta"):
        state = Inception().state_dict()
    assert recognise(state, [Path("a.pth")]).architecture == "inception"
    older = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    assert recognise(older, [Path("a.pth")]).state.keys() == state.keys()
    assert inception_state(state).keys() == state.keys()
    assert ARCHITECTURES["inception"].kind == "features"


def test_the_classifier_of_imagenet_is_not_taken_for_it() -> None:
    with torch.device("meta"):
        state = Inception(InceptionConfig(classes=1000)).state_dict()
    with pytest.raises(BadCheckpoint, match=r"looks like a inception, but fc\.(weight|bias) has shape \(1000"):
        recognise(state, [Path("a.pth")])
