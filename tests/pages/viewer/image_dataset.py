"""A dataset whose camera is stored as single pictures in its table, as LeRobot does with `dtype: image`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FPS = 10
FRAMES = (6, 5)
KEY = "observation.images.front"
SIDE = 16


def write_dataset(root: Path, form: str = "png") -> Path:
    """Two episodes in one file; the picture of row n of the file is a flat grey of `grey(n)`."""
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(_info()))
    rows = [(episode, frame) for episode, length in enumerate(FRAMES) for frame in range(length)]
    table = pa.Table.from_pylist(
        [
            {
                "observation.state": [float(row), -float(row)],
                KEY: {"bytes": picture(row, form), "path": f"frame-{frame:06d}.png"},
                "frame_index": frame,
                "episode_index": episode,
            }
            for row, (episode, frame) in enumerate(rows)
        ]
    )
    pq.write_table(table, root / "data/chunk-000/file-000.parquet")
    episodes = [
        {
            "episode_index": episode,
            "tasks": [f"look {episode}"],
            "length": length,
            "data/chunk_index": 0,
            "data/file_index": 0,
        }
        for episode, length in enumerate(FRAMES)
    ]
    pq.write_table(pa.Table.from_pylist(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    return root


def grey(row: int) -> int:
    return 20 + 15 * row


def picture(row: int, form: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (grey(row),) * 3).save(stream, form)
    return stream.getvalue()


def _info() -> dict:
    return {
        "codebase_version": "v3.0",
        "fps": FPS,
        "robot_type": "watcher",
        "features": {
            "observation.state": {"dtype": "float32", "shape": [2], "names": ["pan", "tilt"]},
            KEY: {"dtype": "image", "shape": [SIDE, SIDE, 3], "names": ["height", "width", "channels"]},
        },
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    }
