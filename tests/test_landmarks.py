"""Landmarks from heat maps, and their mean distance: exactly the recorded ones."""

import numpy as np
import pytest
import torch

from recorded import arrays
from unfade.metrics.landmarks import decode, landmark_distance

GOLDEN = arrays("metrics_deg_lmd")


def recorded_maps() -> torch.Tensor:
    """Maps that have the recorded maximum and neighbours, for those are all that decoding looks at."""
    maps = np.full((98, 66, 66), -100.0, np.float32)  # a margin, for neighbours outside
    y, x = np.divmod(GOLDEN["heatmap_argmax"], 64)
    points = np.arange(98)
    maps[points, y + 1, x + 1] = 100
    for (dx, dy), values in zip(
        [(1, 0), (-1, 0), (0, 1), (0, -1)], GOLDEN["heatmap_neighbours_right_left_down_up"].T, strict=True
    ):
        maps[points, y + 1 + dy, x + 1 + dx] = values
    return torch.from_numpy(maps[None, :, 1:-1, 1:-1])


def test_points_are_the_recorded_ones() -> None:
    points = decode(recorded_maps())
    assert points.dtype == torch.float64
    np.testing.assert_array_equal(points[0].numpy(), GOLDEN["points_64"])
    np.testing.assert_array_equal(points[0].numpy() * (512 / 64), GOLDEN["points_512"])


def test_distances_are_the_recorded_ones() -> None:
    distances = landmark_distance(torch.from_numpy(GOLDEN["lm_restored"]), torch.from_numpy(GOLDEN["lm_gt"]))
    np.testing.assert_allclose(distances.numpy(), GOLDEN["lmd"], rtol=1e-14)
    assert distances.mean().item() == pytest.approx(float(GOLDEN["lmd_mean"]), rel=1e-14)


def test_a_maximum_leans_to_its_higher_neighbour() -> None:
    heat = torch.zeros(1, 4, 8, 8)
    heat[0, :, 3, 5] = 1
    heat[0, 0, 3, 6] = heat[0, 1, 3, 4] = heat[0, 2, 2, 5] = 0.5
    assert decode(heat)[0].tolist() == [[5.75, 3.5], [5.25, 3.5], [5.5, 3.25], [5.5, 3.5]]


def test_a_map_without_numbers_has_no_place() -> None:
    heat = torch.zeros(1, 2, 8, 8)
    heat[0, 1, 0, 0] = torch.nan
    assert decode(heat).isnan().tolist() == [[[False, False], [True, True]]]


@pytest.mark.parametrize(("x", "y"), [(0, 3), (7, 3), (3, 0), (3, 7), (0, 0), (7, 7)])
def test_at_the_border_nothing_leans(x: int, y: int) -> None:
    heat = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    heat[0, 0, y, x] = 2
    assert decode(heat)[0].tolist() == [[x + 0.5, y + 0.5]]


def test_distance_by_hand_and_wrong_shapes() -> None:
    still = torch.zeros(2, 3, 2)
    assert landmark_distance(still, still).tolist() == [0, 0]
    assert landmark_distance(still + torch.tensor([3.0, 4.0]), still).tolist() == [5, 5]
    with pytest.raises(ValueError, match="points of one shape"):
        landmark_distance(still, still[:, :2])
    with pytest.raises(ValueError, match="heat maps"):
        decode(torch.zeros(3, 8, 8))
