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
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from blm.curate.episodes.boundaries import check_places
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.facts import episode_facts
from blm.curate.episodes.features import infer_features
from blm.curate.episodes.frame_batches import read_batches
from blm.curate.episodes.frames import Columns, Frames, no_frames
from blm.curate.episodes.lerobot_files import (
    CameraStream,
    check_announced,
    file_digests,
    fingerprint,
    read_episode_metadata,
    read_info,
    read_subtasks,
)
from blm.curate.episodes.object_starts import OBJECT_STARTS, object_starts
from blm.curate.episodes.recorded_episodes import located_episodes, recorded_episodes, rows_of_data_files
from blm.curate.episodes.resources import DEFAULT_RESOURCES, Resources
from blm.curate.shards import safe_key
from blm.schemas.embodiment import Embodiment
from blm.schemas.errors import ConfigError

_LONGEST_NAME = 60


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
    with file_digests(root, resources.threads) as all_digests, resources.connect(threads=1) as connection:
        meta = read_episode_metadata(root, info, connection)
        check_announced(root, info, meta)
        subtasks = read_subtasks(root, connection)
        features = infer_features(source, info, meta, cameras, resources)
        embodiment, columns, streams = features.embodiment, features.columns, features.cameras
        located = located_episodes(root, info, meta)

        @cache
        def recorded() -> pa.Table:
            return recorded_episodes(located, root, info, streams, source, embodiment)

        def facts(frames: Frames) -> pa.Table:
            return episode_facts(frames, embodiment, rate_hz, idle_speed)

        def facts_of(batches: Iterator[Frames]) -> pa.Table:
            recorded()  # while the first batches are read
            return pa.concat_tables([*map(facts, batches)] or [facts(no_frames(columns))])

        most_rows = rows_of_data_files(located)
        found, unreadable = read_batches(most_rows, columns, resources, facts_of, connection)
        told = _with_unreadable(recorded(), unreadable)
        files = _readable_files(told)
        starts = object_starts(resources, files, info, located) if with_object_starts else {}
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
        episodes=_episodes(name, rate_hz, told, found, starts),
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


def _with_unreadable(recorded: pa.Table, unreadable: Mapping[str, str]) -> pa.Table:
    """Also of episodes whose file turned out not to be readable, with why."""
    files, told = recorded["data_file"].to_pylist(), recorded["unreadable"].to_pylist()
    whys = [why or unreadable.get(file) for file, why in zip(files, told, strict=True)]
    return _with(recorded, "unreadable", pa.array(whys, pa.string()))


def _readable_files(recorded: pa.Table) -> list[str]:
    return sorted(recorded.filter(recorded["unreadable"].is_null())["data_file"].unique().to_pylist())


def _episodes(
    name: str,
    rate_hz: float,
    recorded: pa.Table,
    facts: pa.Table,
    starts: Mapping[int, list[dict[str, Any]]],
) -> pa.Table:
    starts_of = [starts.get(episode) for episode in recorded["episode"].to_pylist()]
    episodes = (
        recorded.append_column("dataset", pa.repeat(pa.scalar(name), len(recorded)))
        .append_column("rate_hz", pa.repeat(pa.scalar(rate_hz), len(recorded)))
        .append_column("object_starts", pa.array(starts_of, OBJECT_STARTS))
    )
    return _with_success_of_frames(_joined(episodes, facts))


def _joined(told: pa.Table, facts: pa.Table) -> pa.Table:
    """What the metadata tell, with the facts of the same episode: null where there are none, but no rows are 0 rows."""
    place_of = {episode: place for place, episode in enumerate(facts["episode"].to_pylist())}
    places = [place_of.get(episode) for episode in told["episode"].to_pylist()]
    of_episode = facts.drop_columns("episode").take(pa.array(places, pa.int64()))
    for name in of_episode.column_names:
        told = told.append_column(name, of_episode[name])
    return _filled(_filled(told, "rows", 0), "contiguous", False)


def _filled(table: pa.Table, name: str, absent: int | bool) -> pa.Table:
    return _with(table, name, table[name].fill_null(absent))


def _with(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    """With another column in the place of the one of that name."""
    return table.set_column(table.column_names.index(name), name, column)


def _with_success_of_frames(episodes: pa.Table) -> pa.Table:
    """Where the metadata do not say how an episode ended, its frames may."""
    by_frames = {True: "yes", False: "no", None: "unknown"}
    success = [
        by_frames[ended_well] if known == "unknown" else known
        for known, ended_well in zip(
            episodes["success"].to_pylist(), episodes["ended_well"].to_pylist(), strict=True
        )
    ]
    return _with(episodes, "success", pa.array(success, pa.string()))
