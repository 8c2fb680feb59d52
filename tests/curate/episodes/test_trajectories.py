import numpy as np

from blm.curate.episodes.trajectories import signatures

SPANS = np.array([2.0, 10.0])


def test_points_lie_evenly_between_the_two_rows_as_fractions_of_the_range():
    state = np.array([[0, 0], [2, 10], [4, 20], [7, 0], [9, 90]], np.float32)
    found = signatures(state, np.array([0, 3]), np.array([2, 4]), SPANS, points=5)
    assert found.reshape(2, 5, 2).tolist() == [
        [[0, 0], [0.5, 0.5], [1, 1], [1.5, 1.5], [2, 2]],
        [[3.5, 0], [3.75, 2.25], [4, 4.5], [4.25, 6.75], [4.5, 9]],
    ]


def test_an_episode_of_one_row_stands_still():
    found = signatures(np.array([[1, 5]], np.float32), np.array([0]), np.array([0]), SPANS, points=3)
    assert found.tolist() == [[0.5, 0.5] * 3]


def test_points_on_and_beside_what_is_not_finite_are_nan():
    state = np.array([[0, 0], [np.inf, 1], [2, np.nan], [3, 3]], np.float32)
    with np.errstate(invalid="ignore"):
        found = signatures(state, np.array([0]), np.array([3]), np.ones(2), points=7).reshape(7, 2)
    assert np.isnan(found[:, 0]).tolist() == [True] * 4 + [False] * 3
    assert np.isnan(found[:, 1]).tolist() == [False] * 2 + [True] * 4 + [False]
    assert found[4:, 0].tolist() == [2, 2.5, 3]
