"""A gamepad as the operator: sticks move the gripper, triggers close and open it, buttons say what episodes need."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from blm.collect.controls import Control
from blm.collect.operators.tool_driver import ToolDriver
from blm.collect.operators.tool_wish import ToolWish
from blm.schemas.errors import HardwareError, MissingExtraError
from blm.schemas.rollout import Command, EpisodeStart, Observation

MOVE_SPEED_M_S = 0.15
TURN_SPEED_RAD_S = 1.2
OPENING_SPEED_1_S = 1.5
DEAD_ZONE = 0.12
"""Of a stick's way: what an untouched stick may report."""

BUTTONS: Mapping[str, Control] = {
    "a": Control.ADVANCE,
    "b": Control.EMERGENCY_STOP,
    "x": Control.RERECORD,
    "y": Control.SUCCESS,
    "left_stick": Control.FAILURE,
    "right_stick": Control.TAKE_OVER,
    "back": Control.STOP,
    "start": Control.PAUSE,
}
_AXES = ("left_x", "left_y", "right_x", "right_y", "left_trigger", "right_trigger")


@dataclass(frozen=True)
class PadState:
    """A gamepad at one moment.

    Sticks are −1 to 1, right and towards the person positive; triggers 0 to 1. `buttons` are those held down, of:
    a, b, x, y, left_bumper, right_bumper, left_stick, right_stick, back, start.
    """

    left_x: float = 0.0
    left_y: float = 0.0
    right_x: float = 0.0
    right_y: float = 0.0
    left_trigger: float = 0.0
    right_trigger: float = 0.0
    buttons: frozenset[str] = frozenset()


class Pad(Protocol):
    """Something that can be asked how a gamepad stands."""

    def read(self) -> PadState:
        """Raises HardwareError once the gamepad is gone."""
        ...


class GamepadAgent:
    """Left stick: away and sideways; right stick: up, down and turn; bumpers: tilt; triggers: close (right), open.

    Buttons are pressed where they go down, also between episodes: call `poll` then.
    """

    operator = "gamepad"

    def __init__(self, pad: Pad, driver: ToolDriver, press: Callable[[Control], None]) -> None:
        self._pad = pad
        self._driver = driver
        self._press = press
        self._down: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._period_s = driver.period_s
        self._ticks = 0

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        self._ticks = 0
        self._driver.start(observation.state)

    def act(self, observation: Observation) -> Command:
        self._ticks += 1
        return Command(self._driver.step(moved(self._driver.wish, self.poll(), self._period_s)))

    def poll(self) -> PadState:
        """Read the gamepad and press what was pressed."""
        with self._lock:
            state = self._pad.read()
            pressed, self._down = sorted(state.buttons - self._down), state.buttons
        for button in pressed:
            if button in BUTTONS:
                self._press(BUTTONS[button])
        return state

    def metrics(self) -> Mapping[str, Any]:
        return {"ticks": self._ticks}


def moved(wish: ToolWish, pad: PadState, seconds: float) -> ToolWish:
    """`wish` after the gamepad was held like this for that long; away from the robot is +x, left is +y."""
    velocity = -MOVE_SPEED_M_S * np.array([_live(pad.left_y), _live(pad.left_x), _live(pad.right_y)])
    tilt = float("right_bumper" in pad.buttons) - float("left_bumper" in pad.buttons)
    return replace(
        wish,
        # The driver covers a part of the way per tick: a wish that far ahead makes it move at the stick's speed.
        position=wish.position + velocity * seconds / ToolDriver.APPROACH_SHARE,
        turn=wish.turn - TURN_SPEED_RAD_S * _live(pad.right_x) * seconds / ToolDriver.APPROACH_SHARE,
        tilt=wish.tilt + TURN_SPEED_RAD_S * tilt * seconds / ToolDriver.APPROACH_SHARE,
        opening=wish.opening + OPENING_SPEED_1_S * (pad.left_trigger - pad.right_trigger) * seconds,
    )


def _live(value: float) -> float:
    """A stick's deflection without its dead zone, finer near the middle."""
    beyond = max(0.0, abs(value) - DEAD_ZONE) / (1.0 - DEAD_ZONE)
    return float(np.copysign(beyond**1.5, value))


class PygamePad:
    """The first gamepad found, read through pygame; no window is opened."""

    def __init__(self) -> None:
        """Raises MissingExtraError without pygame, HardwareError without a gamepad."""
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
        try:
            import pygame
            from pygame._sdl2 import controller
        except ImportError:
            raise MissingExtraError("pygame-ce", "teleop") from None
        self._pygame, self._controller = pygame, controller
        pygame.display.init()
        controller.init()
        found = [index for index in range(controller.get_count()) if controller.is_controller(index)]
        if not found:
            raise HardwareError("no gamepad is connected.", "Connect one, or use --operator browser.")
        self._pad: Any = controller.Controller(found[0])

    def read(self) -> PadState:
        """The gamepad now."""
        pygame = self._pygame
        pygame.event.pump()
        if not self._pad.attached():
            raise HardwareError("the gamepad is gone.", "Connect it again, and continue with --resume.")
        axes = [
            pygame.CONTROLLER_AXIS_LEFTX,
            pygame.CONTROLLER_AXIS_LEFTY,
            pygame.CONTROLLER_AXIS_RIGHTX,
            pygame.CONTROLLER_AXIS_RIGHTY,
            pygame.CONTROLLER_AXIS_TRIGGERLEFT,
            pygame.CONTROLLER_AXIS_TRIGGERRIGHT,
        ]
        values = {name: self._pad.get_axis(axis) / 32767.0 for name, axis in zip(_AXES, axes, strict=True)}
        return PadState(**values, buttons=frozenset(self._held()))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._pad.quit()
            self._controller.quit()

    def _held(self) -> list[str]:
        pygame = self._pygame
        names = {
            "a": pygame.CONTROLLER_BUTTON_A,
            "b": pygame.CONTROLLER_BUTTON_B,
            "x": pygame.CONTROLLER_BUTTON_X,
            "y": pygame.CONTROLLER_BUTTON_Y,
            "left_bumper": pygame.CONTROLLER_BUTTON_LEFTSHOULDER,
            "right_bumper": pygame.CONTROLLER_BUTTON_RIGHTSHOULDER,
            "left_stick": pygame.CONTROLLER_BUTTON_LEFTSTICK,
            "right_stick": pygame.CONTROLLER_BUTTON_RIGHTSTICK,
            "back": pygame.CONTROLLER_BUTTON_BACK,
            "start": pygame.CONTROLLER_BUTTON_START,
        }
        return [name for name, button in names.items() if self._pad.get_button(button)]
