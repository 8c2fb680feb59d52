"""Success is earned by contact and friction: nothing is glued, moved by hand, pressed into one another or flung."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import mujoco
import numpy as np
import pytest

from blm.collect.planning.planner import PlannerAgent
from blm.collect.rollout import run_episode
from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.objects import is_movable
from blm.schemas.task import task_names
from tests.collect.sim.models.published import PUBLISHED
from tests.collect.sim.physics_probe import Extremes, PhysicsProbe, below
from tests.collect.sim.scenes import PAIRS, environment

QUICK_ROBOTS = ("so100", "xarm7")
EPISODES = [
    pytest.param(robot, task, marks=() if robot in QUICK_ROBOTS else pytest.mark.slow)
    for robot, task in PAIRS
]
DEEPEST_M = 0.001
DEEPEST_IN_OBJECT_M = 0.0025
FASTEST_OBJECT_M_S = 1.5
MOST_ENERGY_J = 5.0
HELD_HEIGHT_M = 0.05
IMPACT = 12.0
"""A closing finger meets a thing of 3 g with more than it then holds it with: at most this many times as much."""


@cache
def episode(robot: str, task: str, seed: int = 1) -> Extremes:
    """What was seen in one planned episode, which must succeed."""
    world = environment(robot, task)
    probe = PhysicsProbe(world)
    agent = PlannerAgent(world)
    world.reset(seed)
    with probe.watching():
        end = run_episode(world, agent, [probe], seed)
    assert end.success, (robot, task, end.reason)
    return probe.extremes


@pytest.mark.parametrize(("robot", "task"), PAIRS)
def test_nothing_ties_an_object_to_the_robot_or_moves_it_by_hand(robot: str, task: str) -> None:
    world = environment(robot, task)
    model = world.model
    of_robot = below(model, model.body("base").id)
    for equality in range(model.neq):
        assert model.eq_type[equality] == mujoco.mjtEq.mjEQ_JOINT, "only a gripper's linkage is coupled"
        for joint in (model.eq_obj1id[equality], model.eq_obj2id[equality]):
            assert of_robot[model.jnt_bodyid[joint]]
    assert model.ntendon == 0
    for actuator in range(model.nu):
        assert of_robot[model.jnt_bodyid[model.actuator_trnid[actuator, 0]]]
    for name, thing in world.task.objects.items():
        body = model.body(f"object/{name}").id
        assert (model.body_mocapid[body] < 0) == is_movable(thing), name
        assert model.body_parentid[body] == 0, name
        assert model.body_gravcomp[body] == 0, name
        if is_movable(thing):
            assert model.body_mass[body] == pytest.approx(solid_mass(thing), rel=1e-6), name


def solid_mass(thing) -> float:
    x, y, z = thing.half_size
    volume = 4 / 3 * np.pi * x**3 if thing.shape == "sphere" else 8 * x * y * z
    return volume * thing.density_kg_m3


@pytest.mark.parametrize(("robot", "task"), EPISODES)
def test_objects_move_as_fast_as_they_say_and_never_jump(robot: str, task: str) -> None:
    seen = episode(robot, task)
    assert seen.teleport_m < 2e-5
    assert seen.object_step_m <= FASTEST_OBJECT_M_S * 0.002
    assert seen.object_speed_m_s < FASTEST_OBJECT_M_S


@pytest.mark.parametrize(("robot", "task"), EPISODES)
def test_things_do_not_sink_into_one_another(robot: str, task: str) -> None:
    seen = episode(robot, task)
    assert seen.in_gripper_m < DEEPEST_M
    assert seen.in_table_m < DEEPEST_M
    assert seen.in_object_m < DEEPEST_IN_OBJECT_M


@pytest.mark.parametrize(("robot", "task"), EPISODES)
def test_no_explosion_and_no_more_torque_than_there_is(robot: str, task: str) -> None:
    seen = episode(robot, task)
    limits = environment(robot, task).embodiment.column("max_velocity")
    assert seen.arm_speed_rad_s < 1.3 * limits.max()
    assert seen.kinetic_j < MOST_ENERGY_J
    assert seen.torque_share <= 1 + 1e-9


@pytest.mark.parametrize(("robot", "task"), EPISODES)
def test_the_gripper_presses_no_harder_than_it_can(robot: str, task: str) -> None:
    seen = episode(robot, task)
    assert seen.steady_grip_n <= 1.1 * PUBLISHED[robot].grip_n
    assert seen.grip_n <= IMPACT * PUBLISHED[robot].grip_n


@pytest.mark.parametrize("robot", list(PUBLISHED))
def test_a_held_object_stays_held_under_gravity_and_while_the_arm_moves(robot: str) -> None:
    """Five seconds still in the air, then the wrist turns and the shoulder swings: the object keeps to the tool."""
    world = environment(robot, "pick-cube")
    lifted = lift(world)
    embodiment = world.embodiment
    joint = world.model.joint("object/cube")
    start = in_tool(world)
    for _ in range(int(5 * embodiment.control_rate_hz)):
        world.step(lifted)
    still = in_tool(world)
    assert np.linalg.norm(still - start) < 0.001
    assert abs(world.data.qvel[joint.dofadr[0] : joint.dofadr[0] + 3]).max() < 0.005
    span = 0.3 / np.abs(embodiment.column("scale"))
    for tick in range(int(5 * embodiment.control_rate_hz)):
        target = lifted.copy()
        phase = np.sin(2 * np.pi * tick / embodiment.control_rate_hz / 2.5)
        for axis in (embodiment.arm_indices[0], embodiment.arm_indices[-1]):
            target[axis] += span[axis] * phase
        world.step(target)
        assert world.touching("cube")
    assert np.linalg.norm(in_tool(world) - still) < 0.003


def lift(world: SimulatedEnvironment) -> np.ndarray:
    """Let the planner pick the cube up; returns the commands (A,) that hold it in the air."""
    agent = PlannerAgent(world, vary=False)
    observation, seed = world.reset(0), 0
    while (goal := world.goal_position()) is None or goal[2] < HELD_HEIGHT_M + 0.01:
        seed += 1
        observation = world.reset(seed)
    agent.reset(replace(world.describe(), operator=agent.operator), observation)
    while True:
        command = agent.act(observation)
        observation = world.step(command.values).observation
        assert not command.done
        if world.object_pose("cube")[0][2] > HELD_HEIGHT_M:
            return np.asarray(command.values, dtype=np.float64)


def in_tool(world: SimulatedEnvironment) -> np.ndarray:
    """Where the cube is in the tool's frame, (3,) metres."""
    tool = world.data.site("tool")
    return tool.xmat.reshape(3, 3).T @ (world.object_pose("cube")[0] - tool.xpos)


def test_every_task_was_watched() -> None:
    watched = {values[1] for param in EPISODES if not param.marks for values in [param.values]}
    assert watched == set(task_names())
