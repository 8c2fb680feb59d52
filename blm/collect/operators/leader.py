"""A leader arm as the operator: a small copy of the robot, moved by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from blm.schemas.embodiment import Embodiment
from blm.schemas.errors import HardwareError, UsageError
from blm.schemas.rollout import Command, EpisodeStart, Observation

MATCHED_WITHIN = 0.06
"""Of an axis' range: about 10° of a joint."""
_BLEND_S = 0.5
_POLL_S = 0.05
_LEADERS = {"so100": "so100_leader"}
"""LeRobot's teleoperator type for a robot of ours."""


class Teleoperator(Protocol):
    """What is used of a LeRobot teleoperator."""

    def get_action(self) -> dict[str, Any]: ...

    def disconnect(self) -> None: ...


class LeaderAgent:
    """Commands what the leader shows, axis by axis.

    An episode begins once the leader stands as the robot does, within `MATCHED_WITHIN` of every axis' range; what
    difference is left then fades within half a second. So nothing jumps when the two are coupled.
    """

    operator = "leader"

    def __init__(
        self,
        leader: Teleoperator,
        embodiment: Embodiment,
        *,
        waiting: Callable[[str], bool] = lambda note: True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`waiting` is told which axis is furthest off while poses do not match; it returns false to give up.

        Raises:
            HardwareError: the leader lacks an axis of the robot.
        """
        self._leader = leader
        self._embodiment = embodiment
        self._waiting = waiting
        self._clock = clock
        self._sleep = sleep
        self._range = embodiment.column("upper") - embodiment.column("lower")
        self._offset = np.zeros(len(embodiment.axes))
        self._blend_ticks = max(1, round(_BLEND_S * embodiment.control_rate_hz))
        self._ticks = 0
        self._waited_s = 0.0
        self.values()

    def values(self) -> np.ndarray:
        """What the leader shows now, axis values (A,).

        Raises:
            HardwareError: an axis is missing, or the leader does not answer.
        """
        try:
            shown = self._leader.get_action()
        except (ConnectionError, RuntimeError) as error:
            raise HardwareError(
                f"the leader arm does not answer: {error}", "Check its cable and its power."
            ) from error
        missing = [name for name in self._embodiment.axis_names if name not in shown]
        if missing:
            raise HardwareError(
                f"the leader arm has no {', '.join(missing)}; it has: {', '.join(shown)}.",
                f"Use a leader made for '{self._embodiment.name}'.",
            )
        return np.array([float(shown[name]) for name in self._embodiment.axis_names])

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        """Wait until the leader stands as the robot does."""
        began = self._clock()
        state = np.asarray(observation.state, dtype=np.float64)
        while True:
            difference = (state - self.values()) / self._range
            worst = int(np.argmax(np.abs(difference)))
            if abs(difference[worst]) <= MATCHED_WITHIN or not self._waiting(
                self._note(worst, difference[worst])
            ):
                break
            self._sleep(_POLL_S)
        self._waited_s = self._clock() - began
        self._offset = np.clip(difference, -MATCHED_WITHIN, MATCHED_WITHIN) * self._range
        self._ticks = 0

    def act(self, observation: Observation) -> Command:
        self._ticks += 1
        left = max(0.0, 1.0 - self._ticks / self._blend_ticks)
        return Command(self.values() + left * self._offset)

    def metrics(self) -> Mapping[str, Any]:
        return {"ticks": self._ticks, "matching_s": round(self._waited_s, 3)}

    def close(self) -> None:
        self._leader.disconnect()

    def _note(self, axis: int, share: float) -> str:
        name = self._embodiment.axis_names[axis].removesuffix(".pos")
        amount = abs(share * self._range[axis])
        unit = self._embodiment.axes[axis].unit
        return f"Move the leader to where the robot is: {name} is {amount:.0f} {unit} off."


def open_leader(robot: str, port: str | None, identifier: str | None = None) -> Teleoperator:
    """Connect LeRobot's leader arm for a robot, by our name or `lerobot:TYPE`.

    Raises:
        UsageError: no port, or no leader is known for the robot.
        HardwareError: nothing answers at the port, or it is not calibrated.
        MissingExtraError: LeRobot is not installed.
    """
    from blm.collect.robots.devices import PREFIX, open_teleoperator

    kind = robot.removeprefix(PREFIX).replace("_follower", "_leader") if robot.startswith(PREFIX) else ""
    kind = kind or _LEADERS.get(robot, "")
    if not kind:
        raise UsageError(
            f"no leader arm is known for '{robot}'; there is one for: {', '.join(_LEADERS)}.",
            "Use --operator browser or gamepad.",
        )
    if not port:
        raise UsageError(
            "--operator leader needs --leader-port.",
            f"`blm collect --robot {robot} --list` shows the ports found.",
        )
    degrees = {"use_degrees": True} if kind.startswith("so10") else {}
    return open_teleoperator(kind, {"port": port} | degrees, identifier)
