"""What a person says about episodes while recording, and where the session stands: a state machine without devices.

    ready ──advance──▶ recording ──advance, success, time limit──▶ review ──advance──▶ decided (kept)
      ▲                 │ ▲  │                                       │                    │
      │               pause  └───────────── re-record ◀──────────────┘──▶ decided (not)   │
      │                 ▼ │                                                               │
      │                paused                                                             │
      └──────────────────────────── the session has stored or forgotten it ◀──────────────┘

Keys, buttons of a page, of a gamepad and foot pedals all end in `Controls.press`, from whichever thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import model_validator

from blm.schemas.errors import ConfigError
from blm.schemas.yaml_model import FrozenModel, read_yaml, validate


class Control(StrEnum):
    """What can be said."""

    ADVANCE = "advance"
    RERECORD = "re-record"
    STOP = "stop"
    PAUSE = "pause"
    SUCCESS = "success"
    FAILURE = "failure"
    DISCARD_LAST = "discard-last"
    NEXT_TASK = "next-task"
    TAKE_OVER = "take-over"
    EMERGENCY_STOP = "emergency-stop"


class Phase(StrEnum):
    """Where a session stands."""

    READY = "ready"
    RECORDING = "recording"
    PAUSED = "paused"
    REVIEW = "review"
    DECIDED = "decided"
    HALTED = "halted"
    DONE = "done"


DEFAULT_KEYS: Mapping[str, Control] = {
    "right": Control.ADVANCE,
    "n": Control.ADVANCE,
    "left": Control.RERECORD,
    "r": Control.RERECORD,
    "escape": Control.STOP,
    "q": Control.STOP,
    "p": Control.PAUSE,
    "y": Control.SUCCESS,
    "f": Control.FAILURE,
    "backspace": Control.DISCARD_LAST,
    "t": Control.NEXT_TASK,
    "h": Control.TAKE_OVER,
    "space": Control.EMERGENCY_STOP,
}
"""As LeRobot's users know them, and the rest."""


KEY_NAMES = (
    *("right", "left", "up", "down", "escape", "space", "enter", "tab", "backspace"),
    *("insert", "delete", "home", "end", "page-up", "page-down"),
    *(f"f{number}" for number in range(1, 25)),
)
"""Keys that are not a single character. Many foot pedals send page-up and page-down, or f13 and higher."""

_KEYS_IN_WORDS = ", ".join(name for name in KEY_NAMES if not name.startswith("f")) + ", f1 to f24"


class KeyMap(FrozenModel):
    """Which key means what. Keys are single characters or `KEY_NAMES`. A foot pedal is a keyboard with few keys."""

    keys: dict[str, Control]

    @model_validator(mode="after")
    def _stoppable(self) -> Self:
        for key in self.keys:
            if len(key) != 1 and key not in KEY_NAMES:
                raise ValueError(f"there is no key '{key}'; keys are single characters or {_KEYS_IN_WORDS}")
        for needed in (Control.STOP, Control.EMERGENCY_STOP):
            if needed not in self.keys.values():
                raise ValueError(f"no key is left for {needed}")
        return self

    @classmethod
    def default(cls) -> Self:
        return cls(keys=dict(DEFAULT_KEYS))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From 'f13=advance,b=re-record' or the path of a YAML file {key: control}; the other keys stay as they are.

        Raises:
            ConfigError: something else than KEY=CONTROL, or an unknown control.
        """
        if not text:
            return cls.default()
        if text.endswith((".yaml", ".yml")):
            given = {str(key): value for key, value in read_yaml(Path(text)).items()}
        else:
            given = dict(_pair(part) for part in text.split(","))
        for key, control in given.items():
            if control not in set(Control):
                raise ConfigError(
                    f"--keys: '{control}' (key '{key}') is no control.", f"There are: {', '.join(Control)}."
                )
        keys = dict(DEFAULT_KEYS) | {key.lower(): control for key, control in given.items()}
        return validate(cls, {"keys": keys}, "--keys")

    def of(self, control: Control) -> str:
        """The keys that mean `control`, as a person reads them."""
        return " or ".join(key for key, meant in self.keys.items() if meant == control)


def _pair(text: str) -> tuple[str, str]:
    key, separator, control = text.strip().rpartition("=")
    if not separator or not key:
        raise ConfigError(f"--keys: '{text}' is not KEY=CONTROL.", "Example: --keys b=advance,a=re-record")
    return key, control


@dataclass(frozen=True)
class Verdict:
    """What a person has said about the episode.

    `kept` is None until it is decided. `success` is None where nothing was said: the task's own criteria count then.
    """

    kept: bool | None = None
    success: bool | None = None


@dataclass(frozen=True)
class SessionState:
    """Where a session stands; made by `after`, never changed."""

    phase: Phase = Phase.READY
    verdict: Verdict = Verdict()
    stopping: bool = False
    discards: int = 0
    task_changes: int = 0
    take_overs: int = 0


def after(state: SessionState, control: Control) -> SessionState:
    """The state once `control` was pressed. What makes no sense in a phase changes nothing."""
    phase = state.phase
    if control is Control.EMERGENCY_STOP:
        return replace(state, phase=Phase.DONE if phase is Phase.DONE else Phase.HALTED)
    if control is Control.STOP:
        return _stopped(state)
    if phase is Phase.HALTED:
        # Only on purpose, and never back into the episode: nobody knows where the arm is by now.
        forgotten = replace(state, phase=Phase.DECIDED, verdict=Verdict(kept=False))
        return forgotten if control is Control.RERECORD else state
    if phase is Phase.READY:
        return _while_ready(state, control)
    if phase in (Phase.RECORDING, Phase.PAUSED):
        return _while_recording(state, control)
    return _while_reviewing(state, control) if phase is Phase.REVIEW else state


def _stopped(state: SessionState) -> SessionState:
    """Stop during an episode ends it first, so that it can be judged."""
    if state.phase in (Phase.RECORDING, Phase.PAUSED):
        return replace(state, phase=Phase.REVIEW, stopping=True)
    if state.phase in (Phase.REVIEW, Phase.HALTED):
        return replace(state, phase=Phase.DECIDED, stopping=True, verdict=Verdict(kept=False))
    return replace(state, phase=Phase.DONE if state.phase is Phase.READY else state.phase, stopping=True)


def _while_ready(state: SessionState, control: Control) -> SessionState:
    match control:
        case Control.ADVANCE:
            return replace(state, phase=Phase.RECORDING, verdict=Verdict(), take_overs=0)
        case Control.DISCARD_LAST:
            return replace(state, discards=state.discards + 1)
        case Control.NEXT_TASK:
            return replace(state, task_changes=state.task_changes + 1)
    return state


def _while_recording(state: SessionState, control: Control) -> SessionState:
    match control:
        case Control.ADVANCE:
            return replace(state, phase=Phase.REVIEW)
        case Control.SUCCESS | Control.FAILURE:
            marked = replace(state.verdict, success=control is Control.SUCCESS)
            return replace(state, phase=Phase.REVIEW, verdict=marked)
        case Control.RERECORD:
            return replace(state, phase=Phase.DECIDED, verdict=Verdict(kept=False))
        case Control.PAUSE:
            paused = state.phase is Phase.RECORDING
            return replace(state, phase=Phase.PAUSED if paused else Phase.RECORDING)
        case Control.TAKE_OVER:
            return replace(state, take_overs=state.take_overs + 1)
    return state


def _while_reviewing(state: SessionState, control: Control) -> SessionState:
    match control:
        case Control.ADVANCE:
            return replace(state, phase=Phase.DECIDED, verdict=replace(state.verdict, kept=True))
        case Control.RERECORD:
            return replace(state, phase=Phase.DECIDED, verdict=replace(state.verdict, kept=False))
        case Control.SUCCESS | Control.FAILURE:
            return replace(state, verdict=replace(state.verdict, success=control is Control.SUCCESS))
    return state


class Controls:
    """The state of a running session, pressed from any thread and waited for by the session.

    `on_emergency` are called at once, in the thread that pressed; `on_release` when the halt is taken back.
    """

    def __init__(self) -> None:
        self._state = SessionState()
        self._changed = threading.Condition()
        self.on_emergency: list[Callable[[], None]] = []
        self.on_release: list[Callable[[], None]] = []

    @property
    def state(self) -> SessionState:
        return self._state

    def press(self, control: Control) -> None:
        if control is Control.EMERGENCY_STOP:
            for act in self.on_emergency:
                act()
        with self._changed:
            before, self._state = self._state, after(self._state, control)
            self._changed.notify_all()
        if before.phase is Phase.HALTED and self._state.phase is Phase.DECIDED and not self._state.stopping:
            for act in self.on_release:
                act()

    def episode_over(self) -> None:
        """The loop ended the episode by itself: success held, the time was up, or it failed."""
        with self._changed:
            if self._state.phase in (Phase.RECORDING, Phase.PAUSED):
                self._state = replace(self._state, phase=Phase.REVIEW)
            self._changed.notify_all()

    def start(self) -> None:
        """Start the episode unless the person has moved on meanwhile."""
        with self._changed:
            if self._state.phase is Phase.READY:
                self._state = after(self._state, Control.ADVANCE)
            self._changed.notify_all()

    def decide(self, kept: bool) -> None:
        """Decide about the episode under review unless the person has meanwhile."""
        with self._changed:
            if self._state.phase is Phase.REVIEW:
                self._state = after(self._state, Control.ADVANCE if kept else Control.RERECORD)
            self._changed.notify_all()

    def acknowledge(self) -> None:
        """What was decided is done: on to the next episode, or to the end."""
        with self._changed:
            if self._state.phase is Phase.DECIDED:
                self._state = replace(self._state, phase=Phase.DONE if self._state.stopping else Phase.READY)
            self._changed.notify_all()

    def finish(self) -> None:
        """The session has all it wanted."""
        with self._changed:
            self._state = replace(self._state, phase=Phase.DONE)
            self._changed.notify_all()

    def wait_for_change(self, known: SessionState, timeout_s: float) -> SessionState:
        """The state, as soon as it is not the `known` one or the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != known, timeout_s)
            return self._state

    @property
    def episode_ended(self) -> bool:
        """For `run_episode(stop=…)`."""
        return self._state.phase not in (Phase.RECORDING, Phase.PAUSED)

    @property
    def paused(self) -> bool:
        return self._state.phase is Phase.PAUSED
