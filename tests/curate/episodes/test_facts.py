import warnings

import numpy as np
import pyarrow as pa
import pytest

from blm.curate.episodes.facts import episode_facts
from blm.curate.episodes.frames import Frames
from blm.schemas.embodiment import load_embodiment


@pytest.mark.parametrize("wild", [3e38, np.inf, np.nan])
def test_wild_readings_are_told_without_a_word_to_the_terminal(wild):
    robot = load_embodiment("so100")
    count = 40
    state = np.zeros((count, len(robot.axes)), np.float32)
    action = state.copy()
    action[10:20] = wild
    action[12:20:2] = -wild
    frame = np.arange(count)
    time = np.where(frame % 7 == 3, np.inf, frame / 20)
    frames = Frames(
        np.zeros(count, np.int64), frame, state, action, np.zeros(count, np.int64), success=None, time=time
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (facts,) = episode_facts(frames, robot, 20.0, 0.02).to_pylist()
    assert facts["finite"] == (wild == 3e38)
    assert (facts["jerky_fraction"] > 0) == (wild == 3e38)


@pytest.mark.parametrize("wild", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("side", [0, 1])
def test_one_value_that_is_not_finite_is_found_in_its_episode_alone(side, wild):
    robot = load_embodiment("so100")
    sides = np.zeros((2, 90, len(robot.axes)), np.float32)
    sides[side, 40, 2] = wild
    state, action = sides
    episode, frame = np.divmod(np.arange(90), 30)
    facts = episode_facts(Frames(episode, frame, state, action, episode, None), robot, 20.0, 0.02)
    assert facts["finite"].to_pylist() == [True, False, True]


def test_how_fast_a_gripper_is_says_nothing_about_the_arms_limits():
    robot = load_embodiment("so100")
    values = np.zeros((40, len(robot.axes)), np.float32)
    values[20:, robot.gripper_index] = 100
    zeros = np.zeros(40, np.int64)
    facts = episode_facts(Frames(zeros, np.arange(40), values, values, zeros, None), robot, 20.0, 0.02)
    assert facts["top_speed"].to_pylist()[0] > 1
    for name in ("velocity_ratio", "action_jump", "state_jump", "jerky_fraction"):
        assert facts[name].to_pylist() == [0.0]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
def test_an_episode_shorter_than_what_motion_is_measured_over(rows):
    robot = load_embodiment("so100")
    values = np.tile(np.arange(rows, dtype=np.float32)[:, None], (1, len(robot.axes)))
    zeros = np.zeros(rows, np.int64)
    facts = episode_facts(Frames(zeros, np.arange(rows), values, values, zeros, None), robot, 30.0, 0.02)
    assert facts["rows"].to_pylist() == [rows]
    assert facts["top_speed"].to_pylist() == [0.0]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_about_an_episode_does_not_depend_on_the_others(seed):
    """Batches depend on the memory that a build may use, which must not show in what it makes."""
    random = np.random.default_rng(seed)
    robot = load_embodiment("so100")
    rows = random.integers(1, 150, 30)
    wild = np.where(random.random(30) < 0.3, 900.0, 1.0)
    action = np.concatenate(
        [size * np.cumsum(random.normal(0, 2, (n, 6)), axis=0) for n, size in zip(rows, wild, strict=True)]
    ).astype(np.float32)
    state = np.roll(action, 3, axis=0) + random.normal(0, 0.01, action.shape).astype(np.float32)
    episode = np.repeat(np.arange(30), rows)
    frame = np.concatenate([np.arange(n) for n in rows])
    time = frame / 30 + random.random(len(frame)) / 100

    def facts(chosen):
        parts = (one[chosen] for one in (episode, frame, state, action, np.zeros_like(episode)))
        return episode_facts(Frames(*parts, success=None, time=time[chosen]), robot, 30.0, 0.02)

    together = facts(np.full(len(episode), True))
    assert together["lag_s"].null_count < 30
    assert together.equals(pa.concat_tables([facts(episode == number) for number in range(30)]))
