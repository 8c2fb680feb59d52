"""Recording sessions: the dataset depends on the configuration alone, and every attempt is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blm.collect.session import CollectConfig, CollectSummary, collect
from blm.schemas.errors import DatasetError, OutputExistsError, PlanningError, UnknownNameError, UsageError
from tests.collect.workcell import open_counting


def config(output: Path, **changes: Any) -> CollectConfig:
    defaults = {"task": "push-cube", "image_size": 32, "episodes": 4}
    return CollectConfig.model_validate(defaults | changes | {"output": output})


def record(output: Path, **changes: Any) -> CollectSummary:
    return collect(config(output, **changes), open_workcell=open_counting)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def attempts(root: Path) -> list[dict[str, Any]]:
    return pq.read_table(root / "meta/attempts.parquet").to_pylist()


def episodes(root: Path, *columns: str) -> list[tuple[Any, ...]]:
    table = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet", columns=list(columns))
    return [tuple(row.values()) for row in table.to_pylist()]


def test_attempts_are_kept_or_dropped_by_cause(tmp_path: Path):
    summary = record(tmp_path / "data", episodes=7)
    assert (summary.attempts, summary.kept, summary.succeeded, summary.episodes) == (9, 7, 7, 7)
    assert summary.dropped == {
        "agent failed: approach: no way past the cube after # tries": 1,
        "time limit": 1,
    }
    rows = attempts(tmp_path / "data")
    assert [row["seed"] for row in rows] == list(range(9))
    assert [row["episode_index"] for row in rows] == [0, 1, 2, -1, 3, 4, 5, -1, 6]
    assert [row["seed"] for row in rows if row["kept"]] == [
        seed for (seed,) in episodes(tmp_path / "data", "blm/seed")
    ]
    assert [count for (count,) in episodes(tmp_path / "data", "blm/attempts")] == [1, 1, 1, 2, 1, 1, 2]
    assert summary.frames == sum(length for (length,) in episodes(tmp_path / "data", "length"))
    assert json.loads(rows[0]["metrics"]) == {"failure": None, "ik_solves": rows[0]["steps"]}


def test_same_seed_same_bytes_whatever_the_number_of_workers(tmp_path: Path):
    record(tmp_path / "one", episodes=6)
    record(tmp_path / "again", episodes=6)
    record(tmp_path / "two", episodes=6, workers=2)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "again")
    assert one == contents(tmp_path / "two")


def test_resumed_equals_uninterrupted(tmp_path: Path):
    record(tmp_path / "whole", episodes=8)
    for count in (2, 3, 8):
        summary = record(tmp_path / "parts", episodes=count, resume=True)
    assert (summary.episodes, summary.kept, summary.attempts) == (8, 5, 7)
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")


def test_resuming_a_complete_recording_changes_nothing(tmp_path: Path):
    record(tmp_path / "data")
    before = contents(tmp_path / "data")
    assert record(tmp_path / "data", resume=True).attempts == 0
    assert contents(tmp_path / "data") == before


def test_another_task_joins_the_same_dataset(tmp_path: Path):
    record(tmp_path / "data", episodes=2)
    summary = record(tmp_path / "data", episodes=3, task="pick-cube", resume=True)
    assert (summary.episodes, summary.kept) == (3, 3)
    found = episodes(tmp_path / "data", "blm/task", "blm/seed")
    assert found == [("push-cube", 0), ("push-cube", 1), ("pick-cube", 0), ("pick-cube", 1), ("pick-cube", 2)]


def test_failures_can_be_kept(tmp_path: Path):
    summary = record(tmp_path / "data", episodes=6, seed=2, keep_failures=True)
    assert (summary.kept, summary.succeeded) == (6, 5)
    assert [success for (success,) in episodes(tmp_path / "data", "blm/success")] == [True] * 4 + [
        False,
        True,
    ]
    assert list(summary.dropped.values()) == [1], "an attempt without a plan has no frames to keep"


def test_gives_up_naming_the_cause(tmp_path: Path):
    with pytest.raises(PlanningError, match=r"only 0 of 1 episodes after 1 attempts.*no way past the cube"):
        record(tmp_path / "data", episodes=1, seed=3, attempts_per_episode=1)
    assert len(attempts(tmp_path / "data")) == 1
    summary = record(tmp_path / "data", episodes=1, seed=3, attempts_per_episode=2, resume=True)
    assert summary.episodes == 1


def test_progress_is_reported(tmp_path: Path):
    seen: list[tuple[str, int, int, str]] = []
    collect(config(tmp_path / "data"), lambda *report: seen.append(report), open_workcell=open_counting)  # type: ignore[arg-type]
    assert [done for _, done, _, _ in seen] == [0, 1, 2, 3, 3, 4]
    assert seen[-1] == ("recording", 4, 4, "80% success")


def test_an_existing_output_is_left_alone(tmp_path: Path):
    record(tmp_path / "data", episodes=1)
    before = contents(tmp_path / "data")
    with pytest.raises(OutputExistsError, match="--resume"):
        record(tmp_path / "data")
    assert contents(tmp_path / "data") == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"robot": "panda"}, "embodiment.name is 'so100' there and 'panda' here"),
        ({"image_size": 64}, r"embodiment.cameras.*'width': 32.*'width': 64"),
        ({"video": {"crf": 30}}, "video.crf is 23 there and 30 here"),
        ({"seed": 5}, "began with seed 0, not 5"),
    ],
)
def test_resume_names_what_differs(tmp_path: Path, changes: dict[str, Any], named: str):
    record(tmp_path / "data", episodes=1)
    before = contents(tmp_path / "data")
    with pytest.raises(DatasetError, match=named):
        record(tmp_path / "data", resume=True, **changes)
    assert contents(tmp_path / "data") == before


def test_unknown_names_say_what_there_is(tmp_path: Path):
    with pytest.raises(UsageError, match=r"operator 'leader' is not available; there is: planner"):
        record(tmp_path / "data", operator="leader")
    with pytest.raises(UnknownNameError, match="so100"):
        record(tmp_path / "data", robot="so10")
    with pytest.raises(UnknownNameError, match="push-cube"):
        record(tmp_path / "data", task="push-cub")
    assert not (tmp_path / "data").exists()


def open_nothing(config: CollectConfig) -> Any:
    raise UsageError("no cell.", "Build one.")


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_session_that_cannot_begin_leaves_nothing_behind(tmp_path: Path, workers: int):
    from tests.collect import test_session

    with pytest.raises(UsageError, match=r"no cell\. Build one\."):
        collect(config(tmp_path / "data", workers=workers), open_workcell=test_session.open_nothing)
    assert not (tmp_path / "data").exists()
