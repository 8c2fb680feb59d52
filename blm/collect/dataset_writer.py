"""Writes LeRobot v3.0 datasets that stay readable, complete and aligned whatever happens to the process.

Every episode has a data file and a video file per camera of its own. Committing one goes in this order:

    videos ─▶ data ─▶ tasks, subtasks, attempts ─▶ meta/episodes ─▶ stats.json, info.json
    (renamed in)      (rewritten beside, renamed)   = committed      (follow)

A process killed before `meta/episodes` leaves files that no metadata names; `resume` sweeps them. One killed after it
leaves `info.json` an episode behind, which `resume` brings up to date. Readers see whole episodes at every moment.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blm import __version__
from blm.collect import dataset_files as files
from blm.collect.attempts_table import Attempt, read_attempts, write_attempts
from blm.collect.dataset_card import write_dataset_card
from blm.collect.episode_part import EpisodePart, EpisodeWriter, judged, whole_rate
from blm.collect.statistics import DatasetStatistics, Statistics, column_statistics
from blm.collect.video import VideoConfig
from blm.schemas.embodiment import Embodiment
from blm.schemas.episode import (
    ATTEMPTS_FILE,
    EPISODE_METADATA_PREFIX,
    RECORDING_FILE,
    SUBTASK_INDEX,
    SUBTASKS_FILE,
    SUCCESS,
    EpisodeMetadata,
    episode_features,
)
from blm.schemas.errors import DatasetError, OutputExistsError

RECORDING_VERSION = 2
"""1: two object slots, no contacts of the gripper. Readers take both; a recording is continued as it was begun."""
STAGING_FOLDER = ".staging"
LOCK_FILE = ".lock"


class DatasetWriter:
    """One dataset being written; made by `create` or `resume`, ended by `close`."""

    def __init__(
        self, root: Path, embodiment: Embodiment, simulated: bool, video: VideoConfig, variety: str
    ) -> None:
        self.root = root
        self.embodiment = embodiment
        self.simulated = simulated
        self.video = video
        self.variety = variety
        self.fps = whole_rate(embodiment)
        self.episodes = 0
        self.frames = 0
        self.attempts: list[Attempt] = []
        self._features = _features(embodiment, simulated, video, self.fps)
        self._tasks: list[str] = []
        self._subtasks: list[str] = []
        self._group: pa.Table | None = None
        self._statistics = DatasetStatistics()
        self._lock = lock_folder(root)

    @classmethod
    def create(
        cls,
        root: Path,
        embodiment: Embodiment,
        *,
        simulated: bool = True,
        video: VideoConfig | None = None,
        variety: str = "none",
    ) -> Self:
        """Begin an empty dataset in `root`, which must be absent or an empty folder.

        Raises:
            OutputExistsError: there is something in `root`.
        """
        if root.exists() and not _is_vacant(root):
            raise OutputExistsError(
                f"{root} exists already.",
                "Choose another --output, or add --resume to continue this dataset.",
            )
        writer = cls(root, embodiment, simulated, video or VideoConfig(), variety)
        files.write_json(root / RECORDING_FILE, writer._recording())
        writer._write_info()
        return writer

    @classmethod
    def resume(
        cls,
        root: Path,
        embodiment: Embodiment,
        *,
        simulated: bool = True,
        video: VideoConfig | None = None,
        variety: str = "none",
    ) -> Self:
        """Continue the dataset in `root`: sweep what an unfinished episode left, bring the metadata up to date.

        Raises:
            DatasetError: no dataset there, or one of another robot, or with other features; names the difference.
            OutputExistsError: another process is writing it.
        """
        if not (root / RECORDING_FILE).is_file():
            raise DatasetError(
                f"{root} holds no dataset recorded by blm.", "Leave --resume away to start one."
            )
        writer = cls(root, embodiment, simulated, video or VideoConfig(), variety)
        try:
            writer._check_same_recording()
            writer._load()
            writer._sweep()
        except BaseException:
            writer._release()
            raise
        return writer

    def begin_episode(self, name: str = "episode") -> EpisodeWriter:
        """Start an episode in the staging folder; `name` keeps several at once apart."""
        return EpisodeWriter(self.root / STAGING_FOLDER / name, self.embodiment, self.simulated, self.video)

    def commit(self, part: EpisodePart, metadata: EpisodeMetadata, attempt: Attempt | None = None) -> int:
        """Add a finished episode and, with it, the attempt that led to it; returns its index.

        Raises:
            DatasetError: a video is missing or the part's columns do not fit the dataset's features.
        """
        episode = self.episodes
        columns = self._columns(part, metadata.instruction)
        for key, path in part.videos.items():
            _move(path, files.video_file(self.root, key, episode))
        files.write_parquet(files.data_file(self.root, episode), files.data_table(columns))
        if attempt is not None:
            self.log_attempt(dataclasses.replace(attempt, kept=True, episode_index=episode))
        statistics = column_statistics(columns) | dict(part.image_statistics)
        self._append_episode(self._episode_row(part, metadata, statistics))
        self._statistics.add(columns, statistics)
        self.episodes += 1
        self.frames += part.frames
        self._write_summary()
        return episode

    def log_attempt(self, attempt: Attempt) -> None:
        """Note an attempt in `meta/attempts.parquet`."""
        self.attempts.append(attempt)
        self._write_attempts()

    def discard_last(self) -> int:
        """Take the last episode out again, as if its attempt had not been kept; returns the index it had.

        The summary forgets it first, `meta/episodes` next, and then its files go: killed in between, `resume` finds
        a whole dataset with it or without it.

        Raises:
            DatasetError: there is no episode.
        """
        if not self.episodes:
            raise DatasetError(f"{self.root} holds no episode to discard.")
        last = self.episodes - 1
        group, place = divmod(last, files.EPISODES_PER_FILE)
        rows = pq.read_table(files.episodes_file(self.root, group))
        self.episodes, self.frames = last, rows["dataset_from_index"][place].as_py()
        self._write_info()
        if place:
            files.write_parquet(files.episodes_file(self.root, group), rows.slice(0, place).combine_chunks())
        else:
            files.episodes_file(self.root, group).unlink()
        attempts = [
            dataclasses.replace(attempt, kept=False, episode_index=-1)
            if attempt.episode_index == last
            else attempt
            for attempt in self.attempts
        ]
        self._take_up(attempts)
        return last

    def relabel_last(self, success: bool) -> int:
        """Change whether the last episode counts as a success; returns its index.

        Raises:
            DatasetError: there is no episode.
        """
        if not self.episodes:
            raise DatasetError(f"{self.root} holds no episode to mark.")
        last = self.episodes - 1
        group, place = divmod(last, files.EPISODES_PER_FILE)
        path = files.data_file(self.root, last)
        columns = judged(files.read_columns(path), success)
        files.write_parquet(path, files.data_table(columns))
        statistics = files.statistics_columns(
            {SUCCESS: column_statistics({SUCCESS: columns[SUCCESS]})[SUCCESS]}
        )
        table = pq.read_table(files.episodes_file(self.root, group))
        changes = {EPISODE_METADATA_PREFIX + "success": pa.array([success])} | statistics
        table = pa.concat_tables([table.slice(0, place), _with_columns(table.slice(place), changes)])
        files.write_parquet(files.episodes_file(self.root, group), table.combine_chunks())
        attempts = [
            dataclasses.replace(attempt, success=success) if attempt.episode_index == last else attempt
            for attempt in self.attempts
        ]
        self._take_up(attempts)
        return last

    def _take_up(self, attempts: list[Attempt]) -> None:
        """Read again what is committed, and note the attempts as they are seen now."""
        self.episodes = self.frames = 0
        self._group, self._statistics = None, DatasetStatistics()
        for names in (self._tasks, self._subtasks, self.attempts):
            names.clear()
        self._load()
        self.attempts = attempts
        self._sweep()

    def close(self) -> None:
        """Write the final statistics and the data card, and let go of the dataset; harmless when called twice.

        A dataset without a single attempt is removed: nobody could read it, and it would be in the way.
        """
        if self._lock.closed:
            return
        try:
            if self.episodes:
                self._write_summary(refresh=True)
                write_dataset_card(self.root)
        finally:
            self._release()
        if not self.episodes and not self.attempts:
            shutil.rmtree(self.root / "meta")
            if not any(self.root.iterdir()):
                self.root.rmdir()

    def _release(self) -> None:
        shutil.rmtree(self.root / STAGING_FOLDER, ignore_errors=True)
        (self.root / LOCK_FILE).unlink(missing_ok=True)
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _columns(self, part: EpisodePart, instruction: str) -> dict[str, np.ndarray]:
        """The part's columns with this dataset's subtask numbers, and LeRobot's index columns."""
        expected = {key for key, feature in self._features.items() if feature["dtype"] != "video"}
        if set(part.columns) != expected - set(files.INDEX_FEATURES):
            raise DatasetError(
                f"the episode's columns {sorted(part.columns)} do not fit the dataset's {sorted(expected)}."
            )
        count = part.frames
        task = self._number(files.TASKS_FILE, self._tasks, [instruction])[0]
        subtasks = self._number(SUBTASKS_FILE, self._subtasks, part.subtasks)
        columns = dict(part.columns)
        columns[SUBTASK_INDEX] = np.array(subtasks, dtype=np.int64)[part.columns[SUBTASK_INDEX]]
        frame_index = np.arange(count, dtype=np.int64)
        columns["timestamp"] = (frame_index / self.fps).astype(np.float32)
        columns["frame_index"] = frame_index
        columns["episode_index"] = np.full(count, self.episodes, dtype=np.int64)
        columns["index"] = self.frames + frame_index
        columns["task_index"] = np.full(count, task, dtype=np.int64)
        return columns

    def _number(self, name: str, known: list[str], wanted: tuple[str, ...] | list[str]) -> list[int]:
        """Numbers of names in a table on disk, which grows by those that are new."""
        new = [value for value in wanted if value not in known]
        if new:
            known.extend(new)
            column, index = ("task", "task") if name == files.TASKS_FILE else ("subtask", None)
            files.write_parquet(self.root / name, files.names_table(column, known, index))
        return [known.index(value) for value in wanted]

    def _episode_row(
        self, part: EpisodePart, metadata: EpisodeMetadata, statistics: Mapping[str, Statistics]
    ) -> pa.Table:
        """One row of `meta/episodes`: LeRobot's columns, then ours."""
        chunk, file = files.chunk_and_file(self.episodes)
        group_chunk, group_file = files.chunk_and_file(self.episodes // files.EPISODES_PER_FILE)
        row: dict[str, Any] = {
            "episode_index": self.episodes,
            "tasks": [metadata.instruction],
            "length": part.frames,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + part.frames,
        }
        for key in part.videos:
            row[f"videos/{key}/chunk_index"] = chunk
            row[f"videos/{key}/file_index"] = file
            row[f"videos/{key}/from_timestamp"] = 0.0
            row[f"videos/{key}/to_timestamp"] = part.frames / self.fps
        row |= {EPISODE_METADATA_PREFIX + name: value for name, value in asdict(metadata).items()}
        row |= {"meta/episodes/chunk_index": group_chunk, "meta/episodes/file_index": group_file}
        columns = {name: pa.array([value]) for name, value in row.items()}
        columns["tasks"] = pa.array([row["tasks"]], files.list_type(1, pa.string()))
        return pa.table(columns | files.statistics_columns(statistics))

    def _append_episode(self, row: pa.Table) -> None:
        """Write the row's group of episodes with it at the end: the moment at which the episode is committed."""
        group, place = divmod(self.episodes, files.EPISODES_PER_FILE)
        table = row if place == 0 or self._group is None else pa.concat_tables([self._group, row])
        self._group = table.combine_chunks()
        files.write_parquet(files.episodes_file(self.root, group), self._group)

    def _write_summary(self, refresh: bool = False) -> None:
        statistics = files.json_statistics(self._statistics.result(refresh))
        files.write_json(self.root / files.STATISTICS_FILE, statistics, indent=None)
        self._write_info()

    def _write_attempts(self) -> None:
        write_attempts(self.root / ATTEMPTS_FILE, self.attempts)

    def _write_info(self) -> None:
        files.write_json(
            self.root / files.INFO_FILE,
            {
                "codebase_version": files.CODEBASE_VERSION,
                "fps": self.fps,
                "features": self._features,
                "total_episodes": self.episodes,
                "total_frames": self.frames,
                "total_tasks": len(self._tasks),
                "chunks_size": files.CHUNK_FILES,
                "data_files_size_in_mb": 100,
                "video_files_size_in_mb": 200,
                "data_path": files.DATA_PATH,
                "video_path": files.VIDEO_PATH,
                "robot_type": self.embodiment.name,
                "splits": {"train": f"0:{self.episodes}"},
            },
        )

    def _recording(self) -> dict[str, Any]:
        return {
            "version": RECORDING_VERSION,
            "software": __version__,
            "simulated": self.simulated,
            "variety": self.variety,
            "video": self.video.model_dump(mode="json"),
            "embodiment": self.embodiment.model_dump(mode="json"),
        }

    def _check_same_recording(self) -> None:
        path = self.root / RECORDING_FILE
        there = json.loads(path.read_text(encoding="utf-8"))
        here = json.loads(json.dumps(self._recording()))
        if there.get("version") != RECORDING_VERSION:
            raise DatasetError(
                f"{path} has version {there.get('version')}; this version of blm writes {RECORDING_VERSION}.",
                "Continue it with the version of blm that recorded it.",
            )
        differences = [
            f"{key} is {old!r} there and {new!r} here"
            for key, old, new in _differences(there, here)
            if key not in ("software", "video.queue_frames")
        ]
        if differences:
            shown = "; ".join(differences[:4]) + ("; …" if len(differences) > 4 else "")
            raise DatasetError(
                f"{self.root} was recorded differently: {shown}.",
                "Continue it with the settings it was begun with, or choose another --output.",
            )

    def _load(self) -> None:
        """Take up what is committed: the rows of `meta/episodes` count, everything else follows from them."""
        for name, column, names in (
            (files.TASKS_FILE, "task", self._tasks),
            (SUBTASKS_FILE, "subtask", self._subtasks),
        ):
            if (self.root / name).is_file():
                names.extend(pq.read_table(self.root / name)[column].to_pylist())
        group = 0
        while (path := files.episodes_file(self.root, group)).is_file():
            table = self._group = pq.read_table(path)
            for row in range(table.num_rows):
                self._load_episode(table, row)
            group += 1
        if (self.root / ATTEMPTS_FILE).is_file():
            self.attempts = _committed(read_attempts(self.root / ATTEMPTS_FILE), self.episodes)

    def _load_episode(self, table: pa.Table, row: int) -> None:
        path = files.data_file(self.root, self.episodes)
        videos = [key for key, feature in self._features.items() if feature["dtype"] == "video"]
        for needed in (path, *(files.video_file(self.root, key, self.episodes) for key in videos)):
            if not needed.is_file():
                raise DatasetError(
                    f"{needed} is missing, so episode {self.episodes} is incomplete.", "Restore the file."
                )
        columns = files.read_columns(path)
        self._statistics.add(columns, files.read_statistics(table, row, [*columns, *videos]))
        self.episodes += 1
        self.frames += len(columns["index"])

    def _sweep(self) -> None:
        """Remove what an unfinished episode left, and write the metadata that follows from the committed rows."""
        shutil.rmtree(self.root / STAGING_FOLDER, ignore_errors=True)
        for path in self.root.rglob("*.tmp"):
            path.unlink()
        for key, feature in self._features.items():
            if feature["dtype"] == "video":
                files.video_file(self.root, key, self.episodes).unlink(missing_ok=True)
        files.data_file(self.root, self.episodes).unlink(missing_ok=True)
        if self.attempts:
            self._write_attempts()
        if self.episodes:
            self._write_summary(refresh=True)
        else:
            self._write_info()


def _features(
    embodiment: Embodiment, simulated: bool, video: VideoConfig, fps: int
) -> dict[str, dict[str, Any]]:
    features = episode_features(embodiment, simulated)
    for feature in features.values():
        if feature["dtype"] == "video":
            height, width, _ = feature["shape"]
            feature["info"] = video.describe(width, height, fps)
    return features | files.INDEX_FEATURES


def _with_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The table with some of its columns replaced."""
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


def _committed(attempts: list[Attempt], episodes: int) -> list[Attempt]:
    """Attempts up to the last one whose outcome is certain: those from the first uncommitted episode on go."""
    for place, attempt in enumerate(attempts):
        if attempt.episode_index >= episodes:
            return attempts[:place]
    return attempts


def _differences(first: Any, second: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves that differ between two JSON values, with dotted keys."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = [*first, *(name for name in second if name not in first)]
        below = (_differences(first.get(k), second.get(k), f"{key}.{k}".lstrip(".")) for k in keys)
        return [difference for group in below for difference in group]
    return [] if first == second else [(key, first, second)]


def _is_vacant(root: Path) -> bool:
    """Whether `root` is an empty folder, or holds only what a recording killed in its first moment left."""
    if not root.is_dir():
        return False
    left = {LOCK_FILE, f"{RECORDING_FILE}.tmp"}
    return all(str(path.relative_to(root)) in left for path in root.rglob("*") if not path.is_dir())


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(path, target)


def lock_folder(root: Path) -> IO[bytes]:
    """Hold `root` (made if absent) for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        OutputExistsError: another process holds it.
    """
    root.mkdir(parents=True, exist_ok=True)
    stream = (root / LOCK_FILE).open("wb")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise OutputExistsError(
            f"{root} is being written by another process.", "Wait for it to end, or choose another --output."
        ) from None
    return stream
