"""An episode that is finished but not yet in a dataset: its numeric columns in memory, its videos in a folder.

    Step ──add──▶ EpisodeWriter ──numeric──▶ memory ──────────┐
                        │                                     ├─finish──▶ EpisodePart ──commit──▶ DatasetWriter
                        └──images──▶ VideoEncoder ──▶ MP4 ────┘

A part can be made in another process and committed here: it is small, picklable, and holds nothing that depends on
its place in the dataset.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blm.collect.recording import Recording
from blm.collect.statistics import ImageStatistics, Statistics
from blm.collect.video import VideoEncoder
from blm.schemas.episode import (
    ACTION,
    EE_POSE,
    ENVIRONMENT_STATE,
    GRIPPER_CONTACT,
    INTERVENTION,
    MONOTONIC_TIME,
    STATE,
    SUBTASK_INDEX,
    SUCCESS,
    camera_age_key,
    image_key,
)
from blm.schemas.errors import DatasetError
from blm.schemas.rollout import Step

LATE_PERIODS = 1.5
"""A control tick that begins later than this many periods after the one before is late."""


@dataclass(frozen=True)
class EpisodePart:
    """A finished episode.

    Attributes:
        columns: numeric features, each (T,) or (T, D); `subtask_index` counts within `subtasks`.
        subtasks: names of the primitives, in order of first appearance.
        videos: image key → MP4 file with T frames.
        image_statistics: image key → statistics of its pixels.
        repeated_frames: pictures, of all cameras together, that are the one before once more.
    """

    columns: Mapping[str, np.ndarray]
    subtasks: tuple[str, ...]
    videos: Mapping[str, Path]
    image_statistics: Mapping[str, Statistics]
    repeated_frames: int = 0

    @property
    def frames(self) -> int:
        return len(self.columns[MONOTONIC_TIME])


class EpisodeWriter:
    """Takes the steps of one episode as they come; images go straight to the encoders."""

    def __init__(self, folder: Path, recording: Recording) -> None:
        """Start an episode whose videos are written into `folder`, which is emptied first.

        Raises:
            ConfigError: the embodiment's rate is not a whole number.
            DatasetError: an image size that video cannot hold.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._features = recording.columns()
        self._encoders = self._open_encoders(recording)
        cameras = recording.embodiment.cameras
        self._image_statistics = {camera.name: ImageStatistics() for camera in cameras}
        self._age_keys = {
            camera.name: camera_age_key(camera.name)
            for camera in cameras
            if camera_age_key(camera.name) in self._features
        }
        self._rows: list[dict[str, object]] = []
        self._subtasks: dict[str, int] = {}

    def add(self, step: Step) -> None:
        """Add one control tick; waits when the encoders are behind.

        Raises:
            DatasetError: a camera or a value is missing or has another shape than announced; names the key.
        """
        self._rows.append(self._numeric(step))
        for name, encoder in self._encoders.items():
            if name not in step.observation.images:
                there = ", ".join(step.observation.images) or "none"
                raise DatasetError(f"camera '{name}' gave no image at step {step.index}; there are: {there}.")
            image = np.asarray(step.observation.images[name])
            encoder.add(image)
            self._image_statistics[name].add(image)

    def _open_encoders(self, recording: Recording) -> Mapping[str, VideoEncoder]:
        return {
            camera.name: VideoEncoder(
                self._folder / f"{camera.name}.mp4",
                camera.width,
                camera.height,
                recording.fps,
                recording.video,
            )
            for camera in recording.embodiment.cameras
        }

    def finish(self) -> EpisodePart:
        """Close the videos, check them, and return the episode.

        Raises:
            DatasetError: the episode has no steps, encoding failed, or a video does not hold every frame.
        """
        if not self._rows:
            self.discard()
            raise DatasetError("the episode has no steps, so there is nothing to store.")
        try:
            videos = {image_key(name): encoder.finish() for name, encoder in self._encoders.items()}
        except DatasetError:
            self.discard()
            raise
        columns = {
            key: np.array([row[key] for row in self._rows], dtype=feature["dtype"])
            for key, feature in self._features.items()
            if feature["dtype"] != "video"
        }
        return EpisodePart(columns, tuple(self._subtasks), videos, self._statistics_of_images())

    def discard(self) -> None:
        """Throw the episode away."""
        for encoder in self._encoders.values():
            encoder.discard()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _statistics_of_images(self) -> dict[str, Statistics]:
        return {image_key(name): images.result() for name, images in self._image_statistics.items()}

    def _numeric(self, step: Step) -> dict[str, object]:
        observation = step.observation
        vectors: dict[str, np.ndarray | None] = {
            STATE: observation.state,
            ACTION: step.action,
            EE_POSE: observation.ee_pose,
        }
        if ENVIRONMENT_STATE in self._features:
            vectors[ENVIRONMENT_STATE] = observation.environment_state
            vectors[GRIPPER_CONTACT] = observation.gripper_contact
        row: dict[str, object] = {}
        for key, values in vectors.items():
            array = np.array(values, dtype=np.float32)
            if array.shape != self._features[key]["shape"]:
                raise DatasetError(
                    f"{key} has shape {array.shape} at step {step.index}; {self._features[key]['shape']} expected."
                )
            row[key] = array
        row[SUBTASK_INDEX] = self._subtasks.setdefault(step.subtask, len(self._subtasks))
        row[MONOTONIC_TIME] = observation.time_s
        taken = observation.image_times_s or {}
        for name, key in self._age_keys.items():
            row[key] = 1000.0 * (observation.time_s - taken.get(name, observation.time_s))
        row[SUCCESS] = step.success
        if INTERVENTION in self._features:
            row[INTERVENTION] = step.intervention
        return row


def judged(columns: Mapping[str, np.ndarray], success: bool) -> dict[str, np.ndarray]:
    """The columns of an episode with `next.success` as a person saw it: false throughout, or true at the end."""
    marks = columns[SUCCESS] & success
    marks[-1] = success
    return {**columns, SUCCESS: marks}


@dataclass(frozen=True)
class EpisodeTiming:
    """How regularly an episode was recorded: what its row of `meta/episodes` will say.

    Attributes:
        frames: control ticks.
        late_ticks: ticks that came more than one and a half periods after the one before.
        repeated_frames: pictures that are the one before once more, of all cameras together.
        jitter_ms: standard deviation of the control period.
    """

    frames: int = 0
    late_ticks: int = 0
    repeated_frames: int = 0
    jitter_ms: float = 0.0

    def __str__(self) -> str:
        frames = f"{self.frames} frame{'' if self.frames == 1 else 's'}"
        pictures = f"{self.repeated_frames} picture{'' if self.repeated_frames == 1 else 's'}"
        return f"{frames}, {self.late_ticks} late, {pictures} repeated, jitter {self.jitter_ms:.1f} ms"


def late_ticks_and_jitter(times_s: np.ndarray, rate_hz: float) -> tuple[int, float]:
    """From the measured times of control ticks (T,), seconds: how many came late, and the period's standard
    deviation in milliseconds."""
    periods = np.diff(times_s)
    if not len(periods):
        return 0, 0.0
    late = int((periods > LATE_PERIODS / rate_hz).sum())
    return late, round(float(periods.std()) * 1000, 3)
