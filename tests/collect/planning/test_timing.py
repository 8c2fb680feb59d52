"""Time along a path: limits hold on the commands actually streamed, and motions start and end at rest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.collect.planning.path import joint_paces, smooth
from blm.collect.planning.timing import Limits, progress_at_rate
from blm.schemas.embodiment import embodiment_names, load_embodiment


def _streamed(robot: str, seed: int, corners: int, blend_s: float, speed: float) -> tuple[np.ndarray, Limits]:
    """Ticks (N, A) along a random polyline of the robot's axes, with three ticks of rest before and after."""
    embodiment = load_embodiment(robot)
    limits = Limits.of(embodiment)
    generator = np.random.default_rng(seed)
    ends = embodiment.to_model(np.stack([embodiment.column("lower"), embodiment.column("upper")]))
    points = generator.uniform(ends.min(axis=0), ends.max(axis=0), (corners, len(embodiment.axes)))
    path = smooth(points, joint_paces(points, limits.velocity), limits.acceleration, blend_s)
    progress = progress_at_rate(path, limits, embodiment.control_rate_hz, speed)
    ticks = path.at(np.concatenate([[0.0] * 3, progress, [path.length] * 3]))
    np.testing.assert_allclose(ticks[0], points[0], atol=1e-9)
    np.testing.assert_allclose(ticks[-1], points[-1], atol=1e-9)
    return ticks, limits


@settings(max_examples=40, deadline=None)
@given(
    robot=st.sampled_from(embodiment_names()),
    seed=st.integers(0, 2**32 - 1),
    corners=st.integers(2, 5),
    blend_s=st.sampled_from([0.0, 0.05, 0.3]),
    speed=st.floats(0.3, 1.0),
)
def test_streamed_commands_keep_every_limit_and_start_and_end_at_rest(robot, seed, corners, blend_s, speed):
    ticks, limits = _streamed(robot, seed, corners, blend_s, speed)
    rate = load_embodiment(robot).control_rate_hz
    bounds = (limits.velocity * speed, limits.acceleration * speed**2, limits.jerk * speed**3)
    for order, bound in enumerate(bounds, start=1):
        differences = np.abs(np.diff(ticks, n=order, axis=0)) * rate**order
        assert np.all(differences.max(axis=0) <= bound * (1 + 1e-6)), f"order {order}"


def test_a_straight_motion_uses_most_of_some_limit():
    embodiment = load_embodiment("so100")
    limits = Limits.of(embodiment)
    start = embodiment.to_model(embodiment.column("home"))
    end = start + np.array([1.0, 0, 0, 0, 0, 0])
    points = np.stack([start, end])
    path = smooth(points, joint_paces(points, limits.velocity), limits.acceleration)
    ticks = len(progress_at_rate(path, limits, rate_hz=1000))
    fastest = 1.0 / 2.5 + 2.5 / 12.0 + 12.0 / 120.0
    assert fastest <= ticks / 1000 <= 1.15 * fastest


def test_rounding_a_corner_is_faster_than_stopping_at_it():
    limits = Limits(np.full(2, 1.0), np.full(2, 5.0), np.full(2, 50.0))
    points = np.array([[0.0, 0.0], [0.5, 0.0], [1.0, 0.3]])

    def duration(corner_points: np.ndarray, blend_s: float) -> float:
        path = smooth(
            corner_points, joint_paces(corner_points, limits.velocity), limits.acceleration, blend_s
        )
        return len(progress_at_rate(path, limits, 1000)) / 1000

    assert duration(points, 0.3) < duration(points[:2], 0.0) + duration(points[1:], 0.0)


def test_no_length_takes_no_ticks_and_a_shortest_duration_is_kept():
    limits = Limits(np.ones(1), np.ones(1), np.ones(1))
    still = smooth(np.zeros((2, 1)), np.zeros(1), limits.acceleration)
    assert len(progress_at_rate(still, limits, 20)) == 0
    moving = smooth(np.array([[0.0], [0.001]]), np.array([0.001]), limits.acceleration)
    assert len(progress_at_rate(moving, limits, 20, at_least_s=1.0)) == 20


@pytest.mark.parametrize("rate", [20.0, 50.0])
def test_the_duration_hardly_depends_on_the_rate(rate):
    limits = Limits(np.full(1, 1.0), np.full(1, 5.0), np.full(1, 50.0))
    points = np.array([[0.0], [1.0]])
    path = smooth(points, joint_paces(points, limits.velocity), limits.acceleration)
    exact = len(progress_at_rate(path, limits, 1000)) / 1000
    assert exact <= len(progress_at_rate(path, limits, rate)) / rate + 1e-3 <= exact + 1 / rate + 2e-3
