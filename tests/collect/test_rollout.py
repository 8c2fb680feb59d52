"""The control loop: what subscribers see, and every way an episode ends."""

from __future__ import annotations

import numpy as np
import pytest

from blm.collect.rollout import run_episode, time_limit_steps
from blm.schemas.errors import PlanningError, SimulationError
from blm.schemas.rollout import Command, EpisodeEnd, EpisodeStart, Observation, Step
from tests.collect.workcell import HOLD_TICKS, SteadyAgent, brightness, counting_environment


class Witness:
    def __init__(self, fail_at: int | None = None) -> None:
        self.starts: list[EpisodeStart] = []
        self.steps: list[Step] = []
        self.ends: list[EpisodeEnd] = []
        self._fail_at = fail_at

    def on_start(self, start: EpisodeStart) -> None:
        self.starts.append(start)

    def on_step(self, step: Step) -> None:
        self.steps.append(step)
        if step.index == self._fail_at:
            raise OSError("disk full")

    def on_end(self, end: EpisodeEnd) -> None:
        self.ends.append(end)


def test_steps_hold_the_observation_before_and_the_clipped_action_as_sent():
    environment, witness = counting_environment(), Witness()
    run_episode(environment, SteadyAgent(), [witness], seed=1, max_steps=40)
    lower, upper = (environment.embodiment.column(name) for name in ("lower", "upper"))
    assert [step.index for step in witness.steps] == list(range(len(witness.steps)))
    for step in witness.steps:
        assert step.observation.images["top"][0, 0, 0] == brightness(step.index)
        np.testing.assert_array_equal(step.action, np.clip(step.action, lower, upper))
        assert step.success == (step.index + 1 >= environment.success_at)  # type: ignore[operator]
    following = [step.observation.state for step in witness.steps[1:]]
    np.testing.assert_array_equal(following, [step.action for step in witness.steps[:-1]])


def test_success_must_be_held():
    environment, witness = counting_environment(), Witness()
    end = run_episode(environment, SteadyAgent(), [witness], seed=1)
    assert environment.success_at is not None
    assert (end.reason, end.success) == ("success", True)
    assert end.steps == len(witness.steps) == environment.success_at + HOLD_TICKS - 1
    assert end.metrics["ik_solves"] == end.steps
    assert witness.starts[0].operator == "planner"
    assert witness.ends == [end]


def test_time_limit_comes_from_the_task():
    environment = counting_environment()
    end = run_episode(environment, SteadyAgent(), [], seed=7)
    assert (end.reason, end.success, end.steps) == ("time limit", False, time_limit_steps(environment))
    assert end.steps == environment.task.max_duration_s * environment.embodiment.control_rate_hz


def test_success_at_the_last_tick_counts_though_it_was_not_held():
    environment = counting_environment()
    end = run_episode(environment, SteadyAgent(), [], seed=0, max_steps=6)
    assert (end.reason, end.success) == ("time limit", True)


def test_agent_done_after_its_last_command():
    class Brief(SteadyAgent):
        def act(self, observation: Observation) -> Command:
            return Command(super().act(observation).values, done=self.acted == 2)

    end = run_episode(counting_environment(), Brief(), [], seed=1)
    assert (end.reason, end.success, end.steps) == ("agent done", False, 2)


def test_stop_request():
    witness = Witness()
    end = run_episode(
        counting_environment(), SteadyAgent(), [witness], seed=1, stop=lambda: len(witness.steps) == 4
    )
    assert (end.reason, end.success, end.steps) == ("stopped", False, 4)


@pytest.mark.parametrize("error", [PlanningError("push: blocked"), SimulationError("cube flung away")])
def test_agent_failure_is_an_end_with_its_cause(error: Exception):
    class Failing(SteadyAgent):
        def act(self, observation: Observation) -> Command:
            if self.acted == 2:
                raise error
            return super().act(observation)

    witness = Witness()
    end = run_episode(counting_environment(), Failing(), [witness], seed=1)
    assert (end.success, end.steps) == (False, 2)
    assert end.reason == f"agent failed: {error}"
    assert witness.ends == [end]


def test_failing_to_plan_is_an_episode_without_steps():
    witness = Witness()
    end = run_episode(counting_environment(), SteadyAgent(), [witness], seed=3)
    assert end.reason.startswith("agent failed: approach: no way")
    assert (len(witness.starts), witness.steps, witness.ends) == (1, [], [end])


def test_every_subscriber_is_told_the_end_of_a_broken_episode():
    broken, other = Witness(fail_at=3), Witness()
    with pytest.raises(OSError, match="disk full"):
        run_episode(counting_environment(), SteadyAgent(), [broken, other], seed=1)
    for witness in (broken, other):
        assert [(end.reason, end.success, end.steps) for end in witness.ends] == [("stopped", False, 4)]


def test_a_subscriber_that_cannot_end_does_not_keep_the_news_from_others():
    class Broken(Witness):
        def on_end(self, end: EpisodeEnd) -> None:
            raise OSError("disk full")

    other = Witness()
    with pytest.raises(OSError, match="disk full"):
        run_episode(counting_environment(), SteadyAgent(), [Broken(), other], seed=1)
    assert other.ends[0].reason == "success"
