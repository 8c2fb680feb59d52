"""Recovery: the world is meddled with in mid-episode, and the planner notices, comes to rest and tries again."""

from itertools import pairwise

import numpy as np
import pytest

from blm.collect.planning.failure import FailureCause
from blm.collect.planning.monitor import braked
from blm.collect.planning.motion import Motion
from blm.collect.planning.planner import PlannerAgent
from blm.collect.planning.primitives import Primitive
from blm.collect.planning.timing import Limits
from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.objects import object_element
from blm.schemas.embodiment import load_embodiment
from tests.collect.planning.scenes import demonstrate, environment, limit_shares


def _move_cube(world: SimulatedEnvironment, position) -> None:
    joint = world.model.joint(object_element("cube"))
    world.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 3] = position
    world.data.qvel[joint.dofadr[0] : joint.dofadr[0] + 6] = 0


@pytest.mark.parametrize("robot", ["so100", "panda"])
def test_a_cube_that_moves_during_the_approach_is_approached_anew_at_once(robot):
    world = environment(robot, "pick-cube")
    agent = PlannerAgent(world)

    def nudge(world, tick: int) -> None:
        if tick == 6:
            _move_cube(world, world.object_pose("cube")[0] + np.array([-0.01, 0.03, 0.0]))

    shown = demonstrate(world, agent, 2, nudge)
    names = [command.subtask for command in shown.commands]
    assert shown.success, agent.metrics()
    assert agent.metrics()["recoveries"] == 1
    assert agent.metrics()["failure_cause"] is None
    # Noticed before a grasp of thin air: the gripper closes once.
    assert sum(before != "grasp" == name for before, name in pairwise(names)) == 1
    assert limit_shares(shown, world).max() <= 1.001


@pytest.mark.parametrize("robot", ["so100", "panda"])
def test_a_cube_knocked_out_of_the_gripper_is_grasped_again(robot):
    world = environment(robot, "pick-cube")
    agent, knocked = PlannerAgent(world), []
    spawn = np.zeros(3)

    def knock(world, tick: int) -> None:
        if tick == 0:
            spawn[:] = world.object_pose("cube")[0]
        position = world.object_pose("cube")[0]
        if not knocked and world.touching("cube") and position[2] > spawn[2] + 0.015:
            _move_cube(world, spawn + np.array([-0.01, -0.035, 0.0]))
            knocked.append(tick)

    shown = demonstrate(world, agent, 2, knock)
    assert knocked
    assert shown.success, agent.metrics()
    assert agent.metrics()["recoveries"] == 1
    # Noticed within a second, not at the end of the carrying.
    names = [command.subtask for command in shown.commands]
    assert {"retract", "approach"} & set(names[knocked[0] : knocked[0] + 20])
    assert limit_shares(shown, world).max() <= 1.001


def test_a_gripper_that_was_blocked_is_closed_again():
    world = environment("so100", "pick-cube")
    agent = PlannerAgent(world)
    actuator = world.model.actuator(world.embodiment.joints[world.embodiment.gripper_index]).id
    gain = world.model.actuator_gainprm[actuator].copy(), world.model.actuator_biasprm[actuator].copy()
    blocked = []

    def block(world, tick: int) -> None:
        """The gripper's motor is without power until the first attempt to grasp has failed."""
        powered = agent.metrics()["recoveries"] > 0
        blocked.append(not powered)
        world.model.actuator_gainprm[actuator] = gain[0] * powered
        world.model.actuator_biasprm[actuator] = gain[1] * powered

    try:
        shown = demonstrate(world, agent, 2, block)
    finally:
        world.model.actuator_gainprm[actuator], world.model.actuator_biasprm[actuator] = gain
    assert any(blocked)
    assert shown.success, agent.metrics()
    assert agent.metrics()["recoveries"] == 1


def test_a_cube_that_is_taken_away_for_good_is_counted_as_lost():
    world = environment("so100", "pick-cube")
    agent = PlannerAgent(world)

    def steal(world, now: int) -> None:
        if now > 5:
            _move_cube(world, [0.02, 0.05, 0.6])

    shown = demonstrate(world, agent, 2, steal)
    assert not shown.success
    assert agent.metrics()["failure_cause"] == FailureCause.OBJECT_LOST
    assert shown.commands[-1].done


def test_braking_ends_at_rest_soon_and_within_the_limits():
    embodiment = load_embodiment("so100")
    limits, rate = Limits.of(embodiment), embodiment.control_rate_hz
    home = embodiment.to_model(embodiment.column("home"))
    cruise = 0.5 * limits.velocity[0]
    path = np.repeat(home[None], 60, axis=0)
    path[:, 0] += cruise * np.arange(60) / rate - 1.0
    motion = Motion(embodiment.from_model(path), (Primitive("move"),) * 60)
    stop = braked(motion, 20, embodiment)
    whole = embodiment.to_model(np.concatenate([motion.commands[15:20], stop.commands, stop.commands[-1:]]))
    for order, bound in enumerate((limits.velocity, limits.acceleration, limits.jerk), start=1):
        assert np.all(np.abs(np.diff(whole, n=order, axis=0)) * rate**order <= bound * 1.001)
    assert len(stop.steps) == len(stop.commands) <= rate
