"""The table of attempts: one row for every try, successful or not, with what the planner measured.

It stands in every dataset (`meta/attempts.parquet`) and, for all robots together, in the folder of a suite. Nothing in
it depends on how long anything took, so that the same attempts make the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blm.collect.dataset_files import write_parquet


@dataclass(frozen=True)
class Attempt:
    """One row of the table.

    `episode_index` is -1 when nothing was kept. `reason` is `EpisodeEnd.reason`; `metrics` is all that the agent
    measured, as JSON. Of those, the ones in `METRICS` have columns of their own, null where the agent gave none:

    Attributes:
        ik_solves: inverse-kinematics problems solved.
        resampled_poses: poses or plans given up as infeasible before one was found.
        collision_checks: configurations checked against the scene.
        sampled_paths: paths found by sampling because the straight one collides.
        path_length_rad: planned joint-space length.
        planned_time_s: planned duration.
        recoveries: plans made anew after something went wrong.
        peak_torque_share: largest torque of a joint as a share of its limit.
        failure_cause: why the agent gave up.
    """

    attempt: int
    seed: int
    task: str
    success: bool
    kept: bool
    episode_index: int
    steps: int
    reason: str
    metrics: str = "{}"
    ik_solves: int | None = None
    resampled_poses: int | None = None
    collision_checks: int | None = None
    sampled_paths: int | None = None
    path_length_rad: float | None = None
    planned_time_s: float | None = None
    recoveries: int | None = None
    peak_torque_share: float | None = None
    failure_cause: str | None = None

    def with_metrics(self, metrics: Mapping[str, Any]) -> Attempt:
        """This attempt with the metrics that have columns filled in from JSON-ready `metrics`."""
        return dataclasses.replace(self, **{name: metrics.get(name) for name in METRICS})


_TYPES: dict[str, pa.DataType] = {
    "int": pa.int64(),
    "str": pa.string(),
    "bool": pa.bool_(),
    "int | None": pa.int64(),
    "float | None": pa.float64(),
    "str | None": pa.string(),
}

ATTEMPT_SCHEMA = pa.schema([(field.name, _TYPES[str(field.type)]) for field in dataclasses.fields(Attempt)])

METRICS = tuple(field.name for field in dataclasses.fields(Attempt) if "None" in str(field.type))
"""Metrics of the agent that have a column of their own."""


def attempts_table(attempts: Iterable[Attempt]) -> pa.Table:
    """Attempts as Arrow, in the order given."""
    rows = list(attempts)
    return pa.table(
        {name: [getattr(row, name) for row in rows] for name in ATTEMPT_SCHEMA.names}, schema=ATTEMPT_SCHEMA
    )


def write_attempts(path: Path, attempts: Iterable[Attempt]) -> None:
    write_parquet(path, attempts_table(attempts))


def read_attempts(path: Path) -> list[Attempt]:
    """The rows of a table; one written before the metrics had columns gets them from its JSON."""
    return [_attempt(row) for row in pq.read_table(path).to_pylist()]


def write_suite_attempts(path: Path, by_robot: Mapping[str, Iterable[Attempt]]) -> None:
    """One table of all robots' attempts, with a column `robot` before the others."""
    tables = [
        table.add_column(0, "robot", pa.array([robot] * table.num_rows, pa.string()))
        for robot, table in ((robot, attempts_table(rows)) for robot, rows in by_robot.items())
    ]
    write_parquet(path, pa.concat_tables(tables).combine_chunks())


def read_suite_attempts(path: Path) -> dict[str, list[Attempt]]:
    """The inverse of `write_suite_attempts`; a robot without attempts is absent."""
    by_robot: dict[str, list[Attempt]] = {}
    for row in pq.read_table(path).to_pylist():
        by_robot.setdefault(row.pop("robot"), []).append(_attempt(row))
    return by_robot


def cause(attempt: Attempt) -> str:
    """Why an attempt failed, with numbers left out so that like causes count together.

    An agent that is done without success may name its own cause as the metric `failure_cause` or `failure`.
    """
    failure = attempt.failure_cause or json.loads(attempt.metrics).get("failure")
    reason = attempt.reason
    if failure and failure not in reason:
        reason = f"{reason}: {failure}"
    return re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", reason)


def _attempt(row: Mapping[str, Any]) -> Attempt:
    attempt = Attempt(**row)
    return attempt if METRICS[0] in row else attempt.with_metrics(json.loads(attempt.metrics))
