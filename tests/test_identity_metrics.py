"""The identity angle: recorded angles, and faces read as the published script reads them."""

import numpy as np
import pytest
import torch

from recorded import arrays, fill_module, image_u8, picture
from unfade.images.files import from_bytes
from unfade.metrics.identity import IdentityAngle, identity_angle, published_angles
from unfade.nets.arcface import ArcFace, ArcFaceConfig

GOLDEN = arrays("metrics_deg_lmd")
TINY = ArcFaceConfig(size=32, width=4, blocks=(1, 1, 1, 1), embedding=8)


def test_angles_are_the_recorded_ones() -> None:
    angles = identity_angle(torch.from_numpy(GOLDEN["emb_restored"]), torch.from_numpy(GOLDEN["emb_gt"]))
    np.testing.assert_allclose(angles.numpy(), GOLDEN["deg"], atol=1e-4, rtol=0)
    kept = published_angles(angles.tolist())
    assert len(kept) == 5
    assert np.mean(kept) == pytest.approx(float(GOLDEN["deg_mean_excluding_below_1"]), abs=1e-4)


def test_angles_by_hand() -> None:
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    other = torch.tensor([[0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(identity_angle(one, other), [90, 180, 45], atol=1e-6)
    with pytest.raises(ValueError, match="one shape"):
        identity_angle(one, other[:2])


@torch.no_grad()
def test_faces_from_files_have_the_published_angle() -> None:
    angle = IdentityAngle(fill_module(ArcFace()))
    one, other = (from_bytes(image_u8(512, 512, seed))[None] for seed in (51, 52))
    golden = arrays("arcface18")
    assert angle(one, other).item() == pytest.approx(float(golden["vqfr_deg"]), abs=1e-2)


def test_equal_faces_have_no_angle_and_a_batch_is_its_parts() -> None:
    angle = IdentityAngle(fill_module(ArcFace(TINY)))
    a, b = picture(64, 64, 3, count=3), picture(64, 64, 13, count=3)
    assert angle(a, a).max() < 1e-3
    alone = torch.cat([angle(x[None], y[None]) for x, y in zip(a, b, strict=True)])
    assert alone.min() > 0
    torch.testing.assert_close(angle(a, b), alone, rtol=1e-3, atol=1e-3)
    assert angle.net.training is False
