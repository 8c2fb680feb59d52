"""Both cameras of every robot see what matters: the whole task from above, the object while the gripper comes near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blm.collect.planning.planner import PlannerAgent
from blm.collect.sim.environment import SimulatedEnvironment
from tests.collect.sim.scenes import EMBODIMENTS, PAIRS, environment, rotation

SEEDS = 3
WORKED_ON = {"lift-peg-upright": "peg"}


def in_view(world: SimulatedEnvironment, camera: str, point: np.ndarray, border: float = 0.0) -> bool:
    """Whether a world point is inside the picture, `border` of its half height away from the edge."""
    index = world.model.camera(camera).id
    local = world.data.cam_xmat[index].reshape(3, 3).T @ (point - world.data.cam_xpos[index])
    half = np.tan(np.radians(world.model.cam_fovy[index]) / 2) * (1 - border)
    return bool(local[2] < 0 and np.abs(local[:2] / -local[2]).max() < half)


@pytest.mark.parametrize(("robot", "task"), PAIRS)
def test_the_top_camera_sees_every_object_and_goal(robot: str, task: str) -> None:
    world = environment(robot, task)
    for seed in range(SEEDS):
        world.reset(seed)
        points = [world.object_pose(name)[0] for name in world.task.objects]
        if (goal := world.goal_position()) is not None:
            points.append(goal)
        for point in points:
            assert in_view(world, "top", point), (seed, point)


@pytest.mark.parametrize("robot", EMBODIMENTS)
def test_the_wrist_camera_at_home_sees_most_of_the_starts(robot: str) -> None:
    world = environment(robot, "pick-cube")
    seen = []
    for seed in range(10 * SEEDS):
        world.reset(seed)
        seen.append(in_view(world, "wrist", world.object_pose("cube")[0]))
        assert in_view(world, "wrist", world.data.site("tool").xpos), "the gripper stays in view"
    assert np.mean(seen) >= 0.9


@pytest.mark.parametrize("task", ["push-cube", "stack-cube", "lift-peg-upright"])
@pytest.mark.parametrize("robot", EMBODIMENTS)
def test_both_cameras_see_the_object_when_the_gripper_is_about_to_touch_it(robot: str, task: str) -> None:
    world = environment(robot, task)
    agent = PlannerAgent(world, vary=False)
    name = WORKED_ON.get(task, "cube")
    observation = world.reset(1)
    agent.reset(replace(world.describe(), operator=agent.operator), observation)
    while not world.touching(name):
        command = agent.act(observation)
        observation = world.step(command.values).observation
        assert not command.done
    centre, quaternion = world.object_pose(name)
    axis = rotation(quaternion)[:, 0] * world.task.objects[name].half_size[0]
    for camera in ("top", "wrist"):
        parts = [in_view(world, camera, centre + share * axis) for share in np.linspace(-1, 1, 9)]
        assert sum(parts) >= 4, (camera, parts)
