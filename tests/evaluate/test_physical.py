"""Closed-loop evaluation around a stand-in policy: all but the network is real, rendering and physics included."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import blm.train.stage2
from blm.evaluate.physical import evaluate_physical
from blm.evaluate.results import HOLD_STILL, POLICY, REPLAY_MEAN, PhysicalConfig
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import OutputExistsError, UsageError
from blm.schemas.rollout import FIRST_EVALUATION_SEED

HOME = load_embodiment("so100").column("home")


class StandStill:
    """Keeps the measured pose, and notes what it was shown."""

    image_size = (48, 48)
    shapes: set[tuple[int, ...]] = set()

    def reset(self, embodiment: str) -> None:
        assert embodiment == "so100"

    def act(self, images, state, instruction):
        self.shapes |= {image.shape for image in images.values()}
        return state


@pytest.fixture
def run(monkeypatch, tmp_path) -> Path:
    """A 'run' whose policy stands still and whose training episodes wave the pan axis."""
    trajectory = np.repeat(HOME[None], 4, axis=0)
    trajectory[:, 0] += [0, 1, 2, 3]
    monkeypatch.setattr(blm.train.stage2, "trained_pairs", lambda run: (("so100", "push-cube"),))
    monkeypatch.setattr(blm.train.stage2, "load_policy", lambda run: StandStill())
    monkeypatch.setattr(blm.train.stage2, "training_actions", lambda run, robot, task: [trajectory])
    return tmp_path / "run"


def config(run: Path, **changes) -> PhysicalConfig:
    return PhysicalConfig(run=run, output=run.parent / "evaluation", rollouts=2, film=1, **changes)


def test_every_agent_meets_the_same_fresh_scenes_and_results_are_written(run):
    labels = []
    summary = evaluate_physical(config(run), lambda label, done, total, note="": labels.append((done, total)))
    assert labels[-1] == (6, 6)
    assert [result.agent for result in summary.results] == [POLICY, HOLD_STILL, REPLAY_MEAN]
    assert all((result.successes, result.rollouts) == (0, 2) for result in summary.results)
    rollouts = pq.read_table(summary.output / "rollouts.parquet").to_pylist()
    fresh = {FIRST_EVALUATION_SEED, FIRST_EVALUATION_SEED + 1}
    for agent in (POLICY, HOLD_STILL, REPLAY_MEAN):
        assert {row["seed"] for row in rollouts if row["agent"] == agent} == fresh
    assert {row["reason"] for row in rollouts} == {"time limit"}
    results = json.loads((summary.output / "results.json").read_text())["results"]
    assert results[0]["wilson_95"] == pytest.approx([0.0, 0.6576], abs=1e-4)
    assert {path.suffix for path in summary.pictures} == {".png", ".gif"}
    assert "Closed-loop success" in (summary.output / "report.html").read_text()
    assert StandStill.shapes == {(48, 48, 3)}


def test_results_are_not_overwritten_unasked(run):
    evaluate_physical(config(run, baselines=False))
    with pytest.raises(OutputExistsError, match="holds an evaluation already"):
        evaluate_physical(config(run))
    evaluate_physical(config(run, baselines=False, overwrite=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"robots": ("panda",)}, "was not trained on panda; it knows: so100 × push-cube"),
        ({"tasks": ("pick-cube",)}, "was not trained on pick-cube"),
        ({"seed": 5}, "may have been trained on"),
    ],
)
def test_what_cannot_be_evaluated_honestly_is_refused(run, changes, message):
    with pytest.raises(UsageError, match=message):
        evaluate_physical(config(run, **changes))


def test_no_rollouts_are_refused(run):
    with pytest.raises(UsageError, match="at least 1"):
        evaluate_physical(PhysicalConfig(run=run, output=run.parent / "out", rollouts=0))
