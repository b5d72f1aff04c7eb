"""Faces become tracks, and landmarks move as the face does."""

import numpy as np
import pytest

from clips import face_at
from unfade.errors import BadInput
from unfade.faces.align import steady, to_template
from unfade.faces.detectors import Face
from unfade.faces.tracks import Tracks, TrackSettings

DEFAULT = TrackSettings()


def followed(faces_of, frames: int, settings: TrackSettings = DEFAULT) -> dict[int, dict[int, np.ndarray]]:
    """Landmarks by frame and track, each asked for as late as the settings allow and no later."""
    tracks, told = Tracks(settings), {}
    for newest in range(frames + settings.ahead):
        if newest < frames and newest % settings.every == 0:
            tracks.add(newest, faces_of(newest))
        if newest >= settings.ahead:
            told[newest - settings.ahead] = dict(tracks.at(newest - settings.ahead))
    return told


def test_noise_of_a_still_face_is_more_than_halved() -> None:
    rng = np.random.default_rng(0)
    told = followed(lambda i: [face_at(100, 100, 80, rng.normal(0, 1, (5, 2)))], 200)
    truth = face_at(100, 100, 80).points
    off = np.stack([told[i][0] - truth for i in range(10, 190)])
    steps = np.diff(off, axis=0)
    assert off.std() < 0.5
    assert steps.std() < 0.25  # of 1.41 before: what is seen as trembling


@pytest.mark.parametrize("speed", [3.0, 12.0])
def test_a_moving_face_has_no_lag(speed: float) -> None:
    told = followed(lambda i: [face_at(100 + speed * i, 100 - speed / 2 * i)], 60)
    for i in range(60):
        assert np.abs(told[i][0] - face_at(100 + speed * i, 100 - speed / 2 * i).points).max() < 1e-6


def test_a_face_that_starts_to_move_lags_by_less_than_a_frame() -> None:
    def place(i):
        return 100 + 6.0 * max(0, i - 30)

    told = followed(lambda i: [face_at(place(i), 100)], 60)
    off = max(np.abs(told[i][0] - face_at(place(i), 100).points).max() for i in range(60))
    assert 0 < off < 6.0


def test_two_faces_that_move_apart_are_two_tracks() -> None:
    told = followed(lambda i: [face_at(10 + i, 10), face_at(200 - i, 10)], 40)
    assert all(set(told[i]) == {0, 1} for i in range(40))
    assert all(told[i][0][0, 0] < told[i][1][0, 0] for i in range(40))


def test_gaps_of_a_few_frames_are_bridged_and_longer_ones_are_not() -> None:
    missing = {10, 11, 12, 13}
    told = followed(lambda i: [] if i in missing else [face_at(50 + 2 * i, 50)], 30)
    assert all(set(told[i]) == {0} for i in range(30))
    assert np.allclose(told[11][0], face_at(72, 50).points)
    told = followed(lambda i: [] if i in {*missing, 14} else [face_at(50 + 2 * i, 50)], 30)
    assert [set(told[i]) for i in (9, 10, 14, 15)] == [{0}, set(), set(), {1}]


def test_a_face_in_a_single_frame_is_dropped() -> None:
    told = followed(lambda i: [face_at(50, 50)] if i == 7 else [], 20)
    assert not any(told.values())
    assert set(followed(lambda i: [face_at(50, 50)], 1)[0]) == {0}  # a video of one frame


def test_a_face_that_is_taken_for_one_upside_down_does_not_turn_the_track() -> None:
    upright = face_at(50, 50)
    over = Face(upright.box, upright.points[[1, 0, 2, 4, 3]], 0.9)
    told = followed(lambda i: [over if i == 10 else upright], 20)
    assert all(np.allclose(told[i][0], upright.points) for i in range(20))
    assert [len(told[i]) for i in range(20)] == [1] * 20


def test_a_cut_ends_all_tracks_and_nothing_is_smoothed_across_it() -> None:
    tracks, told = Tracks(DEFAULT), {}
    for i in range(20):
        if i == 10:
            tracks.cut()
        tracks.add(i, [face_at(50 if i < 10 else 60, 50)])
        told[i - DEFAULT.ahead] = dict(tracks.at(i - DEFAULT.ahead))
    assert [set(told[i]) for i in (9, 10)] == [{0}, {1}]
    assert np.allclose(told[9][0], face_at(50, 50).points)
    assert np.allclose(told[10][1], face_at(60, 50).points)


def test_frames_between_searched_ones_are_interpolated() -> None:
    told = followed(lambda i: [face_at(50 + 4 * i, 50)], 31, TrackSettings(every=3))
    for i in range(31):
        assert np.abs(told[i][0] - face_at(50 + 4 * i, 50).points).max() < 1e-6


def test_a_frame_is_expected_or_not() -> None:
    tracks = Tracks(DEFAULT)
    tracks.add(0, [face_at(50, 50)])
    assert tracks.expect(1, [face_at(52, 50)])
    assert not tracks.expect(1, [])
    assert not tracks.expect(1, [face_at(52, 50), face_at(150, 50)])


def test_little_is_remembered() -> None:
    tracks = Tracks(DEFAULT)
    for i in range(500):
        tracks.add(i, [face_at(50, 50)] if i % 50 < 30 else [])
        assert len(tracks._tracks) <= 1
        assert all(len(track.seen) <= DEFAULT.ahead + DEFAULT.window + 1 for track in tracks._tracks)


def test_the_similarity_is_that_of_five_exact_landmarks() -> None:
    points = face_at(31, 47, 83).points @ np.array([(0.8, 0.3), (-0.3, 0.8)])
    assert np.allclose(steady(points, 512), to_template(points, 512), atol=1e-4)
    with pytest.raises(BadInput, match="no face fits"):
        steady(np.zeros((5, 2)), 512)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"gap": -1}, {"window": -1}, {"least": 0}, {"overlap": 1.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float] | dict[str, int]) -> None:
    with pytest.raises(BadInput):
        TrackSettings(**wrong)
