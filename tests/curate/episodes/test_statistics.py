import numpy as np
import pytest

from blm.curate.episodes.statistics import axis_statistics, embodiment_statistics
from blm.schemas.embodiment import load_embodiment


def test_statistics_agree_with_numpy_over_the_concatenation():
    generator = np.random.default_rng(3)
    scales = np.array([1e-3, 1, 100, 5, 0.1, 1e4])
    parts = [
        generator.normal(50, 3, (length, 6)).astype(np.float32) * scales.astype(np.float32)
        for length in (400, 7)
    ]
    robot = load_embodiment("so100")
    found = embodiment_statistics(robot, 20.0, ("top",), [(part, part + 1) for part in parts])

    values = np.concatenate(parts).astype(np.float64)
    assert found.state.count == found.action.count == 407
    for name in ("mean", "std", "min", "max"):
        expected = getattr(values, name)(axis=0)
        np.testing.assert_allclose(getattr(found.state, name), expected, rtol=1e-6)
    for name, share in (("q01", 0.01), ("q99", 0.99)):
        np.testing.assert_allclose(getattr(found.state, name), np.quantile(values, share, axis=0), rtol=1e-6)
    assert found.axis_names == robot.axis_names
    assert found.gripper_index == 5


def test_known_values():
    found = axis_statistics(np.arange(101, dtype=np.float32)[:, None])
    assert (found.mean, found.min, found.max, found.q01, found.q99) == ((50,), (0,), (100,), (1,), (99,))
    assert found.std[0] == pytest.approx(np.sqrt(850), rel=1e-9)


def test_large_values_with_a_small_spread_keep_their_standard_deviation():
    column = 16384 + np.tile(np.array([0, 0.25], dtype=np.float32), 50_000)
    assert axis_statistics(column[:, None]).std[0] == pytest.approx(0.125, rel=1e-6)
