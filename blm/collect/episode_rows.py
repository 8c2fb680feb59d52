"""One episode as LeRobot stores it: its index columns in `data`, its row in `meta/episodes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from blm.collect import dataset_files as files
from blm.collect.episode_part import EpisodePart
from blm.collect.statistics import Statistics
from blm.schemas.episode import EPISODE_METADATA_PREFIX, EpisodeMetadata


def index_columns(frames: int, fps: int, episode: int, first: int, task: int) -> dict[str, np.ndarray]:
    """LeRobot's own columns (`INDEX_FEATURES`) of an episode whose first row is the dataset's row `first`."""
    frame_index = np.arange(frames, dtype=np.int64)
    return {
        "timestamp": (frame_index / fps).astype(np.float32),
        "frame_index": frame_index,
        "episode_index": np.full(frames, episode, dtype=np.int64),
        "index": first + frame_index,
        "task_index": np.full(frames, task, dtype=np.int64),
    }


def episode_row(
    part: EpisodePart,
    metadata: EpisodeMetadata,
    statistics: Mapping[str, Statistics],
    *,
    fps: int,
    episode: int,
    first: int,
) -> pa.Table:
    """One row of `meta/episodes`: LeRobot's columns, then ours."""
    chunk, file = files.chunk_and_file(episode)
    group_chunk, group_file = files.chunk_and_file(episode // files.EPISODES_PER_FILE)
    row: dict[str, Any] = {
        "episode_index": episode,
        "tasks": [metadata.instruction],
        "length": part.frames,
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": first,
        "dataset_to_index": first + part.frames,
    }
    for key in part.videos:
        row[f"videos/{key}/chunk_index"] = chunk
        row[f"videos/{key}/file_index"] = file
        row[f"videos/{key}/from_timestamp"] = 0.0
        row[f"videos/{key}/to_timestamp"] = part.frames / fps
    row |= {EPISODE_METADATA_PREFIX + name: value for name, value in asdict(metadata).items()}
    row |= {"meta/episodes/chunk_index": group_chunk, "meta/episodes/file_index": group_file}
    columns = {name: pa.array([value]) for name, value in row.items()}
    columns["tasks"] = pa.array([row["tasks"]], files.list_type(1, pa.string()))
    return pa.table(columns | files.statistics_columns(statistics))
