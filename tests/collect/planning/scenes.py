"""Shared environments without pictures, and a minimal loop that keeps what a planner sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from blm.collect.planning.planner import PlannerAgent
from blm.collect.planning.timing import Limits
from blm.collect.sim.environment import SimulatedEnvironment
from blm.schemas.embodiment import load_embodiment
from blm.schemas.rollout import Command
from blm.schemas.task import load_task


@cache
def environment(embodiment: str, task: str) -> SimulatedEnvironment:
    """A shared environment; every test resets it first."""
    return SimulatedEnvironment(load_embodiment(embodiment), load_task(task, embodiment), render=False)


@dataclass(frozen=True)
class Demonstration:
    """An episode run to its end by the agent's own `done`: first measured state (A,), commands, outcome."""

    start: np.ndarray
    commands: list[Command]
    success: bool

    @property
    def values(self) -> np.ndarray:
        """What was sent, (T, A), axis units."""
        return np.stack([command.values for command in self.commands])


def demonstrate(world: SimulatedEnvironment, agent: PlannerAgent, seed: int, disturb=None) -> Demonstration:
    """Run until the agent is done or the task's time is up; `disturb(world, tick)` may meddle before each tick."""
    observation = world.reset(seed)
    agent.reset(replace(world.describe(), operator=agent.operator), observation)
    start, commands = observation.state.astype(float), []
    for tick in range(int(world.task.max_duration_s * world.embodiment.control_rate_hz)):
        if disturb is not None:
            disturb(world, tick)
        command = agent.act(observation)
        commands.append(command)
        observation = world.step(command.values).observation
        if command.done:
            break
    return Demonstration(start, commands, world.succeeded())


def limit_shares(shown: Demonstration, world: SimulatedEnvironment) -> np.ndarray:
    """The largest velocity, acceleration and jerk of the commands as shares of the axes' limits, (3,)."""
    embodiment, limits = world.embodiment, Limits.of(world.embodiment)
    # The arm starts at rest a hair away from its targets; gravity compensation leaves next to no sag.
    path = embodiment.to_model(np.concatenate([[shown.start] * 3, shown.values, [shown.values[-1]] * 2]))
    bounds = (limits.velocity, limits.acceleration, limits.jerk)
    differences = (np.diff(path, n=order, axis=0) for order in (1, 2, 3))
    rate = embodiment.control_rate_hz
    return np.array(
        [
            (np.abs(change) * rate**order / bound).max()
            for order, (change, bound) in enumerate(zip(differences, bounds, strict=True), start=1)
        ]
    )
