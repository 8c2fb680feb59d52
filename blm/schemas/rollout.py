"""The protocols of the one control loop: an environment, an agent that acts in it, subscribers that watch.

Recording, evaluation and deployment all run `blm.collect.rollout` over these. An environment is a simulator or a
real robot; an agent is a planner, a person or a policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from blm.schemas.embodiment import Embodiment
from blm.schemas.task import Task

FIRST_EVALUATION_SEED = 1_000_000_000
"""Evaluation uses scene seeds from here on; collection stays below, so that none can have been trained on."""


@dataclass(frozen=True)
class Observation:
    """What the robot senses at one control tick.

    Attributes:
        state: measured axis values, shape (A,), float32, axis units.
        images: camera name → (height, width, 3) uint8 RGB.
        ee_pose: tool pose in the base frame, shape (7,): metres, quaternion wxyz.
        time_s: monotonic seconds since the episode began (simulated time in simulation).
        instruction: the task in words.
        environment_state: object poses and goal (see `environment_state_names`), simulation only.
        gripper_contact: forces on the gripper (see `gripper_contact_names`), simulation only.
        image_times_s: camera name → when its picture was taken, on the clock of `time_s`. The same time as in the
            observation before means the same picture: no fresh one was there. None: all were taken at `time_s`.
    """

    state: np.ndarray
    images: Mapping[str, np.ndarray]
    ee_pose: np.ndarray
    time_s: float
    instruction: str
    environment_state: np.ndarray | None = None
    gripper_contact: np.ndarray | None = None
    image_times_s: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Command:
    """What an agent wants: absolute axis targets (A,) in axis units, before clipping.

    `subtask` names the primitive being executed. With `done`, the agent has nothing more to do and the command of
    this tick is the last one. `intervention`: a person drives in this tick, in place of the policy.
    """

    values: np.ndarray
    subtask: str = ""
    done: bool = False
    intervention: bool = False


@dataclass(frozen=True)
class Transition:
    """What one control tick led to: the action as sent after clipping (A,), the next observation, success now."""

    action: np.ndarray
    observation: Observation
    success: bool


@dataclass(frozen=True)
class EpisodeStart:
    """What is known before the first tick.

    `objects`, `cameras` and `goal` are plain JSON-ready data as described in `EpisodeMetadata`.
    """

    embodiment: Embodiment
    task: Task
    seed: int
    operator: str
    instruction: str
    objects: tuple[Mapping[str, Any], ...] = ()
    cameras: tuple[Mapping[str, Any], ...] = ()
    goal: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Step:
    """One control tick as subscribers see it: the observation *before* the action, and the action as sent."""

    index: int
    observation: Observation
    action: np.ndarray
    subtask: str
    success: bool
    intervention: bool = False


@dataclass(frozen=True)
class EpisodeEnd:
    """How an episode ended.

    Attributes:
        success: the task's criteria held at the end.
        steps: control ticks taken.
        reason: 'success', 'time limit', 'agent done', 'agent failed: <cause>' or 'stopped'.
        metrics: the agent's own numbers (planner: IK tries, path length, recoveries, …), JSON-ready, and those of an
            environment that has `metrics()` (a real robot: late ticks, retries, holds, …).
    """

    success: bool
    steps: int
    reason: str
    metrics: Mapping[str, Any] = field(default_factory=dict)


class Environment(Protocol):
    """A simulated or real workspace with one robot in it."""

    @property
    def embodiment(self) -> Embodiment: ...

    @property
    def task(self) -> Task: ...

    def reset(self, seed: int) -> Observation:
        """Start a new episode; the same seed gives the same scene, instruction wording included."""
        ...

    def describe(self) -> EpisodeStart:
        """Facts about the episode begun by the last `reset` (`operator` left empty)."""
        ...

    def step(self, values: np.ndarray) -> Transition:
        """Clip and send axis targets (A,) in axis units, advance one control period, observe."""
        ...

    def close(self) -> None: ...


class Agent(Protocol):
    """Decides what to do next: a planner, a person or a policy."""

    @property
    def operator(self) -> str: ...

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        """Prepare for a new episode. A planner may raise PlanningError."""
        ...

    def act(self, observation: Observation) -> Command: ...

    def metrics(self) -> Mapping[str, Any]:
        """The agent's own JSON-ready numbers about the episode so far."""
        ...


class Subscriber(Protocol):
    """Watches a rollout: recorder, progress bar, frame grabber, metrics."""

    def on_start(self, start: EpisodeStart) -> None: ...

    def on_step(self, step: Step) -> None: ...

    def on_end(self, end: EpisodeEnd) -> None: ...
