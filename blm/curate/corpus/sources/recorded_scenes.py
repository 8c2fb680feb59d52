"""What a recorded dataset knows about each frame: its index, plus object poses, cameras, goal and tool pose."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blm.curate.corpus.projection import PinholeCamera, read_cameras
from blm.curate.corpus.questions.scene import (
    GoalPlace,
    ObjectKind,
    Scene,
    Thing,
    read_goal_shape,
    read_objects,
)
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.frames import FramesError, read_frames
from blm.curate.episodes.index import CameraStream, DatasetIndex, index_dataset
from blm.schemas.episode import EE_POSE, ENVIRONMENT_STATE, EPISODE_METADATA_PREFIX, POSE_NAMES
from blm.schemas.errors import DatasetError

_SCENE_METADATA = ("objects", "cameras", "goal")
_NO_MOTION_THRESHOLD = 0.0


class SceneError(Exception):
    """An episode that cannot be asked about: the reason, the field at fault, and what was found."""

    def __init__(self, reason: str, field: str, note: str) -> None:
        super().__init__(note)
        self.reason, self.field = reason, field


@dataclass(frozen=True)
class EpisodeScenes:
    """One episode, ready to be asked about frame by frame.

    Arrays are over its T frames: `objects` (T, slots, 7), position and quaternion (w first), and `goal` (T, 3) and
    `tool` (T, 3), metres, base frame, None where not recorded; `steps` T names; `complete` (T,) bool or None.
    """

    robot: Any
    instruction: str
    kinds: tuple[ObjectKind, ...]
    goal_shape: str | None
    camera: PinholeCamera | None
    objects: np.ndarray | None
    goal: np.ndarray | None
    tool: np.ndarray | None
    steps: tuple[str, ...]
    known_steps: tuple[str, ...]
    complete: np.ndarray | None
    succeeded: bool | None

    @property
    def length(self) -> int:
        return len(self.steps)

    @property
    def frames_complete(self) -> list[int] | None:
        """Frames at which the task's criteria held; None where this was not recorded."""
        return None if self.complete is None else np.flatnonzero(self.complete).tolist()

    @cached_property
    def runs(self) -> list[tuple[str, int]]:
        """Each primitive as often as it was carried out, in order, with its first frame."""
        starts = [t for t in range(self.length) if t == 0 or self.steps[t] != self.steps[t - 1]]
        return [(self.steps[t], t) for t in starts]

    def at(self, frame: int) -> Scene:
        """The facts of one frame."""
        things: tuple[Thing, ...] = ()
        if self.objects is not None:
            things = tuple(
                Thing(kind, pose[:3], pose[3:] if pose[3:].any() else None)
                for kind, pose in zip(self.kinds, self.objects[frame], strict=False)
            )
        goal = None
        if self.goal is not None and self.goal_shape is not None:
            goal = GoalPlace(self.goal_shape, self.goal[frame])
        now = bisect_right([start for _, start in self.runs], frame) - 1
        names = [name for name, _ in self.runs]
        return Scene(
            robot=self.robot,
            instruction=self.instruction,
            things=things,
            goal=goal,
            tool=None if self.tool is None else self.tool[frame],
            camera=self.camera,
            step=self.steps[frame],
            next_step=names[now + 1] if now + 1 < len(names) else None,
            earlier=tuple(names[:now]),
            later=tuple(names[now + 1 :]),
            steps=self.known_steps,
            complete=None if self.complete is None else bool(self.complete[frame]),
            succeeded=self.succeeded,
            last=frame == self.length - 1,
        )


@dataclass(frozen=True)
class RecordedScenes:
    """A dataset's index, the camera that images are taken from, and each episode's scene metadata."""

    index: DatasetIndex
    stream: CameraStream
    metadata: dict[int, dict[str, Any]]

    def episode(self, row: dict[str, Any]) -> EpisodeScenes:
        """One episode, from its row of the index.

        Raises:
            SceneError: its data or metadata are not readable.
        """
        path = Path(row["data_file"])
        if row["unreadable"]:
            raise SceneError("unreadable_data", "data", row["unreadable"])
        try:
            frames = read_frames(path, self.index.columns)
            span = frames.span(row["episode"])
            geometry = _read_geometry(path)
        except (FramesError, OSError, pa.ArrowException, ValueError) as error:
            raise SceneError("unreadable_data", "data", str(error)) from error
        if span.stop == span.start:
            raise SceneError("unreadable_data", "data", "the data file has no frame of it")
        names = self.index.subtasks
        steps = tuple(names[i] if 0 <= i < len(names) else "" for i in frames.subtask[span])
        kinds, camera, goal_shape = self._described(row["episode"])
        objects, goal = _placed(geometry.get(ENVIRONMENT_STATE), span, len(kinds))
        tool = geometry.get(EE_POSE)
        return EpisodeScenes(
            robot=self.index.embodiment,
            instruction=row["instruction"],
            kinds=kinds,
            goal_shape=goal_shape,
            camera=camera,
            objects=objects,
            goal=goal,
            tool=None if tool is None else tool[span, :3],
            steps=steps,
            known_steps=names,
            complete=None if frames.success is None else frames.success[span],
            succeeded={"yes": True, "no": False}.get(row["success"]),
        )

    def _described(self, episode: int) -> tuple[tuple[ObjectKind, ...], PinholeCamera | None, str | None]:
        described = self.metadata.get(episode, {})
        readers = {"objects": read_objects, "cameras": read_cameras, "goal": read_goal_shape}
        values: dict[str, Any] = {}
        for name, reader in readers.items():
            text = described.get(EPISODE_METADATA_PREFIX + name)
            try:
                values[name] = reader(text) if text else None
            except ValueError as error:
                raise SceneError("bad_metadata", EPISODE_METADATA_PREFIX + name, str(error)) from error
        camera = (values["cameras"] or {}).get(self.stream.name)
        return values["objects"] or (), camera if camera and camera.mount is None else None, values["goal"]


def open_recorded_scenes(path: Path, name: str, camera: str | None) -> RecordedScenes:
    """Index a dataset and choose the camera: the one named, else the first that stands still, else the first.

    Raises:
        DatasetError: the dataset cannot be used, has no camera, or not the one named.
    """
    cameras = None if camera is None else (camera,)
    index = index_dataset(DatasetSource(path=path), name, _NO_MOTION_THRESHOLD, cameras)
    if not index.cameras:
        raise DatasetError(f"{path} has no camera.", "Questions are asked about images.")
    metadata = _scene_metadata(path)
    fixed = [stream for stream in index.cameras if _stands_still(stream.name, metadata)]
    return RecordedScenes(index, (fixed or list(index.cameras))[0], metadata)


def _stands_still(camera: str, metadata: dict[int, dict[str, Any]]) -> bool:
    """By the first episode's description; a broken one is reported when that episode is read."""
    for described in metadata.values():
        try:
            found = read_cameras(described.get(EPISODE_METADATA_PREFIX + "cameras") or "[]").get(camera)
        except ValueError:
            continue
        return found is not None and found.mount is None
    return False


def _scene_metadata(root: Path) -> dict[int, dict[str, Any]]:
    """Objects, cameras and goal (JSON texts) by episode; empty for datasets that do not record them."""
    wanted = [EPISODE_METADATA_PREFIX + name for name in _SCENE_METADATA]
    found: dict[int, dict[str, Any]] = {}
    for path in sorted(root.glob("meta/episodes/*/*.parquet")):
        file = pq.ParquetFile(path)
        names = [name for name in wanted if name in file.schema_arrow.names]
        for row in file.read(columns=["episode_index", *names]).to_pylist():
            found[row["episode_index"]] = row
    return dict(sorted(found.items()))


@lru_cache(maxsize=4)
def _read_geometry(path: Path) -> dict[str, np.ndarray]:
    """The data file's pose vectors, (N, width) float64 by feature, ordered by episode and frame as `read_frames` is."""
    file = pq.ParquetFile(path)
    present = [name for name in (EE_POSE, ENVIRONMENT_STATE) if name in file.schema_arrow.names]
    table = file.read(columns=["episode_index", "frame_index", *present])
    order = np.lexsort((table["frame_index"].to_numpy(), table["episode_index"].to_numpy()))
    vectors = {}
    for name in present:
        flat = np.asarray(table[name].combine_chunks().flatten(), dtype=np.float64)
        vectors[name] = flat.reshape(len(table), -1)[order]
    return vectors


def _placed(
    state: np.ndarray | None, span: slice, objects: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Poses (T, objects, 7) and goal (T, 3) from `observation.environment_state` (N, 7 × slots + 3)."""
    if state is None:
        return None, None
    slots, rest = divmod(state.shape[1] - 3, len(POSE_NAMES))
    if rest or slots < objects:
        width = state.shape[1]
        raise SceneError("bad_metadata", ENVIRONMENT_STATE, f"{width} values cannot hold {objects} objects")
    if not np.isfinite(state[span]).all():
        raise SceneError("unreadable_data", ENVIRONMENT_STATE, "values that are not finite")
    poses = state[span, : slots * len(POSE_NAMES)].reshape(-1, slots, len(POSE_NAMES))
    return poses[:, :objects], state[span, -3:]
