import warnings

import numpy as np
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


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
def test_an_episode_shorter_than_what_motion_is_measured_over(rows):
    robot = load_embodiment("so100")
    values = np.tile(np.arange(rows, dtype=np.float32)[:, None], (1, len(robot.axes)))
    zeros = np.zeros(rows, np.int64)
    facts = episode_facts(Frames(zeros, np.arange(rows), values, values, zeros, None), robot, 30.0, 0.02)
    assert facts["rows"].to_pylist() == [rows]
    assert facts["top_speed"].to_pylist() == [0.0]
