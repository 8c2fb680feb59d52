"""Writes LeRobot v3.0 datasets that stay readable, complete and aligned whatever happens to the process.

Every episode has a data file and a video file per camera of its own. Committing one goes in this order:

    videos ─▶ data ─▶ tasks, subtasks, attempts ─▶ meta/episodes ─▶ stats.json, info.json
    (renamed in)      (rewritten beside, renamed)   = committed      (follow)

A process killed before `meta/episodes` leaves files that no metadata names; `resume` sweeps them. One killed after it
leaves `info.json` an episode behind, which `resume` brings up to date. Readers see whole episodes at every moment.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from blm.collect import dataset_changes as changes
from blm.collect import dataset_files as files
from blm.collect.attempts_table import Attempt, write_attempts
from blm.collect.dataset_card import write_dataset_card
from blm.collect.dataset_lock import lock_folder
from blm.collect.dataset_state import DatasetState, committed_state
from blm.collect.episode_part import EpisodePart, EpisodeWriter
from blm.collect.episode_rows import episode_row, index_columns
from blm.collect.recording import Recording
from blm.collect.statistics import column_statistics
from blm.schemas.embodiment import Embodiment
from blm.schemas.episode import ATTEMPTS_FILE, RECORDING_FILE, SUBTASK_INDEX, SUBTASKS_FILE, EpisodeMetadata
from blm.schemas.errors import DatasetError, OutputExistsError


class DatasetWriter:
    """One dataset being written; made by `create` or `resume`, ended by `close`."""

    def __init__(self, root: Path, recording: Recording) -> None:
        self.root = root
        self.recording = recording
        self._fps = recording.fps
        self._features = recording.features()
        self._state = DatasetState()
        self._lock = lock_folder(root)

    @classmethod
    def create(cls, root: Path, recording: Recording) -> Self:
        """Begin an empty dataset in `root`, which must be absent or an empty folder.

        Raises:
            OutputExistsError: there is something in `root`.
        """
        check_vacant(root)
        writer = cls(root, recording)
        files.write_json(root / RECORDING_FILE, recording.content())
        writer._write_info()
        return writer

    @classmethod
    def resume(cls, root: Path, recording: Recording) -> Self:
        """Continue the dataset in `root`: finish or sweep what was interrupted, bring the metadata up to date.

        Raises:
            DatasetError: no dataset there, or one of another robot, or with other features; names the difference.
            OutputExistsError: another process is writing it.
        """
        if not (root / RECORDING_FILE).is_file():
            raise DatasetError(
                f"{root} holds no dataset recorded by blm.", "Leave --resume away to start one."
            )
        writer = cls(root, recording)
        try:
            recording.check_continues(root)
            changes.make_noted_change(root)
            writer._take_up()
        except BaseException:
            writer._release()
            raise
        return writer

    @property
    def embodiment(self) -> Embodiment:
        return self.recording.embodiment

    @property
    def episodes(self) -> int:
        """Committed so far."""
        return self._state.episodes

    @property
    def frames(self) -> int:
        return self._state.frames

    @property
    def attempts(self) -> list[Attempt]:
        return self._state.attempts

    def begin_episode(self, name: str = "episode") -> EpisodeWriter:
        """Start an episode in the staging folder; `name` keeps several at once apart."""
        return EpisodeWriter(self.root / files.STAGING_FOLDER / name, self.recording)

    def commit(self, part: EpisodePart, metadata: EpisodeMetadata, attempt: Attempt | None = None) -> int:
        """Add a finished episode and, with it, the attempt that led to it; returns its index.

        Raises:
            DatasetError: a video is missing, the part's columns do not fit the dataset's features, or an earlier
                change was interrupted by an error.
        """
        changes.check_no_change_waits(self.root)
        state, episode = self._state, self.episodes
        columns = self._columns(part, metadata.instruction)
        for key, path in part.videos.items():
            _move(path, files.video_file(self.root, key, episode))
        files.write_parquet(files.data_file(self.root, episode), files.data_table(columns))
        if attempt is not None:
            self.log_attempt(dataclasses.replace(attempt, kept=True, episode_index=episode))
        statistics = column_statistics(columns) | dict(part.image_statistics)
        self._append_episode(
            episode_row(part, metadata, statistics, fps=self._fps, episode=episode, first=self.frames)
        )
        state.statistics.add(columns, statistics)
        state.episodes += 1
        state.frames += part.frames
        self._write_summary()
        return episode

    def log_attempt(self, attempt: Attempt) -> None:
        """Note an attempt in `meta/attempts.parquet`."""
        self.attempts.append(attempt)
        self._write_attempts()

    def discard_last(self) -> int:
        """Take the last episode out again, as if its attempt had not been kept; returns the index it had.

        Killed at any moment, `resume` finds a whole dataset with it or without it.

        Raises:
            DatasetError: there is no episode.
        """
        return self._change_last(None, "discard")

    def relabel_last(self, success: bool) -> int:
        """Change whether the last episode counts as a success; returns its index.

        Killed at any moment, `resume` finds the episode marked as it was or as it shall be, in all places.

        Raises:
            DatasetError: there is no episode.
        """
        return self._change_last(success, "mark")

    def _change_last(self, success: bool | None, verb: str) -> int:
        if not self.episodes:
            raise DatasetError(f"{self.root} holds no episode to {verb}.")
        changes.check_no_change_waits(self.root)
        change = changes.Change(self.episodes - 1, success)
        changes.note_change(self.root, change)
        changes.make_noted_change(self.root)
        self._take_up()
        return change.episode

    def _take_up(self) -> None:
        """Go on from what is committed, and remove what is not."""
        self._state = committed_state(self.root, self._features)
        self._sweep()
        changes.forget_change(self.root)

    def close(self) -> None:
        """Write the final statistics and the data card, and let go of the dataset; harmless when called twice.

        A dataset without a single attempt is removed: nobody could read it, and it would be in the way.
        """
        if self._lock.closed:
            return
        unfinished = (self.root / changes.UNFINISHED_FILE).exists()
        try:
            if self.episodes and not unfinished:
                self._write_summary(refresh=True)
                write_dataset_card(self.root)
        finally:
            self._release()
        if not (self.episodes or self.attempts or unfinished):
            shutil.rmtree(self.root / "meta")
            if not any(self.root.iterdir()):
                self.root.rmdir()

    def _release(self) -> None:
        shutil.rmtree(self.root / files.STAGING_FOLDER, ignore_errors=True)
        (self.root / files.LOCK_FILE).unlink(missing_ok=True)
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
        task = self._number(files.TASKS_FILE, self._state.tasks, [instruction])[0]
        subtasks = self._number(SUBTASKS_FILE, self._state.subtasks, part.subtasks)
        columns = dict(part.columns)
        columns[SUBTASK_INDEX] = np.array(subtasks, dtype=np.int64)[part.columns[SUBTASK_INDEX]]
        return columns | index_columns(part.frames, self._fps, self.episodes, self.frames, task)

    def _number(self, name: str, known: list[str], wanted: tuple[str, ...] | list[str]) -> list[int]:
        """Numbers of names in a table on disk, which grows by those that are new."""
        new = [value for value in wanted if value not in known]
        if new:
            known.extend(new)
            column, index = ("task", "task") if name == files.TASKS_FILE else ("subtask", None)
            files.write_parquet(self.root / name, files.names_table(column, known, index))
        return [known.index(value) for value in wanted]

    def _append_episode(self, row: pa.Table) -> None:
        """Write the row's group of episodes with it at the end: the moment at which the episode is committed."""
        group, place = divmod(self.episodes, files.EPISODES_PER_FILE)
        there = self._state.group
        table = row if place == 0 or there is None else pa.concat_tables([there, row])
        self._state.group = table.combine_chunks()
        files.write_parquet(files.episodes_file(self.root, group), self._state.group)

    def _write_summary(self, refresh: bool = False) -> None:
        statistics = files.json_statistics(self._state.statistics.result(refresh))
        files.write_json(self.root / files.STATISTICS_FILE, statistics, indent=None)
        self._write_info()

    def _write_attempts(self) -> None:
        write_attempts(self.root / ATTEMPTS_FILE, self.attempts)

    def _write_info(self) -> None:
        files.write_json(
            self.root / files.INFO_FILE,
            {
                "codebase_version": files.CODEBASE_VERSION,
                "fps": self._fps,
                "features": self._features,
                "total_episodes": self.episodes,
                "total_frames": self.frames,
                "total_tasks": len(self._state.tasks),
                "chunks_size": files.CHUNK_FILES,
                "data_files_size_in_mb": 100,
                "video_files_size_in_mb": 200,
                "data_path": files.DATA_PATH,
                "video_path": files.VIDEO_PATH,
                "robot_type": self.embodiment.name,
                "splits": {"train": f"0:{self.episodes}"},
            },
        )

    def _sweep(self) -> None:
        """Remove what an unfinished episode left, and write the metadata that follows from the committed rows."""
        shutil.rmtree(self.root / files.STAGING_FOLDER, ignore_errors=True)
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


def check_vacant(root: Path) -> None:
    """Raise OutputExistsError where a new dataset cannot begin."""
    if root.exists() and not root.is_dir():
        raise OutputExistsError(f"{root} is a file.", "Choose another --output.")
    if root.exists() and not _is_vacant(root):
        raise OutputExistsError(
            f"{root} exists already.",
            "Choose another --output, or add --resume to continue this dataset.",
        )


def _is_vacant(root: Path) -> bool:
    """Whether `root` is an empty folder, or holds only what a recording killed in its first moment left."""
    if not root.is_dir():
        return False
    left = {files.LOCK_FILE, f"{RECORDING_FILE}.tmp"}
    return all(str(path.relative_to(root)) in left for path in root.rglob("*") if not path.is_dir())


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(path, target)
