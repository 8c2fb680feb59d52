"""Read what a LeRobot v3 dataset says about itself: `meta/info.json`, `meta/episodes`, cameras, file places."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blm.curate.episodes.boundaries import (
    MAX_EPISODES,
    MAX_FEATURES,
    MAX_NAME_LENGTH,
    MAX_RATE_HZ,
    MAX_SUBTASKS,
    MAX_TEMPLATE_LENGTH,
    check_template,
    is_plain_name,
    read_json,
)
from blm.curate.episodes.footers import parquet_list, rows_that_may_be, table_problem, table_problems
from blm.curate.shards import file_sha256
from blm.schemas.episode import EPISODE_METADATA_PREFIX, IMAGE_PREFIX, SUBTASKS_FILE, EpisodeMetadata
from blm.schemas.errors import DatasetError
from blm.schemas.printable import plain_text, printable

SUPPORTED_VERSION = "v3."
INFO_FILE = "meta/info.json"

_PLACES = ("chunk_index", "file_index")
_METADATA_TYPES = {
    "episode_index": "bigint",
    "length": "bigint",
    "tasks": "varchar[]",
    "data/chunk_index": "bigint",
    "data/file_index": "bigint",
}
_SQL_TYPES = {"int": "bigint", "float": "double", "bool": "boolean"}
_RECORDED_TYPES = {one.name: _SQL_TYPES.get(str(one.type), "varchar") for one in fields(EpisodeMetadata)}


@dataclass(frozen=True)
class CameraStream:
    """A recorded camera: its name in the build, its LeRobot feature, its size in pixels, and whether its pictures lie
    in the table with the other data instead of in videos."""

    name: str
    feature: str
    width: int
    height: int
    in_table: bool = False


def read_info(root: Path) -> dict[str, Any]:
    """`meta/info.json`, with a supported version, a rate, path templates, and descriptions of features.

    Raises:
        DatasetError: the file is missing, broken, of another version, or claims what cannot be.
    """
    path = root / INFO_FILE
    info = read_json(path)
    if absent := [key for key in ("codebase_version", "fps", "features", "data_path") if key not in info]:
        raise DatasetError(f"{path} lacks '{absent[0]}'.", "Restore the file, or record again.")
    version, rate = info["codebase_version"], info["fps"]
    if not str(version).startswith(SUPPORTED_VERSION):
        raise DatasetError(
            f"{path}: LeRobot dataset version {printable(str(version), 80)}; blm reads {SUPPORTED_VERSION}x.",
            "A build converts v2.1 by itself; to do it beforehand: "
            "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id NAME --root FOLDER --push-to-hub false",
        )
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= MAX_RATE_HZ:
        raise DatasetError(
            f"{path}: fps is {printable(repr(rate), 80)}, which is not a rate within 0..{MAX_RATE_HZ:g} Hz.",
            "Mend the file.",
        )
    check_features(path, info["features"])
    for key, folder in (("data_path", "data"), ("video_path", "videos")):
        allowed = _PLACES if key == "data_path" else (*_PLACES, "video_key")
        if info.get(key) is not None and (why := check_template(info[key], folder, allowed)):
            raise DatasetError(f"{path}: '{key}' {printable(why, 200)}.", "Mend the file.")
    return info


def check_features(path: Path, features: Any) -> None:
    """Refuse descriptions of features that make no sense or could lead elsewhere; `path` is where they stand.

    Raises:
        DatasetError: names the feature.
    """
    if not isinstance(features, dict) or len(features) > MAX_FEATURES:
        raise DatasetError(
            f"{path}: 'features' is no list of at most {MAX_FEATURES} features.", "Mend the file."
        )
    for name, feature in features.items():
        if not is_plain_name(name):
            raise DatasetError(
                f"{path}: a feature cannot be called '{printable(name, 80)}'.",
                "Rename it, without slashes, quotes and control characters.",
            )
        if not _described(feature):
            raise DatasetError(
                f"{path}: feature '{name}' has no type and shape that make sense.", "Mend the file."
            )


def _described(feature: Any) -> bool:
    """Whether a type and a shape are given, of images with three dimensions."""
    if not isinstance(feature, dict):
        return False
    kind, shape, names = feature.get("dtype"), feature.get("shape"), feature.get("names")
    return (
        isinstance(kind, str)
        and isinstance(shape, list)
        and all(type(size) is int and 0 < size < 2**31 for size in shape)
        and (kind not in ("video", "image") or len(shape) == 3)
        and (names is None or isinstance(names, list | dict))
    )


def read_episode_metadata(
    root: Path, info: Mapping[str, Any], connection: duckdb.DuckDBPyConnection
) -> pa.Table:
    """`meta/episodes` without its statistics: one row per episode, in their order.

    Far more of them than `info` announces are not even read.

    Columns that a build uses have the type it expects; what cannot be brought into it is null.

    Raises:
        DatasetError: there is none, it is not readable, or its episodes' numbers are not usable.
    """
    folder = root / "meta/episodes"
    files = sorted(path for path in root.glob("meta/episodes/*/*.parquet"))
    if not files:
        raise DatasetError(
            f"{folder} holds no Parquet file.",
            "The recording was probably cut off before it was finished; recover or record it again.",
        )
    if why := next(iter(_metadata_problems(files, info, connection).values()), None):
        raise DatasetError(f"{folder} is not readable: {why}.", "Restore it from a copy, or record again.")
    try:
        names = parquet_list([str(file) for file in files])
        relation = connection.read_parquet(names, union_by_name=True, hive_partitioning=False)
        wanted = [_typed(name) for name in relation.columns if _is_used(name)]
        selected = relation.select(", ".join(wanted)).limit(MAX_EPISODES)
        table = selected.order("episode_index").to_arrow_table()
    except duckdb.OutOfMemoryException as error:
        raise DatasetError(f"{folder} takes more memory than allowed.", "Raise `memory`.") from error
    except (duckdb.Error, UnicodeDecodeError, RuntimeError) as error:
        told = isinstance(error, duckdb.Error)  # the others are about names that are no text
        why = printable(str(error), 400) if told else "a column's name is no text."
        raise DatasetError(
            f"{folder} is not readable: {why}", "Restore it from a copy, or record again."
        ) from error
    _check_episodes(folder, table)
    return table


def _metadata_problems(
    files: Sequence[Path], info: Mapping[str, Any], connection: duckdb.DuckDBPyConnection
) -> dict[str, str]:
    """By their footers; tasks are lists, and texts may be long."""
    values = dict.fromkeys(("episode_index", "length", "data/chunk_index", "data/file_index"), 1)
    told = info.get("total_episodes")
    most = rows_that_may_be(told) if type(told) is int and told >= 0 else MAX_EPISODES
    most_rows = dict.fromkeys(map(str, files), min(most, MAX_EPISODES))
    return table_problems(connection, most_rows, {**values, "tasks": 100_000})


def _is_used(name: str) -> bool:
    return name in _METADATA_TYPES or name.startswith(("videos/", EPISODE_METADATA_PREFIX))


def _typed(name: str) -> str:
    """SQL for a column of `meta/episodes` in the type a build expects."""
    ending = name.rsplit("/", 1)[-1]
    kind = _METADATA_TYPES.get(name)
    if kind is None and name.startswith("videos/"):
        kind = {"chunk_index": "bigint", "file_index": "bigint"}.get(ending, "double")
    kind = kind or _RECORDED_TYPES.get(ending, "varchar")
    quoted = '"' + name.replace('"', '""') + '"'
    return f"try_cast({quoted} as {kind}) as {quoted}"


def _check_episodes(folder: Path, table: pa.Table) -> None:
    if absent := [name for name in _METADATA_TYPES if name not in table.column_names]:
        raise DatasetError(
            f"{folder} has no column '{absent[0]}'.", "Restore it from a copy, or record again."
        )
    numbers = table["episode_index"]
    if numbers.null_count or (len(numbers) and pc.min(numbers).as_py() < 0):  # type: ignore[attr-defined]
        raise DatasetError(f"{folder}: episodes without a number.", "Restore it from a copy.")
    repeated = [one for one, count in Counter(numbers.to_pylist()).items() if count > 1]
    if repeated:
        raise DatasetError(f"{folder}: episode {repeated[0]} comes twice.", "Remove one of them.")


def check_announced(root: Path, info: Mapping[str, Any], meta: pa.Table) -> None:
    """Refuse a dataset whose `info.json` announces other numbers of episodes or frames than its metadata hold.

    Raises:
        DatasetError: names both numbers.
    """
    lengths = [length for length in meta["length"].to_pylist() if length is not None]
    for key, found in (("total_episodes", len(meta)), ("total_frames", sum(lengths))):
        told = info.get(key)
        if told is not None and (isinstance(told, bool) or told != found):
            raise DatasetError(
                f"{root / INFO_FILE} announces {key} {printable(repr(told), 40)}, meta/episodes holds {found}.",
                "A file of meta/episodes may be missing: restore it; else correct the number.",
            )


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
        DatasetError: a wanted camera is absent, or names clash.
    """
    images = _pictures(info)
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


def depth_features(info: Mapping[str, Any]) -> list[str]:
    """Features that LeRobot marks as depth maps: distances coded as pictures, which are no use as such."""
    marks = ("is_depth_map", "video.is_depth_map")
    return [
        key
        for key, one in info["features"].items()
        for notes in (one.get("info"), one.get("video_info"))
        if isinstance(notes, dict) and any(notes.get(mark) is True for mark in marks)
    ]


def _pictures(info: Mapping[str, Any]) -> dict[str, Any]:
    depth = depth_features(info)
    return {
        key: one
        for key, one in info["features"].items()
        if one["dtype"] in ("video", "image") and key not in depth
    }


def _camera_name(feature: str) -> str:
    name = feature.removeprefix(IMAGE_PREFIX) if feature.startswith(IMAGE_PREFIX) else feature.split(".")[-1]
    return re.sub(r"[^a-z0-9_]+", "_", name.lower())


def _camera_stream(root: Path, name: str, key: str, images: dict[str, Any]) -> CameraStream:
    feature = images[key]
    if not re.fullmatch(r"[a-z0-9_]{1,40}", name) or name in ("state", "action", "subtask"):
        raise DatasetError(
            f"{root}: a camera cannot be called '{name}'.",
            "Name it in splits.yaml under this dataset, `features: {cameras: {NAME: FEATURE}}`, in lower-case letters, "
            "digits and '_'.",
        )
    height, width = feature["shape"][:2]
    names = feature.get("names")
    if isinstance(names, list) and names and names[0] in ("channels", "channel"):
        height, width = feature["shape"][1:]
    return CameraStream(name, key, width, height, feature["dtype"] == "image")


def file_of_episode(root: Path, template: str, row: Mapping[str, Any], prefix: str, **more: str) -> str:
    """The file that an episode lies in, by a path template of `info.json` and the numbers in its metadata.

    Raises:
        DatasetError: the metadata do not say.
    """
    try:
        chunk, file = (int(row[f"{prefix}/{name}"]) for name in ("chunk_index", "file_index"))
        return _place(root, template, chunk, file, tuple(more.items()))
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DatasetError(
            f"{root}: episode {row.get('episode_index')} does not say in which file it lies "
            f"({printable(str(error), 200)}).",
            "Restore meta/episodes and meta/info.json, or record again.",
        ) from error


@lru_cache(maxsize=4096)
def _place(root: Path, template: str, chunk: int, file: int, more: tuple[tuple[str, str], ...]) -> str:
    """Asked for once per episode, and many episodes share a file. `read_info` and `check_places` keep it inside."""
    place = Path(template.format(chunk_index=chunk, file_index=file, **dict(more)))
    if place.is_absolute() or ".." in place.parts or len(str(place)) > MAX_TEMPLATE_LENGTH:
        raise ValueError(f"'{place}' leads out of it")
    return str(root / place)


def read_subtasks(root: Path, connection: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """The dataset's table of primitives in index order; one empty name where there is none.

    Raises:
        DatasetError: the table is not readable.
    """
    path = root / SUBTASKS_FILE
    if not path.is_file():
        return ("",)
    remedy = "Restore it from a copy, or remove it."
    if why := table_problem(connection, path, MAX_SUBTASKS, {"subtask_index": 1, "subtask": 100}):
        raise DatasetError(why, remedy)
    try:
        rows = pq.read_table(path, columns=["subtask_index", "subtask"]).to_pylist()
        names = {int(row["subtask_index"]): plain_text(str(row["subtask"]))[:MAX_NAME_LENGTH] for row in rows}
        if names and not 0 <= min(names) <= max(names) < MAX_SUBTASKS:
            raise ValueError(f"indices lie within {min(names)}..{max(names)}")
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{path} is not readable: {printable(str(error), 200)}", remedy) from error
    return tuple(names.get(index, "") for index in range(max(names, default=0) + 1))


@contextmanager
def file_digests(root: Path, threads: int) -> Iterator[Callable[[], dict[str, str]]]:
    """Compute SHA-256 of each of the dataset's files while the block runs; called within it, all by their paths within
    the dataset.

    Raises:
        DatasetError: from the call, if a file cannot be read.
    """
    patterns = (
        "meta/info.json",
        "meta/tasks.parquet",
        SUBTASKS_FILE,
        "meta/episodes/**/*",
        "data/**/*",
        "videos/**/*",
    )
    files = sorted(path for pattern in patterns for path in root.glob(pattern) if path.is_file())
    inside = len((root / "x").as_posix()) - 1
    given_up = Event()  # else leaving the block would wait for large files
    with ThreadPoolExecutor(threads) as pool:
        digests = {path.as_posix()[inside:]: pool.submit(_digest, path, given_up) for path in files}
        try:
            yield lambda: {name: digest.result() for name, digest in digests.items()}
        finally:
            given_up.set()
            pool.shutdown(cancel_futures=True)


def _digest(path: Path, given_up: Event) -> str:
    try:
        return file_sha256(path, given_up.is_set)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.", "Mend its permissions.") from error


def fingerprint(digests: Mapping[str, str]) -> str:
    """SHA-256 over the names and contents of a dataset's files, wherever it lies on disk."""
    listed = "".join(f"{name} {digest}\n" for name, digest in digests.items())
    return hashlib.sha256(listed.encode()).hexdigest()
