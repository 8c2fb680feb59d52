"""Where each object stands when an episode begins, from the recorded environment state (simulation only)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from blm.curate.episodes.footers import parquet_list
from blm.curate.episodes.lerobot_files import feature_names
from blm.curate.episodes.resources import Resources
from blm.schemas.episode import ENVIRONMENT_STATE, EPISODE_METADATA_PREFIX

OBJECT_STARTS = pa.list_(pa.struct([("name", pa.string()), ("x", pa.float64()), ("y", pa.float64())]))
"""An episode's objects and their first positions: metres, base frame of the robot."""


def object_starts(
    resources: Resources,
    files: Sequence[str],
    info: dict[str, Any],
    episodes: Sequence[Mapping[str, Any]],
) -> dict[int, list[dict[str, Any]]]:
    """Episode → its objects' starts; an episode whose dataset does not record them is absent.

    Args:
        files: the dataset's readable data files.
        info: its `meta/info.json`.
        episodes: rows of its `meta/episodes`, which name the objects in slot order (`blm/objects`).
    """
    if not files or ENVIRONMENT_STATE not in info["features"]:
        return {}
    names = feature_names(info, ENVIRONMENT_STATE)
    query = f"""select episode_index, "{ENVIRONMENT_STATE}"[1:{len(names)}]
        from read_parquet($files, hive_partitioning = false)
        where frame_index = 0"""
    with resources.connect(threads=1) as connection:
        try:
            first = connection.sql(query, params={"files": parquet_list(files)}).fetchall()
        except duckdb.Error:  # a file lacks the column, or holds something else: as if it were not recorded
            return {}
    state_of = dict(first)
    starts = {}
    for row in episodes:
        objects, state = row.get(EPISODE_METADATA_PREFIX + "objects"), state_of.get(row["episode_index"])
        if objects and state is not None:
            try:
                starts[row["episode_index"]] = _starts(json.loads(objects), names, state)
            except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
                continue  # as if it were not recorded
    return starts


def _starts(objects: Sequence[Mapping[str, Any]], names: list[str], state: Sequence[float]) -> list[dict]:
    found = []
    for slot, one in enumerate(objects):
        axes = (f"object_{slot}.x", f"object_{slot}.y")
        if all(axis in names for axis in axes):
            x, y = (float(state[names.index(axis)]) for axis in axes)
            found.append({"name": one["name"], "x": x, "y": y})
    return found
