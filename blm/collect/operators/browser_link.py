"""What passes between the control loop and a page, each in its own thread: always the newest, never a queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blm.collect.controls import Control
from blm.collect.operators.tool_wish import ToolWish
from blm.schemas.errors import BlmError

FRESH_S = 0.2
"""A page sends twenty times a second. One that has not been heard of for this long is not steering."""


class MessageError(BlmError):
    """A page sent something that makes no sense."""


@dataclass
class Outbox:
    """The newest of everything a page shows; `version` grows with every change of a part."""

    scene: dict[str, Any] = field(default_factory=dict)
    wish: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    poses: bytes = b""
    tool: list[float] = field(default_factory=list)
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    version: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))


PARTS = ("scene", "wish", "status", "poses", "images")


class BrowserLink:
    """Shared between the control loop's thread and the server's.

    A wish counts only if it was made for the present `epoch`: each time the loop takes over where the arm is, a new
    epoch begins, and what a page still sends for the old one is ignored.
    """

    def __init__(self, press: Callable[[Control], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.press = press
        self._clock = clock
        self._lock = threading.Lock()
        self._outbox = Outbox()
        self._epoch = 0
        self._wish: ToolWish | None = None
        self._heard: float | None = None

    def begin(self, wish: ToolWish) -> None:
        """The arm stands at `wish`; start from there."""
        with self._lock:
            self._epoch += 1
            self._wish = wish
            self._outbox.wish = {"epoch": self._epoch} | wish_to_json(wish)
            self._outbox.version["wish"] += 1

    def wanted(self) -> ToolWish | None:
        """Where the page wants the gripper; None while no page is steering."""
        with self._lock:
            fresh = self._heard is not None and self._clock() - self._heard <= FRESH_S
            return self._wish if fresh else None

    def publish(self, **parts: Any) -> None:
        """Replace parts of what the page shows (see `Outbox`)."""
        with self._lock:
            for name, value in parts.items():
                setattr(self._outbox, name, value)
                if name in self._outbox.version:
                    self._outbox.version[name] += 1

    def changed(self, seen: Mapping[str, int]) -> tuple[dict[str, Any], dict[str, int]]:
        """The parts whose version is not the one `seen`, and the versions now."""
        with self._lock:
            now = dict(self._outbox.version)
            parts = {name: getattr(self._outbox, name) for name in PARTS if now[name] != seen.get(name, 0)}
            if "poses" in parts:
                parts["tool"] = list(self._outbox.tool)
            return parts, now

    def receive(self, message: Any) -> None:
        """Take a message of a page.

        Raises:
            MessageError: it makes no sense; nothing was changed.
        """
        if not isinstance(message, dict):
            raise MessageError("a message must be an object.")
        kind = message.get("type")
        if kind == "control":
            self._receive_control(message.get("control"))
        elif kind == "wish":
            self._receive_wish(message)
        elif kind != "here":
            raise MessageError(f"unknown message type {kind!r}.")
        with self._lock:
            self._heard = self._clock()

    def gone(self) -> None:
        """The page went away: nobody is steering."""
        with self._lock:
            self._heard = None

    def _receive_control(self, name: Any) -> None:
        if name not in set(Control):
            raise MessageError(f"unknown control {name!r}.")
        self.press(Control(name))

    def _receive_wish(self, message: Mapping[str, Any]) -> None:
        wish = wish_from_json(message)
        with self._lock:
            if message.get("epoch") == self._epoch:
                self._wish = wish


def wish_to_json(wish: ToolWish) -> dict[str, Any]:
    return {
        "position": [round(float(value), 5) for value in wish.position],
        "tilt": round(wish.tilt, 4),
        "turn": round(wish.turn, 4),
        "opening": round(wish.opening, 4),
    }


def wish_from_json(message: Mapping[str, Any]) -> ToolWish:
    """Raises MessageError unless every number is there and finite."""
    try:
        position = np.array([float(value) for value in message["position"]])
        tilt, turn, opening = (float(message[key]) for key in ("tilt", "turn", "opening"))
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(f"a wish needs position, tilt, turn and opening: {error!r}.") from None
    if position.shape != (3,) or not np.isfinite([*position, tilt, turn, opening]).all():
        raise MessageError("a wish must be three coordinates and three angles, all finite.")
    return ToolWish(position, tilt, turn, opening)
