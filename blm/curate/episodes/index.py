"""Index a LeRobot v3 dataset: one Arrow row per episode, with what our own columns or the dataset itself tell.

Works on datasets recorded by blm (whose `meta/episodes` hold `blm/…` columns) and on stock ones: there the embodiment
comes from the axis names or from the dataset itself, the task from the wording of the instruction, and success from
`next.success`, or is 'unknown'.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from blm.curate.episodes.boundaries import (
    MAX_EPISODE_FRAMES,
    MAX_NAME_LENGTH,
    check_places,
)
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.facts import episode_facts
from blm.curate.episodes.features import infer_features
from blm.curate.episodes.footers import most_rows_of_files
from blm.curate.episodes.frame_batches import read_batches
from blm.curate.episodes.frames import Columns, Frames, no_frames
from blm.curate.episodes.instructions import (
    MAX_INSTRUCTION_CHARACTERS,
    contradictions,
    normalised_instruction,
    task_name,
    task_of_instruction,
)
from blm.curate.episodes.lerobot_files import (
    CameraStream,
    check_announced,
    file_digests,
    file_of_episode,
    fingerprint,
    read_episode_metadata,
    read_info,
    read_subtasks,
)
from blm.curate.episodes.object_starts import OBJECT_STARTS, object_starts
from blm.curate.episodes.resources import DEFAULT_RESOURCES, Resources
from blm.curate.shards import safe_key
from blm.schemas.embodiment import Embodiment
from blm.schemas.episode import (
    EPISODE_METADATA_PREFIX,
)
from blm.schemas.errors import ConfigError, DatasetError
from blm.schemas.printable import plain_text

_LONGEST_VIDEO_S = 1e7
_LONGEST_NAME = 60

_RECORDED_FACTS = ("embodiment", "task", "seed", "operator", "success")
"""Those of `EpisodeMetadata` that the index takes over where a dataset has them."""


@dataclass(frozen=True)
class DatasetIndex:
    """One dataset, ready to be checked and read.

    `episodes` has a row per episode: `dataset`, `episode`, `embodiment`, `task`, `instruction` (normalised),
    `recorded_instruction`, `instructions` (how many it carries), `contradictions` (see `instructions.py`), `success`
    ('yes', 'no' or 'unknown'), `seed`, `operator`, `rate_hz`, `length` (as the metadata say), `data_file`,
    `unreadable` (why the data file is, else null), `missing_videos`, `video_frames` (of the camera that differs most
    from `length`), the columns of `episode_facts`, `object_starts` (null unless asked for and recorded), and per
    camera `video/<name>` {file, from_s}, the data file where its pictures lie in that.
    """

    name: str
    path: Path
    fingerprint: str
    embodiment: Embodiment
    rate_hz: float
    """As recorded."""
    frame_stride: int
    """One of every so many frames goes into the build."""
    cameras: tuple[CameraStream, ...]
    columns: Columns
    subtasks: tuple[str, ...]
    episodes: pa.Table
    digests: Mapping[str, str]
    """SHA-256 of each file, by its path within the dataset."""

    @property
    def packed_rate_hz(self) -> float:
        """The nearest number to what the written rate makes, so that 59.94 / 3 is 19.98."""
        return float(Fraction(str(self.rate_hz)) / self.frame_stride)

    def digest(self, file: str) -> str:
        """SHA-256 of a file of the dataset; '' where there is none."""
        return self.digests.get(Path(file).relative_to(self.path).as_posix(), "")


def index_dataset(
    source: DatasetSource,
    name: str,
    idle_speed: float,
    cameras: Sequence[str] | None = None,
    *,
    with_object_starts: bool = False,
    resources: Resources = DEFAULT_RESOURCES,
    follow_links: bool = False,
) -> DatasetIndex:
    """Read a dataset's metadata and low-dimensional frames, and where objects start if that is asked for.

    Links may lead out of the dataset if `follow_links`.

    Raises:
        DatasetError: the dataset as a whole cannot be used; names the file and the remedy.
        UnknownNameError: the source names an embodiment that does not exist.
    """
    root = source.path
    check_places(root, follow_links)
    info = read_info(root)
    rate_hz = float(info["fps"])
    with resources.connect(threads=1) as connection:
        meta = read_episode_metadata(root, info, connection)
        check_announced(root, info, meta)
        subtasks = read_subtasks(root, connection)
        features = infer_features(source, info, meta, cameras, resources)
        embodiment, columns, streams = features.embodiment, features.columns, features.cameras
        with file_digests(root, resources.threads) as all_digests:
            rows = [_episode_row(row, root, info, streams, source, embodiment) for row in meta.to_pylist()]
            facts, unreadable = _all_facts(rows, columns, embodiment, rate_hz, idle_speed, resources)
            if with_object_starts:
                _add_object_starts(rows, unreadable, info, meta, connection)
            episodes = _episode_table(name, rows, facts, unreadable, rate_hz, streams)
            digests = all_digests()
    return DatasetIndex(
        name=name,
        path=root,
        fingerprint=fingerprint(digests),
        embodiment=embodiment,
        rate_hz=rate_hz,
        frame_stride=source.frame_stride or 1,
        cameras=streams,
        columns=columns,
        subtasks=subtasks,
        episodes=episodes,
        digests=digests,
    )


def dataset_names(sources: Sequence[DatasetSource]) -> list[str]:
    """A name per source: as given, else its folder's, with folders above put in front where names would repeat.

    Raises:
        ConfigError: two sources are the same folder, or carry the same name.
    """
    paths = [os.path.realpath(source.path) for source in sources]
    if len(set(paths)) != len(paths):
        repeated = next(path for path in paths if paths.count(path) > 1)
        raise ConfigError(f"dataset {repeated} is listed twice.", "List each dataset once.")
    names = [_name_of_depth(source, 1) for source in sources]
    for depth in range(2, 6):
        names = [
            _name_of_depth(source, depth) if names.count(name) > 1 else name
            for source, name in zip(sources, names, strict=True)
        ]
    if long := [name for name in names if len(name) > _LONGEST_NAME]:
        raise ConfigError(
            f"'{long[0]}' is longer than the {_LONGEST_NAME} characters that a dataset's name may have.",
            "Give it a shorter one where it is listed: `{path: …, name: …}`.",
        )
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"two datasets are called '{repeated}'.", "Give each a name of its own.")
    return names


def _name_of_depth(source: DatasetSource, depth: int) -> str:
    """From the path as it is given: a link's own name says more than that of the folder it leads to."""
    path = Path(os.path.abspath(source.path))
    parts = [part for part in path.parts if part != path.anchor]
    return safe_key(source.name or "-".join(parts[-depth:]))


def _episode_row(
    row: dict[str, Any],
    root: Path,
    info: dict[str, Any],
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
        "length": _length(row["length"]),
        **_data_file(root, info, row),
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


def _data_file(root: Path, info: dict[str, Any], row: dict[str, Any]) -> dict[str, str]:
    """`data_file`, or why there is none."""
    try:
        return {"data_file": file_of_episode(root, info["data_path"], row, "data")}
    except DatasetError as error:
        return {"data_file": "", "unreadable": error.message}


def _video_file(root: Path, info: dict[str, Any], row: dict[str, Any], stream: CameraStream) -> str | None:
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


def _all_facts(
    rows: list[dict[str, Any]],
    columns: Columns,
    embodiment: Embodiment,
    rate_hz: float,
    idle_speed: float,
    resources: Resources,
) -> tuple[pa.Table, dict[str, str]]:
    """Facts of every episode that can be read, in one table; and the files that cannot, with why."""

    def facts(frames: Frames) -> pa.Table:
        return episode_facts(frames, embodiment, rate_hz, idle_speed)

    def facts_of(batches: Iterator[Frames]) -> pa.Table:
        return pa.concat_tables([*map(facts, batches)] or [facts(no_frames(columns))])

    most_rows = most_rows_of_files((row["data_file"] for row in rows), (row["length"] for row in rows))
    return read_batches(most_rows, columns, resources, facts_of)


def _add_object_starts(
    rows: list[dict[str, Any]],
    unreadable: Mapping[str, str],
    info: dict[str, Any],
    meta: pa.Table,
    connection: duckdb.DuckDBPyConnection,
) -> None:
    files = {row["data_file"] for row in rows} - set(unreadable) - {""}
    starts = object_starts(connection, sorted(files), info, meta.to_pylist())
    for row in rows:
        row["object_starts"] = starts.get(row["episode"])


def _episode_table(
    name: str,
    rows: list[dict[str, Any]],
    facts: pa.Table,
    unreadable: Mapping[str, str],
    rate_hz: float,
    streams: Sequence[CameraStream],
) -> pa.Table:
    video = pa.struct([("file", pa.string()), ("from_s", pa.float64())])
    strings = ("dataset", "embodiment", "task", "instruction", "recorded_instruction", "success", "operator")
    fields: list[tuple[str, pa.DataType]] = [
        *((key, pa.string()) for key in strings),
        *((key, pa.int64()) for key in ("episode", "instructions", "seed", "length", "video_frames")),
        ("rate_hz", pa.float64()),
        *((key, pa.string()) for key in ("data_file", "unreadable")),
        *((key, pa.list_(pa.string())) for key in ("contradictions", "missing_videos")),
        ("object_starts", OBJECT_STARTS),
        *((f"video/{stream.name}", video) for stream in streams),
    ]
    for row in rows:
        row |= {"dataset": name, "rate_hz": rate_hz}
        row.setdefault("unreadable", unreadable.get(row["data_file"]))
    told = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    return _with_success_of_frames(_joined(told, facts))


def _joined(told: pa.Table, facts: pa.Table) -> pa.Table:
    """What the metadata tell, with the facts of the same episode: null where there are none, but no rows are 0 rows."""
    place_of = {episode: place for place, episode in enumerate(facts["episode"].to_pylist())}
    places = [place_of.get(episode) for episode in told["episode"].to_pylist()]
    of_episode = facts.drop_columns("episode").take(pa.array(places, pa.int64()))
    for name in of_episode.column_names:
        told = told.append_column(name, of_episode[name])
    return _filled(_filled(told, "rows", 0), "contiguous", False)


def _filled(table: pa.Table, name: str, absent: int | bool) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, name, table[name].fill_null(absent))


def _with_success_of_frames(episodes: pa.Table) -> pa.Table:
    """Where the metadata do not say how an episode ended, its frames may."""
    by_frames = {True: "yes", False: "no", None: "unknown"}
    success = [
        by_frames[ended_well] if known == "unknown" else known
        for known, ended_well in zip(
            episodes["success"].to_pylist(), episodes["ended_well"].to_pylist(), strict=True
        )
    ]
    place = episodes.column_names.index("success")
    return episodes.set_column(place, "success", pa.array(success, pa.string()))
