from itertools import product

import mujoco
import numpy as np
import pytest

from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.headless import prepare_rendering
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import SimulationError
from blm.schemas.task import load_task
from tests.collect.sim.scenes import EMBODIMENTS, PAIRS, environment, project, rotation


@pytest.fixture(scope="module", autouse=True)
def _renderer() -> None:
    try:
        prepare_rendering()
    except SimulationError as error:
        pytest.skip(f"no renderer: {error.message}")


def camera_pose_in_base(env: SimulatedEnvironment, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) and rotation (3, 3) of a camera in the base frame, from `describe` and the mount's site."""
    camera = next(camera for camera in env.describe().cameras if camera["name"] == name)
    position, orientation = np.array(camera["position"]), rotation(camera["quaternion"])
    if camera["mount"] is None:
        return position, orientation
    site = env.data.site(camera["mount"])
    mount_in_base = env.base_pose[:3, :3].T @ site.xmat.reshape(3, 3)
    origin = env.base_pose[:3, :3].T @ (site.xpos - env.base_pose[:3, 3])
    return origin + mount_in_base @ position, mount_in_base @ orientation


@pytest.mark.parametrize("camera_name", ["top", "wrist"])
@pytest.mark.parametrize("embodiment", EMBODIMENTS)
def test_a_ball_appears_where_the_described_camera_projects_it(embodiment: str, camera_name: str) -> None:
    """The blue pixels of a small ball surround the projection of its centre, within 2 pixels."""
    robot = load_embodiment(embodiment).with_image_size(192, 128)
    task = load_task("place-sphere", embodiment)
    env = SimulatedEnvironment(robot, task)
    env.reset(0)
    position, orientation = camera_pose_in_base(env, camera_name)
    camera = next(c for c in env.describe().cameras if c["name"] == camera_name)
    distance = 0.2 if camera_name == "wrist" else 0.4
    focal = camera["height"] / 2 / np.tan(np.deg2rad(camera["vertical_fov_deg"]) / 2)
    pixel = np.array([70.0, 34.0])
    direction = np.array([(pixel[0] - 96) / focal, (64 - pixel[1]) / focal, -1.0])
    point = position + orientation @ (direction * distance)
    np.testing.assert_allclose(project(camera, position, orientation, point), pixel, atol=1e-6)
    joint = env.model.joint("object/sphere")
    world = env.base_pose[:3, :3] @ point + env.base_pose[:3, 3]
    env.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 3] = world
    mujoco.mj_forward(env.model, env.data)
    image = env._images()[camera_name].astype(int)
    env.close()
    blue = (
        (image[..., 2] > 60) & (image[..., 2] > 1.6 * image[..., 0]) & (image[..., 2] > 1.4 * image[..., 1])
    )
    assert blue.sum() > 20
    rows, columns = np.nonzero(blue)
    centroid = np.array([columns.mean(), rows.mean()]) + 0.5
    assert np.abs(centroid - pixel).max() < 2.0


def test_images_have_the_cameras_sizes_and_show_the_cube() -> None:
    robot = load_embodiment("so100")
    sizes = {"top": (96, 128), "wrist": (64, 64)}
    cameras = tuple(
        camera.model_copy(update={"height": sizes[camera.name][0], "width": sizes[camera.name][1]})
        for camera in robot.cameras
    )
    env = SimulatedEnvironment(robot.model_copy(update={"cameras": cameras}), load_task("push-cube", "so100"))
    first = env.reset(0)
    again = env.reset(0)
    for name, (height, width) in sizes.items():
        assert first.images[name].shape == (height, width, 3)
        assert first.images[name].dtype == np.uint8
        assert np.array_equal(first.images[name], again.images[name])
        assert first.images[name].std() > 10
    other = env.reset(1)
    assert not np.array_equal(first.images["top"], other.images["top"])
    env.close()


def test_no_graphics_context_without_pictures() -> None:
    env = environment("so100", "push-cube")
    env.reset(0)
    env.step(env.embodiment.column("home"))
    assert env._renderer is None


@pytest.mark.parametrize(("embodiment", "task"), PAIRS)
def test_every_start_and_goal_is_inside_the_top_view(embodiment: str, task: str) -> None:
    env = environment(embodiment, task)
    env.reset(0)
    position, orientation = camera_pose_in_base(env, "top")
    camera = next(c for c in env.describe().cameras if c["name"] == "top")

    def check(x: float, y: float, z: float, margin: float) -> None:
        for dx, dy in product((-margin, margin), repeat=2):
            in_base = env.base_pose[:3, :3].T @ (np.array([x + dx, y + dy, z]) - env.base_pose[:3, 3])
            column, row = project(camera, position, orientation, in_base)
            assert 0 <= column <= camera["width"], (x, y, z, column, row)
            assert 0 <= row <= camera["height"], (x, y, z, column, row)

    for thing in env.task.objects.values():
        for x, y in product(thing.spawn.x, thing.spawn.y):
            check(x, y, thing.half_size[2], thing.half_size[1])
    goal = env.task.goal
    if goal is not None and goal.x and goal.y and goal.z:
        for x, y, z in product(goal.x, goal.y, goal.z):
            check(x, y, z, 0.0)
    elif goal is not None and goal.offset is not None:
        spawn = env.task.objects[str(goal.relative_to)].spawn
        for x, y in product(spawn.x, spawn.y):
            check(x + goal.offset[0], y + goal.offset[1], 0.0, goal.radius_m)


@pytest.mark.parametrize("embodiment", EMBODIMENTS)
def test_objects_are_not_hidden_behind_the_arm_at_home(embodiment: str) -> None:
    """Over many starts the red cube covers at least six pixels' width in the 128² top view."""
    robot = load_embodiment(embodiment).with_image_size(128, 128)
    env = SimulatedEnvironment(robot, load_task("stack-cube", embodiment))
    for seed in range(12):
        image = env.reset(seed).images["top"].astype(int)
        red = (
            (image[..., 0] > 90)
            & (image[..., 0] > 2.2 * image[..., 1])
            & (image[..., 0] > 2.2 * image[..., 2])
        )
        assert red.sum() >= 30, seed
    env.close()
