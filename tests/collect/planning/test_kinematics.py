"""Kinematics: Jacobians against finite differences, and solving for poses that a configuration reaches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.collect.planning.kinematics import Kinematics
from blm.collect.planning.pose import Pose, ToolTarget, angle_between
from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.models import load_spec
from blm.schemas.embodiment import load_embodiment
from blm.schemas.task import load_task

ROBOTS = ("so100", "panda")
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def kinematics() -> dict[str, Kinematics]:
    return {robot: Kinematics(load_spec(robot).compile(), load_embodiment(robot)) for robot in ROBOTS}


def _reachable(kinematics: Kinematics, seed: int, spread: float) -> np.ndarray:
    """A configuration within limits, up to `spread` of the range away from home."""
    generator = np.random.default_rng(seed)
    reach = spread * (kinematics.upper - kinematics.lower)
    drawn = kinematics.home + reach * generator.uniform(-0.5, 0.5, len(reach))
    return kinematics.clip(drawn)


@pytest.mark.parametrize("robot", ROBOTS)
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_jacobian_matches_finite_differences(kinematics, robot, seed):
    arm = kinematics[robot]
    configuration = _reachable(arm, seed, spread=0.9)
    jacobian, step = arm.jacobian(configuration), 1e-6
    for axis in range(len(configuration)):
        ahead, behind = configuration.copy(), configuration.copy()
        ahead[axis] += step
        behind[axis] -= step
        first, second = arm.forward(behind), arm.forward(ahead)
        linear = (second.position - first.position) / (2 * step)
        spin = (second.rotation - first.rotation) @ arm.forward(configuration).rotation.T / (2 * step)
        angular = np.array([spin[2, 1], spin[0, 2], spin[1, 0]])
        np.testing.assert_allclose(jacobian[:, axis], np.concatenate([linear, angular]), atol=1e-5)


@pytest.mark.parametrize("robot", ROBOTS)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_a_reached_pose_is_solved_again_within_tolerance_and_limits(kinematics, robot, seed):
    arm = kinematics[robot]
    goal = arm.forward(_reachable(arm, seed, spread=0.35))
    target = ToolTarget.from_pose(goal)
    solution = arm.solve(target, arm.starts(arm.home, np.random.default_rng(0), count=10))
    assert solution is not None
    assert np.all(solution >= arm.lower - 1e-9)
    assert np.all(solution <= arm.upper + 1e-9)
    found = arm.forward(solution)
    assert np.linalg.norm(found.position - goal.position) < 1e-3
    assert angle_between(found.rotation[:, 2], goal.rotation[:, 2]) < 0.051
    assert angle_between(found.rotation[:, 1], goal.rotation[:, 1]) < 0.12


@pytest.mark.parametrize("robot", ROBOTS)
def test_out_of_reach_has_no_solution(kinematics, robot):
    arm = kinematics[robot]
    far = ToolTarget(np.array([2.0, 0.0, 0.2]), np.array([0.0, 0.0, -1.0]))
    assert arm.solve(far, [arm.home]) is None


def test_a_free_turn_reaches_what_a_fixed_turn_cannot(kinematics):
    arm = kinematics["so100"]
    down = np.array([0.0, 0.0, -1.0])
    position = np.array([0.22, 0.0, 0.03])
    free = arm.solve(ToolTarget(position, down), [arm.home])
    assert free is not None
    backwards = arm.forward(free).rotation[:, 1] * -1
    assert arm.solve(ToolTarget(position, down, backwards), [arm.home]) is None


def test_poses_are_in_the_base_frame_wherever_the_base_stands():
    embodiment = load_embodiment("so100")
    plain = Kinematics(load_spec("so100").compile(), embodiment)
    elsewhere = embodiment.model_copy(update={"base_position": (-0.3, 0.1, 0.05), "base_yaw_deg": 40.0})
    world = SimulatedEnvironment(elsewhere, load_task("push-cube", "so100"), render=False)
    moved = Kinematics(world.model, elsewhere)
    for seed in range(3):
        configuration = _reachable(plain, seed, spread=0.5)
        here, there = plain.forward(configuration), moved.forward(configuration)
        np.testing.assert_allclose(there.position, here.position, atol=1e-9)
        np.testing.assert_allclose(there.rotation, here.rotation, atol=1e-9)
        np.testing.assert_allclose(moved.jacobian(configuration), plain.jacobian(configuration), atol=1e-9)


def test_the_given_model_is_left_alone():
    model = load_spec("so100").compile()
    ranges = model.jnt_range.copy()
    Kinematics(model, load_embodiment("so100"))
    np.testing.assert_array_equal(model.jnt_range, ranges)


def test_pose_composition_undoes_its_inverse():
    pose = Pose.from_quaternion(np.array([0.1, -0.2, 0.3]), np.array([0.5, 0.5, -0.5, 0.5]))
    both = pose @ pose.inverse()
    np.testing.assert_allclose(both.position, 0.0, atol=1e-12)
    np.testing.assert_allclose(both.rotation, np.eye(3), atol=1e-12)
