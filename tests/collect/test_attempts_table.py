"""The table of attempts: what goes in comes out, and tables from before the typed columns are read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.collect.attempts_table import (
    ATTEMPT_SCHEMA,
    METRICS,
    Attempt,
    cause,
    read_attempts,
    read_suite_attempts,
    write_attempts,
    write_suite_attempts,
)

whole = st.integers(0, 2**40)
maybe_whole = st.none() | whole
maybe_real = st.none() | st.floats(allow_nan=False)
rows = st.builds(
    Attempt,
    attempt=whole,
    seed=whole,
    task=st.text(max_size=5),
    success=st.booleans(),
    kept=st.booleans(),
    episode_index=whole,
    steps=whole,
    reason=st.text(max_size=5),
    ik_solves=maybe_whole,
    collision_checks=maybe_whole,
    path_length_rad=maybe_real,
    failure_cause=st.none() | st.text(max_size=5),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(rows, max_size=4), st.lists(rows, min_size=1, max_size=3))
def test_round_trip(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("table") / "attempts.parquet"
    write_attempts(path, first)
    assert read_attempts(path) == first
    write_suite_attempts(path, {"so100": second, "panda": first})
    assert read_suite_attempts(path) == {"so100": second} | ({"panda": first} if first else {})


def test_a_table_from_before_the_typed_columns_gets_them_from_its_metrics(tmp_path: Path):
    metrics = {"ik_solves": 12, "path_length_rad": 1.5, "failure": "slipped", "unknown": 3}
    old = {
        "attempt": 0,
        "seed": 4,
        "task": "pick-cube",
        "success": False,
        "kept": False,
        "episode_index": -1,
        "steps": 7,
        "reason": "agent done",
        "metrics": json.dumps(metrics),
    }
    kept = [field for field in ATTEMPT_SCHEMA if field.name not in METRICS]
    pq.write_table(pa.Table.from_pylist([old], schema=pa.schema(kept)), tmp_path / "attempts.parquet")
    (attempt,) = read_attempts(tmp_path / "attempts.parquet")
    assert (attempt.ik_solves, attempt.path_length_rad, attempt.recoveries) == (12, 1.5, None)
    assert cause(attempt) == "agent done: slipped"


def test_like_causes_count_together():
    def failed(reason: str, failure_cause: str | None = None) -> str:
        return cause(Attempt(0, 0, "push-cube", False, False, -1, 3, reason, failure_cause=failure_cause))

    assert failed("agent failed: 3 tries in 0.25 s") == failed("agent failed: 14 tries in 1e-3 s")
    assert failed("agent done", "the grasp slipped at 0.3 m") == "agent done: the grasp slipped at # m"
    assert failed("agent failed: no path", "no path") == "agent failed: no path"
