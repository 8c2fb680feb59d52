"""Each kind of variety changes pictures and nothing else, follows from the seed alone, and is described truly."""

import colorsys
from functools import cache

import mujoco
import numpy as np
import pytest

from blm.collect.sim.colour import NAMED_COLOURS, jittered
from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.headless import prepare_rendering
from blm.collect.sim.look import FIXED_FOV_DEG, FIXED_POSITION_M, MOUNTED_POSITION_M
from blm.collect.sim.variety import Variety
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import SimulationError
from blm.schemas.rollout import Observation
from blm.schemas.task import load_task
from tests.collect.sim.scenes import EMBODIMENTS, project
from tests.collect.sim.test_render import camera_pose_in_base

LOOKS = ("lighting", "colours", "cameras")


@pytest.fixture(scope="module", autouse=True)
def _renderer() -> None:
    try:
        prepare_rendering()
    except SimulationError as error:
        pytest.skip(f"no renderer: {error.message}")


@cache
def varied(text: str, task: str = "stack-cube", embodiment: str = "so100") -> SimulatedEnvironment:
    robot = load_embodiment(embodiment).with_image_size(96, 96)
    return SimulatedEnvironment(robot, load_task(task, embodiment), variety=Variety.parse(text))


def episode(env: SimulatedEnvironment, seed: int) -> list[Observation]:
    """The start and a few moves from it."""
    home = env.embodiment.column("home")
    return [env.reset(seed), *(env.step(home + share).observation for share in (0.01, 0.03, 0.05))]


@pytest.mark.parametrize("what", LOOKS)
def test_a_look_changes_every_picture_and_nothing_else(what: str) -> None:
    for seed in (0, 5):
        for plain, other in zip(episode(varied("none"), seed), episode(varied(what), seed), strict=True):
            for camera, image in plain.images.items():
                assert np.mean(image != other.images[camera]) > 0.01, camera
            for name in ("state", "ee_pose", "environment_state", "gripper_contact"):
                assert np.array_equal(getattr(plain, name), getattr(other, name)), name
            assert plain.instruction == other.instruction


@pytest.mark.parametrize("what", [*LOOKS, "all"])
def test_a_look_follows_from_its_seed_alone(what: str) -> None:
    env = varied(what)
    first, described = env.reset(3), env.describe()
    env.reset(4)
    env.reset(11)
    again, fresh = env.reset(3), SimulatedEnvironment(env.embodiment, env.task, variety=Variety.parse(what))
    anew = fresh.reset(3)
    assert env.describe().objects == fresh.describe().objects == described.objects
    assert env.describe().cameras == fresh.describe().cameras == described.cameras
    for camera, image in first.images.items():
        assert np.array_equal(image, again.images[camera])
        assert np.array_equal(image, anew.images[camera])
    fresh.close()


def test_one_kind_of_variety_does_not_change_what_another_draws() -> None:
    """Cameras stand where they stand whether the light varies too or not."""
    alone, together = varied("cameras"), varied("all")
    alone.reset(6)
    together.reset(6)
    assert alone.describe().cameras == together.describe().cameras


@pytest.mark.parametrize("camera_name", ["top", "wrist"])
@pytest.mark.parametrize("embodiment", EMBODIMENTS)
def test_a_moved_camera_is_described_where_it_is(embodiment: str, camera_name: str) -> None:
    """A ball's pixels surround the projection of its centre by that episode's description, within 2 pixels."""
    robot = load_embodiment(embodiment).with_image_size(192, 128)
    env = SimulatedEnvironment(
        robot, load_task("place-sphere", embodiment), variety=Variety(cameras=True), shadows=False
    )
    nominal = np.array([70.0, 34.0])
    for seed in (1, 2):
        env.reset(seed)
        position, orientation = camera_pose_in_base(env, camera_name)
        camera = next(c for c in env.describe().cameras if c["name"] == camera_name)
        focal = camera["height"] / 2 / np.tan(np.deg2rad(camera["vertical_fov_deg"]) / 2)
        direction = np.array([(nominal[0] - 96) / focal, (64 - nominal[1]) / focal, -1.0])
        point = position + orientation @ (direction * (0.2 if camera_name == "wrist" else 0.4))
        np.testing.assert_allclose(project(camera, position, orientation, point), nominal, atol=1e-6)
        joint = env.model.joint("object/sphere")
        world = env.base_pose[:3, :3] @ point + env.base_pose[:3, 3]
        env.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 3] = world
        mujoco.mj_forward(env.model, env.data)
        image = env._images()[camera_name].astype(int)
        blue = (
            (image[..., 2] > 60)
            & (image[..., 2] > 1.6 * image[..., 0])
            & (image[..., 2] > 1.4 * image[..., 1])
        )
        assert blue.sum() > 20
        rows, columns = np.nonzero(blue)
        centroid = np.array([columns.mean(), rows.mean()]) + 0.5
        assert np.abs(centroid - nominal).max() < 2.0
    env.close()


def test_cameras_move_as_far_as_is_said() -> None:
    plain, env = varied("none"), varied("cameras")
    plain.reset(0)
    fixed = {camera["name"]: camera for camera in plain.describe().cameras}
    seen = []
    for seed in range(40):
        env.reset(seed)
        top, wrist = env.describe().cameras
        moved = np.array(top["position"]) - fixed["top"]["position"]
        seen.append([*moved, top["vertical_fov_deg"] - fixed["top"]["vertical_fov_deg"]])
        assert np.abs(wrist["position"]).max() <= MOUNTED_POSITION_M
        assert 2 * np.degrees(np.arccos(wrist["quaternion"][0])) <= 1.5 + 1e-6
        assert wrist["vertical_fov_deg"] == fixed["wrist"]["vertical_fov_deg"]
    limits = np.array([FIXED_POSITION_M] * 3 + [FIXED_FOV_DEG])
    assert np.all(np.abs(seen) <= limits + 1e-9)
    assert np.all(np.abs(seen).max(axis=0) > 0.7 * limits)


def test_a_jittered_colour_keeps_its_name() -> None:
    """Its hue stays nearer to its own named colour's than to any other's."""
    hues = {name: colorsys.rgb_to_hsv(*rgb)[0] for name, rgb in NAMED_COLOURS.items()}
    generator = np.random.default_rng(0)
    for name, rgb in NAMED_COLOURS.items():
        for _ in range(100):
            colour = jittered((*rgb, 1.0), generator)
            hue = colorsys.rgb_to_hsv(*colour[:3])[0]
            apart = {other: abs((hue - there + 0.5) % 1 - 0.5) for other, there in hues.items()}
            assert min(apart, key=apart.__getitem__) == name
            assert apart[name] < 0.4 * min(value for other, value in apart.items() if other != name)


def test_objects_are_seen_in_the_colours_they_are_said_to_have() -> None:
    """Where the top camera sees an object's centre, hardly any of its pixels has a hue far from its colour's."""
    hues = {name: colorsys.rgb_to_hsv(*rgb)[0] for name, rgb in NAMED_COLOURS.items()}
    env, seen = varied("all", "stack-cube"), 0
    for seed in range(12):
        image = env.reset(seed).images["top"]
        described = env.describe()
        position, orientation = camera_pose_in_base(env, "top")
        camera = next(c for c in described.cameras if c["name"] == "top")
        state = env._environment_state()
        for slot, thing in enumerate(described.objects):
            pixel = project(camera, position, orientation, state[7 * slot : 7 * slot + 3])
            column, row = np.clip(pixel.astype(int), 0, 95)
            hue, saturation, value = colorsys.rgb_to_hsv(*(image[row, column] / 255.0))
            assert value > 0.1
            if saturation > 0.5:
                apart = abs((hue - hues[thing["colour_name"]] + 0.5) % 1 - 0.5)
                seen += apart < 0.05
    assert seen >= 30


@pytest.mark.parametrize("task", ["push-cube", "lift-peg-upright"])
def test_no_picture_is_black_or_burnt_out(task: str) -> None:
    env = varied("lighting,colours", task)
    for seed in range(6):
        for image in env.reset(seed).images.values():
            assert 50 < image.mean() < 215
            assert np.mean(image < 5) < 0.05
            assert np.mean(image > 253) < 0.05
