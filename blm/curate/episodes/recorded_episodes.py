"""What a dataset's metadata tell of each episode, as an Arrow table; for this no frame is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from blm.curate.episodes.boundaries import MAX_EPISODE_FRAMES, MAX_NAME_LENGTH
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.footers import most_rows_of_files
from blm.curate.episodes.instructions import (
    MAX_INSTRUCTION_CHARACTERS,
    contradictions,
    normalised_instruction,
    task_name,
    task_of_instruction,
)
from blm.curate.episodes.lerobot_files import CameraStream, file_of_episode
from blm.schemas.embodiment import Embodiment
from blm.schemas.episode import EPISODE_METADATA_PREFIX
from blm.schemas.errors import DatasetError
from blm.schemas.printable import plain_text

_LONGEST_VIDEO_S = 1e7

_RECORDED_FACTS = ("embodiment", "task", "seed", "operator", "success")
"""Those of `EpisodeMetadata` that the index takes over where a dataset has them."""


def located_episodes(root: Path, info: Mapping[str, Any], meta: pa.Table) -> list[dict[str, Any]]:
    """Rows of `meta/episodes` with the `data_file` each lies in ('' where that is not told, `unreadable` saying why).

    A `length` that no episode can have is -1.
    """
    return [
        row | {"length": _length(row["length"])} | _data_file(root, info, row) for row in meta.to_pylist()
    ]


def rows_of_data_files(located: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The data files that episodes lie in, and how many rows each may have."""
    return most_rows_of_files((row["data_file"] for row in located), (row["length"] for row in located))


def recorded_episodes(
    located: Sequence[Mapping[str, Any]],
    root: Path,
    info: Mapping[str, Any],
    streams: Sequence[CameraStream],
    source: DatasetSource,
    embodiment: Embodiment,
) -> pa.Table:
    """A row per episode: the columns of `DatasetIndex.episodes` that metadata tell, but for its dataset and rate."""
    rows = [_recorded_episode(row, root, info, streams, source, embodiment) for row in located]
    video = pa.struct([("file", pa.string()), ("from_s", pa.float64())])
    strings = ("embodiment", "task", "instruction", "recorded_instruction", "success", "operator")
    fields: list[tuple[str, pa.DataType]] = [
        *((key, pa.string()) for key in strings),
        *((key, pa.int64()) for key in ("episode", "instructions", "seed", "length", "video_frames")),
        *((key, pa.string()) for key in ("data_file", "unreadable")),
        *((key, pa.list_(pa.string())) for key in ("contradictions", "missing_videos")),
        *((f"video/{stream.name}", video) for stream in streams),
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _recorded_episode(
    row: Mapping[str, Any],
    root: Path,
    info: Mapping[str, Any],
    streams: Sequence[CameraStream],
    source: DatasetSource,
    embodiment: Embodiment,
) -> dict[str, Any]:
    recorded = {name: row.get(EPISODE_METADATA_PREFIX + name) for name in _RECORDED_FACTS}
    given = [text or "" for text in row.get("tasks") or [""]]
    recorded_instruction = given[0][: MAX_INSTRUCTION_CHARACTERS + 1]
    instruction = normalised_instruction(recorded_instruction)
    task = source.task or task_name(recorded["task"]) or task_of_instruction(instruction, embodiment.name)
    objects = row.get(EPISODE_METADATA_PREFIX + "objects")
    rate_hz = info["fps"]
    result: dict[str, Any] = {
        "episode": row["episode_index"],
        "embodiment": embodiment.name,
        "task": task,
        "instruction": instruction,
        "recorded_instruction": recorded_instruction,
        "instructions": len({normalised_instruction(text[: len(recorded_instruction)]) for text in given}),
        "contradictions": list(contradictions(instruction, task, objects, embodiment.name)),
        "success": {True: "yes", False: "no", None: "unknown"}[recorded["success"]],
        "seed": -1 if recorded["seed"] is None else recorded["seed"],
        "operator": plain_text(recorded["operator"] or "unknown")[:MAX_NAME_LENGTH],
        "length": row["length"],
        "data_file": row["data_file"],
        "unreadable": row.get("unreadable"),
    }
    missing, counts = [], [result["length"]]
    for stream in streams:
        if stream.in_table:
            result[f"video/{stream.name}"] = {"file": result["data_file"], "from_s": 0.0}
            continue
        prefix = f"videos/{stream.feature}"
        from_s, to_s = (_time(row.get(f"{prefix}/{end}_timestamp")) for end in ("from", "to"))
        file = _video_file(root, info, row, stream)
        if file is None or from_s is None or to_s is None:
            missing.append(stream.name)
            continue
        counts.append(round((to_s - from_s) * rate_hz))
        result[f"video/{stream.name}"] = {"file": file, "from_s": from_s}
    result["missing_videos"] = missing
    result["video_frames"] = max(counts, key=lambda count: abs(count - result["length"]))
    return result


def _data_file(root: Path, info: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    """`data_file`, or why there is none."""
    try:
        return {"data_file": file_of_episode(root, info["data_path"], row, "data")}
    except DatasetError as error:
        return {"data_file": "", "unreadable": error.message}


def _video_file(
    root: Path, info: Mapping[str, Any], row: Mapping[str, Any], stream: CameraStream
) -> str | None:
    prefix = f"videos/{stream.feature}"
    try:
        file = file_of_episode(root, info["video_path"], row, prefix, video_key=stream.feature)
        return file if Path(file).is_file() else None
    except (DatasetError, KeyError, OSError):
        return None


def _length(told: int | None) -> int:
    """-1, which no episode has, for what is not a number of frames."""
    return told if told is not None and 0 <= told <= MAX_EPISODE_FRAMES else -1


def _time(seconds: float | None) -> float | None:
    return seconds if seconds is not None and 0 <= seconds <= _LONGEST_VIDEO_S else None
