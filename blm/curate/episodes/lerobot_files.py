"""Read what a LeRobot v3 dataset says about itself: `meta/info.json`, `meta/episodes`, cameras, file places."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from blm.curate.shards import file_sha256
from blm.schemas.episode import IMAGE_PREFIX, SUBTASKS_FILE
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
    """`meta/info.json`, with a supported version, a rate, and descriptions of features.

    Raises:
        DatasetError: the file is missing, broken, or of another version.
    """
    path = root / "meta/info.json"
    if not path.is_file():
        raise DatasetError(f"{path} does not exist.", "Give the root folder of a LeRobot v3 dataset.")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version, rate, features = info["codebase_version"], info["fps"], info["features"]
        strange = [name for name, feature in features.items() if not _described(feature)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{path} is not readable or lacks {error}.", "Restore the file, or record again."
        ) from error
    if strange:
        raise DatasetError(
            f"{path}: feature '{strange[0]}' has no type and shape that make sense.", "Mend the file."
        )
    if not str(version).startswith(SUPPORTED_VERSION):
        raise DatasetError(
            f"{path}: LeRobot dataset version {version}; blm reads {SUPPORTED_VERSION}x.",
            "Convert it with: python -m lerobot.scripts.convert_dataset_v21_to_v30",
        )
    if not isinstance(rate, int | float) or rate <= 0:
        raise DatasetError(f"{path}: fps is {rate!r}, which is not a rate in hertz.", "Mend the file.")
    return info


def _described(feature: Mapping[str, Any]) -> bool:
    """Whether a type and a shape are given, of images with three dimensions."""
    shape, names = feature["shape"], feature.get("names")
    return (
        isinstance(feature["dtype"], str)
        and isinstance(shape, list)
        and all(isinstance(size, int) and 0 < size < 2**31 for size in shape)
        and (feature["dtype"] not in ("video", "image") or len(shape) == 3)
        and (names is None or isinstance(names, list | dict))
    )


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
    return [str(name) for name in names] if isinstance(names, list) else []


def camera_streams(
    root: Path,
    info: dict[str, Any],
    wanted: Sequence[str] | None,
    given: Mapping[str, str] | None = None,
) -> tuple[CameraStream, ...]:
    """The dataset's cameras by name, or the wanted ones in the order asked for.

    Args:
        given: name → feature, instead of the names that follow from the features'.

    Raises:
        DatasetError: a wanted camera is absent, names clash, or images are not stored as video.
    """
    images = {key: one for key, one in info["features"].items() if one["dtype"] in ("video", "image")}
    named = given or {_camera_name(key): key for key in images}
    if given is None and len(named) < len(images):
        raise DatasetError(
            f"{root}: several of {', '.join(images)} would be called the same.",
            "Name them in splits.yaml under this dataset: `features: {cameras: {NAME: FEATURE}}`.",
        )
    if absent := [key for key in named.values() if key not in images]:
        raise DatasetError(
            f"{root}: '{absent[0]}' is not a camera; this dataset has: {', '.join(images) or 'none'}.",
            "Choose among these under `features: {cameras: …}`.",
        )
    if absent := [name for name in wanted or () if name not in named]:
        raise DatasetError(
            f"{root}: camera '{absent[0]}' not found; this dataset has: {', '.join(named) or 'none'}.",
            "Choose among these with `cameras`.",
        )
    return tuple(_camera_stream(root, name, named[name], images) for name in wanted or sorted(named))


def _camera_name(feature: str) -> str:
    name = feature.removeprefix(IMAGE_PREFIX) if feature.startswith(IMAGE_PREFIX) else feature.split(".")[-1]
    return re.sub(r"[^a-z0-9_]+", "_", name.lower())


def _camera_stream(root: Path, name: str, key: str, images: dict[str, Any]) -> CameraStream:
    feature = images[key]
    if feature["dtype"] != "video":
        raise DatasetError(
            f"{root}: camera '{name}' is stored as single images.", "Convert the dataset to video first."
        )
    if not re.fullmatch(r"[a-z0-9_]+", name) or name in ("state", "action", "subtask"):
        raise DatasetError(
            f"{root}: a camera cannot be called '{name}'.",
            "Name it in splits.yaml under this dataset, `features: {cameras: {NAME: FEATURE}}`, in lower-case letters, "
            "digits and '_'.",
        )
    height, width = feature["shape"][:2]
    if feature.get("names") and feature["names"][0] in ("channels", "channel"):
        height, width = feature["shape"][1:]
    return CameraStream(name, key, width, height)


def file_of_episode(root: Path, template: str, row: dict[str, Any], prefix: str, **more: str) -> str:
    """The file that an episode lies in, by a path template of `info.json` and the numbers in its metadata.

    Raises:
        DatasetError: the metadata do not say, or the template leads out of the dataset.
    """
    try:
        chunk, file = (int(row[f"{prefix}/{name}"]) for name in ("chunk_index", "file_index"))
        return _place(root, template, chunk, file, tuple(more.items()))
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DatasetError(
            f"{root}: episode {row.get('episode_index')} does not say in which file it lies ({error}).",
            "Restore meta/episodes and meta/info.json, or record again.",
        ) from error


@lru_cache(maxsize=4096)
def _place(root: Path, template: str, chunk: int, file: int, more: tuple[tuple[str, str], ...]) -> str:
    """Asked for once per episode, and many episodes share a file."""
    path = root / template.format(chunk_index=chunk, file_index=file, **dict(more))
    plain = path.name != ".." and not path.is_symlink()
    place = _resolved(path.parent) / path.name if plain else path.resolve()
    if not place.is_relative_to(_resolved(root)):
        raise DatasetError(f"{root}: meta/info.json points outside the dataset, to {path}.", "Mend the file.")
    return str(path)


@lru_cache(maxsize=4096)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


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
