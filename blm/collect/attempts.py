"""Attempts at tasks, made here or in several processes, always handed back in the order of their seeds.

    Series (robot, task, seeds) ──▶ Workcells ──run_episode──▶ Recorded ──▶ in order, to whoever commits

Several series share the same processes: while the last attempts of one are still under way, the next one has begun.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from pydantic import Field

from blm.collect.recorder import EpisodeCapture, Recorded, episode_metadata
from blm.collect.recording import Recording
from blm.collect.rollout import AGENT_FAILED, run_episode
from blm.collect.sim.variety import Variety
from blm.collect.video import VideoConfig
from blm.schemas.embodiment import Embodiment, load_embodiment
from blm.schemas.errors import SimulationError
from blm.schemas.rollout import Agent, Environment, EpisodeEnd, EpisodeStart
from blm.schemas.task import load_task
from blm.schemas.yaml_model import FrozenModel

RUN_AHEAD = 2
"""Attempts per worker that may be under way or wait to be committed."""

WORKCELLS_PER_PROCESS = 2
"""Where one series ends and the next begins, attempts of both are under way."""


class CollectSettings(FrozenModel):
    """How to record, whichever robot and task.

    `episodes` is how many of a task a dataset shall hold in the end; `image_size` (pixels, square) replaces the
    cameras' own. A task is given up after `attempts_per_episode` × `episodes` attempts. Without `record` no picture
    is made and nothing kept: only how the attempts end is of interest. `noise` scales pushes off the commands, which
    are recorded as they were sent (`blm.collect.sim.disturbance`); 0 for none. `shadows` are most of a picture's cost.
    """

    episodes: int = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0)
    output: Path
    operator: str = "planner"
    resume: bool = False
    keep_failures: bool = False
    record: bool = True
    image_size: int | None = Field(default=None, ge=32, le=4096)
    workers: int = Field(default=1, ge=1)
    models: str = "own"
    shadows: bool = True
    variety: Variety = Variety()
    noise: float = Field(default=0.0, ge=0.0, le=3.0)
    attempts_per_episode: int = Field(default=5, ge=1)
    video: VideoConfig = VideoConfig()


class CollectConfig(CollectSettings):
    """What to record: one robot at one task."""

    robot: str = "so100"
    task: str = "pick-cube"

    def embodiment(self) -> Embodiment:
        """The robot, with the image size asked for; raises UnknownNameError or ConfigError."""
        robot = load_embodiment(self.robot)
        return robot.with_image_size(self.image_size, self.image_size) if self.image_size else robot


type OpenWorkcell = Callable[[CollectConfig], tuple[Environment, Agent]]
"""Makes the environment and its operator. With several workers it is called in each, so it must be importable."""


def open_simulation(config: CollectConfig) -> tuple[Environment, Agent]:
    """The simulated robot with the planner as its operator."""
    from blm.collect.planning.planner import PlannerAgent
    from blm.collect.sim.disturbance import Disturbance
    from blm.collect.sim.environment import SimulatedEnvironment

    embodiment = config.embodiment()
    task = load_task(config.task, embodiment.name)
    environment = SimulatedEnvironment(
        embodiment,
        task,
        models=config.models,
        render=config.record,
        shadows=config.shadows,
        variety=config.variety,
        disturbance=Disturbance(scale=config.noise) if config.noise else None,
    )
    return environment, PlannerAgent(environment)


@dataclass(frozen=True)
class Series:
    """Attempts at one robot × task.

    Attributes:
        config: robot, task and how to record; attempt i starts from seed `config.seed` + i.
        staging: folder in which episodes wait to be committed; of this series alone.
        first, stop: attempts to make at most, `stop` exclusive.
        missing: how many more are wanted, by what was handed back so far: never more than that are under way.
    """

    config: CollectConfig
    staging: Path
    first: int
    stop: int
    missing: Callable[[], int]


def attempts(
    series: Sequence[Series], open_workcell: OpenWorkcell, workers: int
) -> Generator[tuple[int, Recorded | Exception]]:
    """Attempts of one series after the other, each in order, with the place of their series in `series`.

    Close the iterator to end early.

    Where an attempt could not be made at all, the exception comes in its place and its series ends.

    Raises:
        SimulationError: a worker process died.
    """
    runner = _Processes(workers, open_workcell) if workers > 1 else _ThisProcess(open_workcell)
    lines = [_Line(one) for one in series]
    try:
        for place, line in enumerate(lines):
            while True:
                _begin_attempts(lines[place:], runner)
                if not line.begun:
                    break
                try:
                    outcome: Recorded | Exception = line.begun.popleft()()
                except BrokenProcessPool:
                    raise
                except Exception as error:  # whatever is wrong with this series, the next one may be well
                    line.end()
                    outcome = error
                yield place, outcome
    except BrokenProcessPool:
        raise SimulationError(
            "a worker process ended unexpectedly.", "Try --workers 1 to see its error; --resume goes on."
        ) from None
    finally:
        runner.close()


class _Line:
    """A series and those of its attempts that are begun and not yet handed back."""

    def __init__(self, series: Series) -> None:
        self.series = series
        self.begun: deque[Callable[[], Recorded]] = deque()
        self._next = series.first
        self._stop = series.stop

    @property
    def wants_more(self) -> bool:
        return self._next < self._stop and len(self.begun) < self.series.missing()

    def begin(self, runner: _Runner) -> None:
        self.begun.append(runner.begin(self.series.config, self._next, self.series.staging))
        self._next += 1

    def end(self) -> None:
        self.begun.clear()
        self._stop = self._next


def _begin_attempts(lines: Sequence[_Line], runner: _Runner) -> None:
    """Give the runner as much as it takes, from the first series that wants more."""
    under_way = sum(len(line.begun) for line in lines)
    for line in lines:
        while under_way < runner.ahead and line.wants_more:
            line.begin(runner)
            under_way += 1
        if under_way >= runner.ahead:
            return


class _Runner(Protocol):
    """Makes attempts; `begin` returns what to call for the result. At most `ahead` are begun at a time."""

    @property
    def ahead(self) -> int: ...

    def begin(self, config: CollectConfig, index: int, staging: Path) -> Callable[[], Recorded]: ...

    def close(self) -> None: ...


class _ThisProcess:
    """An attempt is made when its result is asked for."""

    ahead = 1

    def __init__(self, open_workcell: OpenWorkcell) -> None:
        self._workcells = _Workcells(open_workcell, limit=1)

    def begin(self, config: CollectConfig, index: int, staging: Path) -> Callable[[], Recorded]:
        return partial(self._workcells.attempt, config, index, staging)

    def close(self) -> None:
        self._workcells.close()


class _Processes:
    """Worker processes, each with workcells of its own."""

    def __init__(self, workers: int, open_workcell: OpenWorkcell) -> None:
        self.ahead = RUN_AHEAD * workers
        self._open_workcell = open_workcell
        self._pool = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
        )

    def begin(self, config: CollectConfig, index: int, staging: Path) -> Callable[[], Recorded]:
        future: Future[Recorded] = self._pool.submit(
            _attempt_in_worker, self._open_workcell, config, index, staging
        )
        return future.result

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Workcells:
    """The workcells used last, at most `limit`: opening one compiles a scene and makes a graphics context."""

    def __init__(self, open_workcell: OpenWorkcell, limit: int) -> None:
        self._open_workcell = open_workcell
        self._limit = limit
        self._open: list[_Workcell] = []

    def attempt(self, config: CollectConfig, index: int, staging: Path) -> Recorded:
        """Run attempt `index` of a series and stage its episode."""
        return self._workcell(config).attempt(index, staging)

    def close(self) -> None:
        while self._open:
            self._open.pop().close()

    def _workcell(self, config: CollectConfig) -> _Workcell:
        place = next((i for i, cell in enumerate(self._open) if cell.config == config), None)
        if place is None:
            while len(self._open) >= self._limit:
                self._open.pop(0).close()
            self._open.append(_Workcell(config, self._open_workcell))
        else:
            self._open.append(self._open.pop(place))
        return self._open[-1]


class _Workcell:
    """An environment and an agent."""

    def __init__(self, config: CollectConfig, open_workcell: OpenWorkcell) -> None:
        self.config = config
        self._embodiment = config.embodiment()
        self._environment, self._agent = open_workcell(config)

    def attempt(self, index: int, staging: Path) -> Recorded:
        seed = self.config.seed + index
        try:
            return (
                self._recorded(seed, staging / f"attempt-{index:06d}")
                if self.config.record
                else self._ended(seed)
            )
        except SimulationError as error:
            return self._not_begun(seed, error)

    def close(self) -> None:
        self._environment.close()

    def _recorded(self, seed: int, folder: Path) -> Recorded:
        recording = Recording(self._embodiment, video=self.config.video)
        capture = EpisodeCapture(folder, recording, keep_failures=self.config.keep_failures)
        run_episode(self._environment, self._agent, [capture], seed)
        assert capture.recorded is not None, "nobody can stop this episode from outside"
        if capture.recorded.part is None:
            shutil.rmtree(folder, ignore_errors=True)
        return capture.recorded

    def _ended(self, seed: int) -> Recorded:
        """An attempt of which nothing but its end is kept."""
        end = run_episode(self._environment, self._agent, [], seed)
        return Recorded(episode_metadata(self._start(seed), end, None), end, None)

    def _not_begun(self, seed: int, error: SimulationError) -> Recorded:
        end = EpisodeEnd(False, 0, AGENT_FAILED + error.message)
        return Recorded(episode_metadata(self._start(seed), end, None), end, None)

    def _start(self, seed: int) -> EpisodeStart:
        return EpisodeStart(self._embodiment, self._environment.task, seed, self._agent.operator, "")


_workcells: _Workcells | None = None
"""This worker process's own."""


def _start_worker() -> None:
    """A worker ends with its parent and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A software renderer's own threads would only get in the way of the other workers.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _close_workcells() -> None:
    """Native libraries complain on standard error about objects that outlive the interpreter."""
    if _workcells is not None:
        _workcells.close()


def _end_with_parent() -> None:
    """Without this, workers of a killed session would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _attempt_in_worker(
    open_workcell: OpenWorkcell, config: CollectConfig, index: int, staging: Path
) -> Recorded:
    global _workcells
    if _workcells is None:
        _workcells = _Workcells(open_workcell, WORKCELLS_PER_PROCESS)
        atexit.register(_close_workcells)
    return _workcells.attempt(config, index, staging)
