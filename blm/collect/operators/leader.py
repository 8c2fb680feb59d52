"""A leader arm as the operator: a small copy of the robot, moved by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from blm.collect.robots.arm import AxisLink
from blm.collect.robots.drivers import DRIVERS
from blm.schemas.embodiment import Embodiment
from blm.schemas.errors import HardwareError, UsageError
from blm.schemas.rollout import Command, EpisodeStart, Observation

MATCHED_WITHIN = 0.06
"""Of an axis' range: about 10° of a joint."""
_BLEND_S = 0.5
_POLL_S = 0.05
_SAY_EVERY_S = 1.0


class Teleoperator(Protocol):
    """What is used of a LeRobot teleoperator."""

    def get_action(self) -> dict[str, Any]: ...

    def disconnect(self) -> None: ...


class LeaderAgent:
    """Commands what the leader shows, axis by axis.

    An episode begins once the leader stands as the robot does, within `MATCHED_WITHIN` of every axis' range; what
    difference is left then fades within half a second. So nothing jumps when the two are coupled. Where matching was
    given up they are not coupled: the robot is told to stay where it is.
    """

    operator = "leader"

    def __init__(
        self,
        leader: Teleoperator,
        embodiment: Embodiment,
        *,
        links: Mapping[str, AxisLink] | None = None,
        waiting: Callable[[str], bool] = lambda note: True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`waiting` is told which axis is furthest off while poses do not match; it returns false to give up.

        `links` are by axis name, for a leader whose values have other names or units than the axes.

        Raises:
            HardwareError: the leader lacks an axis of the robot.
        """
        self._leader = leader
        self._embodiment = embodiment
        self._links = [(links or {}).get(name) or AxisLink.same(name) for name in embodiment.axis_names]
        self._waiting = waiting
        self._clock = clock
        self._sleep = sleep
        self._range = embodiment.column("upper") - embodiment.column("lower")
        self._offset = np.zeros(len(embodiment.axes))
        self._blend_ticks = max(1, round(_BLEND_S * embodiment.control_rate_hz))
        self._ticks = 0
        self._waited_s = 0.0
        self._note = ""
        self._noted_s = -np.inf
        self._kept_apart: np.ndarray | None = None
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
        missing = [link.action for link in self._links if link.action not in shown]
        if missing:
            raise HardwareError(
                f"the leader arm has no {', '.join(missing)}; it has: {', '.join(shown)}.",
                f"Use a leader made for '{self._embodiment.name}'.",
            )
        return np.array([link.offset + link.gain * float(shown[link.action]) for link in self._links])

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        """Wait until the leader stands as the robot does, or somebody gives up."""
        began = self._clock()
        state = np.asarray(observation.state, dtype=np.float64)
        self._kept_apart = None
        while True:
            difference = (state - self.values()) / self._range
            worst = int(np.argmax(np.abs(difference)))
            if abs(difference[worst]) <= MATCHED_WITHIN:
                break
            if not self._waiting(self._said(worst, difference[worst])):
                self._kept_apart = state
                break
            self._sleep(_POLL_S)
        self._waited_s = self._clock() - began
        self._offset = difference * self._range
        self._ticks = 0

    def act(self, observation: Observation) -> Command:
        self._ticks += 1
        if self._kept_apart is not None:
            return Command(self._kept_apart)
        left = max(0.0, 1.0 - self._ticks / self._blend_ticks)
        return Command(self.values() + left * self._offset)

    def metrics(self) -> Mapping[str, Any]:
        return {"ticks": self._ticks, "matching_s": round(self._waited_s, 3)}

    def close(self) -> None:
        self._leader.disconnect()

    def _said(self, axis: int, share: float) -> str:
        """What the person should do; it changes once a second at most, to be readable."""
        if self._clock() - self._noted_s >= _SAY_EVERY_S:
            name = self._embodiment.axis_names[axis].removesuffix(".pos")
            amount = abs(share * self._range[axis])
            unit = self._embodiment.axes[axis].unit
            self._note = f"Move the leader to where the robot is: {name} is {amount:.0f} {unit} off."
            self._noted_s = self._clock()
        return self._note


def open_leader(
    robot: str, port: str | None, identifier: str | None = None, *, kind: str | None = None
) -> Teleoperator:
    """Connect a LeRobot teleoperator that leads a robot, by our name or `lerobot:TYPE`.

    `kind` is the teleoperator's type; by default the one that belongs to the robot.

    Raises:
        UsageError: no port, or no leader is known for the robot.
        UnknownNameError: LeRobot has no such teleoperator, its plugins included.
        HardwareError: nothing answers at the port, or it is not calibrated.
        MissingExtraError: LeRobot is not installed.
    """
    from blm.collect.robots.devices import PREFIX, open_teleoperator

    driver = DRIVERS.get(robot)
    own = kind is None
    if kind is None:
        kind = driver.leader if driver else ""
        if robot.startswith(PREFIX) and robot.endswith("_follower"):
            kind = robot.removeprefix(PREFIX).replace("_follower", "_leader")
    if not kind:
        raise UsageError(
            f"no leader arm is known for '{robot}'; there is one for: {', '.join(_led())}.",
            f"Name LeRobot's type of yours, --operator {PREFIX}TYPE, or use --operator browser or gamepad.",
        )
    if own and not port:
        raise UsageError(
            "--operator leader needs --leader-port.",
            f"`blm collect --robot {robot} --list` shows the ports found.",
        )
    degrees = {"use_degrees": True} if kind.startswith("so10") else {}
    return open_teleoperator(kind, port, degrees, identifier, driver=driver if own else None)


def leader_links(robot: str) -> Mapping[str, AxisLink]:
    """How the values of a robot's own leader become axis values: as those of the robot itself do."""
    driver = DRIVERS.get(robot)
    return driver.links if driver else {}


def _led() -> list[str]:
    return [name for name, driver in DRIVERS.items() if driver.leader]
