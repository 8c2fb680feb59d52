"""Read what a LeRobot v3 dataset says about itself: `meta/info.json`, `meta/episodes`, cameras, file places."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from blm.curate.shards import file_sha256
from blm.schemas.episode import ACTION, IMAGE_PREFIX, STATE, SUBTASKS_FILE
from blm.schemas.errors import DatasetError

SUPPORTED_VERSION = "v3."


@dataclass(frozen=True)
class CameraStream:
    """A recorded camera: its name in the build, its LeRobot feature, its size in pixels."""

    name: str
    feature: str
    width: int
    height: int


def read_info(root: Path) -> dict[str, Any]:
    """`meta/info.json`, with a supported version, a rate, and the features of states and actions.

    Raises:
        DatasetError: the file is missing, broken, or of another version.
    """
    path = root / "meta/info.json"
    if not path.is_file():
        raise DatasetError(f"{path} does not exist.", "Give the root folder of a LeRobot v3 dataset.")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version, rate, features = info["codebase_version"], info["fps"], info["features"]
        for feature in (STATE, ACTION):
            features[feature]["shape"]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} is not readable or lacks {error}.", "Restore the file, or record again."
        ) from error
    if not str(version).startswith(SUPPORTED_VERSION):
        raise DatasetError(
            f"{path}: LeRobot dataset version {version}; blm reads {SUPPORTED_VERSION}x.",
            "Convert it with: python -m lerobot.scripts.convert_dataset_v21_to_v30",
        )
    if not isinstance(rate, int | float) or rate <= 0:
        raise DatasetError(f"{path}: fps is {rate!r}, which is not a rate in hertz.", "Mend the file.")
    return info


def read_episode_metadata(root: Path) -> pa.Table:
    """`meta/episodes` without its statistics: one row per episode, in their order.

    Raises:
        DatasetError: there is none, or it is not readable.
    """
    files = sorted(str(path) for path in root.glob("meta/episodes/*/*.parquet"))
    if not files:
        raise DatasetError(
            f"{root / 'meta/episodes'} holds no Parquet file.",
            "The recording was probably cut off before it was finished; recover or record it again.",
        )
    try:
        with duckdb.connect(config={"threads": 1}) as connection:
            relation = connection.read_parquet(files, union_by_name=True, hive_partitioning=False)
            wanted = [name for name in relation.columns if not name.startswith("stats/")]
            quoted = ", ".join(f'"{name}"' for name in wanted)
            return relation.select(quoted).order("episode_index").to_arrow_table()
    except duckdb.Error as error:
        raise DatasetError(
            f"{root / 'meta/episodes'} is not readable: {error}", "Restore it from a copy, or record again."
        ) from error


def feature_names(info: dict[str, Any], feature: str) -> list[str]:
    """Names of a vector's values: LeRobot keeps a list, or a mapping with one list in it."""
    names = info["features"][feature].get("names") or []
    if isinstance(names, dict):
        names = next(iter(names.values()), [])
    return [str(name) for name in names]


def camera_streams(
    root: Path, info: dict[str, Any], wanted: Sequence[str] | None
) -> tuple[CameraStream, ...]:
    """The dataset's cameras by name, or the wanted ones in the order asked for.

    Raises:
        DatasetError: a wanted camera is absent, names clash, or images are not stored as video.
    """
    found: dict[str, CameraStream] = {}
    for key, feature in info["features"].items():
        if not key.startswith(IMAGE_PREFIX):
            continue
        name = re.sub(r"[^a-z0-9_]+", "_", key.removeprefix(IMAGE_PREFIX).lower())
        if feature["dtype"] != "video":
            raise DatasetError(
                f"{root}: camera '{name}' is stored as single images.", "Convert the dataset to video first."
            )
        if name in found or name in ("state", "action", "subtask"):
            raise DatasetError(f"{root}: camera name '{name}' is taken.", "Rename the camera in the dataset.")
        height, width = feature["shape"][:2]
        if feature.get("names") and feature["names"][0] == "channels":
            height, width = feature["shape"][1:]
        found[name] = CameraStream(name, key, width, height)
    if absent := [name for name in wanted or () if name not in found]:
        raise DatasetError(
            f"{root}: camera '{absent[0]}' not found; this dataset has: {', '.join(found) or 'none'}.",
            "Choose among these with `cameras`.",
        )
    return tuple(found[name] for name in wanted or sorted(found))


def file_of_episode(root: Path, template: str, row: dict[str, Any], prefix: str, **more: str) -> str:
    """The file that an episode lies in, by a path template of `info.json` and the numbers in its metadata.

    Raises:
        DatasetError: the metadata do not say, or the template leads out of the dataset.
    """
    try:
        numbers = {name: int(row[f"{prefix}/{name}"]) for name in ("chunk_index", "file_index")}
        path = root / template.format(**numbers, **more)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DatasetError(
            f"{root}: episode {row.get('episode_index')} does not say in which file it lies ({error}).",
            "Restore meta/episodes and meta/info.json, or record again.",
        ) from error
    if not path.resolve().is_relative_to(root.resolve()):
        raise DatasetError(f"{root}: meta/info.json points outside the dataset, to {path}.", "Mend the file.")
    return str(path)


def read_subtasks(root: Path) -> tuple[str, ...]:
    """The dataset's table of primitives in index order; one empty name where there is none.

    Raises:
        DatasetError: the table is not readable.
    """
    path = root / SUBTASKS_FILE
    if not path.is_file():
        return ("",)
    try:
        rows = pq.read_table(path, columns=["subtask_index", "subtask"]).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not readable: {error}", "Restore it from a copy.") from error
    names = {row["subtask_index"]: row["subtask"] for row in rows}
    return tuple(names.get(index, "") for index in range(max(names, default=0) + 1))


def file_digests(root: Path) -> dict[str, str]:
    """SHA-256 of each of the dataset's files, by its path within the dataset."""
    patterns = (
        "meta/info.json",
        "meta/tasks.parquet",
        SUBTASKS_FILE,
        "meta/episodes/**/*",
        "data/**/*",
        "videos/**/*",
    )
    files = sorted(path for pattern in patterns for path in root.glob(pattern) if path.is_file())
    return {path.relative_to(root).as_posix(): file_sha256(path) for path in files}


def fingerprint(digests: Mapping[str, str]) -> str:
    """SHA-256 over the names and contents of a dataset's files, wherever it lies on disk."""
    listed = "".join(f"{name} {digest}\n" for name, digest in digests.items())
    return hashlib.sha256(listed.encode()).hexdigest()
