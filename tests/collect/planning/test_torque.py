"""Torques of planned motions: inverse dynamics against MuJoCo's and against energy; too much is slowed or refused."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from blm.collect.planning.failure import FailureCause
from blm.collect.planning.kinematics import Kinematics
from blm.collect.planning.planner import PlannerAgent
from blm.collect.planning.pose import Pose
from blm.collect.planning.primitives import Holding
from blm.collect.planning.torque import TorqueModel
from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.objects import object_element
from blm.schemas.errors import PlanningError
from tests.collect.planning.scenes import demonstrate, environment

RATE_HZ = 200.0


def _torques(world: SimulatedEnvironment) -> TorqueModel:
    return TorqueModel(world.model, world.embodiment, {"cube": object_element("cube")})


def _swing(kinematics: Kinematics) -> np.ndarray:
    """A smooth swing (N, A) of every arm joint away from home and back, one second long."""
    arm = list(kinematics.embodiment.arm_indices)
    path = np.repeat(kinematics.home[None], int(RATE_HZ), axis=0)
    share = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, len(path) + 1) / len(path))
    path[:, arm] += 0.25 * share[:, None] * np.where(np.arange(len(arm)) % 2, -1.0, 1.0)
    return path


@pytest.mark.parametrize("robot", ["so100", "panda"])
def test_torques_are_those_of_mujocos_inverse_dynamics_without_friction(robot):
    world = environment(robot, "pick-cube")
    world.reset(0)
    kinematics = Kinematics(world.model, world.embodiment)
    path = _swing(kinematics)
    torques = _torques(world).torques(path, kinematics.home, RATE_HZ, [None] * len(path))
    model, joints = world.model, list(world.embodiment.joints)
    dofs = [model.joint(name).dofadr[0] for name in joints]
    data = mujoco.MjData(model)
    data.qpos[:] = world.data.qpos
    for tick in (20, 90, 150):
        data.qpos[[model.joint(name).qposadr[0] for name in joints]] = path[tick]
        data.qvel[dofs] = (path[tick + 1] - path[tick - 1]) * RATE_HZ / 2
        data.qacc[dofs] = (path[tick + 1] - 2 * path[tick] + path[tick - 1]) * RATE_HZ**2
        mujoco.mj_inverse(model, data)
        whole = data.qfrc_inverse + data.qfrc_passive + data.qfrc_constraint
        arm = np.array(dofs)[list(world.embodiment.arm_indices)]
        np.testing.assert_allclose(torques[tick], whole[arm], atol=1e-9)


@pytest.mark.parametrize("robot", ["so100", "panda"])
def test_what_a_held_object_adds_is_the_work_done_on_it(robot):
    world = environment(robot, "pick-cube")
    world.reset(0)
    kinematics, model = Kinematics(world.model, world.embodiment), _torques(world)
    path = _swing(kinematics)[:120]
    holding = Holding("cube", Pose(np.array([0.01, 0.02, 0.03]), np.eye(3)))
    loaded, empty = (
        model.torques(path, kinematics.home, RATE_HZ, [held] * len(path)) for held in (holding, None)
    )
    arm = list(world.embodiment.arm_indices)
    mass = float(world.model.body(object_element("cube")).mass[0])
    place = np.array([(kinematics.forward(row) @ holding.grasp).position for row in path])
    speed = np.linalg.norm((place[2:] - place[:-2]) * RATE_HZ / 2, axis=1)
    energy = mass * (0.5 * speed**2 + 9.81 * place[1:-1, 2])
    power = np.sum((loaded - empty)[1:-1] * ((path[2:] - path[:-2]) * RATE_HZ / 2)[:, arm], axis=1)
    done = np.cumsum((power[1:] + power[:-1]) / 2) / RATE_HZ
    np.testing.assert_allclose(done, energy[1:] - energy[0], atol=0.01 * np.ptp(energy))


def _weaker(share: float) -> SimulatedEnvironment:
    """An SO-100 whose motors are said to have this share of their torque; the simulated ones keep theirs."""
    world = environment("so100", "pick-cube")
    axes = tuple(
        axis.model_copy(update={"max_torque": axis.max_torque and share * axis.max_torque})
        for axis in world.embodiment.axes
    )
    weak = SimulatedEnvironment(world.embodiment, world.task, render=False)
    weak._embodiment = world.embodiment.model_copy(update={"axes": axes})
    return weak


def test_a_motion_beyond_the_motors_is_slowed_down_until_they_can():
    before, needed = _demonstrated(_weaker(1.0))
    slowed, share = _demonstrated(_weaker(0.9 * needed))
    assert needed < 1.0
    assert share <= 1.0
    assert slowed > before


def _demonstrated(world: SimulatedEnvironment) -> tuple[float, float]:
    """How long a demonstration was planned to take, seconds, and its torque share."""
    agent = PlannerAgent(world)
    assert demonstrate(world, agent, 1).success
    metrics = agent.metrics()
    return metrics["planned_time_s"], metrics["peak_torque_share"]


def test_what_no_pace_makes_feasible_is_refused_with_its_cause():
    world = _weaker(0.05)
    agent, observation = PlannerAgent(world), world.reset(1)
    with pytest.raises(PlanningError, match="torque"):
        agent.reset(replace(world.describe(), operator="planner"), observation)
    assert agent.metrics()["failure_cause"] == FailureCause.TORQUE_LIMIT
