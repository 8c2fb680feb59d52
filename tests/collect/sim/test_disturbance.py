"""Noise with corrective labels: the arm is pushed off, the actions stay clean, and the demonstration still succeeds."""

import numpy as np
import pytest

from blm.collect.planning.planner import PlannerAgent
from blm.collect.rollout import run_episode
from blm.collect.sim.disturbance import Bursts, Disturbance, Surroundings, joint_offset
from blm.collect.sim.environment import SimulatedEnvironment
from blm.schemas.embodiment import load_embodiment
from blm.schemas.task import load_task

PAIRS = [(robot, task) for robot in ("so100", "panda") for task in ("pick-cube", "push-cube")]
AWAY = Surroundings(np.array([0.0, 0.0, 0.3]), np.zeros((1, 3)), np.zeros((0, 3)), None)


def _world(robot: str, task: str, disturbance: Disturbance | None) -> SimulatedEnvironment:
    return SimulatedEnvironment(
        load_embodiment(robot), load_task(task, robot), render=False, disturbance=disturbance
    )


class Trace:
    """A subscriber that keeps where the tool was, and the actions on record."""

    def __init__(self) -> None:
        self.tool: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []

    def on_start(self, start) -> None: ...

    def on_step(self, step) -> None:
        self.tool.append(step.observation.ee_pose[:3].astype(float))
        self.actions.append(step.action)

    def on_end(self, end) -> None: ...


def _traced(robot: str, task: str, disturbance: Disturbance | None, seed: int):
    world, trace = _world(robot, task, disturbance), Trace()
    end = run_episode(world, PlannerAgent(world), [trace], seed)
    return end, np.array(trace.tool), np.array(trace.actions)


def test_bursts_are_smooth_bounded_and_never_downwards():
    disturbance = Disturbance()
    bursts = Bursts(disturbance, seed=4)
    moved = np.array([bursts.displacement(time) for time in np.arange(0.0, 20.0, 0.002).tolist()])
    size = np.linalg.norm(moved, axis=1)
    assert 0.01 < size.max() <= disturbance.peak_m[1]
    assert moved[:, 2].min() >= 0.0
    fastest = np.pi * disturbance.peak_m[1] / disturbance.duration_s[0]
    assert np.linalg.norm(np.diff(moved, axis=0), axis=1).max() <= fastest * 0.002 * 1.01
    assert 0.3 < np.mean(size > 0) < 0.8


def test_another_seed_brings_other_bursts_and_the_same_seed_the_same():
    times = np.arange(0.0, 5.0, 0.05).tolist()
    first, again, other = (
        [Bursts(Disturbance(), seed).displacement(time) for time in times] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.subtract(first, other)).max() > 0.005


def test_bursts_leave_precise_work_alone():
    bursts = Bursts(Disturbance(near_m=0.05, far_m=0.1), seed=0)
    assert bursts.weight(AWAY) == 1.0
    at_object = Surroundings(np.array([0.0, 0.0, 0.04]), np.zeros((1, 3)), np.zeros((0, 3)), None)
    assert bursts.weight(at_object) == 0.0
    carried = np.array([[0.0, 0.0, 0.3]])
    carrying = Surroundings(np.array([0.0, 0.0, 0.3]), np.zeros((0, 3)), carried, None)
    assert bursts.weight(carrying) == 1.0
    arriving = Surroundings(carrying.tool, carrying.others, carried, np.array([0.0, 0.075, 0.3]))
    assert bursts.weight(arriving) == pytest.approx(0.5)


def test_an_offset_moves_the_tool_about_as_asked():
    jacobian = np.array([[0.3, 0.0, 0.1, 0.0], [0.0, 0.4, 0.0, 0.1], [0.1, 0.0, 0.3, 0.2]])
    wanted = np.array([0.01, -0.01, 0.01])
    np.testing.assert_allclose(jacobian @ joint_offset(wanted, jacobian), wanted, atol=2e-3)


def test_a_disturbance_of_no_strength_changes_no_bit():
    _, plain, sent = _traced("so100", "push-cube", None, 3)
    _, still, sent_too = _traced("so100", "push-cube", Disturbance(scale=0.0), 3)
    np.testing.assert_array_equal(plain, still)
    np.testing.assert_array_equal(sent, sent_too)


@pytest.mark.parametrize(("robot", "task"), PAIRS)
def test_the_state_wanders_off_and_comes_back_while_the_actions_stay_clean(robot, task):
    _, clean, sent = _traced(robot, task, None, 2)
    end, noisy, labels = _traced(robot, task, Disturbance(), 2)
    assert end.success
    assert end.metrics["recoveries"] == 0
    ticks = min(len(clean), len(noisy))
    np.testing.assert_array_equal(labels[:ticks], sent[:ticks])
    off = np.linalg.norm(noisy[:ticks] - clean[:ticks], axis=1)
    assert 0.003 < off.max() < 0.03
    assert off[off.argmax() :].min() < 0.3 * off.max()
    assert 0.003 < end.metrics["largest_push_m"] <= 0.02


def test_a_snapshot_in_a_burst_leads_to_the_same_states_again():
    world = _world("so100", "push-cube", Disturbance())
    action = world.reset(1).state
    for _ in range(12):
        world.step(action)
    kept = world.snapshot()
    first = [world.step(action).observation.state for _ in range(10)]
    world.restore(kept)
    np.testing.assert_array_equal([world.step(action).observation.state for _ in range(10)], first)


@pytest.mark.slow
@pytest.mark.parametrize(("robot", "task"), PAIRS)
def test_nine_of_ten_disturbed_demonstrations_succeed(robot, task):
    world = _world(robot, task, Disturbance())
    agent = PlannerAgent(world)
    assert sum(run_episode(world, agent, [], seed).success for seed in range(30)) >= 27
