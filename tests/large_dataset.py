"""A LeRobot v3 dataset without videos, as large as asked for, of a robot that nobody described."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RATE_HZ = 30
EPISODE_FRAMES = 300
FRAMES_PER_FILE = 600_000
"""About the 100 MB a file that LeRobot writes by default, at 14 axes."""


def write_dataset(
    root: Path,
    frames: int,
    axes: int,
    *,
    file_per_episode: bool,
    group_per_episode: bool = False,
    seed: int = 0,
) -> Path:
    """Smooth curves of `axes` joints, float32, episodes of 300 frames; many episodes per file, or one.

    LeRobot records and joins datasets with a group of rows per episode, and converts older ones with large groups.
    """
    episodes = frames // EPISODE_FRAMES
    per_file = 1 if file_per_episode else FRAMES_PER_FILE // EPISODE_FRAMES
    generator = np.random.default_rng(seed)
    rows = []
    for number, first in enumerate(range(0, episodes, per_file)):
        chunk, file = divmod(number, 1000)
        chosen = range(first, min(first + per_file, episodes))
        path = root / f"data/chunk-{chunk:03d}/file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows_per_group = EPISODE_FRAMES if group_per_episode else None
        pq.write_table(_frames(chosen, axes, generator), path, row_group_size=rows_per_group)
        rows += [_episode(episode, chunk, file) for episode in chosen]
    meta = root / "meta/episodes/chunk-000/file-000.parquet"
    meta.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), meta)
    (root / "meta/info.json").write_text(json.dumps(_info(axes, episodes)))
    pq.write_table(pa.table({"task_index": [0], "task": ["move"]}), root / "meta/tasks.parquet")
    return root


def rows_of_files(root: Path) -> dict[str, int]:
    """The data files of a dataset, and how many rows each has."""
    return {str(file): pq.read_metadata(file).num_rows for file in root.glob("data/*/*.parquet")}


def joint_names(axes: int) -> list[str]:
    """Names that no built-in robot has."""
    return [*(f"bench_joint_{axis}.pos" for axis in range(axes - 1)), "bench_gripper.pos"]


def _frames(episodes: range, axes: int, generator: np.random.Generator) -> pa.Table:
    count = len(episodes)
    time = np.arange(EPISODE_FRAMES) / RATE_HZ
    speed, phase = generator.uniform(0.1, 0.6, (2, count, 1, axes))
    action = np.sin(2 * np.pi * speed * time[None, :, None] + 6 * phase)
    action = (action + generator.normal(0, 0.002, action.shape)).astype(np.float32)
    state = np.concatenate([action[:, :1], action[:, :-1]], axis=1)
    total = count * EPISODE_FRAMES
    vectors = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), axes)
        for name, values in (("observation.state", state), ("action", action))
    }
    frame = np.tile(np.arange(EPISODE_FRAMES), count)
    first = episodes.start * EPISODE_FRAMES
    return pa.table(
        vectors
        | {
            "timestamp": (frame / RATE_HZ).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.repeat(np.array(episodes), EPISODE_FRAMES),
            "index": np.arange(first, first + total),
            "task_index": np.zeros(total, np.int64),
        }
    )


def _episode(episode: int, chunk: int, file: int) -> dict[str, object]:
    return {
        "episode_index": episode,
        "tasks": ["move"],
        "length": EPISODE_FRAMES,
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": episode * EPISODE_FRAMES,
        "dataset_to_index": (episode + 1) * EPISODE_FRAMES,
    }


def _info(axes: int, episodes: int) -> dict[str, object]:
    vector = {"dtype": "float32", "shape": [axes], "names": joint_names(axes)}
    scalar = {"shape": [1], "names": None}
    return {
        "codebase_version": "v3.0",
        "robot_type": "bench",
        "total_episodes": episodes,
        "total_frames": episodes * EPISODE_FRAMES,
        "total_tasks": 1,
        "chunks_size": 1000,
        "fps": RATE_HZ,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": {
            "observation.state": vector,
            "action": vector,
            "timestamp": {"dtype": "float32"} | scalar,
            **{
                name: {"dtype": "int64"} | scalar
                for name in ("frame_index", "episode_index", "index", "task_index")
            },
        },
    }
