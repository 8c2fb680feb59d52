"""Collision checks: what counts, what is allowed, and that the live state stays untouched."""

import numpy as np
import pytest

from blm.collect.planning.collision import CLEARANCE_M, PENETRATION_M, CollisionChecker
from blm.collect.planning.kinematics import Kinematics
from blm.collect.planning.pose import DOWN, Pose, ToolTarget
from blm.collect.sim.objects import object_element
from tests.collect.planning.scenes import environment


@pytest.fixture
def world():
    world = environment("so100", "pick-cube")
    world.reset(3)
    return world


@pytest.fixture
def kinematics(world) -> Kinematics:
    return Kinematics(world.model, world.embodiment)


@pytest.fixture
def checker(world, kinematics) -> CollisionChecker:
    checker = CollisionChecker(world.model, world.embodiment, {"cube": object_element("cube")})
    checker.update(world.data, kinematics.home)
    return checker


def _cube(world) -> np.ndarray:
    return world.object_pose("cube")[0] - world.base_pose[:3, 3]


def _above_cube(world, kinematics, height: float) -> np.ndarray:
    target = ToolTarget(_cube(world) + np.array([0.0, 0.0, height]), DOWN)
    solution = kinematics.solve(target, kinematics.starts(kinematics.home, np.random.default_rng(0)))
    assert solution is not None
    return solution


def test_home_is_free(checker, kinematics):
    assert checker.cause(kinematics.home) is None
    assert checker.cause(kinematics.home, clearance_m=CLEARANCE_M) is None


def test_driving_into_the_table_is_named(checker, kinematics, world):
    below = kinematics.home.copy()
    below[1] = kinematics.upper[1]
    assert "table" in (checker.cause(below) or "")


def test_touching_an_object_counts_unless_allowed(checker, kinematics, world):
    closed = _above_cube(world, kinematics, 0.0)
    closed[world.embodiment.gripper_index] = kinematics.lower[world.embodiment.gripper_index]
    assert "cube" in (checker.cause(closed) or "")
    assert checker.cause(closed, may_touch=frozenset({"cube"})) is None


def test_clearance_counts_only_when_asked(checker, kinematics, world):
    def lowest_free(clear: bool) -> float:
        for height in np.arange(0.02, 0.04, 0.0005).tolist():
            near = _above_cube(world, kinematics, height)
            near[world.embodiment.gripper_index] = kinematics.lower[world.embodiment.gripper_index]
            if checker.cause(near, clearance_m=CLEARANCE_M if clear else 0.0) is None:
                return height
        raise AssertionError("never free")

    # Each height is solved anew, so that the tool may lean a little differently.
    gained = lowest_free(clear=True) - lowest_free(clear=False)
    assert 0.5 * CLEARANCE_M <= gained <= CLEARANCE_M + PENETRATION_M + 0.001


def test_a_held_object_moves_with_the_tool_and_may_not_hit_the_table(checker, kinematics, world):
    low = _above_cube(world, kinematics, 0.005)
    checker.hold("cube", Pose(np.array([0.0, 0.0, 0.02]), np.eye(3)))
    assert checker.cause(low, may_touch=frozenset({"cube"})) == "table with cube"
    high = _above_cube(world, kinematics, 0.04)
    assert checker.cause(high, may_touch=frozenset({"cube"})) is None


def test_what_was_held_stays_where_it_was_let_go_until_a_restart(checker, kinematics, world):
    grip = _above_cube(world, kinematics, 0.005)
    away = kinematics.home.copy()
    away[0] += 0.8
    checker.hold("cube", Pose(np.zeros(3), np.eye(3)))
    checker.cause(away)
    checker.hold(None)
    assert checker.cause(grip, clearance_m=CLEARANCE_M) is None or "cube" not in (
        checker.cause(grip, clearance_m=CLEARANCE_M) or ""
    )
    checker.restart()
    assert "cube" in (checker.cause(grip, clearance_m=CLEARANCE_M) or "")


def test_the_live_state_is_left_alone(checker, kinematics, world):
    before = world.data.qpos.copy()
    checker.cause(_above_cube(world, kinematics, 0.03))
    np.testing.assert_array_equal(world.data.qpos, before)
