"""Records rollouts as a LeRobot v3 dataset: a subscriber of the control loop.

`EpisodeCapture` turns one rollout into a `Recorded` attempt, with its episode if it is to be kept; `Recorder` commits
those to a dataset. They are apart so that attempts can be made in several processes and committed in one.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from blm import __version__
from blm.collect.attempts_table import Attempt
from blm.collect.dataset_files import STAGING_FOLDER
from blm.collect.dataset_writer import DatasetWriter
from blm.collect.episode_part import EpisodePart, EpisodeWriter, late_ticks_and_jitter
from blm.collect.recording import Recording
from blm.collect.rollout import STOPPED
from blm.schemas.episode import MONOTONIC_TIME, EpisodeMetadata
from blm.schemas.rollout import EpisodeEnd, EpisodeStart, Step


@dataclass(frozen=True)
class Recorded:
    """One attempt: who tried what, how it ended and, if it is worth keeping, the episode.

    `metadata.attempts` is 1; the recorder knows how many there were.
    """

    metadata: EpisodeMetadata
    end: EpisodeEnd
    part: EpisodePart | None


class EpisodeCapture:
    """Subscriber that stages one episode after the other in `folder`; the last one is `recorded`.

    An episode is kept if it succeeded or, with `keep_failures`, if it has at least one step. One that was stopped
    from outside without success is no attempt at all: `recorded` is None then.
    """

    def __init__(self, folder: Path, recording: Recording, *, keep_failures: bool = False) -> None:
        self.recorded: Recorded | None = None
        self._folder = folder
        self._recording = recording
        self._keep_failures = keep_failures
        self._start: EpisodeStart | None = None
        self._writer: EpisodeWriter | None = None

    def on_start(self, start: EpisodeStart) -> None:
        self.recorded, self._start = None, start
        self._writer = EpisodeWriter(self._folder, self._recording)

    def on_step(self, step: Step) -> None:
        if self._writer is not None:
            self._writer.add(step)

    def on_end(self, end: EpisodeEnd) -> None:
        start, writer = self._start, self._writer
        self._start = self._writer = None
        if start is None or writer is None:
            return
        part = None
        if end.success or (self._keep_failures and end.steps and end.reason != STOPPED):
            part = writer.finish()
        else:
            writer.discard()
        if end.success or end.reason != STOPPED:
            self.recorded = Recorded(episode_metadata(start, end, part), end, part)


class Recorder:
    """Subscriber that records into a dataset; close it (or use it as a context) when the session ends.

    Every attempt is noted in `meta/attempts.parquet`; what is kept becomes an episode at the moment it ends.
    """

    def __init__(
        self,
        root: Path,
        recording: Recording,
        *,
        keep_failures: bool = False,
        resume: bool = False,
    ) -> None:
        """Create the dataset in `root`, or take it up again with `resume`.

        Raises:
            OutputExistsError: `root` holds something and `resume` is false, or another process writes there.
            DatasetError: with `resume`, there is no dataset or it was recorded differently.
        """
        opened = DatasetWriter.resume if resume else DatasetWriter.create
        self.writer = opened(root, recording)
        self._capture = EpisodeCapture(
            root / STAGING_FOLDER / "episode", recording, keep_failures=keep_failures
        )

    def on_start(self, start: EpisodeStart) -> None:
        self._capture.on_start(start)

    def on_step(self, step: Step) -> None:
        self._capture.on_step(step)

    def on_end(self, end: EpisodeEnd) -> None:
        self._capture.on_end(end)
        if self._capture.recorded is not None:
            self.commit(self._capture.recorded)

    def commit(self, recorded: Recorded) -> bool:
        """Note an attempt and, if it has an episode, add that to the dataset; returns whether it has.

        Raises:
            DatasetError: the episode does not fit the dataset.
        """
        task = recorded.metadata.task
        earlier = [attempt for attempt in self.writer.attempts if attempt.task == task]
        attempt = attempt_of(recorded, len(earlier))
        if recorded.part is None:
            self.writer.log_attempt(attempt)
            return False
        metadata = dataclasses.replace(recorded.metadata, attempts=_since_last_kept(earlier) + 1)
        self.writer.commit(recorded.part, metadata, attempt)
        return True

    def close(self) -> None:
        """Write the final statistics and let go of the dataset."""
        self.writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def attempt_of(recorded: Recorded, number: int) -> Attempt:
    """The row of the attempts table for the `number`-th attempt at a task, of which no episode is kept (yet)."""
    end = recorded.end
    metrics = json.dumps(dict(end.metrics), sort_keys=True, default=_plain)
    return Attempt(
        attempt=number,
        seed=recorded.metadata.seed,
        task=recorded.metadata.task,
        success=end.success,
        kept=False,
        episode_index=-1,
        steps=end.steps,
        reason=end.reason,
        metrics=metrics,
    ).with_metrics(json.loads(metrics))


def episode_metadata(start: EpisodeStart, end: EpisodeEnd, part: EpisodePart | None) -> EpisodeMetadata:
    """What `meta/episodes` says about an episode; timing comes from the measured times in `part`."""
    times = part.columns[MONOTONIC_TIME] if part is not None else np.zeros(1)
    late, jitter = late_ticks_and_jitter(times, start.embodiment.control_rate_hz)
    return EpisodeMetadata(
        embodiment=start.embodiment.name,
        task=start.task.name,
        instruction=start.instruction,
        seed=start.seed,
        operator=start.operator,
        success=end.success,
        attempts=1,
        late_ticks=late,
        repeated_frames=part.repeated_frames if part is not None else 0,
        jitter_ms=jitter,
        objects=json.dumps([dict(item) for item in start.objects], default=_plain),
        cameras=json.dumps([dict(item) for item in start.cameras], default=_plain),
        goal=json.dumps(dict(start.goal) if start.goal is not None else None, default=_plain),
        software=__version__,
    )


def _since_last_kept(attempts: list[Attempt]) -> int:
    count = 0
    for attempt in reversed(attempts):
        if attempt.kept:
            break
        count += 1
    return count


def _plain(value: Any) -> Any:
    """NumPy values as JSON."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON-ready")
