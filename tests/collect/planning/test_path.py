"""Smooth paths: exact ends, exact derivatives, straight lines stay straight, corners are rounded within reach."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.collect.planning.path import SmoothPath, joint_paces, smooth


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 9))
def test_ends_are_met_and_derivatives_match_finite_differences(seed, count):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    path = SmoothPath.through(points, pace_s=0.1)
    ends = path.at(np.array([0.0, path.length]))
    np.testing.assert_allclose(ends, points[[0, -1]], atol=1e-12)
    inside = np.linspace(0.05, path.length - 0.05, 17)
    inside = inside[np.abs(inside - np.round(inside)) > 1e-3]
    step = 1e-5
    for order in (1, 2):
        numeric = (path.at(inside + step, order - 1) - path.at(inside - step, order - 1)) / (2 * step)
        np.testing.assert_allclose(path.at(inside, order), numeric, atol=1e-6)


def test_second_derivative_is_continuous_across_pieces():
    points = np.random.default_rng(3).normal(size=(6, 2))
    path = SmoothPath.through(points, pace_s=0.1)
    knots = np.arange(1, int(path.length))
    np.testing.assert_allclose(path.at(knots - 1e-9, 2), path.at(knots + 1e-9, 2), atol=1e-6)


def test_a_straight_line_stays_straight():
    points = np.array([[0.0, 0.0], [1.0, 2.0]])
    path = smooth(points, joint_paces(points, np.ones(2)), np.ones(2), blend_s=0.3)
    curve = path.at(np.linspace(0, path.length, 50))
    np.testing.assert_allclose(curve[:, 1], 2 * curve[:, 0], atol=1e-12)


def test_rounding_leaves_the_path_alone_away_from_the_corner():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    path = smooth(points, joint_paces(points, np.ones(2)), np.full(2, 5.0), blend_s=0.2)
    curve = path.at(np.linspace(0, path.length, 400))
    to_corner = np.linalg.norm(curve - points[1], axis=1)
    away = curve[to_corner > 0.3]
    assert np.all(np.minimum(np.abs(away[:, 1]), np.abs(away[:, 0] - 1.0)) < 1e-6)
    assert 0.01 < to_corner.min() < 0.2
