"""Closed-loop evaluation in simulation: success of a trained policy per robot × task, beside two baselines.

Rollouts use seeds that no training episode used, through the same control loop as collection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blm.evaluate.filmstrip import Film, contact_sheet, moving_picture
from blm.evaluate.report import write_physical_report
from blm.evaluate.results import (
    AGENTS,
    HOLD_STILL,
    POLICY,
    REPLAY_MEAN,
    PairResult,
    PhysicalConfig,
    PhysicalSummary,
    Rollout,
)
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import OutputExistsError, UsageError
from blm.schemas.manifest import write_atomically
from blm.schemas.progress import Progress, silent
from blm.schemas.rollout import FIRST_EVALUATION_SEED
from blm.schemas.task import load_task

if TYPE_CHECKING:
    from blm.schemas.rollout import Agent


@dataclass(frozen=True)
class _Job:
    """A chunk of rollouts of one agent on one pair: small enough to spread over workers."""

    agent: str
    robot: str
    task: str
    seeds: tuple[int, ...]
    films: int


def evaluate_physical(config: PhysicalConfig, progress: Progress = silent) -> PhysicalSummary:
    """Roll out the policy and the baselines, and write rollouts, results, pictures and a report.

    Raises:
        UsageError: no rollouts, or a pair the policy was not trained on.
        OutputExistsError: `output` holds results already and `overwrite` is not set.
        CheckpointError, DatasetError: the run or its training shards cannot be read.
    """
    started = monotonic()
    pairs = _pairs(config)
    _check(config)
    jobs = list(_jobs(config, pairs))
    total = sum(len(job.seeds) for job in jobs)
    rollouts: list[Rollout] = []
    films: dict[tuple[str, str], list[Film]] = {pair: [] for pair in pairs}
    for done, new_films in _run_jobs(config, jobs):
        rollouts += done
        films[done[0].robot, done[0].task] += new_films
        won = [rollout.success for rollout in rollouts if rollout.agent == POLICY]
        progress("rollouts", len(rollouts), total, f"policy {sum(won)} of {len(won)}" if won else "")
    results = tuple(_aggregate(rollouts))
    config.output.mkdir(parents=True, exist_ok=True)
    pictures = tuple(_draw(config.output, films))
    summary = PhysicalSummary(config.output, results, monotonic() - started, pictures)
    _write(config, summary, rollouts)
    return summary


def _check(config: PhysicalConfig) -> None:
    if config.rollouts < 1:
        raise UsageError(f"--rollouts is {config.rollouts}; at least 1 is needed.")
    if config.seed < FIRST_EVALUATION_SEED:
        raise UsageError(
            f"--seed {config.seed} may have been trained on; evaluation seeds start at {FIRST_EVALUATION_SEED}.",
            "Leave --seed out, or choose a higher one.",
        )
    if (config.output / "results.json").exists() and not config.overwrite:
        raise OutputExistsError(
            f"{config.output} holds an evaluation already.", "Choose another --output, or add --overwrite."
        )


def _pairs(config: PhysicalConfig) -> list[tuple[str, str]]:
    """The robot × task pairs to run; by default exactly those the policy was trained on."""
    from blm.train.stage2 import trained_pairs

    trained = trained_pairs(config.run)
    pairs = [
        (robot, task)
        for robot, task in trained
        if (not config.robots or robot in config.robots) and (not config.tasks or task in config.tasks)
    ]
    known_robots, known_tasks = {robot for robot, _ in trained}, {task for _, task in trained}
    strange = [name for name in config.robots if name not in known_robots]
    strange += [name for name in config.tasks if name not in known_tasks]
    if strange or not pairs:
        listed = ", ".join(f"{robot} × {task}" for robot, task in trained)
        raise UsageError(
            f"{config.run} was not trained on {', '.join(strange) or 'that pair'}; it knows: {listed}."
        )
    return pairs


def _jobs(config: PhysicalConfig, pairs: Iterable[tuple[str, str]], chunk: int = 5) -> Iterable[_Job]:
    """Policy first, in small chunks, so that workers stay busy and the progress line moves."""
    seeds = range(config.seed, config.seed + config.rollouts)
    agents = AGENTS if config.baselines else (POLICY,)
    for agent in agents:
        for robot, task in pairs:
            for first in range(0, config.rollouts, chunk):
                films = max(0, min(chunk, config.film - first)) if agent == POLICY else 0
                yield _Job(agent, robot, task, tuple(seeds[first : first + chunk]), films)


def _run_jobs(config: PhysicalConfig, jobs: Sequence[_Job]) -> Iterable[tuple[list[Rollout], list[Film]]]:
    """Yield each job's rollouts and films, in order, from this process or from workers."""
    if config.workers <= 1:
        for job in jobs:
            yield _run_job(config, job)
        return
    with ProcessPoolExecutor(
        config.workers, mp_context=get_context("spawn"), initializer=_one_thread
    ) as pool:
        yield from pool.map(_run_job, [config] * len(jobs), jobs)


def _one_thread() -> None:
    """Workers share the cores: one thread each."""
    import torch

    torch.set_num_threads(1)


def _run_job(config: PhysicalConfig, job: _Job) -> tuple[list[Rollout], list[Film]]:
    from blm.collect.rollout import run_episode
    from blm.collect.sim.environment import SimulatedEnvironment
    from blm.evaluate.filmstrip import FilmCamera

    agent, embodiment = _agent(config, job)
    task = load_task(job.task, job.robot)
    environment = SimulatedEnvironment(embodiment, task, models=config.models, render=job.agent == POLICY)
    camera = FilmCamera(embodiment.cameras[0].name)
    rollouts = []
    try:
        for number, seed in enumerate(job.seeds):
            subscribers = [camera] if number < job.films else []
            end = run_episode(environment, agent, subscribers, seed)
            rollouts.append(Rollout(job.agent, job.robot, job.task, seed, end.success, end.steps, end.reason))
    finally:
        environment.close()
    return rollouts, camera.films


def _agent(config: PhysicalConfig, job: _Job) -> tuple[Agent, Any]:
    """The agent to run and the embodiment it runs on, with the image size the policy was trained with."""
    from blm.evaluate.agents import HoldStill, PolicyAgent, ReplayMean

    embodiment = load_embodiment(job.robot)
    if job.agent == HOLD_STILL:
        return HoldStill(), embodiment
    if job.agent == REPLAY_MEAN:
        return ReplayMean(_training_mean(config.run, job.robot, job.task)), embodiment
    policy, image_size = _policy(config.run)
    return PolicyAgent(policy, config.run.name), embodiment.with_image_size(*image_size)


@lru_cache(maxsize=1)
def _policy(run: Path) -> tuple[Any, tuple[int, int]]:
    from blm.train.stage2 import load_policy

    policy = load_policy(run)
    return policy, policy.image_size


@lru_cache(maxsize=64)
def _training_mean(run: Path, robot: str, task: str) -> np.ndarray:
    from blm.evaluate.agents import mean_trajectory
    from blm.train.stage2 import training_actions

    return mean_trajectory(training_actions(run, robot, task))


def _aggregate(rollouts: Sequence[Rollout]) -> Iterable[PairResult]:
    keys = dict.fromkeys((rollout.agent, rollout.robot, rollout.task) for rollout in rollouts)
    for agent, robot, task in keys:
        mine = [r.success for r in rollouts if (r.agent, r.robot, r.task) == (agent, robot, task)]
        yield PairResult(agent, robot, task, sum(mine), len(mine))


def _draw(output: Path, films: dict[tuple[str, str], list[Film]]) -> Iterable[Path]:
    for (robot, task), reel in films.items():
        if reel:
            yield contact_sheet(reel, output / f"{robot}-{task}.png")
            yield moving_picture(reel, output / f"{robot}-{task}.gif")


def _write(config: PhysicalConfig, summary: PhysicalSummary, rollouts: Sequence[Rollout]) -> None:
    table = pa.Table.from_pylist([vars(rollout) for rollout in rollouts])
    pq.write_table(table, config.output / "rollouts.parquet")
    write_physical_report(config, summary)
    content = {
        "config": config.model_dump(mode="json"),
        "physics": "MuJoCo (blm's own scenes; not comparable with ManiSkill figures)",
        "results": [
            vars(result) | {"rate": result.rate, "wilson_95": list(result.interval)}
            for result in summary.results
        ],
        "seconds": summary.seconds,
    }
    write_atomically(config.output / "results.json", json.dumps(content, indent=1).encode() + b"\n")
