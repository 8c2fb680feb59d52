import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from blm.curate.episodes.statistics import TrainingFrames, axis_statistics, embodiment_statistics
from blm.schemas.embodiment import load_embodiment


class Parts:
    """A source that gives samples in batches."""

    def __init__(self, *batches: list[np.ndarray]) -> None:
        self.batches = batches

    def __call__[Result](self, consume: Callable[[Iterator[TrainingFrames]], Result]) -> Result:
        return consume(map(self._frames, self.batches))

    @staticmethod
    def _frames(samples: list[np.ndarray]) -> TrainingFrames:
        starts = np.cumsum([0, *map(len, samples)])[:-1]
        values = np.concatenate(samples)
        return TrainingFrames(values, values + 1, starts)


def test_statistics_agree_with_numpy_over_the_concatenation():
    generator = np.random.default_rng(3)
    scales = np.array([1e-3, 1, 100, 5, 0.1, 1e4])
    parts = [
        generator.normal(50, 3, (length, 6)).astype(np.float32) * scales.astype(np.float32)
        for length in (400, 7, 90)
    ]
    robot = load_embodiment("so100")
    found = embodiment_statistics(robot, 20.0, ("top",), [Parts(parts[:2]), Parts(parts[2:])])

    values = np.concatenate(parts)
    for measured, given_values in ((found.state, values), (found.action, values + 1)):
        assert measured.count == 497
        wide = given_values.astype(np.float64)
        for name in ("mean", "std", "min", "max"):
            np.testing.assert_allclose(getattr(measured, name), getattr(wide, name)(axis=0), rtol=1e-9)
        for name, share in (("q01", 0.01), ("q99", 0.99)):
            np.testing.assert_allclose(getattr(measured, name), np.quantile(wide, share, axis=0), rtol=1e-9)
    assert found.axis_names == robot.axis_names
    assert found.gripper_index == 5


def test_no_digit_depends_on_how_samples_are_spread():
    generator = np.random.default_rng(4)
    samples = [generator.normal(0, 1, (length, 6)).astype(np.float32) for length in (30, 1, 200, 57, 8)]
    robot = load_embodiment("so100")
    spreads = [
        [Parts(samples)],
        [Parts([sample]) for sample in reversed(samples)],
        [Parts(samples[3:], samples[:1]), Parts(samples[1:3])],
    ]
    dumped = {json.dumps(embodiment_statistics(robot, 20.0, (), spread).model_dump()) for spread in spreads}
    assert len(dumped) == 1


@settings(max_examples=60)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 300), st.just(2)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([-0.0, 0.0, 1.0, -1.0]),
    )
)
def test_quantiles_and_extremes_are_exact(values):
    found = axis_statistics(values)
    wide = values.astype(np.float64)
    for name, expected in (
        ("q01", np.quantile(wide, 0.01, axis=0)),
        ("q99", np.quantile(wide, 0.99, axis=0)),
        ("min", wide.min(axis=0)),
        ("max", wide.max(axis=0)),
    ):
        tolerance = 1e-9 * np.abs(wide).max() if name.startswith("q") else 0
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-9, atol=tolerance)


def test_frames_that_are_not_finite_are_left_out():
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    broken = values.copy()
    broken[0, 1], broken[3, 0] = np.nan, np.inf
    robot = load_embodiment("so100")
    wide = np.repeat(broken, 3, axis=1)
    found = embodiment_statistics(robot, 20.0, (), [Parts([wide[:1], wide[1:3], wide[3:]])]).state
    assert found.count == 4
    assert found.mean[0] == pytest.approx(values[[1, 2, 4, 5], 0].mean())


def test_known_values():
    found = axis_statistics(np.arange(101, dtype=np.float32)[:, None])
    assert (found.mean, found.min, found.max, found.q01, found.q99) == ((50,), (0,), (100,), (1,), (99,))
    assert found.std[0] == pytest.approx(np.sqrt(850), rel=1e-9)


def test_large_values_with_a_small_spread_keep_their_standard_deviation():
    column = 16384 + np.tile(np.array([0, 0.25], dtype=np.float32), 50_000)
    assert axis_statistics(column[:, None]).std[0] == pytest.approx(0.125, rel=1e-6)
