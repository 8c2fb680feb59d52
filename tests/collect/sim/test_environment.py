import json
from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.models import model_path
from blm.collect.sim.scene import build_scene, camera_quaternion, substeps_per_tick
from blm.schemas.embodiment import Embodiment, load_embodiment
from blm.schemas.episode import OBJECT_SLOTS, environment_state_names
from blm.schemas.errors import ConfigError, SimulationError, UnknownNameError, UsageError
from blm.schemas.rollout import Observation
from blm.schemas.task import load_task
from tests.collect.sim.scenes import EMBODIMENTS, PAIRS, environment, project, rotation


def wander(env: SimulatedEnvironment, steps: int, seed: int) -> list[np.ndarray]:
    """Small random moves about home; returns them."""
    generator = np.random.Generator(np.random.PCG64(seed))
    home, span = (
        env.embodiment.column("home"),
        env.embodiment.column("upper") - env.embodiment.column("lower"),
    )
    return [home + span * generator.uniform(-0.02, 0.02, len(home)) for _ in range(steps)]


def play(env: SimulatedEnvironment, actions: Sequence[np.ndarray]) -> list[np.ndarray]:
    states = []
    for action in actions:
        env.step(action)
        states.append(np.concatenate([env.data.qpos, env.data.qvel]))
    return states


def put(
    env: SimulatedEnvironment, name: str, position: Sequence[float], velocity: Sequence[float] = (0, 0, 0)
) -> None:
    joint = env.model.joint(f"object/{name}")
    env.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 3] = position
    env.data.qvel[joint.dofadr[0] : joint.dofadr[0] + 3] = velocity
    mujoco.mj_forward(env.model, env.data)


@pytest.mark.parametrize(("embodiment", "task"), PAIRS)
def test_every_pair_resets_and_steps(embodiment: str, task: str) -> None:
    env = environment(embodiment, task)
    observation = env.reset(0)
    axes = len(env.embodiment.axes)
    assert observation.state.shape == (axes,)
    assert observation.state.dtype == np.float32
    assert observation.ee_pose.shape == (7,)
    assert observation.environment_state is not None
    assert observation.environment_state.shape == (len(environment_state_names()),)
    assert observation.images == {}
    assert observation.time_s == 0.0
    last = [env.step(action) for action in wander(env, 5, seed=1)][-1]
    assert last.observation.time_s == pytest.approx(5 / env.embodiment.control_rate_hz)
    assert not last.success


@pytest.mark.parametrize("embodiment", EMBODIMENTS)
def test_same_seed_and_actions_give_the_same_bits(embodiment: str) -> None:
    env = environment(embodiment, "stack-cube")
    env.reset(7)
    actions = wander(env, 15, seed=2)
    first = play(env, actions)
    env.reset(8)
    play(env, wander(env, 5, seed=3))
    env.reset(7)
    again = play(env, actions)
    fresh = SimulatedEnvironment(env.embodiment, env.task, render=False)
    fresh.reset(7)
    anew = play(fresh, actions)
    assert all(
        np.array_equal(a, b) and np.array_equal(a, c) for a, b, c in zip(first, again, anew, strict=True)
    )


def test_snapshots_bring_back_the_same_future() -> None:
    env = environment(EMBODIMENTS[0], "stack-cube")
    env.reset(3)
    actions = wander(env, 20, seed=5)
    play(env, actions[:8])
    snapshot = env.snapshot()
    future = play(env, actions[8:])
    env.restore(snapshot)
    assert all(np.array_equal(a, b) for a, b in zip(future, play(env, actions[8:]), strict=True))


@given(seed=st.integers(min_value=0, max_value=2**31))
@settings(max_examples=15, deadline=None)
def test_objects_start_in_their_ranges_and_at_rest(seed: int) -> None:
    env = environment(EMBODIMENTS[0], "place-sphere")
    env.reset(seed)
    for name, thing in env.task.objects.items():
        position, _ = env.object_pose(name)
        assert thing.spawn.x[0] - 5e-4 <= position[0] <= thing.spawn.x[1] + 5e-4
        assert thing.spawn.y[0] - 5e-4 <= position[1] <= thing.spawn.y[1] + 5e-4
        assert position[2] == pytest.approx(thing.half_size[2], abs=5e-4)
    assert not env.succeeded()


def test_different_seeds_give_different_scenes_and_every_wording() -> None:
    env = environment(EMBODIMENTS[0], "pick-cube")
    observations = [env.reset(seed) for seed in range(30)]
    assert {o.instruction for o in observations} == set(env.task.instructions)
    states = {
        tuple(np.round(o.environment_state, 6)) for o in observations if o.environment_state is not None
    }
    assert len(states) == 30


@pytest.mark.parametrize("embodiment", EMBODIMENTS)
def test_the_arm_starts_near_home_and_stays_there(embodiment: str) -> None:
    env = environment(embodiment, "push-cube")
    arm = np.array(env.embodiment.arm_indices)
    scale = np.abs(env.embodiment.column("scale"))[arm]
    home = env.embodiment.column("home")
    for seed in range(3):
        observation = env.reset(seed)
        assert (np.abs(observation.state[arm] - home[arm]) * scale <= np.deg2rad(2.6)).all()
    last = [env.step(home).observation for _ in range(20)][-1]
    assert (np.abs(last.state[arm] - home[arm]) * scale < np.deg2rad(1.0)).all()


@pytest.mark.parametrize("embodiment", EMBODIMENTS)
@pytest.mark.parametrize("task", ["push-cube", "stack-cube", "place-sphere", "lift-peg-upright"])
def test_objects_stay_at_rest_for_two_seconds(embodiment: str, task: str) -> None:
    env = environment(embodiment, task)
    observation = env.reset(4)
    start = {name: env.object_pose(name)[0] for name in env.task.objects}
    hold = np.asarray(observation.state, dtype=np.float64)
    for _ in range(round(2 * env.embodiment.control_rate_hz)):
        env.step(hold)
    for name, thing in env.task.objects.items():
        position, _ = env.object_pose(name)
        assert np.linalg.norm(position - start[name]) < 1e-3
        assert position[2] - thing.half_size[2] > -1e-3
    table = env.model.geom("table").id
    assert all(c.dist > -1e-3 for c in env.data.contact if table in c.geom)


def test_a_rolling_ball_comes_to_rest_on_the_table() -> None:
    env = environment(EMBODIMENTS[0], "place-sphere")
    env.reset(0)
    radius = env.task.objects["sphere"].half_size[0]
    put(env, "sphere", (0.0, 0.25, radius), (0.0, 0.15, 0.0))
    for _ in range(60):
        env.step(env.embodiment.column("home"))
    state = env.scene_state().objects["sphere"]
    assert np.linalg.norm(state.velocity) < 2e-3
    assert 0.26 < state.position[1] < 0.6


def test_a_ball_dropped_into_the_bin_succeeds() -> None:
    env = environment(EMBODIMENTS[0], "place-sphere")
    env.reset(0)
    tray, _ = env.object_pose("bin")
    radius = env.task.objects["sphere"].half_size[0]
    put(env, "sphere", (tray[0], tray[1] + 0.002, tray[2] + radius + 0.006))
    transitions = [env.step(env.embodiment.column("home")) for _ in range(20)]
    assert transitions[-1].success


def test_success_follows_the_scene() -> None:
    env = environment(EMBODIMENTS[0], "push-cube")
    env.reset(0)
    goal = env.goal_position()
    assert goal is not None
    put(env, "cube", (goal[0], goal[1], env.task.objects["cube"].half_size[2]))
    assert env.succeeded()
    put(env, "cube", (goal[0], goal[1], 0.2))
    assert not env.succeeded()


@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_actions_are_clipped_to_the_axis_limits(data: st.DataObject) -> None:
    env = environment(EMBODIMENTS[0], "push-cube")
    env.reset(0)
    lower, upper = env.embodiment.column("lower"), env.embodiment.column("upper")
    share = data.draw(st.lists(st.floats(-3, 4), min_size=len(lower), max_size=len(lower)))
    wanted = lower + (upper - lower) * np.array(share)
    sent = env.step(wanted).action
    np.testing.assert_allclose(sent, np.clip(wanted, lower, upper), rtol=1e-6, atol=1e-6)
    actuators = [env.model.actuator(joint).id for joint in env.embodiment.joints]
    np.testing.assert_allclose(
        env.data.ctrl[actuators], env.embodiment.to_model(np.clip(wanted, lower, upper)), atol=1e-9
    )


def test_targets_are_reached_without_a_step_in_the_command() -> None:
    env = environment(EMBODIMENTS[0], "push-cube")
    observation = env.reset(0)
    target = np.asarray(observation.state, dtype=np.float64)
    target[0] += 10.0 if env.embodiment.axes[0].unit == "degree" else 0.17
    speeds = []
    for _ in range(20):
        observation = env.step(target).observation
        speeds.append(np.abs(env.data.qvel).max())
    assert abs(observation.state[0] - target[0]) < 0.05 * abs(target[0]) + 0.5
    assert max(speeds) < 10.0


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.zeros(2), r"shape \(2,\)"), (np.full(6, np.nan), "not a finite number")],
)
def test_actions_of_the_wrong_kind_are_refused(values: np.ndarray, message: str) -> None:
    env = environment("so100", "push-cube")
    env.reset(0)
    with pytest.raises(SimulationError, match=message):
        env.step(values)


def test_physics_that_come_apart_are_reported_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = environment(EMBODIMENTS[0], "push-cube")
    env.reset(0)
    put(env, "cube", (0.0, 0.0, 0.5), (0.0, 0.0, 50.0))
    with pytest.raises(SimulationError, match="'cube' was flung away at 5"):
        env.step(env.embodiment.column("home"))
    env.reset(0)
    put(env, "cube", (0.0, 0.0, 0.5), (0.0, 0.0, 1e200))
    with pytest.raises(SimulationError, match="diverged"):
        env.step(env.embodiment.column("home"))
    env.reset(0)
    env.step(env.embodiment.column("home"))
    assert list(tmp_path.iterdir()) == []  # MuJoCo would leave a log file behind


def test_describe_is_plain_json_in_the_base_frame() -> None:
    env = environment("so100", "push-cube")
    observation = env.reset(5)
    start = env.describe()
    described = json.loads(
        json.dumps({"objects": start.objects, "cameras": start.cameras, "goal": start.goal})
    )
    assert described["objects"] == [
        {
            "name": "cube",
            "shape": "box",
            "colour_name": "blue",
            "half_size": [0.0125, 0.0125, 0.0125],
            "role": "task",
        }
    ]
    assert [camera["name"] for camera in described["cameras"]] == ["top", "wrist"]
    assert described["cameras"][0]["mount"] is None
    assert described["cameras"][1]["mount"] == "wrist_camera"
    fixed = env.embodiment.camera("top")
    np.testing.assert_allclose(
        described["cameras"][0]["position"], np.array(fixed.position) - np.array(env.embodiment.base_position)
    )
    assert observation.environment_state is not None
    np.testing.assert_allclose(described["goal"]["position"], observation.environment_state[-3:], atol=1e-6)
    assert (start.seed, start.operator, start.instruction) == (5, "", observation.instruction)


def test_a_turned_base_turns_the_base_frame_with_it() -> None:
    straight = load_embodiment("so100")
    turned = straight.model_copy(update={"base_position": (0.0, -0.21, 0.0), "base_yaw_deg": 90.0})
    task = load_task("push-cube", "so100")
    poses = []
    for embodiment in (straight, turned):
        env = SimulatedEnvironment(embodiment, task, render=False, home_perturbation_deg=0.0)
        observation = env.reset(1)
        poses.append(observation.ee_pose)
        assert observation.environment_state is not None
        in_base = np.append(observation.environment_state[:3], 1.0)
        np.testing.assert_allclose((env.base_pose @ in_base)[:3], env.object_pose("cube")[0], atol=1e-6)
    np.testing.assert_allclose(poses[0], poses[1], atol=1e-5)


def test_tool_quaternions_keep_their_sign_while_the_arm_moves() -> None:
    env = environment(EMBODIMENTS[0], "push-cube")
    observations: list[Observation] = [env.reset(0)]
    observations += [env.step(action).observation for action in wander(env, 20, seed=9)]
    quaternions = np.array([o.ee_pose[3:] for o in observations])
    assert ((quaternions[1:] * quaternions[:-1]).sum(axis=1) > 0.9).all()


def test_unknown_objects_seeds_and_too_many_objects_are_refused() -> None:
    env = environment("so100", "push-cube")
    env.reset(0)
    with pytest.raises(UnknownNameError, match="there are: cube"):
        env.object_pose("sphere")
    with pytest.raises(UsageError, match="-1"):
        env.reset(-1)
    with pytest.raises(SimulationError, match="no episode"):
        SimulatedEnvironment(env.embodiment, env.task, render=False).describe()
    crowded = env.task.model_copy(
        update={"objects": {f"cube{i}": env.task.objects["cube"] for i in range(OBJECT_SLOTS + 1)}}
    )
    with pytest.raises(ConfigError, match="6 objects"):
        SimulatedEnvironment(env.embodiment, crowded, render=False)


def test_a_model_without_the_named_joint_is_reported() -> None:
    content = load_embodiment("so100").model_dump()
    content["axes"][0]["joint"] = "waist"
    with pytest.raises(SimulationError, match="no joint named 'waist'"):
        build_scene(Embodiment.model_validate(content), load_task("push-cube", "so100"))


def test_a_model_file_of_ones_own_is_read_and_a_missing_one_reported() -> None:
    embodiment, task = load_embodiment("so100"), load_task("push-cube", "so100")
    own = embodiment.model_copy(update={"model": str(model_path("so100"))})
    assert build_scene(own, task).model.nq == build_scene(embodiment, task).model.nq
    with pytest.raises(ConfigError, match=r"nowhere\.xml does not exist"):
        build_scene(embodiment.model_copy(update={"model": "nowhere.xml"}), task)


@pytest.mark.parametrize(("rate", "steps"), [(20.0, 25), (30.0, 17), (50.0, 10), (1000.0, 1)])
def test_control_periods_hold_whole_physics_steps(rate: float, steps: int) -> None:
    assert substeps_per_tick(rate) == steps


@given(
    position=st.tuples(*[st.floats(-1, 1) for _ in range(2)], st.floats(0.3, 1)),
    target=st.tuples(*[st.floats(-0.2, 0.2) for _ in range(3)]),
)
def test_cameras_see_what_they_look_at_in_the_middle_and_upright(
    position: tuple[float, float, float], target: tuple[float, float, float]
) -> None:
    assume(np.hypot(position[0] - target[0], position[1] - target[1]) > 1e-3)
    orientation = rotation(camera_quaternion(np.array(position), np.array(target)))
    camera = {"width": 100, "height": 80, "vertical_fov_deg": 50.0}
    np.testing.assert_allclose(project(camera, position, orientation, np.array(target)), [50, 40], atol=1e-6)
    assert orientation[2, 1] >= -1e-9
    assert abs(orientation[2, 0]) < 1e-9


def test_a_camera_straight_above_has_the_far_side_up() -> None:
    orientation = rotation(camera_quaternion(np.array([0.1, 0.2, 1.0]), np.array([0.1, 0.2, 0.0])))
    np.testing.assert_allclose(orientation, [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-12)
