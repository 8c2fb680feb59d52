"""What a closed-loop evaluation is told and what it finds: plain data, for the run and for its reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blm.pages.proportion import wilson_interval
from blm.schemas.rollout import FIRST_EVALUATION_SEED
from blm.schemas.yaml_model import FrozenModel

POLICY, HOLD_STILL, REPLAY_MEAN = "policy", "hold still", "replay mean"
AGENTS = (POLICY, HOLD_STILL, REPLAY_MEAN)


class PhysicalConfig(FrozenModel):
    """What to evaluate.

    `robots` and `tasks` default to the pairs the policy was trained on. `film` is how many rollouts per pair are
    kept as pictures.
    """

    run: Path
    output: Path
    robots: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    rollouts: int = 50
    seed: int = FIRST_EVALUATION_SEED
    baselines: bool = True
    models: str = "own"
    workers: int = 1
    film: int = 8
    overwrite: bool = False


@dataclass(frozen=True)
class Rollout:
    """One finished rollout."""

    agent: str
    robot: str
    task: str
    seed: int
    success: bool
    steps: int
    reason: str


@dataclass(frozen=True)
class PairResult:
    """Success of one agent on one robot × task pair, with a Wilson 95 % interval."""

    agent: str
    robot: str
    task: str
    successes: int
    rollouts: int

    @property
    def rate(self) -> float:
        return self.successes / self.rollouts

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.successes, self.rollouts)


@dataclass(frozen=True)
class PhysicalSummary:
    """Where the results are, and the results."""

    output: Path
    results: tuple[PairResult, ...]
    seconds: float
    pictures: tuple[Path, ...]

    def rate(self, agent: str) -> float:
        """Mean success of one agent over all pairs."""
        rates = [result.rate for result in self.results if result.agent == agent]
        return float(np.mean(rates))
