from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from blm.schemas.errors import CheckpointError, UnknownNameError
from blm.train.shard_reader import ShardBuild, Windows
from blm.train.transforms import AxisTransform, Ranges, Transforms, fit_transforms, read_transforms
from tests.train.stage2_builds import make_build


def transforms(relative: bool = True, clip: float = 1e6) -> Transforms:
    def axes(name: str, count: int, gripper: int) -> AxisTransform:
        low = tuple(-10.0 * (i + 1) for i in range(count))
        return AxisTransform(
            embodiment=name,
            axis_names=tuple(f"a{i}.pos" for i in range(count)),
            gripper_index=gripper,
            rate_hz=20,
            state=Ranges(low=low, high=tuple(20.0 - value for value in low)),
            action=Ranges(low=low, high=tuple(5.0 - value for value in low)),
        )

    return Transforms(embodiments=(axes("first", 3, 2), axes("second", 5, 0)), relative=relative, clip=clip)


values = st.floats(-200, 200, width=32)


@given(
    arrays(np.float32, (2, 4, 5), elements=values), arrays(np.float32, (2, 5), elements=values), st.booleans()
)
def test_actions_come_back_and_nothing_is_mutated(
    action: np.ndarray, state: np.ndarray, relative: bool
) -> None:
    both = transforms(relative)
    embodiment = np.array([0, 1])
    action[0, :, 3:], state[0, 3:] = 0, 0
    before = action.copy(), state.copy()
    encoded = both.encode_action(action, state, embodiment)
    decoded = both.decode_action(encoded, state, embodiment)
    np.testing.assert_allclose(decoded, before[0], atol=2e-4)
    both.encode_state(state, embodiment)
    assert np.array_equal(action, before[0])
    assert np.array_equal(state, before[1])


def test_only_arm_axes_are_relative() -> None:
    both = transforms()
    state = np.array([[10.0, 20.0, 30.0, 0.0, 0.0]], np.float32)
    action = np.array([[[11.0, 22.0, 33.0, 0.0, 0.0]]], np.float32)
    moved = both.encode_action(
        action + 5 * np.array([1, 1, 0, 0, 0]), state + 5 * np.array([1, 1, 0, 0, 0]), np.array([0])
    )
    np.testing.assert_allclose(moved, both.encode_action(action, state, np.array([0])), atol=1e-6)
    gripper = both.encode_action(action, state + 7 * np.array([0, 0, 1, 0, 0]), np.array([0]))
    np.testing.assert_allclose(gripper, both.encode_action(action, state, np.array([0])), atol=1e-6)


def test_the_range_ends_map_to_one_and_beyond_is_clipped() -> None:
    both = transforms(relative=False, clip=1.5)
    state = np.array([[-10.0, 40.0, 1000.0, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(both.encode_state(state, np.array([0])), [[-1.0, 1.0, 1.5, 0.0, 0.0]])


def test_padding_and_cutting_are_inverse() -> None:
    both = transforms()
    state = np.array([[1.0, 2.0, 3.0]], np.float32)
    assert both.pad(state).tolist() == [[1.0, 2.0, 3.0, 0.0, 0.0]]
    assert np.array_equal(both.cut(both.pad(state), 0), state)


def test_unknown_robots_are_named() -> None:
    with pytest.raises(UnknownNameError, match="first, second"):
        transforms().index("third")


def test_fitted_ranges_hold_98_percent_and_no_axis_is_flat(tmp_path: Path) -> None:
    windows = Windows(ShardBuild(make_build(tmp_path, embodiments=("so100", "xarm7"))), "train", 6)
    for relative in (True, False):
        fitted = fit_transforms(windows, relative=relative)
        batch = windows.batch(np.arange(len(windows)))
        encoded = fitted.encode_action(batch.action, batch.state, batch.embodiment)
        valid = batch.step_mask[:, :, None] & batch.axis_mask[:, None]
        assert (np.abs(encoded[valid]) <= 1.0001).mean() > 0.95
        assert (np.abs(encoded[valid]) > 0.9).any()
        for each in fitted.embodiments:
            width = np.array(each.action.high) - np.array(each.action.low)
            assert width.min() >= 0.019 * width.max()
        if relative:
            assert not np.allclose(
                fitted.embodiments[0].action.low,
                fit_transforms(windows, relative=False).embodiments[0].action.low,
            )


def test_saved_and_read_back(tmp_path: Path) -> None:
    both = transforms()
    both.write(tmp_path)
    assert read_transforms(tmp_path) == both
    with pytest.raises(CheckpointError, match=r"transforms\.json"):
        read_transforms(tmp_path / "nowhere")
