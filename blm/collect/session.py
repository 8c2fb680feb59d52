"""A recording session: run attempts until a dataset holds the episodes that were asked for.

Attempt i of a task starts from seed + i, and attempts are committed in that order, so the dataset depends on the
configuration alone: not on the number of workers, and not on how often the session was interrupted and resumed.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Self

from pydantic import model_validator

from blm.collect.attempts import CollectConfig, OpenWorkcell, Series, attempts, open_simulation
from blm.collect.attempts_table import Attempt, cause
from blm.collect.dataset_files import STAGING_FOLDER
from blm.collect.recorder import Recorder
from blm.collect.recording import Recording
from blm.schemas.episode import RECORDING_FILE
from blm.schemas.errors import DatasetError, PlanningError, UsageError
from blm.schemas.progress import Progress, silent
from blm.schemas.task import load_task
from blm.schemas.yaml_model import FrozenModel

OPERATORS = ("planner",)


class CollectSummary(FrozenModel):
    """What a session did. `attempts` = `kept` + the sum of `dropped`, whose keys are causes.

    `episodes` is how many of the task the dataset holds now; the other numbers are of this session alone.
    """

    output: Path
    robot: str
    task: str
    episodes: int
    attempts: int
    kept: int
    succeeded: int
    dropped: dict[str, int]
    frames: int
    seconds: float

    @model_validator(mode="after")
    def _conserved(self) -> Self:
        if self.attempts != self.kept + sum(self.dropped.values()):
            raise ValueError(f"{self.attempts} attempts, but {self.kept} kept and {self.dropped} dropped")
        return self

    @property
    def success_rate(self) -> float:
        """Share of this session's attempts that succeeded; 0 where there were none."""
        return self.succeeded / self.attempts if self.attempts else 0.0

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0


def collect(
    config: CollectConfig, progress: Progress | None = None, *, open_workcell: OpenWorkcell = open_simulation
) -> CollectSummary:
    """Record until `config.output` holds `config.episodes` episodes of the task.

    With `config.resume` an existing dataset is continued with the seeds that follow; other tasks in it are left
    alone. Everything recorded so far stays in the dataset whatever ends the session.

    Raises:
        UsageError: an operator that is not available.
        UnknownNameError: an unknown robot or task.
        OutputExistsError: the output is there already and `resume` is false.
        DatasetError: `resume`, and the dataset is of another robot, other features or another seed.
        PlanningError: too many attempts failed; names the most frequent cause.
    """
    if config.operator not in OPERATORS:
        raise UsageError(
            f"operator '{config.operator}' is not available; there is: {', '.join(OPERATORS)} (simulation).",
            "Leave --operator away to let the planner demonstrate.",
        )
    if not config.record:
        raise UsageError("a dataset without recording makes no sense.", "Leave `record` as it is.")
    embodiment = config.embodiment()
    task = load_task(config.task, embodiment.name).name
    resume = config.resume and (config.output / RECORDING_FILE).is_file()
    recording = Recording(embodiment, video=config.video, variety=str(config.variety))
    with Recorder(config.output, recording, resume=resume) as recorder:
        session = _Session(config, task, recorder, progress or silent)
        session.run(open_workcell)
        return session.summary()


class _Session:
    """Commits attempts in order and counts."""

    def __init__(self, config: CollectConfig, task: str, recorder: Recorder, progress: Progress) -> None:
        self._config = config
        self._task = task
        self._recorder = recorder
        self._progress = progress
        self._began = time.perf_counter()
        earlier = self._attempts()
        self._first = len(earlier)
        if earlier and earlier[0].seed != config.seed:
            raise DatasetError(
                f"the recording of '{task}' in {config.output} began with seed {earlier[0].seed}, not {config.seed}.",
                f"Continue it with --seed {earlier[0].seed}.",
            )

    def run(self, open_workcell: OpenWorkcell) -> None:
        """Make attempts until enough episodes are there, or there were too many attempts."""
        limit = self._config.attempts_per_episode * self._config.episodes
        if self._missing() <= 0:
            return
        self._report()
        staging = self._config.output / STAGING_FOLDER
        series = Series(self._config, staging, self._first, limit, self._missing)
        with closing(attempts([series], open_workcell, self._config.workers)) as made:
            for _, outcome in made:
                if isinstance(outcome, Exception):
                    raise outcome
                self._recorder.commit(outcome)
                self._report()
        if self._missing() > 0:
            self._give_up(limit)

    def summary(self) -> CollectSummary:
        made = self._attempts()[self._first :]
        kept = [attempt for attempt in made if attempt.kept]
        return CollectSummary(
            output=self._config.output,
            robot=self._recorder.writer.embodiment.name,
            task=self._task,
            episodes=self._kept(),
            attempts=len(made),
            kept=len(kept),
            succeeded=sum(attempt.success for attempt in made),
            dropped=dict(Counter(cause(attempt) for attempt in made if not attempt.kept).most_common()),
            frames=sum(attempt.steps for attempt in kept),
            seconds=round(time.perf_counter() - self._began, 3),
        )

    def _attempts(self) -> list[Attempt]:
        return [attempt for attempt in self._recorder.writer.attempts if attempt.task == self._task]

    def _kept(self) -> int:
        return sum(attempt.kept for attempt in self._attempts())

    def _missing(self) -> int:
        return self._config.episodes - self._kept()

    def _report(self) -> None:
        made = self._attempts()
        note = f"{sum(attempt.success for attempt in made) / len(made):.0%} success" if made else ""
        self._progress("recording", self._kept(), self._config.episodes, note)

    def _give_up(self, limit: int) -> None:
        dropped = self.summary().dropped
        most = next(iter(dropped), "none in this session")
        raise PlanningError(
            f"only {self._kept()} of {self._config.episodes} episodes after {limit} attempts at '{self._task}'; "
            f"most frequent cause: {most}.",
            f"What succeeded is in {self._config.output}; raise attempts_per_episode and resume to go on.",
        )
