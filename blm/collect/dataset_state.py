"""What a dataset holds: the rows of `meta/episodes` count, everything else follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blm.collect import dataset_files as files
from blm.collect.attempts_table import Attempt, read_attempts
from blm.collect.statistics import DatasetStatistics
from blm.schemas.episode import ATTEMPTS_FILE, SUBTASKS_FILE
from blm.schemas.errors import DatasetError


@dataclass
class DatasetState:
    """Where a dataset stands while it is written.

    Attributes:
        tasks, subtasks: by their numbers.
        group: the rows of the last file of `meta/episodes`; None before the first episode.
        attempts: kept or not, in order.
    """

    episodes: int = 0
    frames: int = 0
    tasks: list[str] = field(default_factory=list)
    subtasks: list[str] = field(default_factory=list)
    group: pa.Table | None = None
    statistics: DatasetStatistics = field(default_factory=DatasetStatistics)
    attempts: list[Attempt] = field(default_factory=list)


def committed_state(root: Path, features: Mapping[str, Mapping[str, Any]]) -> DatasetState:
    """Take up what was committed to the dataset in `root`, which has these features.

    Raises:
        DatasetError: a file of an episode is missing.
    """
    state = DatasetState(
        tasks=_names(root / files.TASKS_FILE, "task"), subtasks=_names(root / SUBTASKS_FILE, "subtask")
    )
    videos = [key for key, feature in features.items() if feature["dtype"] == "video"]
    group = 0
    while (path := files.episodes_file(root, group)).is_file():
        table = state.group = pq.read_table(path)
        for row in range(table.num_rows):
            _add_episode(state, root, table, row, videos)
        group += 1
    if (root / ATTEMPTS_FILE).is_file():
        state.attempts = _certain(read_attempts(root / ATTEMPTS_FILE), state.episodes)
    return state


def _names(path: Path, column: str) -> list[str]:
    return pq.read_table(path)[column].to_pylist() if path.is_file() else []


def _add_episode(state: DatasetState, root: Path, table: pa.Table, row: int, videos: list[str]) -> None:
    path = files.data_file(root, state.episodes)
    for needed in (path, *(files.video_file(root, key, state.episodes) for key in videos)):
        if not needed.is_file():
            raise DatasetError(
                f"{needed} is missing, so episode {state.episodes} is incomplete.", "Restore the file."
            )
    columns = files.read_columns(path)
    state.statistics.add(columns, files.read_statistics(table, row, [*columns, *videos]))
    state.episodes += 1
    state.frames += len(columns["index"])


def _certain(attempts: list[Attempt], episodes: int) -> list[Attempt]:
    """Attempts up to the last one whose outcome is certain: those from the first uncommitted episode on go."""
    for place, attempt in enumerate(attempts):
        if attempt.episode_index >= episodes:
            return attempts[:place]
    return attempts
