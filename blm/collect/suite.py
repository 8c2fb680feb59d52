"""A suite: every robot at every task, from one pool of workers, resumable, and the same whatever the number of workers.

    DIR/
      <robot>/                  one LeRobot dataset per robot with all its tasks (not with record=False)
      attempts.parquet          every attempt of every robot
      suite.json                how it was recorded and what came of each pair; its presence marks a suite
      README.md, success.png    the same for people
      pictures/<robot>.png      the first success at each task

Attempts are committed pair by pair in the order of their seeds, so what is in the folder depends on the settings alone.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from blm.collect.attempts import (
    CollectConfig,
    CollectSettings,
    OpenWorkcell,
    Series,
    attempts,
    open_simulation,
)
from blm.collect.attempts_table import Attempt, cause, read_suite_attempts, write_suite_attempts
from blm.collect.dataset_files import LOCK_FILE, STAGING_FOLDER
from blm.collect.dataset_lock import lock_folder
from blm.collect.recorder import Recorded, Recorder, attempt_of
from blm.collect.recording import Recording
from blm.collect.session import OPERATORS
from blm.collect.suite_report import SUITE_FILE, PairResult, SuiteSummary, read_summary, write_report
from blm.schemas.embodiment import Embodiment, embodiment_names
from blm.schemas.episode import RECORDING_FILE
from blm.schemas.errors import BlmError, DatasetError, OutputExistsError, SimulationError, UsageError
from blm.schemas.progress import Progress, silent
from blm.schemas.task import load_task, task_names

SUITE_ATTEMPTS_FILE = "attempts.parquet"
ALL = "all"

_FREE = {"output", "resume", "workers", "episodes", "attempts_per_episode", "robots", "tasks"}
"""Settings that may differ when a suite is continued."""

_LEFT_AT_ONCE = {LOCK_FILE, STAGING_FOLDER, f"{SUITE_FILE}.tmp"}
"""What a suite killed in its first moment leaves."""

_COMMITS_BETWEEN_TABLES = 50


class SuiteConfig(CollectSettings):
    """Robots × tasks to record. `robots` and `tasks` hold names, YAML files, or 'all'.

    `episodes` is per pair. Without `record`, every pair gets exactly that many attempts and only their table is kept.
    """

    robots: tuple[str, ...] = Field(default=(ALL,), min_length=1)
    tasks: tuple[str, ...] = Field(default=(ALL,), min_length=1)

    def pairs(self) -> tuple[Pair, ...]:
        """Every robot with every task, robot by robot.

        Raises:
            UnknownNameError: a robot or task that is not known; lists those that are.
            ConfigError: a YAML file is wrong.
            UsageError: two robots or two tasks have the same name.
        """
        robots = embodiment_names() if self.robots == (ALL,) else self.robots
        tasks = task_names() if self.tasks == (ALL,) else self.tasks
        settings = {name: getattr(self, name) for name in CollectSettings.model_fields}
        pairs = []
        for robot in robots:
            for task in tasks:
                config = CollectConfig(robot=robot, task=task, **settings)
                embodiment = config.embodiment()
                pairs.append(Pair(embodiment, load_task(task, embodiment.name).name, config))
        repeated = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
        if repeated:
            raise UsageError(f"'{repeated[0]}' is asked for twice.", "Name each robot and each task once.")
        return tuple(pairs)

    def settings(self) -> dict[str, Any]:
        """What the recordings depend on, as plain data."""
        settings = self.model_dump(mode="json", exclude=_FREE)
        settings["video"].pop("queue_frames")
        return settings


@dataclass(frozen=True)
class Pair:
    """One robot at one task."""

    embodiment: Embodiment
    task: str
    config: CollectConfig

    @property
    def robot(self) -> str:
        return self.embodiment.name

    @property
    def name(self) -> str:
        return f"{self.robot} {self.task}"


def collect_suite(
    config: SuiteConfig, progress: Progress | None = None, *, open_workcell: OpenWorkcell = open_simulation
) -> SuiteSummary:
    """Record until every pair has `config.episodes` episodes, and write the report.

    A pair that fails does not stop the others; it is named in the summary. Ctrl-C ends the suite after the attempt
    under way (a second one at once); everything committed so far stays, and `config.resume` goes on from there.

    Raises:
        UsageError: an operator that is not available, or a name twice.
        UnknownNameError: an unknown robot or task.
        OutputExistsError: the output holds a suite and `resume` is false, or something else.
        DatasetError: `resume`, and the suite was begun with other settings.
        SimulationError: a worker process died.
    """
    if config.operator not in OPERATORS:
        raise UsageError(
            f"operator '{config.operator}' is not available; there is: {', '.join(OPERATORS)}.",
            "Leave --operator away.",
        )
    pairs = config.pairs()
    _check_output(config, pairs)
    with _held(config.output), _interruptible() as interrupted:
        suite = _Suite(config, pairs, progress or silent)
        suite.run(open_workcell, interrupted)
        return suite.report(interrupted())


class _Books(Protocol):
    """Where a robot's attempts are entered."""

    @property
    def attempts(self) -> Sequence[Attempt]: ...

    def commit(self, recorded: Recorded) -> None: ...

    def close(self) -> None: ...


class _DatasetBooks:
    """A robot's dataset."""

    def __init__(self, root: Path, pair: Pair) -> None:
        resume = (root / RECORDING_FILE).is_file()
        config = pair.config
        recording = Recording(pair.embodiment, video=config.video, variety=str(config.variety))
        self._recorder = Recorder(root, recording, resume=resume)

    @property
    def attempts(self) -> Sequence[Attempt]:
        return self._recorder.writer.attempts

    def commit(self, recorded: Recorded) -> None:
        self._recorder.commit(recorded)

    def close(self) -> None:
        self._recorder.close()


class _TableBooks:
    """Attempts of which nothing is kept but their row."""

    def __init__(self, attempts: Sequence[Attempt], changed: Callable[[], None]) -> None:
        self._attempts = list(attempts)
        self._changed = changed

    @property
    def attempts(self) -> Sequence[Attempt]:
        return self._attempts

    def commit(self, recorded: Recorded) -> None:
        number = sum(attempt.task == recorded.metadata.task for attempt in self._attempts)
        self._attempts.append(attempt_of(recorded, number))
        self._changed()

    def close(self) -> None:
        pass


class _Suite:
    """Commits attempts in the order of pairs and seeds, and counts."""

    def __init__(self, config: SuiteConfig, pairs: Sequence[Pair], progress: Progress) -> None:
        self._config = config
        self._pairs = pairs
        self._progress = progress
        self._errors: dict[str, str] = {}
        self._commits = 0
        self._counts = {pair.name: Counter[str]() for pair in pairs}
        self._books: dict[str, _Books] = {}
        table = config.output / SUITE_ATTEMPTS_FILE
        self._earlier = read_suite_attempts(table) if not config.record and table.is_file() else {}
        with ExitStack() as opened:
            for pair in pairs:
                if pair.robot not in self._books:
                    self._books[pair.robot] = books = self._open_books(pair)
                    opened.callback(books.close)
            for pair in pairs:
                for attempt in self._attempts(pair):
                    self._count(pair, attempt)
            self._opened = opened.pop_all()

    def run(self, open_workcell: OpenWorkcell, interrupted: Callable[[], bool]) -> None:
        """Make attempts until every pair has what it wants, has failed, or somebody interrupts."""
        series = [self._series(pair) for pair in self._pairs]
        try:
            write_report(self._summary(interrupted=True), figures=False)
            self._report_progress(self._pairs[0])
            with closing(attempts(series, open_workcell, self._config.workers)) as made:
                for place, outcome in made:
                    self._take(self._pairs[place], outcome)
                    if interrupted():
                        break
        except SimulationError:
            # Ctrl-C also reaches workers; one that is just starting does not ignore it yet.
            if not interrupted():
                raise
        finally:
            self._opened.close()
            if not self._config.record:
                self._write_table()

    def report(self, interrupted: bool) -> SuiteSummary:
        """Write what came of it; call after `run`."""
        self._write_table()
        summary = self._summary(interrupted)
        write_report(summary)
        return summary

    def _open_books(self, pair: Pair) -> _Books:
        if self._config.record:
            return _DatasetBooks(self._config.output / pair.robot, pair)
        return _TableBooks(self._earlier.get(pair.robot, []), self._table_changed)

    def _series(self, pair: Pair) -> Series:
        wanted, per_episode = self._config.episodes, self._config.attempts_per_episode
        return Series(
            config=pair.config,
            staging=self._config.output / STAGING_FOLDER / f"{pair.robot}-{pair.task}",
            first=self._counts[pair.name]["made"],
            stop=wanted * per_episode if self._config.record else wanted,
            missing=lambda: self._missing(pair),
        )

    def _take(self, pair: Pair, outcome: Recorded | Exception) -> None:
        if isinstance(outcome, BlmError):
            self._errors[pair.name] = outcome.message
        elif isinstance(outcome, Exception):
            self._errors[pair.name] = f"{type(outcome).__name__}: {outcome}"
        else:
            self._books[pair.robot].commit(outcome)
            self._count(pair, self._books[pair.robot].attempts[-1])
        self._report_progress(pair)

    def _count(self, pair: Pair, attempt: Attempt) -> None:
        done = attempt.kept or not self._config.record
        self._counts[pair.name].update(made=1, succeeded=int(attempt.success), done=int(done))

    def _attempts(self, pair: Pair) -> list[Attempt]:
        return [attempt for attempt in self._books[pair.robot].attempts if attempt.task == pair.task]

    def _missing(self, pair: Pair) -> int:
        return self._config.episodes - self._counts[pair.name]["done"]

    def _report_progress(self, pair: Pair) -> None:
        wanted = self._config.episodes
        done = sum(min(wanted, counts["done"]) for counts in self._counts.values())
        made = sum(counts["made"] for counts in self._counts.values())
        succeeded = sum(counts["succeeded"] for counts in self._counts.values())
        note = f"{pair.name} {succeeded / made:.1%}" if made else pair.name
        self._progress("suite", done, wanted * len(self._pairs), note)

    def _table_changed(self) -> None:
        self._commits += 1
        if self._commits % _COMMITS_BETWEEN_TABLES == 0:
            self._write_table()

    def _write_table(self) -> None:
        by_robot = {robot: books.attempts for robot, books in self._books.items()}
        write_suite_attempts(self._config.output / SUITE_ATTEMPTS_FILE, by_robot)

    def _summary(self, interrupted: bool) -> SuiteSummary:
        return SuiteSummary(
            output=self._config.output,
            settings=self._config.settings(),
            episodes=self._config.episodes,
            interrupted=interrupted,
            pairs=tuple(self._result(pair) for pair in self._pairs),
        )

    def _result(self, pair: Pair) -> PairResult:
        made = self._attempts(pair)
        error = self._errors.get(pair.name) or self._gave_up(made, self._counts[pair.name]["done"])
        return PairResult.of(pair.robot, pair.task, made, self._missing(pair), error)

    def _gave_up(self, made: Sequence[Attempt], done: int) -> str:
        """Why no more attempts are made although episodes are missing; empty if they are."""
        wanted, limit = self._config.episodes, self._config.attempts_per_episode * self._config.episodes
        if done >= wanted or len(made) < limit:
            return ""
        most = Counter(cause(attempt) for attempt in made if not attempt.kept).most_common(1)
        return (
            f"only {done} of {wanted} episodes after {len(made)} attempts; most frequent cause: {most[0][0]}."
        )


def _check_output(config: SuiteConfig, pairs: Sequence[Pair]) -> None:
    """Refuse a folder that holds something else, or a suite that these settings would not continue."""
    output, report = config.output, config.output / SUITE_FILE
    if report.is_file():
        if not config.resume:
            raise OutputExistsError(
                f"{output} holds a suite already.",
                "Add --resume to go on with it, or choose another --output.",
            )
        _check_same_suite(config, pairs, report)
        return
    if not output.exists():
        return
    if not output.is_dir():
        raise OutputExistsError(f"{output} is a file.", "Choose another --output.")
    others = sorted(path.name for path in output.iterdir() if path.name not in _LEFT_AT_ONCE)
    if others:
        raise OutputExistsError(
            f"{output} holds something else than a suite: {others[0]}.", "Choose another --output."
        )


def _check_same_suite(config: SuiteConfig, pairs: Sequence[Pair], report: Path) -> None:
    earlier = read_summary(report)
    settings = config.settings()
    for key, there in earlier.settings.items():
        if key in settings and settings[key] != there:
            raise DatasetError(
                f"the suite in {config.output} was begun with {key} {_typed(there)}, not {_typed(settings[key])}.",
                "Continue it with the settings it was begun with, or choose another --output.",
            )
    names = {pair.name for pair in pairs}
    for pair in earlier.pairs:
        if pair.name not in names:
            raise DatasetError(
                f"the suite in {config.output} also has {pair.robot} at {pair.task}.",
                "Name all its robots and tasks to go on with it, or choose another --output.",
            )


def _typed(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value


@contextmanager
def _held(output: Path) -> Iterator[None]:
    """Keep other processes away from the folder, and leave nothing unfinished in it."""
    with lock_folder(output):
        try:
            shutil.rmtree(output / STAGING_FOLDER, ignore_errors=True)
            yield
        finally:
            shutil.rmtree(output / STAGING_FOLDER, ignore_errors=True)
            (output / LOCK_FILE).unlink(missing_ok=True)
            if not any(output.iterdir()):
                output.rmdir()


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed since; pressed again, it is a KeyboardInterrupt as usual."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def press(number: int, frame: Any) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
