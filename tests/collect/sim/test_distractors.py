"""What the task is not about lies out of its way, is never confused with it, and is recorded."""

from functools import cache

import mujoco
import numpy as np
import pytest

from blm.collect.planning.planner import PlannerAgent
from blm.collect.rollout import run_episode
from blm.collect.sim.distractors import (
    KeepClear,
    distractor_colours,
    distractor_kinds,
    footprint_m,
    keep_clear,
)
from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.objects import Placement
from blm.collect.sim.variety import Variety
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import ConfigError
from blm.schemas.rollout import EpisodeEnd, EpisodeStart, Step
from blm.schemas.task import load_task, task_names
from tests.collect.sim.scenes import PAIRS, environment, project, rotation


@cache
def cluttered(embodiment: str, task: str, count: int = 3) -> SimulatedEnvironment:
    return SimulatedEnvironment(
        load_embodiment(embodiment),
        load_task(task, embodiment),
        render=False,
        variety=Variety(distractors=count),
    )


@pytest.mark.parametrize("task", task_names())
def test_distractors_look_like_nothing_the_task_speaks_of(task: str) -> None:
    loaded = load_task(task, "so100")
    kinds = distractor_kinds(loaded, 3)
    assert len(kinds) == 3
    for kind in kinds.values():
        assert kind.shape not in {thing.shape for thing in loaded.objects.values()}
    assert not set(distractor_colours(loaded)) & {thing.colour_name for thing in loaded.objects.values()}
    if task == "push-cube":
        assert "red" not in distractor_colours(loaded)  # the target disc is


@pytest.mark.parametrize(("embodiment", "task"), PAIRS)
def test_the_task_starts_as_without_them_and_they_lie_clear(embodiment: str, task: str) -> None:
    env, plain = cluttered(embodiment, task), environment(embodiment, task)
    found = []
    for seed in range(6):
        first, observation = plain.reset(seed), env.reset(seed)
        before, state = first.environment_state, observation.environment_state
        assert before is not None
        assert state is not None
        assert first.instruction == observation.instruction
        np.testing.assert_array_equal(first.state, observation.state)
        own = len(env.task.objects)
        np.testing.assert_allclose(before[: 7 * own], state[: 7 * own], atol=1e-6)
        np.testing.assert_array_equal(before[-3:], state[-3:])
        described = env.describe()
        roles = [thing["role"] for thing in described.objects]
        assert roles == ["task"] * own + ["distractor"] * (len(roles) - own)
        looks = [(thing["shape"], thing["colour_name"]) for thing in described.objects]
        assert len({colour for _, colour in looks}) == len(looks)
        found.append(len(roles) - own)
        used = [thing["name"] for thing in described.objects[own:]]
        bodies = {env.model.body(f"object/{name}").id for name in used}
        table = env.model.geom("table").id
        for a, b in env.data.contact.geom:
            if {int(env.model.geom_bodyid[a]), int(env.model.geom_bodyid[b])} & bodies:
                assert table in (a, b)
        camera = next(c for c in described.cameras if c["mount"] is None)
        for slot in range(own, len(roles)):
            position = state[7 * slot : 7 * slot + 3]
            pixel = project(camera, camera["position"], rotation(camera["quaternion"]), position)
            assert np.all(pixel > 0.05 * camera["width"])
            assert np.all(pixel < 0.95 * camera["width"])
    assert sum(found) >= 6


def test_what_is_not_used_is_far_away_weightless_and_untouched() -> None:
    env = cluttered("so100", "pick-cube")
    seed = next(s for s in range(20) if env.reset(s) and len(env.describe().objects) == 2)
    env.reset(seed)
    parked = set(env.obstacles) - {thing["name"] for thing in env.describe().objects}
    assert len(parked) == 2
    before = {name: env.object_pose(name)[0] for name in parked}
    for _ in range(40):
        env.step(env.embodiment.column("home"))
    for name in parked:
        np.testing.assert_allclose(env.object_pose(name)[0], before[name], atol=1e-6)
        assert before[name][2] > 50
        geom = env.model.geom(f"object/{name}").id
        assert geom not in env.data.contact.geom
        assert env.model.geom_rgba[geom, 3] == 0.0


def test_without_variety_the_model_has_no_more_in_it() -> None:
    plain, env = environment("so100", "pick-cube"), cluttered("so100", "pick-cube", 2)
    assert plain.obstacles == ()
    assert plain.model.nv == env.model.nv - 12


def test_a_strip_is_measured_from_its_edge() -> None:
    strip = KeepClear(np.array([0.0, 0.0]), np.array([1.0, 0.0]), 0.1)
    assert strip.distance_m(np.array([0.5, 0.3])) == pytest.approx(0.2)
    assert strip.distance_m(np.array([2.0, 0.0])) == pytest.approx(0.9)
    assert strip.distance_m(np.array([-0.3, 0.4])) == pytest.approx(0.4)
    assert strip.distance_m(np.array([0.2, 0.0])) == pytest.approx(-0.1)


@pytest.mark.parametrize("embodiment", ["so100", "panda"])
def test_a_pushed_cubes_whole_way_is_kept_clear(embodiment: str) -> None:
    robot, task = load_embodiment(embodiment), load_task("push-cube", embodiment)
    start, goal = Placement(0.0, 0.02, 0.0), np.array([0.2, 0.02, 0.0])
    strips = keep_clear(robot, task, {"cube": start}, goal)
    half = footprint_m(task.objects["cube"])
    for share in np.linspace(0, 1, 11):
        for side in (-1, 1):
            point = np.array([0.2 * share, 0.02 + side * half])
            assert min(strip.distance_m(point) for strip in strips) < -0.02


class _Forces:
    """Every force on the gripper, and how far each distractor moved."""

    def __init__(self) -> None:
        self.first: np.ndarray | None = None
        self.last = np.zeros(0)
        self.own = self.all = 0
        self.touched = 0.0

    def on_start(self, start: EpisodeStart) -> None:
        self.own = sum(thing["role"] == "task" for thing in start.objects)
        self.all = len(start.objects)

    def on_step(self, step: Step) -> None:
        observation = step.observation
        assert observation.gripper_contact is not None
        self.first = observation.environment_state if self.first is None else self.first
        self.last = observation.environment_state
        self.touched = max(self.touched, observation.gripper_contact[self.own : self.all].max(initial=0.0))

    def on_end(self, end: EpisodeEnd) -> None: ...

    def moved_m(self) -> float:
        assert self.first is not None
        places = slice(7 * self.own, 7 * self.all)
        return float(np.abs((self.last - self.first)[places].reshape(-1, 7)[:, :3]).max(initial=0.0))


@pytest.mark.parametrize(
    ("embodiment", "task"), [("so100", "push-cube"), ("so100", "stack-cube"), ("panda", "lift-peg-upright")]
)
def test_the_planner_does_its_work_without_touching_them(embodiment: str, task: str) -> None:
    env = cluttered(embodiment, task)
    agent = PlannerAgent(env)
    for seed in (0, 1):
        forces = _Forces()
        assert run_episode(env, agent, [forces], seed).success
        assert forces.touched == 0.0
        assert forces.moved_m() < 0.002


def test_the_planner_sees_a_distractor_in_its_way() -> None:
    """Put where a fingertip is, it is what the checker names."""
    env = cluttered("so100", "pick-cube")
    observation = env.reset(0)
    agent = PlannerAgent(env)
    agent.reset(env.describe(), observation)
    name = env.describe().objects[1]["name"]
    joint = env.model.joint(f"object/{name}")
    env.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 3] = env.data.geom("left_pad").xpos
    mujoco.mj_forward(env.model, env.data)
    here = env.embodiment.to_model(np.asarray(observation.state, dtype=np.float64))
    assert agent._checker.cause(here) is None
    agent._checker.update(env.data, here)
    assert name in str(agent._checker.cause(here))


def test_more_objects_than_slots_are_refused() -> None:
    task = load_task("stack-cube", "so100")
    crowded = task.model_copy(update={"objects": task.objects | {"third": task.objects["cube"]}})
    with pytest.raises(ConfigError, match="6 objects, distractors included"):
        SimulatedEnvironment(load_embodiment("so100"), crowded, render=False, variety=Variety(distractors=3))
