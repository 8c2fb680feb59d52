"""A session with a person at the controls: episode after episode through the one control loop.

    ready (scene set up, the person starts) ─▶ run_episode ─▶ review ─▶ kept, or once more

The person ends episodes, judges them and moves on by `Controls`; consoles (a terminal, a page) show where things
stand. The next episode can start as soon as the last one is decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pydantic import Field

from blm.collect.controls import Controls, Phase, SessionState
from blm.collect.episode_part import EpisodeTiming
from blm.collect.rollout import STOPPED, run_episode
from blm.schemas.rollout import Agent, Environment, EpisodeEnd, EpisodeStart, Observation, Step, Subscriber
from blm.schemas.yaml_model import FrozenModel

_POLL_S = 0.25
_STATUS_EVERY_S = 0.1


class LiveConfig(FrozenModel):
    """How a person records.

    `tasks` are taken in turn when the person asks for the next one. `reset_s`: an episode starts by itself so long
    after the last one; None waits for the person. Without `review` what the person ended is kept at once.
    """

    tasks: tuple[str, ...] = Field(min_length=1)
    episodes: int = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0)
    review: bool = True
    episode_s: float = Field(default=60.0, gt=0, description="longest episode")
    reset_s: float | None = Field(default=None, ge=0)
    keep_failures: bool = False


@dataclass(frozen=True)
class SessionStatus:
    """What consoles show.

    `success` is the verdict on the episode under review; None while there is none. `note` is one short sentence.
    """

    phase: Phase
    task: str
    instruction: str
    kept: int
    wanted: int
    elapsed_s: float = 0.0
    late_ticks: int = 0
    success: bool | None = None
    intervening: bool = False
    note: str = ""


class Console(Protocol):
    """Shows a session to a person."""

    def ready(self, start: EpisodeStart, observation: Observation) -> None:
        """An episode is set up and waits to be started."""
        ...

    def show(self, status: SessionStatus) -> None: ...


class Recording(Subscriber, Protocol):
    """A subscriber that holds the last episode back until it was decided on."""

    def decide(self, kept: bool, success: bool) -> None:
        """Keep the episode that ended last, or forget it. Success is what the person says, or the task's criteria."""
        ...

    def discard_last(self) -> bool:
        """Take the episode kept last out again; False if there is none to take."""
        ...

    @property
    def kept(self) -> Mapping[str, int]:
        """Episodes in the dataset by task."""
        ...

    def timing(self) -> EpisodeTiming:
        """How regularly the running episode, or else the last one, was recorded."""
        ...


@dataclass(frozen=True)
class LiveSummary:
    """What a session did: episodes tried = `kept` + `dropped`. `discarded` were kept first."""

    output: Path
    robot: str
    episodes: int
    kept: int
    dropped: int
    discarded: int
    frames: int
    late_ticks: int
    seconds: float


class LiveSession:
    """Runs episodes until as many are kept as were asked for, or the person stops."""

    def __init__(
        self,
        config: LiveConfig,
        open_environment: Callable[[str], Environment],
        agent: Agent,
        controls: Controls,
        recording: Recording,
        consoles: Sequence[Console] = (),
        *,
        simulated: bool = True,
    ) -> None:
        """`open_environment` makes the workspace for a task's name; it is asked once per task.

        On hardware (`simulated` false) no criteria can be checked: an episode that the person ended and keeps counts
        as a success unless marked otherwise.
        """
        self._config = config
        self._open_environment = open_environment
        self._agent = agent
        self._controls = controls
        self._recording = recording
        self._consoles = consoles
        self._simulated = simulated
        self._environments: dict[str, Environment] = {}
        self._place = 0
        self._seen = controls.state
        self._start: EpisodeStart | None = None
        self._outcome = ""
        self._kept = self._dropped = self._discarded = self._frames = self._late_ticks = 0

    def run(self, output: Path) -> LiveSummary:
        """Record into `output` (named in the summary only; `recording` writes).

        Raises:
            BlmError: whatever an environment, the agent or the recording reports; what was kept stays.
        """
        began = time.perf_counter()
        try:
            while self._controls.state.phase is not Phase.DONE and self._total() < self._config.episodes:
                self._episode()
            self._controls.finish()
            self._show(f"{self._outcome} Finished.".lstrip())
        finally:
            for environment in self._environments.values():
                environment.close()
        return LiveSummary(
            output=output,
            robot=self._robot(),
            episodes=self._total(),
            kept=self._kept,
            dropped=self._dropped,
            discarded=self._discarded,
            frames=self._frames,
            late_ticks=self._late_ticks,
            seconds=round(time.perf_counter() - began, 3),
        )

    @property
    def _task(self) -> str:
        return self._config.tasks[self._place % len(self._config.tasks)]

    def _robot(self) -> str:
        return self._start.embodiment.name if self._start else ""

    def _total(self) -> int:
        """Episodes in the dataset of the tasks of this session."""
        kept = self._recording.kept
        return sum(kept.get(task, 0) for task in set(self._config.tasks))

    def _environment(self) -> Environment:
        if self._task not in self._environments:
            self._environments[self._task] = self._open_environment(self._task)
        return self._environments[self._task]

    def _episode(self) -> None:
        environment = self._environment()
        seed = self._config.seed + self._recording.kept.get(self._task, 0)
        observation = environment.reset(seed)
        self._start = replace(environment.describe(), operator=self._agent.operator)
        for console in self._consoles:
            console.ready(self._start, observation)
        if not self._started():
            return
        feed = _Feed(self._recording, self._show)
        max_steps = round(self._config.episode_s * environment.embodiment.control_rate_hz)
        end = run_episode(
            environment,
            self._agent,
            [self._recording, feed],
            seed,
            max_steps,
            stop=lambda: self._controls.episode_ended,
        )
        self._controls.episode_over()
        self._late_ticks += feed.late_ticks
        self._judge(end, feed)

    def _started(self) -> bool:
        """Wait until the person (or the clock) starts the episode; False if something else is wanted first."""
        deadline = None if self._config.reset_s is None else time.monotonic() + self._config.reset_s
        place = self._place
        while (state := self._controls.state).phase in (Phase.READY, Phase.HALTED, Phase.DECIDED):
            self._controls.acknowledge()
            note = self._requests(state)
            if self._place != place or self._total() >= self._config.episodes:
                return False
            self._show(note or _ready_note(state.phase, self._outcome))
            if deadline is not None and state.phase is Phase.READY and time.monotonic() >= deadline:
                self._controls.start()
                continue
            self._controls.wait_for_change(state, _POLL_S)
        return state.phase in (Phase.RECORDING, Phase.PAUSED)

    def _requests(self, state: SessionState) -> str:
        """Do what was asked between episodes."""
        note = ""
        if state.discards > self._seen.discards:
            found = self._recording.discard_last()
            self._discarded += found
            note = "The last episode was taken out again." if found else "There is no episode to take out."
        self._place += state.task_changes - self._seen.task_changes
        self._seen = state
        return note

    def _judge(self, end: EpisodeEnd, feed: _Feed) -> None:
        """Let the person decide about the episode, or decide by how it ended."""
        if not self._config.review and self._controls.state.phase is Phase.REVIEW:
            self._controls.decide(end.success or end.reason == STOPPED or self._config.keep_failures)
        timing = self._recording.timing()
        while (state := self._controls.state).phase in (Phase.REVIEW, Phase.HALTED):
            success = self._success(end, state)
            feed.show(state.phase, success, _review_note(state.phase, end, success, timing))
            self._controls.wait_for_change(state, _POLL_S)
        kept, success = bool(state.verdict.kept) and end.steps > 0, self._success(end, state)
        self._recording.decide(kept, success)
        self._outcome = _outcome(kept, success, timing)
        self._kept += kept
        self._dropped += not kept
        self._frames += end.steps if kept else 0
        self._controls.acknowledge()

    def _success(self, end: EpisodeEnd, state: SessionState) -> bool:
        if state.verdict.success is not None:
            return state.verdict.success
        return end.success or (not self._simulated and end.reason == STOPPED)

    def _show(
        self,
        note: str = "",
        *,
        phase: Phase | None = None,
        elapsed_s: float = 0.0,
        late_ticks: int = 0,
        success: bool | None = None,
        intervening: bool = False,
    ) -> None:
        status = SessionStatus(
            phase=phase or self._controls.state.phase,
            task=self._task,
            instruction=self._start.instruction if self._start else "",
            kept=self._total(),
            wanted=self._config.episodes,
            elapsed_s=elapsed_s,
            late_ticks=late_ticks,
            success=success,
            intervening=intervening,
            note=note,
        )
        for console in self._consoles:
            console.show(status)


class _Feed:
    """Subscriber that keeps the consoles up to date while an episode runs."""

    def __init__(self, recording: Recording, show: Callable[..., None]) -> None:
        self._recording = recording
        self._show = show
        self._elapsed_s = 0.0
        self._next = 0.0
        self._start_s: float | None = None

    @property
    def late_ticks(self) -> int:
        """Of this episode so far, as its row will say."""
        return self._recording.timing().late_ticks

    def show(self, phase: Phase, success: bool, note: str) -> None:
        """The episode as it stands, for review."""
        self._show(note, phase=phase, elapsed_s=self._elapsed_s, late_ticks=self.late_ticks, success=success)

    def on_start(self, start: EpisodeStart) -> None: ...

    def on_step(self, step: Step) -> None:
        now = step.observation.time_s
        self._start_s = now if self._start_s is None else self._start_s
        self._elapsed_s = now - self._start_s
        if time.monotonic() >= self._next or step.index == 0:
            self._next = time.monotonic() + _STATUS_EVERY_S
            self._show(elapsed_s=self._elapsed_s, late_ticks=self.late_ticks, intervening=step.intervention)

    def on_end(self, end: EpisodeEnd) -> None: ...


_STOPPED_NOTE = "Stopped. Make sure that all is well, then re-record."


def _ready_note(phase: Phase, outcome: str) -> str:
    return _STOPPED_NOTE if phase is Phase.HALTED else f"{outcome} Ready when you are.".lstrip()


def _review_note(phase: Phase, end: EpisodeEnd, success: bool, timing: EpisodeTiming) -> str:
    if phase is Phase.HALTED:
        return _STOPPED_NOTE
    how = "The task is solved" if end.success else f"Ended: {end.reason}"
    if end.reason == STOPPED:
        how = "You ended the episode"
    return f"{how}: {timing}. Keep it as a {_word(success)}?"


def _outcome(kept: bool, success: bool, timing: EpisodeTiming) -> str:
    return f"Kept as a {_word(success)}: {timing}." if kept else "Not kept."


def _word(success: bool) -> str:
    return "success" if success else "failure"
