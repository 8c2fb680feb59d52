"""Ways found by sampling: around a wall, the same for the same seed, bounded by checks; and the arm takes them."""

from itertools import pairwise

import mujoco
import numpy as np
import pytest

from blm.collect.planning.planner import PlannerAgent
from blm.collect.planning.sampling import way_around
from blm.collect.sim import scene
from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.objects import object_element
from blm.schemas.embodiment import load_embodiment
from blm.schemas.rollout import Observation
from blm.schemas.task import load_task
from tests.collect.planning.scenes import demonstrate

BOUNDS = (np.full(3, -2.0), np.full(3, 2.0))
LEFT, RIGHT = np.array([-1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])


def _beside_wall(joints: np.ndarray) -> bool:
    """Free but for a wall at the first joint's zero, open where the second is above 0.8."""
    return bool(abs(joints[0]) > 0.15 or joints[1] > 0.8)


def test_a_way_leads_through_the_opening_and_stays_free():
    way = way_around(LEFT, RIGHT, BOUNDS, _beside_wall, seed=3)
    assert way is not None
    np.testing.assert_allclose(way[[0, -1]], [LEFT, RIGHT])
    dense = np.concatenate([np.linspace(a, b, 200) for a, b in pairwise(way)])
    # Checked every 0.05 rad, so that a corner of the wall may be cut by no more than that.
    assert all(abs(q[0]) > 0.15 - 0.05 or q[1] > 0.8 - 0.05 for q in dense)
    assert np.linalg.norm(np.diff(way, axis=0), axis=1).sum() < 4.5


def test_the_same_seed_finds_the_same_way_whatever_was_searched_before():
    first = way_around(LEFT, RIGHT, BOUNDS, _beside_wall, seed=7)
    others = [way_around(LEFT, RIGHT, BOUNDS, _beside_wall, seed=seed) for seed in range(1, 6)]
    again = way_around(LEFT, RIGHT, BOUNDS, _beside_wall, seed=7)
    assert first is not None
    np.testing.assert_array_equal(first, again)
    assert any(other is None or len(other) != len(first) or np.any(other != first) for other in others)


def test_a_search_without_an_answer_ends_after_its_checks():
    asked = 0

    def walled_off(joints: np.ndarray) -> bool:
        nonlocal asked
        asked += 1
        return bool(abs(joints[0]) > 0.15)

    assert way_around(LEFT, RIGHT, BOUNDS, walled_off, seed=1, max_checks=500) is None
    assert 400 < asked <= 500


WALL = "wall"


class _BehindWall(SimulatedEnvironment):
    """The cube lies to the side of a Panda, behind a wall that nothing simple passes; the goal is on this side."""

    def reset(self, seed: int) -> Observation:
        super().reset(seed)
        joint = self.model.joint(object_element("cube"))
        self.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 2] = [-0.15, 0.44]
        self._settle()
        return self._observe()


@pytest.fixture(scope="module")
def walled() -> SimulatedEnvironment:
    table_spec, patch = scene._table_spec, pytest.MonkeyPatch()

    def with_wall(*arguments, **options) -> mujoco.MjSpec:
        made = table_spec(*arguments, **options)
        wall = made.worldbody.add_body(name=WALL, pos=[-0.1, 0.24, 0.18])
        wall.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.3, 0.01, 0.18])
        return made

    patch.setattr(scene, "_table_spec", with_wall)
    try:
        return _BehindWall(load_embodiment("panda"), load_task("pick-cube", "panda"), render=False)
    finally:
        patch.undo()


@pytest.mark.slow
def test_an_arm_finds_its_way_over_a_wall_twice_the_same_and_never_touches_it(walled):
    wall, touched = walled.model.body(WALL).id, []

    def watch(world, tick: int) -> None:
        touched.append(bool((world.model.geom_bodyid[world.data.contact.geom] == wall).any()))

    agent = PlannerAgent(walled)
    for seed in (0, 3):
        shown = demonstrate(walled, agent, seed, watch)
        assert shown.success, agent.metrics()
        assert agent.metrics()["sampled_paths"] >= 1
    assert not any(touched)
    fresh = demonstrate(walled, PlannerAgent(walled), 3)
    np.testing.assert_array_equal(fresh.values, shown.values)
