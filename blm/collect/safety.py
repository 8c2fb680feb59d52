"""Safety below the operator: what a robot is told never depends on the operator being right, or alive.

    operator ──values──▶ Safety.admit ──▶ robot        limits of the joints, of a step, and of how far targets run ahead
                             ▲
       EmergencyStop ────────┤                         latched: from then on the same pose is held
       Watchdog (own thread) ┘                         no fresh command for a while: hold

Everything but `Watchdog` is plain arithmetic on axis values, the same for simulated and real arms: `SafeEnvironment`
puts it in front of a simulator, `blm.collect.robots.hardware` in front of a robot.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from blm.schemas.embodiment import Embodiment
from blm.schemas.errors import HardwareError
from blm.schemas.rollout import Environment, EpisodeStart, Observation, Transition
from blm.schemas.task import Task
from blm.schemas.yaml_model import FrozenModel

_SMOOTH_PEAK = 1.5
"""Largest over mean speed of the cubic ramp 3s² − 2s³."""


class SafetyConfig(FrozenModel):
    """How cautious to be."""

    speed_share: float = Field(default=1.0, gt=0, le=1, description="of each axis' max_velocity, per tick")
    lead_s: float = Field(
        default=0.5,
        gt=0,
        description="a target may run ahead of the measured value by so much travel at full speed",
    )
    ramp_share: float = Field(default=0.2, gt=0, le=1, description="of max_velocity, when ramping to a pose")
    watchdog_s: float = Field(default=0.2, gt=0, description="hold when no command came for so long")


@dataclass(frozen=True)
class Admitted:
    """What may be sent: axis values (A,), and the names of the axes that were held back."""

    values: np.ndarray
    limited: tuple[str, ...]


class EmergencyStop:
    """A latched stop, to be pressed from any thread; only `release` ends it.

    Torque stays on unless it is asked off: an arm that goes limp falls on what is below it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pressed = threading.Event()
        self._reason = ""
        self._torque_off = False
        self._listeners: list[Callable[[], None]] = []

    @property
    def pressed(self) -> bool:
        return self._pressed.is_set()

    @property
    def reason(self) -> str:
        return self._reason

    @property
    def torque_off(self) -> bool:
        """Torque off was asked for too."""
        return self._torque_off

    def press(self, reason: str = "emergency stop", *, torque_off: bool = False) -> None:
        """Stop. The first reason stays; `torque_off` may be added by pressing again.

        Whoever listens acts at once, in the caller's thread: the loop that commands may hang.
        """
        with self._lock:
            self._reason = self._reason or reason
            self._torque_off = self._torque_off or torque_off
            self._pressed.set()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` at every press."""
        with self._lock:
            self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        with self._lock:
            self._listeners.remove(listener)

    def release(self) -> None:
        with self._lock:
            self._reason, self._torque_off = "", False
            self._pressed.clear()


class Safety:
    """Admits one command per control tick of one robot.

    Admitted values are within the axes' limits, at most one tick's travel from the previous ones, and not further
    ahead of the measured values than `lead_s` allows, so that an arm that was blocked does not leap once it is free.
    The way back is always open: where an arm stands outside a limit, the next values lead inwards step by step.
    """

    def __init__(
        self, embodiment: Embodiment, config: SafetyConfig | None = None, stop: EmergencyStop | None = None
    ) -> None:
        self.config = config or SafetyConfig()
        self.stop = stop or EmergencyStop()
        self.max_speed: np.ndarray = embodiment.column("max_velocity") / np.abs(embodiment.column("scale"))
        """Axis units per second (A,)."""
        self.max_step: np.ndarray = self.max_speed * self.config.speed_share / embodiment.control_rate_hz
        """Axis units per control tick (A,)."""
        self.limited_ticks = 0
        self._embodiment = embodiment
        self._last: np.ndarray | None = None

    @property
    def last(self) -> np.ndarray | None:
        """The values admitted last (A,); None before the first `begin`."""
        return None if self._last is None else self._last.copy()

    def begin(self, measured: np.ndarray) -> None:
        """Start from where the robot stands, axis values (A,)."""
        self._last = np.array(measured, dtype=np.float64)

    def admit(self, values: np.ndarray, measured: np.ndarray) -> Admitted:
        """The nearest values to `values` (A,) that may be sent, given the measured ones (A,); holds when stopped.

        Raises:
            HardwareError: `values` has the wrong shape or is not finite; nothing may be sent then.
        """
        wanted = self._checked(values)
        last = np.asarray(measured, dtype=np.float64) if self._last is None else self._last
        if self.stop.pressed:
            return Admitted(self.hold(measured), self._embodiment.axis_names)
        admitted = self._stepped(self._embodiment.clip(wanted), last, np.asarray(measured, dtype=np.float64))
        held_back = np.abs(admitted - wanted) > 1e-9
        self.limited_ticks += bool(held_back.any())
        self._last = admitted
        names = self._embodiment.axis_names
        return Admitted(admitted.copy(), tuple(names[i] for i in np.flatnonzero(held_back)))

    def hold(self, measured: np.ndarray) -> np.ndarray:
        """Values (A,) that bring the robot to rest where it is, and become the last ones.

        The arm's targets are drawn to within one tick's travel of the measured values: near enough to stop, while
        the lag that carries the arm's weight mostly stays. The gripper keeps its target and so what it holds.
        """
        measured = np.asarray(measured, dtype=np.float64)
        last = measured if self._last is None else self._last
        held = np.clip(last, measured - self.max_step, measured + self.max_step)
        gripper = self._embodiment.gripper_index
        held[gripper] = last[gripper]
        self._last = held
        return held.copy()

    def _stepped(self, wanted: np.ndarray, last: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Towards `wanted` by one tick at most; the lead limit may hold a target back but never reverses it."""
        stepped = np.clip(wanted, last - self.max_step, last + self.max_step)
        lead = self.max_speed * self.config.lead_s
        ahead = np.clip(stepped, np.minimum(last, measured - lead), np.maximum(last, measured + lead))
        return ahead

    def _checked(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        names = self._embodiment.axis_names
        if values.shape != (len(names),):
            raise HardwareError(
                f"a command has shape {values.shape}; '{self._embodiment.name}' takes ({len(names)},).",
                f"Its axes are: {', '.join(names)}.",
            )
        wrong = [name for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
        if wrong:
            raise HardwareError(
                f"the target of {', '.join(wrong)} is not a finite number.", "Check the operator or policy."
            )
        return values


def ramp(start: np.ndarray, goal: np.ndarray, embodiment: Embodiment, share: float) -> np.ndarray:
    """Targets (n, A), one per control tick, that lead smoothly from `start` (A,) to `goal` (A,), both axis values.

    All axes move together and none faster than `share` of its max_velocity. The last row is `goal`, clipped to the
    limits; n is at least 1.
    """
    start = np.asarray(start, dtype=np.float64)
    goal = embodiment.clip(np.asarray(goal, dtype=np.float64))
    speed = share * embodiment.column("max_velocity") / np.abs(embodiment.column("scale"))
    seconds = _SMOOTH_PEAK * float(np.max(np.abs(goal - start) / speed))
    ticks = max(1, math.ceil(seconds * embodiment.control_rate_hz))
    phase = np.arange(1, ticks + 1)[:, None] / ticks
    return start + (3 * phase**2 - 2 * phase**3) * (goal - start)


class Watchdog:
    """Calls `hold` once, from a thread of its own, when `feed` was not called for `timeout_s`.

    So the robot comes to rest although the operator's loop hangs. The next `feed` arms it again. While it is not
    `watching` nothing happens. `trips` counts.
    """

    def __init__(self, hold: Callable[[], None], timeout_s: float) -> None:
        self.trips = 0
        self._hold = hold
        self._timeout_s = timeout_s
        self._condition = threading.Condition()
        self._deadline: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def feed(self) -> None:
        """A fresh command came: watch for the next one."""
        with self._condition:
            self._deadline = time.monotonic() + self._timeout_s
            self._condition.notify()

    def rest(self) -> None:
        """Nobody needs to command for now."""
        with self._condition:
            self._deadline = None
            self._condition.notify()

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while self._overdue():
            self.trips += 1
            try:
                self._hold()
            except Exception:
                logging.getLogger(__name__).exception("The watchdog could not make the robot hold.")

    def _overdue(self) -> bool:
        """Wait until the deadline has passed (True) or the watchdog was closed (False)."""
        with self._condition:
            while not self._closed:
                if self._deadline is None:
                    self._condition.wait()
                elif (left := self._deadline - time.monotonic()) > 0:
                    self._condition.wait(left)
                else:
                    self._deadline = None
                    return True
            return False


class SafeEnvironment:
    """A simulated environment behind the same `Safety` as a real robot.

    With `watched`, an operator that takes longer than `watchdog_s` for its next command finds the arm holding where it
    was: simulated time stands still meanwhile, so holding is all there is to it.
    """

    def __init__(
        self, environment: Environment, safety: Safety | None = None, *, watched: bool = False
    ) -> None:
        self._environment = environment
        self.safety = safety or Safety(environment.embodiment)
        self._lock = threading.Lock()
        self._watchdog = Watchdog(self._hold_still, self.safety.config.watchdog_s) if watched else None
        self._measured = np.zeros(len(environment.embodiment.axes))
        self._counted = self._counts()

    @property
    def embodiment(self) -> Embodiment:
        return self._environment.embodiment

    @property
    def task(self) -> Task:
        return self._environment.task

    def reset(self, seed: int) -> Observation:
        if self._watchdog is not None:
            self._watchdog.rest()
        observation = self._environment.reset(seed)
        with self._lock:
            self._measured = observation.state
            self.safety.begin(observation.state)
        self._counted = self._counts()
        return observation

    def describe(self) -> EpisodeStart:
        return self._environment.describe()

    def step(self, values: np.ndarray) -> Transition:
        """Send axis targets (A,) as far as safety admits them; the action says what was sent.

        Raises:
            HardwareError: a value is not finite.
        """
        if self._watchdog is not None:
            self._watchdog.rest()  # how long the simulator takes is not the operator's doing
        with self._lock:
            admitted = self.safety.admit(values, self._measured).values
        transition = self._environment.step(admitted)
        with self._lock:
            self._measured = transition.observation.state
        if self._watchdog is not None:
            self._watchdog.feed()
        return transition

    def metrics(self) -> dict[str, Any]:
        """What happened since `reset`: limited ticks, holds, and what the environment itself counts."""
        inner: Callable[[], Mapping[str, Any]] = getattr(self._environment, "metrics", dict)
        return {name: count - self._counted[name] for name, count in self._counts().items()} | dict(inner())

    def close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()
        self._environment.close()

    def _hold_still(self) -> None:
        with self._lock:
            self.safety.hold(self._measured)

    def _counts(self) -> dict[str, int]:
        holds = {} if self._watchdog is None else {"watchdog_holds": self._watchdog.trips}
        return {"limited_ticks": self.safety.limited_ticks} | holds
