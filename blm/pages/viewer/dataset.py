"""What the viewer knows about a LeRobot v3 dataset: its features, and one row of facts per episode.

Datasets of any origin are read; columns that only blm writes are shown where they are there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blm.pages.viewer.episode import episode_content
from blm.pages.viewer.signals import EpisodeSignals, dataset_signals
from blm.pages.viewer.source import BrokenStream, PictureStream, Stream, VideoStream, picture_ending
from blm.pages.viewer.table_pictures import TablePictures
from blm.schemas.episode import EPISODE_METADATA_PREFIX, IMAGE_PREFIX, RECORDING_FILE, SUBTASKS_FILE, SUCCESS
from blm.schemas.errors import DatasetError, UsageError

_INFO = "meta/info.json"
_SUCCESS_MOST = f"stats/{SUCCESS}/max"
_NEEDED = ("episode_index", "length", "data/chunk_index", "data/file_index")
_LINKS_OF_HUB_CACHE = "blobs"
"""The folder that files of a snapshot in the Hub's cache are links into."""


@dataclass(frozen=True)
class Camera:
    """One stream of images; `is_video` is false where they lie in the table itself."""

    key: str
    width: int
    height: int
    is_video: bool

    @property
    def name(self) -> str:
        return self.key.removeprefix(IMAGE_PREFIX)


class ViewedDataset:
    """A dataset opened for looking at; nothing but its metadata is read until an episode is asked for."""

    def __init__(
        self, root: Path, name: str | None = None, fetch: Callable[[str], object] | None = None
    ) -> None:
        """Read the metadata of the dataset in `root`; `name` is what the page calls it (default: the folder).

        Where only the metadata are there as yet, `fetch` brings a file, named by its path in the dataset, before it
        is first read; it raises DatasetError.

        Raises:
            DatasetError: no dataset there, one of another version, or metadata that cannot be read.
        """
        self.root = root
        self.name = name or root.resolve().name
        self._fetch = fetch
        self._pictures = TablePictures()
        self.info = _read_info(root)
        self.fps = float(self.info["fps"])
        self.features: dict[str, dict[str, Any]] = self.info["features"]
        self.cameras = tuple(_cameras(self.features))
        self.rows = _episode_rows(root, [camera.key for camera in self.cameras if camera.is_video])
        self._place = {int(row["episode_index"]): place for place, row in enumerate(self.rows)}

    @property
    def robot(self) -> str:
        return str(
            self.recording.get("embodiment", {}).get("name") or self.info.get("robot_type") or "unknown"
        )

    @cached_property
    def recording(self) -> dict[str, Any]:
        """What blm noted about the whole recording; empty for datasets of other origin."""
        path = self.root / RECORDING_FILE
        content = _read_json(path) if path.is_file() else {}
        return content if isinstance(content, dict) else {}

    @cached_property
    def units(self) -> dict[str, str]:
        """Unit by axis name, as far as known."""
        axes = self.recording.get("embodiment", {}).get("axes", [])
        return {axis["name"]: axis["unit"] for axis in axes if {"name", "unit"} <= axis.keys()}

    @cached_property
    def subtasks(self) -> dict[int, str]:
        """The table behind `subtask_index`; empty where there is none."""
        path = self.root / SUBTASKS_FILE
        if not path.is_file():
            return {}
        names = _read_parquet(path)
        if not {"subtask_index", "subtask"} <= set(names.column_names):
            return {}
        return dict(zip(names["subtask_index"].to_pylist(), names["subtask"].to_pylist(), strict=True))

    def numbers(self) -> list[int]:
        """The episodes, in order."""
        return list(self._place)

    def check(self, episode: int) -> None:
        """Raises UsageError as `row` does."""
        self.row(episode)

    def row(self, episode: int) -> dict[str, Any]:
        """The metadata of an episode.

        Raises:
            UsageError: no such episode; names those there are.
        """
        if episode not in self._place:
            numbers = sorted(self._place)
            there = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
            raise UsageError(
                f"episode {episode} not found; {self.root} has: {there}.", "Choose one of these."
            )
        return self.rows[self._place[episode]]

    def data_file(self, episode: int) -> Path:
        """The Parquet file with the episode's rows.

        Raises:
            UsageError: no such episode.
            DatasetError: the metadata do not say where, or point outside the dataset.
        """
        return self._file(self.row(episode), str(self.info.get("data_path")), "data")

    def video_file(self, episode: int, camera: Camera) -> Path:
        """The video file with the episode's images of a camera; raises as `data_file` does."""
        template = str(self.info.get("video_path"))
        return self._file(self.row(episode), template, f"videos/{camera.key}", video_key=camera.key)

    def video_span(self, episode: int, camera: Camera) -> tuple[float, float]:
        """From when to when the episode plays in its video file, seconds."""
        row = self.row(episode)
        begin = float(row.get(f"videos/{camera.key}/from_timestamp") or 0.0)
        end = row.get(f"videos/{camera.key}/to_timestamp")
        return begin, float(end) if end is not None else begin + int(row["length"]) / self.fps

    def content(self, episode: int) -> dict[str, Any]:
        """As `blm.pages.viewer.episode.episode_content`."""
        return episode_content(self, episode)

    def signals(self, episode: int) -> EpisodeSignals:
        """As `blm.pages.viewer.signals.dataset_signals`."""
        return dataset_signals(self, episode)

    def streams(self, episode: int) -> list[Stream]:
        """The episode's cameras, videos and single pictures alike."""
        self.row(episode)
        return [
            self._video(episode, camera) if camera.is_video else self._single_pictures(episode, camera)
            for camera in self.cameras
        ]

    def overview(self) -> dict[str, Any]:
        """What the page's heading and list of episodes are made of: plain data, one list per column."""
        ours = EPISODE_METADATA_PREFIX
        wordings = [_wording(row) for row in self.rows]
        cameras = ", ".join(camera.name for camera in self.cameras)
        frames = sum(int(row["length"]) for row in self.rows)
        return {
            "name": self.name,
            "about": f"{self.robot}, {self.fps:g} Hz, {f'cameras {cameras}' if cameras else 'no cameras'}, "
            f"{frames:,} frames",
            "episodes": {
                "index": [int(row["episode_index"]) for row in self.rows],
                "seconds": [round(int(row["length"]) / self.fps, 3) for row in self.rows],
                "instruction": wordings,
                "task": [
                    row.get(f"{ours}task") or wording
                    for row, wording in zip(self.rows, wordings, strict=True)
                ],
                "success": [_success(row) for row in self.rows],
                "operator": [row.get(f"{ours}operator") for row in self.rows],
                "seed": [_seed(row) for row in self.rows],
                "late": [row.get(f"{ours}late_ticks") for row in self.rows],
                "repeated": [row.get(f"{ours}repeated_frames") for row in self.rows],
            },
        }

    def _video(self, episode: int, camera: Camera) -> VideoStream:
        begin, end = self.video_span(episode, camera)
        shared = self._episodes_per_video[_video_place(self.row(episode), camera)] > 1
        return VideoStream(camera.name, begin, end, shared, partial(self.video_file, episode, camera))

    @cached_property
    def _episodes_per_video(self) -> Counter[tuple[Any, ...]]:
        return Counter(
            _video_place(row, camera) for row in self.rows for camera in self.cameras if camera.is_video
        )

    def _single_pictures(self, episode: int, camera: Camera) -> PictureStream | BrokenStream:
        def picture(frame: int) -> bytes:
            return self._pictures.picture(self.data_file(episode), camera.key, episode, frame)

        try:
            ending = picture_ending(picture(0), f"{camera.key} of episode {episode}")
        except DatasetError as error:
            return BrokenStream(camera.name, str(error))
        return PictureStream(camera.name, int(self.row(episode)["length"]), ending, picture)

    def _file(self, row: dict[str, Any], template: str, prefix: str, **more: str) -> Path:
        try:
            chunk, file = int(row[f"{prefix}/chunk_index"]), int(row[f"{prefix}/file_index"])
            path = self.root / template.format(chunk_index=chunk, file_index=file, **more)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise DatasetError(
                f"{self.root}: episode {row['episode_index']} does not say in which file it lies ({error}).",
                "Restore meta/episodes and meta/info.json.",
            ) from error
        if not self._is_inside(path):
            raise DatasetError(
                f"{self.root}: meta/info.json points outside the dataset, to {path}.", "Mend the file."
            )
        if not path.is_file() and self._fetch is not None:
            self._fetch(path.relative_to(self.root).as_posix())
        if not path.is_file():
            raise DatasetError(f"{path} is missing.", "Restore it; `blm doctor` finds everything that is.")
        return path

    def _is_inside(self, path: Path) -> bool:
        """Whether the file lies in the dataset, or in the blobs that a snapshot of the Hub's cache links to."""
        root = self.root.resolve()
        if ".." in path.relative_to(self.root).parts if path.is_relative_to(self.root) else True:
            return False
        place = path.resolve()
        in_cache = root.parent.name == "snapshots"
        return place.is_relative_to(root) or (
            in_cache and place.parent == root.parent.parent / _LINKS_OF_HUB_CACHE
        )


def _video_place(row: dict[str, Any], camera: Camera) -> tuple[Any, ...]:
    return camera.key, row.get(f"videos/{camera.key}/chunk_index"), row.get(f"videos/{camera.key}/file_index")


def _read_info(root: Path) -> dict[str, Any]:
    path = root / _INFO
    if not path.is_file():
        below = sorted(str(found.parents[1]) for found in root.glob(f"*/{_INFO}")) if root.is_dir() else []
        raise DatasetError(
            f"{root} holds no LeRobot dataset"
            + (f", but folders that do: {', '.join(below)}." if below else "."),
            "Name one of them." if below else f"A dataset has a file {_INFO}.",
        )
    info = _read_json(path)
    missing = [key for key in ("fps", "features", "codebase_version") if key not in info]
    if missing or not isinstance(info["features"], dict) or not float(info["fps"] or 0) > 0:
        raise DatasetError(
            f"{path} lacks {', '.join(missing) or 'usable fps or features'}.", "Restore the file."
        )
    if not str(info["codebase_version"]).startswith("v3"):
        raise DatasetError(
            f"{root} is a LeRobot dataset of version {info['codebase_version']}; the viewer reads v3.",
            "Convert it with: python -m lerobot.scripts.convert_dataset_v21_to_v30",
        )
    return info


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is not readable: {error}.", "Restore it from a copy.") from error


def _read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=list(columns) if columns is not None else None)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not readable: {error}", "Restore it from a copy.") from error


def _cameras(features: dict[str, dict[str, Any]]) -> Iterable[Camera]:
    for key, feature in features.items():
        if feature.get("dtype") in ("video", "image"):
            height, width = (int(side) for side in feature["shape"][:2])
            if (feature.get("names") or [""])[0] in ("channels", "channel"):
                height, width = (int(side) for side in feature["shape"][1:])
            yield Camera(key, width, height, feature["dtype"] == "video")


def _episode_rows(root: Path, videos: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of `meta/episodes` in order, without their statistics (but for success)."""
    rows: list[dict[str, Any]] = []
    for path in sorted(root.glob("meta/episodes/*/*.parquet")):
        rows += _read_parquet(path, _columns(path, videos)).to_pylist()
    return sorted(rows, key=lambda row: row["episode_index"])


def _columns(path: Path, videos: Sequence[str]) -> list[str]:
    try:
        there = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not readable: {error}", "Restore it from a copy.") from error
    if missing := [name for name in _NEEDED if name not in there]:
        raise DatasetError(f"{path} has no column '{missing[0]}'.", "Restore it from a copy.")
    wanted = ("tasks", _SUCCESS_MOST, *_NEEDED)
    prefixes = (EPISODE_METADATA_PREFIX, *(f"videos/{key}/" for key in videos))
    return [name for name in there if name in wanted or name.startswith(prefixes)]


def _wording(row: dict[str, Any]) -> str:
    tasks = row.get("tasks")
    return str(row.get(f"{EPISODE_METADATA_PREFIX}instruction") or (tasks[0] if tasks else ""))


def _success(row: dict[str, Any]) -> bool | None:
    """As blm noted it, else whether `next.success` was ever true; None if nobody says."""
    stated = row.get(f"{EPISODE_METADATA_PREFIX}success")
    if stated is not None:
        return bool(stated)
    most = row.get(_SUCCESS_MOST)
    while isinstance(most, list):
        most = most[0] if most else None
    return None if most is None else bool(most)


def _seed(row: dict[str, Any]) -> int | None:
    """None on hardware, where scenes have no seed."""
    seed = row.get(f"{EPISODE_METADATA_PREFIX}seed")
    return None if seed is None or seed < 0 else int(seed)
