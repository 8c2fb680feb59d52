"""Attempts at a task, made here or in several processes, always handed back in the order of their seeds."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pydantic import Field

from blm.collect.dataset_writer import STAGING_FOLDER
from blm.collect.recorder import EpisodeCapture, Recorded, episode_metadata
from blm.collect.rollout import AGENT_FAILED, run_episode
from blm.collect.video import VideoConfig
from blm.schemas.embodiment import Embodiment, load_embodiment
from blm.schemas.errors import SimulationError
from blm.schemas.rollout import Agent, Environment, EpisodeEnd, EpisodeStart
from blm.schemas.task import load_task
from blm.schemas.yaml_model import FrozenModel


class CollectConfig(FrozenModel):
    """What to record.

    `episodes` is how many of this task the dataset shall hold in the end; `image_size` (pixels, square) replaces the
    cameras' own. The session gives up after `attempts_per_episode` × `episodes` attempts.
    """

    robot: str = "so100"
    task: str = "pick-cube"
    episodes: int = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0)
    output: Path
    operator: str = "planner"
    resume: bool = False
    keep_failures: bool = False
    image_size: int | None = Field(default=None, ge=32, le=4096)
    workers: int = Field(default=1, ge=1)
    models: str = "own"
    attempts_per_episode: int = Field(default=5, ge=1)
    video: VideoConfig = VideoConfig()

    def embodiment(self) -> Embodiment:
        """The robot, with the image size asked for; raises UnknownNameError or ConfigError."""
        robot = load_embodiment(self.robot)
        return robot.with_image_size(self.image_size, self.image_size) if self.image_size else robot


type OpenWorkcell = Callable[[CollectConfig], tuple[Environment, Agent]]
"""Makes the environment and its operator. With several workers it is called in each, so it must be importable."""


def open_simulation(config: CollectConfig) -> tuple[Environment, Agent]:
    """The simulated robot with the planner as its operator."""
    from blm.collect.planning.planner import PlannerAgent
    from blm.collect.sim.environment import SimulatedEnvironment

    embodiment = config.embodiment()
    task = load_task(config.task, embodiment.name)
    environment = SimulatedEnvironment(embodiment, task, models=config.models)
    return environment, PlannerAgent(environment)


def attempts(
    config: CollectConfig,
    open_workcell: OpenWorkcell,
    first: int,
    stop: int,
    missing: Callable[[], int],
) -> Generator[Recorded]:
    """Attempts `first` to `stop` (exclusive), in order; attempt i starts from seed `config.seed` + i.

    `missing` says how many episodes are still wanted: workers do not run further ahead than that.
    Close the iterator to end early.
    """
    if config.workers == 1:
        return _attempts_here(config, open_workcell, first, stop)
    return _attempts_by_workers(config, open_workcell, first, stop, missing)


def _attempts_here(
    config: CollectConfig, open_workcell: OpenWorkcell, first: int, stop: int
) -> Generator[Recorded]:
    workcell = _Workcell(config, open_workcell)
    try:
        for index in range(first, stop):
            yield workcell.attempt(index)
    finally:
        workcell.close()


def _attempts_by_workers(
    config: CollectConfig,
    open_workcell: OpenWorkcell,
    first: int,
    stop: int,
    missing: Callable[[], int],
) -> Generator[Recorded]:
    pool = ProcessPoolExecutor(
        config.workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    running: deque[Future[Recorded]] = deque()
    upcoming = iter(range(first, stop))
    try:
        while True:
            ahead = min(2 * config.workers, max(1, missing()))
            while len(running) < ahead and (index := next(upcoming, None)) is not None:
                running.append(pool.submit(_attempt_in_worker, config, open_workcell, index))
            if not running:
                return
            yield running.popleft().result()
    except BrokenProcessPool:
        raise SimulationError(
            "a worker process ended unexpectedly.", "Try --workers 1 to see its error; --resume goes on."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Workcell:
    """An environment and an agent, and where their episodes are staged."""

    def __init__(self, config: CollectConfig, open_workcell: OpenWorkcell) -> None:
        self._config = config
        self._embodiment = config.embodiment()
        self._environment, self._agent = open_workcell(config)

    def attempt(self, index: int) -> Recorded:
        """Run attempt `index` and stage its episode."""
        folder = self._config.output / STAGING_FOLDER / f"attempt-{index:06d}"
        seed = self._config.seed + index
        capture = EpisodeCapture(
            folder, self._embodiment, keep_failures=self._config.keep_failures, video=self._config.video
        )
        try:
            run_episode(self._environment, self._agent, [capture], seed)
        except SimulationError as error:
            return self._not_begun(seed, error)
        assert capture.recorded is not None, "nobody can stop this episode from outside"
        return capture.recorded

    def close(self) -> None:
        self._environment.close()

    def _not_begun(self, seed: int, error: SimulationError) -> Recorded:
        start = EpisodeStart(self._embodiment, self._environment.task, seed, self._agent.operator, "")
        end = EpisodeEnd(False, 0, AGENT_FAILED + error.message)
        return Recorded(episode_metadata(start, end, None), end, None)


_workcell: _Workcell | None = None
"""This worker process's own."""


def _start_worker() -> None:
    """A worker ends with its parent and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _close_workcell() -> None:
    """Native libraries complain on standard error about objects that outlive the interpreter."""
    global _workcell
    if _workcell is not None:
        _workcell.close()
        _workcell = None


def _end_with_parent() -> None:
    """Without this, workers of a killed session would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _attempt_in_worker(config: CollectConfig, open_workcell: OpenWorkcell, index: int) -> Recorded:
    global _workcell
    if _workcell is None:
        _workcell = _Workcell(config, open_workcell)
        atexit.register(_close_workcell)
    return _workcell.attempt(index)
