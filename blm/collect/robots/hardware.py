"""A real robot as an Environment: the same loop records, evaluates and deploys on it as in simulation.

    step:  clip ─▶ safety ─▶ send ─▶ wait for the next tick of the schedule ─▶ observe
                     ▲
                     └── emergency stop (any thread), watchdog (own thread): hold

The arm never moves faster than its embodiment says, never leaves its joint limits, and comes to rest when the
operator's loop hangs, a servo falls silent or somebody presses the stop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import numpy as np

from blm.collect.pacing import PAUSE_POLL_S, Pacer
from blm.collect.robots.arm import AxisLink, LeRobotArm, Reading
from blm.collect.robots.servo_health import HealthConfig
from blm.collect.robots.tool_pose import ToolPose
from blm.collect.safety import EmergencyStop, Safety, SafetyConfig, Watchdog, ramp
from blm.schemas.embodiment import Embodiment
from blm.schemas.errors import HardwareError
from blm.schemas.rollout import EpisodeStart, Observation, Transition
from blm.schemas.task import Task, load_task

_ARRIVED_RAD = 0.12
"""How near the arm must come to a pose it was led to; gravity bends small servos by a few degrees."""
_AT_REST_RAD = 0.15
_SETTLING_TICKS = 40
_HARDWARE_SEED = -1


def task_in_words(instruction: str, max_duration_s: float = 60.0) -> Task:
    """A task that is only said, not modelled: nothing to place, nobody but the operator to judge it."""
    name = "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in instruction.lower()).split())
    return Task.model_construct(
        name=name[:48].rstrip("-") or "free",
        instructions=(instruction,),
        max_duration_s=max_duration_s,
        objects={},
        goal=None,
        success={},
    )


class HardwareEnvironment:
    """One LeRobot robot in front of a person; implements `blm.schemas.rollout.Environment`.

    Whether an episode succeeded is for the operator to say (`mark`). Real scenes have no seed: the one given to
    `reset` only chooses the wording of the instruction.

    Attributes:
        safety: what is admitted; `safety.stop` is the emergency stop.
        arm: the robot behind it.
        task: what is recorded from the next `reset` on.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        task: Task | str,
        robot: Any,
        *,
        instruction: str | None = None,
        links: Mapping[str, AxisLink] | None = None,
        start: Literal["home", "stay"] = "home",
        safety: SafetyConfig | None = None,
        stop: EmergencyStop | None = None,
        health: HealthConfig | None = None,
        paused: Callable[[], bool] = lambda: False,
        confirm_torque_off: Callable[[], bool] | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        """Connect to `robot`, a LeRobot `Robot`. The arm stays where it is.

        Args:
            embodiment: its cameras are those that are attached, in their real size.
            task: a task, the name of one, or (with spaces in it) an instruction in words.
            instruction: the wording to use; by default one of the task's, chosen by the seed.
            links: driver values that differ from axis values, by axis name.
            start: `reset` leads the arm slowly to its home pose, or lets it stay.
            paused: while it returns true, `step` holds the arm and time stands still.
            confirm_torque_off: asked on `close` where the arm does not lie at rest; without an answer it holds on.
            notify: told what a person should know; by default it is logged.

        Raises:
            HardwareError: a port, servo, camera or calibration is missing; names it.
            UnknownNameError: no such task.
        """
        self._embodiment = embodiment
        self.task = _task(task, embodiment)
        self._wording = instruction
        self._start = start
        self._paused = paused
        self._confirm = confirm_torque_off
        self._notify = notify or logging.getLogger(__name__).warning
        self.safety = Safety(embodiment, safety, stop)
        self.arm = LeRobotArm(robot, embodiment, links, notify=self._notify, health=health)
        self._tool = ToolPose(embodiment)
        self._pacer = Pacer(embodiment.control_rate_hz)
        self._success = self._closed = False
        self._instruction = ""
        self.arm.connect()
        self._reading = self._first_reading()
        self._rest = None if self.arm.held_itself else self._reading.state
        self.safety.begin(self._reading.state)
        self._watchdog = Watchdog(self._hold_still, self.safety.config.watchdog_s)
        self.arm.on_trouble = self._in_trouble
        self.safety.stop.listen(self._on_stop)
        self._counted = self._counts()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def embodiment(self) -> Embodiment:
        return self._embodiment

    @property
    def late_ticks(self) -> int:
        """Ticks of this episode that began late by more than half a period."""
        return self._pacer.late

    def with_task(self, task: Task | str) -> HardwareTask:
        """The same robot for another task: an environment of its own, one of which is used at a time."""
        return HardwareTask(self, _task(task, self._embodiment))

    def reset(self, seed: int) -> Observation:
        """Lead the arm to its start pose at limited speed, and begin an episode.

        Raises:
            HardwareError: the emergency stop is pressed, the arm does not arrive, or a part of it fails.
        """
        self._refuse_while_stopped()
        if self._start == "home":
            self.move_to(self._embodiment.column("home"))
        wordings = self.task.instructions
        self._instruction = (
            self._wording or wordings[int(np.random.default_rng(abs(seed)).integers(len(wordings)))]
        )
        self._success = False
        self._counted = self._counts()
        self._pacer.start()
        observation = self._observe()
        self._watchdog.feed()
        return observation

    def describe(self) -> EpisodeStart:
        """Facts about the episode; where cameras and objects are is not known on hardware."""
        return EpisodeStart(self._embodiment, self.task, _HARDWARE_SEED, "", self._instruction)

    def step(self, values: np.ndarray) -> Transition:
        """Send axis targets (A,) as far as safety admits them, wait for the next tick, observe.

        With the emergency stop pressed the arm holds, and the action says so.

        Raises:
            HardwareError: a value is not finite, or a part of the robot fails; the arm was told to hold first.
        """
        self._wait_while_paused()
        sent = self._send(values)
        self._pacer.wait()
        return Transition(sent.astype(np.float32), self._observe(), self._success)

    def mark(self, success: bool) -> None:
        """The operator's verdict on the episode under way; may be called from any thread."""
        self._success = success

    def move_to(self, values: np.ndarray) -> None:
        """Lead the arm to a pose (A,), axis values, at `ramp_share` of its speed; blocks until it is there.

        Raises:
            HardwareError: the emergency stop is pressed on the way, or the arm does not arrive.
        """
        goal = self._embodiment.clip(values)
        self._reading = self._read()
        self.safety.begin(self._reading.state)
        self._pacer.start()
        path = ramp(self._reading.state, goal, self._embodiment, self.safety.config.ramp_share)
        for target in path:
            self._advance(target)
        for _ in range(_SETTLING_TICKS):
            if not self._astray(goal, _ARRIVED_RAD):
                return
            self._advance(goal)
        self._raise_astray(goal)

    def park(self) -> bool:
        """Lead the arm back to where it lay when it was connected; False where that is not known."""
        if self._rest is None:
            return False
        self.move_to(self._rest)
        return True

    def metrics(self) -> dict[str, int]:
        """What happened since `reset`: late ticks, limited ticks, holds, retries, stale bytes, repeated frames."""
        return {name: count - self._counted.get(name, 0) for name, count in self._counts().items()} | {
            "late_ticks": self._pacer.late
        }

    def close(self) -> None:
        """Let go of the robot. Torque goes off only at rest or when confirmed; else the arm goes on holding itself."""
        if self._closed:
            return
        self._closed = True
        self._watchdog.close()
        self.safety.stop.unlisten(self._on_stop)
        if not self.arm.robot.is_connected:
            return
        limp = self._lies_at_rest() or (self._confirm is not None and self._confirm())
        if not limp:
            self._notify(
                "The arm goes on holding itself, with its torque on. Support it before you cut its power, "
                "or run again and confirm that it may let go."
            )
        self.arm.disconnect(torque_off=limp)

    def _send(self, values: np.ndarray) -> np.ndarray:
        with self.arm.exclusively():
            admitted = self.safety.admit(values, self._reading.state)
            sent = self.arm.send(admitted.values)
        self._watchdog.feed()
        return sent

    def _wait_while_paused(self) -> None:
        if not self._paused():
            return
        self._watchdog.rest()
        with self._pacer.standing_still():
            self._hold_still()
            while self._paused():
                time.sleep(PAUSE_POLL_S)

    def _advance(self, target: np.ndarray) -> None:
        """One tick of a motion of our own."""
        self._refuse_while_stopped()
        self._send(target)
        self._pacer.wait()
        self._reading = self._read()

    def _observe(self) -> Observation:
        self._reading = reading = self._read()
        return Observation(
            state=reading.state.astype(np.float32),
            images=reading.images,
            ee_pose=self._tool.of(reading.state),
            time_s=self._pacer.elapsed(reading.time_s),
            instruction=self._instruction,
            image_times_s={name: self._pacer.elapsed(taken) for name, taken in reading.image_times_s.items()},
        )

    def _read(self) -> Reading:
        """Measure; where that fails, what still listens was told to hold before the error comes."""
        try:
            return self.arm.read()
        except HardwareError:
            self._in_trouble()
            raise

    def _in_trouble(self) -> None:
        self._watchdog.rest()
        self._try_to_hold(self._reading.state)

    def _first_reading(self) -> Reading:
        try:
            return self.arm.read()
        except HardwareError:
            self.arm.disconnect(torque_off=False)
            raise

    def _hold_still(self) -> None:
        """Hold where the arm is now; called by the watchdog's thread and by whoever presses the stop."""
        with self.arm.exclusively():
            try:
                measured = self.arm.read().state
            except HardwareError:
                measured = self._reading.state
            self._try_to_hold(measured)

    def _try_to_hold(self, measured: np.ndarray) -> None:
        with self.arm.exclusively():
            try:
                self.arm.send(self.safety.hold(measured))
            except HardwareError as error:
                self._notify(f"could not tell the arm to hold: {error}")

    def _on_stop(self) -> None:
        if self.safety.stop.torque_off and self.arm.let_go():
            return
        self._hold_still()

    def _refuse_while_stopped(self) -> None:
        stop = self.safety.stop
        if stop.pressed:
            raise HardwareError(f"stopped: {stop.reason}.", "Release the emergency stop to go on.")

    def _lies_at_rest(self) -> bool:
        """The arm is where it lay without torque when it was connected."""
        if self._rest is None:
            return False
        try:
            self._reading = self.arm.read()
        except HardwareError:
            return False
        return not self._astray(self._rest, _AT_REST_RAD)

    def _astray(self, goal: np.ndarray, tolerance_rad: float) -> list[int]:
        """Arm axes further than that from a pose; the gripper may hold something."""
        apart = np.abs((self._reading.state - goal) * self._embodiment.column("scale"))
        return [axis for axis in self._embodiment.arm_indices if apart[axis] > tolerance_rad]

    def _raise_astray(self, goal: np.ndarray) -> None:
        axes, state = self._embodiment.axes, self._reading.state
        far = ", ".join(
            f"{axes[i].name} is at {state[i]:.1f}, not {goal[i]:.1f} {axes[i].unit}"
            for i in self._astray(goal, _ARRIVED_RAD)
        )
        self._try_to_hold(state)
        raise HardwareError(
            f"the arm did not arrive: {far}.", "Is something in its way? It holds where it is."
        )

    def _counts(self) -> dict[str, int]:
        counts = {
            "limited_ticks": self.safety.limited_ticks,
            "watchdog_holds": self._watchdog.trips,
            "repeated_frames": sum(self.arm.repeated_frames.values()),
        }
        if self.arm.line is not None:
            line = self.arm.line.counts
            counts |= {
                "bus_retries": line.retries,
                "bus_corrupted": line.corrupted,
                "stale_bytes": line.stale_bytes,
            }
        return counts


class HardwareTask:
    """One task of several on one robot; implements `blm.schemas.rollout.Environment`.

    Closing it leaves the robot to who opened that, for its other tasks.
    """

    def __init__(self, robot: HardwareEnvironment, task: Task) -> None:
        self._robot = robot
        self.task = task

    @property
    def embodiment(self) -> Embodiment:
        return self._robot.embodiment

    @property
    def late_ticks(self) -> int:
        return self._robot.late_ticks

    def reset(self, seed: int) -> Observation:
        self._robot.task = self.task
        return self._robot.reset(seed)

    def describe(self) -> EpisodeStart:
        return self._robot.describe()

    def step(self, values: np.ndarray) -> Transition:
        return self._robot.step(values)

    def metrics(self) -> dict[str, int]:
        return self._robot.metrics()

    def close(self) -> None: ...


def _task(task: Task | str, embodiment: Embodiment) -> Task:
    if isinstance(task, Task):
        return task
    return task_in_words(task) if " " in task.strip() else load_task(task, embodiment.name)
