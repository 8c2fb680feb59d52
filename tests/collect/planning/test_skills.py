"""Skills: one for every task, open to other packages, and decompositions that make sense."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from blm.collect.planning import skills
from blm.collect.planning.gripper import gripper_shape
from blm.collect.planning.kinematics import Kinematics
from blm.collect.planning.scene import Scene, Variation, observe_scene
from blm.schemas.errors import UnknownNameError
from blm.schemas.task import task_names
from tests.collect.planning.scenes import environment


def _scene(robot: str, task: str, seed: int = 0) -> Scene:
    world = environment(robot, task)
    world.reset(seed)
    kinematics = Kinematics(world.model, world.embodiment)
    return observe_scene(world, kinematics, gripper_shape(world.model, world.embodiment), kinematics.home)


@pytest.mark.parametrize("task", task_names())
def test_every_task_has_a_skill_that_proposes_named_primitives(task):
    decompositions = skills.find_skill(task)(_scene("so100", task), Variation.none(axes=6))
    first = next(decompositions)
    assert first[0].name == "approach"
    assert all(primitive.name and (primitive.targets or primitive.gripper is not None) for primitive in first)


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"fold-shirt.*push-cube"):
        skills.find_skill("fold-shirt")


def wave(scene: Scene, variation: Variation):
    yield ()


def test_another_package_can_add_a_skill(monkeypatch):
    entry = EntryPoint(name="wave", value=f"{__name__}:wave", group=skills.ENTRY_POINTS)
    monkeypatch.setattr(EntryPoint, "load", lambda self: wave)
    monkeypatch.setattr(skills, "entry_points", lambda group: [entry] if group == "blm.skills" else [])
    assert skills.find_skill("wave") is wave


def test_a_push_goes_from_behind_the_cube_straight_to_the_goal():
    scene = _scene("so100", "push-cube")
    approach, _, push, _ = next(skills.push_cube(scene, Variation.none(axes=6)))
    cube, goal = scene.objects["cube"].position, scene.goal
    assert goal is not None
    start, end = approach.targets[0].position, push.targets[0].position
    way = (goal - cube)[:2] / np.linalg.norm((goal - cube)[:2])
    assert (cube - start)[:2] @ way > scene.objects["cube"].thing.half_size[0]
    np.testing.assert_allclose((end - start)[:2] / np.linalg.norm((end - start)[:2]), way, atol=1e-9)
    np.testing.assert_allclose(start[2], end[2])


def test_grasps_open_across_the_faces_and_prefer_the_least_turn():
    scene = _scene("so100", "pick-cube", seed=4)
    cube = scene.objects["cube"]
    targets = list(skills.grasp_targets(scene, cube, Variation.none(axes=6)))
    home = scene.home_opening_at(cube.position)
    for target in targets[:4]:
        assert target.opening is not None
        across = np.abs(cube.pose.rotation.T @ target.opening)
        assert across.max() > 0.999
    turns = [float(target.opening @ home) for target in targets[:4] if target.opening is not None]
    assert turns == sorted(turns, reverse=True)
    assert turns[0] > 0.7


def test_an_asymmetric_gripper_leaves_the_object_to_its_fixed_jaw():
    world = environment("so100", "pick-cube")
    shape = gripper_shape(world.model, world.embodiment)
    narrow, wide = shape.middle_m(0.01), shape.middle_m(0.03)
    assert narrow - wide == pytest.approx(0.01, abs=0.002)
