"""Wishes for the gripper become axis targets that are reachable, slow enough and free of collisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.collect.operators.tool_driver import TOOL_SPEED_M_S, ToolDriver
from blm.collect.operators.tool_wish import Reach, ToolWish
from tests.collect.sim.scenes import EMBODIMENTS, environment

SHOULDER = np.array([0.05, 0.0, 0.1])
COORDINATE = st.floats(-0.5, 0.5)


def driver(robot: str) -> tuple[ToolDriver, np.ndarray]:
    simulation = environment(robot, "push-cube")
    state = simulation.reset(1).state
    made = ToolDriver(simulation.model, simulation.embodiment, simulation.base_pose)
    made.start(state)
    return made, state


@given(
    st.tuples(st.floats(0.12, 0.5), COORDINATE, COORDINATE),
    st.floats(-0.4, 1.4),
    st.floats(-3.1, 3.1),
)
def test_a_wish_is_found_again_in_its_pose(place: tuple[float, float, float], tilt: float, turn: float):
    wish = ToolWish(np.array(place), tilt, turn, 0.5)
    pose = wish.pose(SHOULDER)
    assert pose.rotation @ pose.rotation.T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(pose.rotation) == pytest.approx(1.0)
    found = ToolWish.of(pose, 0.5, SHOULDER)
    assert found.tilt == pytest.approx(tilt, abs=1e-6)
    assert np.cos(found.turn - turn) == pytest.approx(1.0, abs=1e-9)


def test_an_upright_gripper_opens_where_it_is_turned():
    pose = ToolWish(np.array([0.3, 0.2, 0.1]), 0.0, 0.4, 1.0).pose(SHOULDER)
    assert pose.rotation[:, 2] == pytest.approx([0, 0, -1])
    assert pose.rotation[:, 1] == pytest.approx([-np.sin(0.4), np.cos(0.4), 0])


def test_wishes_stay_within_reach_and_above_the_table():
    reach = Reach(SHOULDER, 0.4, 0.004)
    far = ToolWish(np.array([3.0, 0.0, -1.0]), 5.0, 7.0, 2.0).within(reach)
    assert np.linalg.norm(far.position - SHOULDER) <= 0.41
    assert far.position[2] >= 0.004
    assert (far.tilt, far.opening) == (1.5, 1.0)
    assert far.turn == pytest.approx(7.0 - 2 * np.pi)


@pytest.mark.parametrize("robot", EMBODIMENTS)
def test_the_arm_goes_where_it_is_asked_at_a_limited_speed(robot: str):
    made, _ = driver(robot)
    start = made.wish
    wanted = replace(
        start, position=start.position + np.array([0.03, 0.05, -0.05]), turn=start.turn + 0.3, opening=0.2
    )
    places, axes = [start.position], [made.targets]
    for _ in range(40):
        axes.append(made.step(wanted))
        places.append(made.tool_pose(axes[-1]).position)
    assert places[-1] == pytest.approx(wanted.position, abs=2e-3)
    fastest = np.linalg.norm(np.diff(places, axis=0), axis=1).max() / made.period_s
    assert fastest < 1.3 * TOOL_SPEED_M_S
    embodiment = environment(robot, "push-cube").embodiment
    speeds = np.abs(np.diff(embodiment.to_model(np.array(axes)), axis=0)) / made.period_s
    assert (speeds <= embodiment.column("max_velocity") + 1e-6).all()
    assert (embodiment.clip(np.array(axes)) == np.array(axes)).all()


@pytest.mark.parametrize("robot", EMBODIMENTS)
def test_the_way_into_the_table_ends_above_it(robot: str):
    simulation = environment(robot, "push-cube")
    made, _ = driver(robot)
    wanted = replace(made.wish, position=made.wish.position * [1, 1, 0] - [0, 0, 1])
    force = None
    for _ in range(60):
        force = simulation.step(made.step(wanted)).observation.gripper_contact
    assert force is not None
    assert force[-1] < 10.0, "newtons on the table"
    assert made.tool_pose(made.targets).position[2] < 0.08 - simulation.base_pose[2, 3]


def test_out_of_reach_the_arm_stretches_and_comes_back():
    made, _ = driver("so100")
    start = made.wish
    for _ in range(60):
        made.step(replace(start, position=np.array([2.0, 0.5, 0.3])))
    for _ in range(120):
        made.step(start)
    assert made.tool_pose(made.targets).position == pytest.approx(start.position, abs=5e-3)
