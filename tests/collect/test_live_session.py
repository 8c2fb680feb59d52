"""Sessions with a person: what is pressed when, what the dataset holds afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from blm.collect.controls import Control, Controls, Phase
from blm.collect.episode_part import EpisodeTiming
from blm.collect.live_recorder import LiveRecorder
from blm.collect.live_session import LiveConfig, LiveSession, LiveSummary, SessionStatus
from blm.collect.recording import Recording
from blm.schemas.rollout import Command, Environment, EpisodeEnd, EpisodeStart, Observation, Step
from blm.schemas.task import load_task
from tests.collect.workcell import CountingEnvironment, small_robot


class Person:
    """Agent and console in one: presses the next control when its moment has come.

    The script is a list of (phase, tick, control); in other phases than recording the tick is 0.
    """

    operator = "person"

    def __init__(self, controls: Controls, script: list[tuple[Phase, int, Control]]) -> None:
        self._controls = controls
        self.script = script
        self.notes: list[str] = []
        self.seeds: list[int] = []

    def ready(self, start: EpisodeStart, observation: Observation) -> None:
        self.seeds.append(start.seed)

    def show(self, status: SessionStatus) -> None:
        if not self.notes or self.notes[-1] != status.note:
            self.notes.append(status.note)
        if status.phase is not Phase.RECORDING:
            self._press(status.phase, 0)

    def reset(self, start: EpisodeStart, observation: Observation) -> None:
        self._tick = 0

    def act(self, observation: Observation) -> Command:
        self._tick += 1
        self._press(Phase.RECORDING, self._tick)
        return Command(np.asarray(observation.state, dtype=np.float64))

    def metrics(self) -> Mapping[str, int]:
        return {"ticks": self._tick}

    def _press(self, phase: Phase, tick: int) -> None:
        if self.script and self.script[0][:2] == (phase, tick):
            self._controls.press(self.script.pop(0)[2])


@dataclass
class Memory:
    """A recording that remembers."""

    kept_tasks: list[str] = field(default_factory=list)
    decided: list[tuple[bool, bool, int]] = field(default_factory=list)
    steps: int = 0
    _task: str = ""

    def on_start(self, start: EpisodeStart) -> None:
        self._task, self.steps = start.task.name, 0

    def on_step(self, step: Step) -> None:
        self.steps += 1

    def on_end(self, end: EpisodeEnd) -> None: ...

    def decide(self, kept: bool, success: bool) -> None:
        self.decided.append((kept, success, self.steps))
        if kept:
            self.kept_tasks.append(self._task)

    def discard_last(self) -> bool:
        if self.kept_tasks:
            self.kept_tasks.pop()
            return True
        return False

    def timing(self) -> EpisodeTiming:
        return EpisodeTiming(self.steps, late_ticks=2, repeated_frames=1, jitter_ms=0.44)

    @property
    def kept(self) -> dict[str, int]:
        return {task: self.kept_tasks.count(task) for task in self.kept_tasks}


TIMING = "5 frames, 2 late, 1 picture repeated, jitter 0.4 ms"

READY, RECORDING, REVIEW, HALTED = Phase.READY, Phase.RECORDING, Phase.REVIEW, Phase.HALTED
GO, AGAIN = Control.ADVANCE, Control.RERECORD


def run(
    script: list[tuple[Phase, int, Control]],
    tmp_path: Path,
    recording: Memory | None = None,
    simulated: bool = True,
    **settings: object,
) -> tuple[LiveSummary, Memory, Person]:
    controls = Controls()
    person = Person(controls, script)
    recording = recording or Memory()
    config = LiveConfig.model_validate(
        {"tasks": ("push-cube",), "episodes": 1, "seed": 7, "episode_s": 1.0} | settings
    )
    session = LiveSession(config, cells(), person, controls, recording, [person], simulated=simulated)
    return session.run(tmp_path), recording, person


def cells() -> Callable[[str], Environment]:
    return lambda task: CountingEnvironment(small_robot(), load_task(task, "so100"))


def test_an_episode_is_ended_reviewed_and_kept(tmp_path: Path):
    summary, recording, person = run(
        [(READY, 0, GO), (RECORDING, 5, GO), (REVIEW, 0, Control.SUCCESS), (REVIEW, 0, GO)], tmp_path
    )
    assert recording.decided == [(True, True, 5)]
    assert (summary.episodes, summary.kept, summary.dropped, summary.frames) == (1, 1, 0, 5)
    assert f"You ended the episode: {TIMING}. Keep it as a failure?" in person.notes
    assert f"You ended the episode: {TIMING}. Keep it as a success?" in person.notes


def test_re_recording_takes_the_same_scene_again(tmp_path: Path):
    summary, recording, person = run(
        [(READY, 0, GO), (RECORDING, 3, AGAIN), (READY, 0, GO), (RECORDING, 4, GO), (REVIEW, 0, GO)], tmp_path
    )
    assert [kept for kept, _, _ in recording.decided] == [False, True]
    assert person.seeds == [7, 7]
    assert (summary.kept, summary.dropped) == (1, 1)


def test_success_ends_an_episode_by_itself(tmp_path: Path):
    _, recording, person = run([(READY, 0, GO), (REVIEW, 0, GO)], tmp_path, seed=0)
    assert recording.decided == [(True, True, 8)]
    assert any(note.startswith("The task is solved: 8 frames") for note in person.notes)


def test_without_review_what_the_person_ended_is_kept_and_what_ran_out_is_not(tmp_path: Path):
    script = [(READY, 0, GO), (READY, 0, GO), (RECORDING, 4, GO)]
    summary, recording, _ = run(script, tmp_path, review=False)
    assert recording.decided == [(False, False, 20), (True, False, 4)]
    assert (summary.kept, summary.dropped) == (1, 1)


def test_what_became_of_an_episode_is_said_before_the_next_one(tmp_path: Path):
    kept = [(READY, 0, GO), (RECORDING, 5, GO)]
    script = [*kept, (READY, 0, GO), (RECORDING, 5, AGAIN), *kept]
    _, _, person = run(script, tmp_path, review=False, episodes=2)
    assert f"Kept as a failure: {TIMING}. Ready when you are." in person.notes
    assert "Not kept. Ready when you are." in person.notes


def test_on_hardware_an_episode_that_was_kept_counts_as_a_success_unless_marked(tmp_path: Path):
    script = [(READY, 0, GO), (RECORDING, 4, GO), (READY, 0, GO), (RECORDING, 4, Control.FAILURE)]
    _, recording, _ = run(script, tmp_path, simulated=False, review=False, episodes=2)
    assert [success for _, success, _ in recording.decided] == [True, False]


def test_an_emergency_drops_the_episode_and_waits(tmp_path: Path):
    script = [
        (READY, 0, GO),
        (RECORDING, 2, Control.EMERGENCY_STOP),
        (HALTED, 0, AGAIN),
        (READY, 0, Control.STOP),
    ]
    summary, recording, person = run(script, tmp_path)
    assert recording.decided == [(False, False, 2)]
    assert (summary.kept, summary.episodes) == (0, 0)
    assert "Stopped. Make sure that all is well, then re-record." in person.notes


def test_a_kept_episode_can_be_taken_out_again(tmp_path: Path):
    episode = [(READY, 0, GO), (RECORDING, 2, GO), (REVIEW, 0, GO)]
    script = [*episode, (READY, 0, Control.DISCARD_LAST), *episode, *episode]
    summary, recording, _ = run(script, tmp_path, episodes=2)
    assert (summary.episodes, summary.kept, summary.discarded) == (2, 3, 1)
    assert len(recording.kept_tasks) == 2


def test_tasks_are_changed_between_episodes(tmp_path: Path):
    script = [
        (READY, 0, Control.NEXT_TASK),
        (READY, 0, GO),
        (RECORDING, 2, GO),
        (REVIEW, 0, GO),
    ]
    _, recording, _ = run(script, tmp_path, tasks=("push-cube", "pick-cube"))
    assert recording.kept_tasks == ["pick-cube"]


def test_episodes_start_by_themselves_after_the_reset_time(tmp_path: Path):
    _, recording, _ = run([(RECORDING, 2, GO), (REVIEW, 0, GO)], tmp_path, reset_s=0.0)
    assert recording.decided == [(True, False, 2)]


def test_what_a_person_kept_is_in_the_dataset(tmp_path: Path):
    root = tmp_path / "data"
    controls = Controls()
    episode = [(READY, 0, GO), (RECORDING, 6, Control.SUCCESS), (REVIEW, 0, GO)]
    person = Person(controls, [(READY, 0, GO), (RECORDING, 4, AGAIN), *episode, *episode])
    with LiveRecorder(root, Recording(small_robot(64)), review=True) as recorder:
        config = LiveConfig(tasks=("push-cube",), episodes=2, seed=7, episode_s=1.0)

        def open_cell(task: str) -> Environment:
            return CountingEnvironment(small_robot(64), load_task(task, "so100"))

        summary = LiveSession(config, open_cell, person, controls, recorder, [person]).run(root)
    assert (summary.kept, summary.dropped) == (2, 1)
    table = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["length"] for row in table] == [6, 6]
    assert [row["blm/success"] for row in table] == [True, True]
    assert [row["blm/operator"] for row in table] == ["person", "person"]


@pytest.mark.parametrize("key", ["tasks", "episodes"])
def test_a_session_needs_something_to_do(key: str):
    with pytest.raises(ValueError, match=key):
        LiveConfig.model_validate(
            {"tasks": ("push-cube",), "episodes": 1} | {key: () if key == "tasks" else 0}
        )
