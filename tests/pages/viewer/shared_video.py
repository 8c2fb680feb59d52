"""A dataset whose episodes share one video file and one data file, as LeRobot writes them, with numbered frames."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS = 10
FRAMES = (12, 9, 14)
KEY = "observation.images.front"
_SIDE = 64
_STEP = 6


def write_dataset(root: Path, codec: str = "libx264") -> Path:
    """Three episodes of another robot; frame n of the file is a flat grey of `grey(n)`."""
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / f"videos/{KEY}/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(_info()))
    pq.write_table(_frames(), root / "data/chunk-000/file-000.parquet")
    pq.write_table(pa.Table.from_pylist(_episodes()), root / "meta/episodes/chunk-000/file-000.parquet")
    _write_video(root / f"videos/{KEY}/chunk-000/file-000.mp4", codec)
    return root


def grey(number: int) -> int:
    return 20 + _STEP * number


def number_of(picture: np.ndarray) -> int:
    """The inverse of `grey` for a decoded (height, width, 3) picture."""
    return round((float(picture.mean()) - 20) / _STEP)


def _info() -> dict:
    vector = {"dtype": "float32", "shape": [2], "names": {"motors": ["left", "right"]}}
    return {
        "codebase_version": "v3.0",
        "fps": FPS,
        "robot_type": "two_wheels",
        "features": {
            "observation.state": vector,
            "action": vector | {"names": {"motors": ["left_target", "right_target"]}},
            "next.success": {"dtype": "bool", "shape": [1], "names": None},
            "teleop.is_intervention": {"dtype": "bool", "shape": [1], "names": None},
            KEY: {"dtype": "video", "shape": [3, _SIDE, _SIDE], "names": ["channels", "height", "width"]},
        },
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }


def _frames() -> pa.Table:
    rows = []
    for episode, length in enumerate(FRAMES):
        for frame in range(length):
            value = float(len(rows))
            rows.append(
                {
                    "observation.state": [value, -value],
                    "action": [value + 1, float("nan")],
                    "next.success": episode == 1 and frame >= 7,
                    "teleop.is_intervention": episode == 2 and frame in (3, 4, 13),
                    "timing.front.age_ms": 3.0 + frame,
                    "frame_index": frame,
                    "episode_index": episode,
                    "index": len(rows),
                }
            )
    return pa.Table.from_pylist(rows)


def _episodes() -> list[dict]:
    rows, first = [], 0
    for episode, length in enumerate(FRAMES):
        rows.append(
            {
                "episode_index": episode,
                "tasks": [f"drive {episode} <b>metres</b>"],
                "length": length,
                "data/chunk_index": 0,
                "data/file_index": 0,
                f"videos/{KEY}/chunk_index": 0,
                f"videos/{KEY}/file_index": 0,
                f"videos/{KEY}/from_timestamp": first / FPS,
                f"videos/{KEY}/to_timestamp": (first + length) / FPS,
                "stats/next.success/max": [episode == 1],
            }
        )
        first += length
    return rows


def _write_video(path: Path, codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"g": "5", "crf": "4"})
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = _SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(sum(FRAMES)):
            picture = np.full((_SIDE, _SIDE, 3), grey(number), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
