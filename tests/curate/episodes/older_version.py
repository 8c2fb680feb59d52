"""Write a dataset the way LeRobot v2.1 did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.curate.episodes.editing import data_file

INDEX_FEATURES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def as_v21(root: Path, target: Path) -> Path:
    """The v2.1 form of a v3 dataset with one file per episode, as a stock recorder would have written it."""
    info = json.loads((root / "meta/info.json").read_text())
    cameras = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    kept = ("observation.state", "action", *INDEX_FEATURES)
    tasks = pq.read_table(root / "meta/tasks.parquet").to_pylist()
    (target / "meta").mkdir(parents=True)
    episodes, statistics = [], []
    for episode in range(info["total_episodes"]):
        table = pq.read_table(data_file(root, episode)).select(kept)
        place = target / f"data/chunk-000/episode_{episode:06d}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, place)
        for camera in cameras:
            video = target / f"videos/chunk-000/{camera}/episode_{episode:06d}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sorted((root / "videos" / camera).rglob("*.mp4"))[episode], video)
        task = next(row["task"] for row in tasks if row["task_index"] == table["task_index"][0].as_py())
        episodes.append({"episode_index": episode, "tasks": [task], "length": len(table)})
        statistics.append({"episode_index": episode, "stats": _statistics(table, cameras)})
    _lines(target / "meta/episodes.jsonl", episodes)
    _lines(target / "meta/episodes_stats.jsonl", statistics)
    _lines(target / "meta/tasks.jsonl", [{key: row[key] for key in ("task_index", "task")} for row in tasks])
    _write_info(info, target, [*kept, *cameras])
    return target


def _write_info(info: dict, target: Path, features: list[str]) -> None:
    info |= {
        "codebase_version": "v2.1",
        "robot_type": "so_follower",
        "total_chunks": 1,
        "total_videos": info["total_episodes"] * 2,
        "features": {key: info["features"][key] for key in features},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (target / "meta/info.json").write_text(json.dumps(info))


def _statistics(table, cameras: list[str]) -> dict:
    found = {}
    for name in table.column_names:
        values = np.stack(table[name].to_numpy()).astype(np.float64).reshape(len(table), -1)
        found[name] = {
            "min": values.min(axis=0).tolist(),
            "max": values.max(axis=0).tolist(),
            "mean": values.mean(axis=0).tolist(),
            "std": values.std(axis=0).tolist(),
            "count": [len(table)],
        }
    ones = [[[0.5]], [[0.5]], [[0.5]]]
    for camera in cameras:
        found[camera] = dict.fromkeys(("min", "max", "mean", "std"), ones) | {"count": [len(table)]}
    return found


def _lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
