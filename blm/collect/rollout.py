"""The one control loop of the project: recording, evaluation and deployment run it.

    seed ──▶ Environment.reset ──▶ Observation ──▶ Agent.reset                                (once per episode)
                                        │
              ┌─────────────────────────┴────────────┐
              ▼                                      │
         Agent.act ──Command──▶ Environment.step ──Transition──┐
                                                     │         │ next observation
              ┌──────────────────────────────────────┘         └──▶ back to Agent.act
              ▼
         Step (observation before the action, action as sent, success after) ──▶ every Subscriber

An episode ends when success was held, at the time limit, when the agent is done or has failed, or when somebody asks
to stop; the subscribers are always told. Pacing is the environment's: its `step` takes one control period, which a
simulator passes as fast as it can and a real robot waits out between sending and observing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from blm.schemas.errors import PlanningError, SimulationError
from blm.schemas.rollout import (
    Agent,
    Environment,
    EpisodeEnd,
    Observation,
    Step,
    Subscriber,
)

HOLD_STEPS = 3
"""Ticks in a row for which the success criteria must hold: one tick may be an object passing through."""

SUCCESS = "success"
TIME_LIMIT = "time limit"
AGENT_DONE = "agent done"
AGENT_FAILED = "agent failed: "
STOPPED = "stopped"


def run_episode(
    environment: Environment,
    agent: Agent,
    subscribers: Sequence[Subscriber],
    seed: int,
    max_steps: int | None = None,
    *,
    hold_steps: int = HOLD_STEPS,
    stop: Callable[[], bool] | None = None,
) -> EpisodeEnd:
    """Run one episode; subscribers see its start, every step and its end.

    `EpisodeEnd.reason` is 'success' once the task's criteria have held for `hold_steps` ticks in a row, 'time limit'
    after `max_steps` (by default the task's `max_duration_s`), 'agent done' when the agent has nothing more to do,
    'stopped' when `stop` returns true, and 'agent failed: <cause>' when planning fails or the agent's commands break
    the physics. `EpisodeEnd.success` is whether the criteria held after the last tick.

    Raises:
        SimulationError: no episode could begin (no subscriber has heard of it).
        Exception: whatever else an environment, agent or subscriber raises, after the subscribers were told of an
            end with reason 'stopped'.
    """
    observation = environment.reset(seed)
    start = replace(environment.describe(), operator=agent.operator)
    limit = time_limit_steps(environment) if max_steps is None else max_steps
    loop = _Loop(environment, agent, subscribers, limit, hold_steps, stop)
    metrics: Mapping[str, Any] = {}
    try:
        for subscriber in subscribers:
            subscriber.on_start(start)
        try:
            agent.reset(start, observation)
            loop.run(observation)
        except (PlanningError, SimulationError) as error:
            loop.success, loop.reason = False, AGENT_FAILED + error.message
        metrics = {**_metrics_of(environment), **agent.metrics()}
    except BaseException:
        loop.success, loop.reason = False, STOPPED
        raise
    finally:
        end = EpisodeEnd(loop.success, loop.steps, loop.reason, metrics)
        _tell_end(subscribers, end)
    return end


def _metrics_of(environment: Environment) -> Mapping[str, Any]:
    """What an environment counted in this episode, if it counts: a real robot's retries, holds, late ticks."""
    metrics: Callable[[], Mapping[str, Any]] | None = getattr(environment, "metrics", None)
    return {} if metrics is None else metrics()


def time_limit_steps(environment: Environment) -> int:
    """Control ticks in the task's `max_duration_s`."""
    return math.ceil(environment.task.max_duration_s * environment.embodiment.control_rate_hz)


class _Loop:
    """The ticks of one episode, and where it stands."""

    def __init__(
        self,
        environment: Environment,
        agent: Agent,
        subscribers: Sequence[Subscriber],
        limit: int,
        hold_steps: int,
        stop: Callable[[], bool] | None,
    ) -> None:
        self._environment = environment
        self._agent = agent
        self._subscribers = subscribers
        self._limit = limit
        self._hold_steps = hold_steps
        self._stop = stop
        self._held = 0
        self.steps = 0
        self.success = False
        self.reason = STOPPED

    def run(self, observation: Observation) -> None:
        """Tick until there is a reason to end, which is left in `reason`."""
        done = False
        while not (reason := self._reason_to_end(done)):
            observation, done = self._tick(observation)
        self.reason = reason

    def _reason_to_end(self, done: bool) -> str:
        if self._held >= self._hold_steps:
            return SUCCESS
        if done:
            return AGENT_DONE
        if self.steps >= self._limit:
            return TIME_LIMIT
        return STOPPED if self._stop is not None and self._stop() else ""

    def _tick(self, observation: Observation) -> tuple[Observation, bool]:
        command = self._agent.act(observation)
        transition = self._environment.step(command.values)
        self.success = transition.success
        self._held = self._held + 1 if transition.success else 0
        step = Step(
            index=self.steps,
            observation=observation,
            action=transition.action,
            subtask=command.subtask,
            success=transition.success,
            intervention=command.intervention,
        )
        self.steps += 1
        for subscriber in self._subscribers:
            subscriber.on_step(step)
        return transition.observation, command.done


def _tell_end(subscribers: Sequence[Subscriber], end: EpisodeEnd) -> None:
    """Tell every subscriber, even if one of them fails; the first failure is raised afterwards."""
    first: BaseException | None = None
    for subscriber in subscribers:
        try:
            subscriber.on_end(end)
        except BaseException as error:
            first = first or error
    if first is not None:
        raise first
