"""Damage and change datasets on disk the way real ones are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blm.schemas.episode import ACTION, STATE

AXES = 6


def data_file(root: Path, episode: int) -> Path:
    for path in sorted(root.glob("data/*/*.parquet")):
        if episode in pq.read_table(path, columns=["episode_index"])["episode_index"].to_pylist():
            return path
    raise AssertionError(f"no episode {episode}")


def video_file(root: Path, episode: int, camera: str = "top") -> Path:
    """The episode's video, in a dataset with one file per episode."""
    return sorted(root.glob(f"videos/observation.images.{camera}/*/*.mp4"))[episode]


def set_motion(root: Path, episode: int, values: np.ndarray) -> None:
    """Replace an episode's states and actions by (T, 6) values; T is as recorded."""
    path = data_file(root, episode)
    table = pq.read_table(path)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, AXES)
    for name in (STATE, ACTION):
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, path)


def edit_rows(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def edit_info(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def as_stock(root: Path) -> Path:
    """Take away everything that a stock LeRobot recorder would not have written."""
    for path in root.glob("meta/episodes/*/*.parquet"):
        edit_rows(path, lambda t: t.select([name for name in t.column_names if not name.startswith("blm/")]))
    extra = {"subtask_index", "next.success", "timing.monotonic_s"}
    for path in root.glob("data/*/*.parquet"):
        edit_rows(path, lambda t: t.select([name for name in t.column_names if name not in extra]))

    def strip(info: dict[str, Any]) -> None:
        info["robot_type"] = "so_follower"
        for name in extra:
            info["features"].pop(name)

    edit_info(root, strip)
    for name in ("blm.json", "subtasks.parquet", "attempts.parquet"):
        (root / "meta" / name).unlink(missing_ok=True)
    return root
