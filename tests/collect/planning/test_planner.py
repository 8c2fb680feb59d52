"""The planner end to end, without pictures: it succeeds, repeats itself, respects limits and recovers."""

import json
from dataclasses import replace

import numpy as np
import pytest

from blm.collect.planning.failure import FailureCause
from blm.collect.planning.kinematics import Kinematics
from blm.collect.planning.planner import PlannerAgent
from blm.collect.sim.objects import object_element
from blm.schemas.embodiment import embodiment_names
from blm.schemas.errors import PlanningError
from blm.schemas.task import task_names
from tests.collect.planning.scenes import demonstrate, environment, limit_shares

PAIRS = [(robot, task) for robot in ("so100", "panda") for task in ("push-cube", "pick-cube")]
LONGEST_S = {"push-cube": 3.5, "pick-cube": 6.0}


@pytest.mark.parametrize(("robot", "task"), PAIRS)
def test_demonstrations_succeed_within_limits_and_in_time(robot, task):
    world = environment(robot, task)
    agent = PlannerAgent(world)
    embodiment = world.embodiment
    for seed in range(3):
        shown = demonstrate(world, agent, seed)
        assert shown.success, (seed, agent.metrics())
        assert len(shown.commands) <= LONGEST_S[task] * embodiment.control_rate_hz
        np.testing.assert_array_equal(shown.values, embodiment.clip(shown.values))
        assert np.all(limit_shares(shown, world) <= 1.001), seed


@pytest.mark.parametrize("task", sorted(set(task_names()) - {"push-cube", "pick-cube"}))
def test_the_other_tasks_succeed_too(task):
    world = environment("so100", task)
    agent = PlannerAgent(world)
    assert demonstrate(world, agent, 1).success, agent.metrics()


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names())
@pytest.mark.parametrize("robot", embodiment_names())
def test_every_pair_succeeds_within_the_limits_of_axes_and_motors(robot, task):
    world = environment(robot, task)
    agent = PlannerAgent(world)
    for seed in range(3):
        shown = demonstrate(world, agent, seed)
        assert shown.success, (seed, agent.metrics())
        assert np.all(limit_shares(shown, world) <= 1.001), seed
        assert 0.0 < agent.metrics()["peak_torque_share"] <= 1.0


def test_the_same_seed_gives_identical_commands_whatever_came_before():
    world = environment("so100", "push-cube")
    agent = PlannerAgent(world)
    first = demonstrate(world, agent, 5)
    demonstrate(world, agent, 6)
    again = demonstrate(world, agent, 5)
    fresh = demonstrate(world, PlannerAgent(world), 5)
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.values, fresh.values)
    assert [c.subtask for c in first.commands] == [c.subtask for c in again.commands]


def test_variation_changes_the_motion_and_can_be_switched_off():
    world = environment("so100", "push-cube")
    varied, plain = (demonstrate(world, PlannerAgent(world, vary=vary), 5) for vary in (True, False))
    assert varied.success
    assert plain.success
    count = min(len(varied.commands), len(plain.commands))
    assert np.abs(varied.values[:count] - plain.values[:count]).max() > 1.0


def test_demonstrations_of_one_task_differ_in_pace_and_in_how_they_grasp():
    world = environment("panda", "place-sphere")
    agent = PlannerAgent(world)
    durations, turns, leans = [], [], []
    for seed in range(8):
        shown = demonstrate(world, agent, seed)
        grasp = next(i for i, command in enumerate(shown.commands) if command.subtask == "grasp")
        tool = Kinematics(world.model, world.embodiment).forward(
            world.embodiment.to_model(shown.values[grasp])
        )
        durations.append(len(shown.commands))
        turns.append(np.arctan2(tool.rotation[1, 1], tool.rotation[0, 1]) % np.pi)
        leans.append(np.arccos(np.clip(-tool.rotation[2, 2], -1, 1)))
    assert np.std(durations) / np.mean(durations) > 0.04
    assert np.std(np.exp(2j * np.array(turns))) > 0.2
    assert np.ptp(leans) > np.deg2rad(3.0)


@pytest.mark.parametrize("step", ["push", "pull"])
def test_what_slides_a_cube_names_its_primitives_in_order(step):
    world = environment("so100", f"{step}-cube")
    names = [command.subtask for command in demonstrate(world, PlannerAgent(world), 1).commands]
    assert list(dict.fromkeys(names)) == ["approach", step, "retract"]


def test_metrics_are_json_ready_and_complete():
    world = environment("so100", "pick-cube")
    agent = PlannerAgent(world)
    demonstrate(world, agent, 0)
    metrics = json.loads(json.dumps(agent.metrics()))
    assert set(metrics) == {
        "ik_solves",
        "resampled_poses",
        "collision_checks",
        "sampled_paths",
        "path_length_rad",
        "planned_time_s",
        "recoveries",
        "peak_torque_share",
        "largest_push_m",
        "failure_cause",
        "failure",
    }
    assert metrics["ik_solves"] > 0
    assert metrics["path_length_rad"] > 0.5
    assert metrics["failure"] is None
    assert metrics["failure_cause"] is None


def _move_cube(world, position) -> None:
    joint = world.model.joint(object_element("cube"))
    world.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 3] = position
    world.data.qvel[joint.dofadr[0] : joint.dofadr[0] + 6] = 0


def test_an_object_out_of_reach_is_an_error_that_names_the_primitive_and_the_cause():
    world = environment("so100", "pick-cube")
    observation = world.reset(0)
    _move_cube(world, [0.35, 0.0, 0.0125])
    world.step(observation.state)
    agent = PlannerAgent(world)
    with pytest.raises(PlanningError, match=r"pick-cube.*so100.*approach: no solution"):
        agent.reset(replace(world.describe(), operator="planner"), observation)
    assert agent.metrics()["failure_cause"] == FailureCause.NO_IK_SOLUTION
    assert agent.metrics()["sampled_paths"] == 0


@pytest.mark.parametrize(("task", "tick"), [("pick-cube", 28), ("push-cube", 14)])
def test_an_object_that_moves_away_is_tried_again(task, tick):
    world = environment("so100", task)
    agent = PlannerAgent(world)

    def disturb(world, now: int) -> None:
        if now == tick:
            position = world.object_pose("cube")[0]
            _move_cube(world, position + np.array([-0.01, 0.05, 0.0]))

    shown = demonstrate(world, agent, 2, disturb)
    assert agent.metrics()["recoveries"] >= 1
    assert shown.success, agent.metrics()


def test_giving_up_is_reported():
    world = environment("so100", "pick-cube")
    agent = PlannerAgent(world)

    def steal(world, now: int) -> None:
        if now > 20:
            _move_cube(world, [0.02, 0.05, 0.3])

    shown = demonstrate(world, agent, 2, steal)
    assert not shown.success
    assert agent.metrics()["failure"]
    assert agent.metrics()["failure_cause"] in set(FailureCause)
    assert shown.commands[-1].done
