"""One episode recorded beside a control loop: rows and pictures are taken over at once and worked on elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from blm.collect.episode_part import EpisodePart, EpisodeTiming, EpisodeWriter, late_ticks_and_jitter
from blm.collect.live_video import LiveVideoEncoder
from blm.collect.recording import Recording
from blm.collect.statistics import Statistics
from blm.schemas.episode import MONOTONIC_TIME, image_key
from blm.schemas.errors import DatasetError
from blm.schemas.rollout import Step


class LiveEpisodeWriter(EpisodeWriter):
    """Takes the steps of one episode without ever making the control loop wait.

    A camera without a fresh picture, or one whose encoder is behind, gets the picture before once more, counted. An
    episode in which that goes on for `patience_s` is given up.
    """

    def __init__(self, folder: Path, recording: Recording, patience_s: float) -> None:
        """Start an episode whose videos are written into `folder`, which is emptied first.

        Raises:
            ConfigError: the embodiment's rate is not a whole number.
            DatasetError: an image size that video cannot hold.
        """
        self._live: dict[str, LiveVideoEncoder] = {}
        super().__init__(folder, recording)
        self._rate_hz = recording.embodiment.control_rate_hz
        self._patience = max(1, round(patience_s * self._rate_hz))
        self._taken: dict[str, float] = {}
        self._stale = dict.fromkeys(self._live, 0)

    @property
    def frames(self) -> int:
        return len(self._rows)

    @property
    def repeated_frames(self) -> int:
        """Of all cameras together."""
        return sum(encoder.repeated for encoder in self._live.values())

    @property
    def waiting_frames(self) -> dict[str, int]:
        """Per camera, how many pictures wait for the encoder."""
        return {name: encoder.waiting for name, encoder in self._live.items()}

    def timing(self) -> EpisodeTiming:
        """How regularly ticks have come so far."""
        times = np.array([row[MONOTONIC_TIME] for row in self._rows], dtype=np.float64)
        late, jitter = late_ticks_and_jitter(times, self._rate_hz)
        return EpisodeTiming(self.frames, late, self.repeated_frames, jitter)

    def add(self, step: Step) -> None:
        """Add one control tick; never waits.

        Raises:
            DatasetError: a value is missing or has another shape than announced, a camera gave no first picture, has
                given no fresh one for too long, or its encoder has failed or stayed behind.
        """
        self._rows.append(self._numeric(step))
        taken = step.observation.image_times_s or {}
        for name, encoder in self._live.items():
            image = step.observation.images.get(name)
            fresh = image is not None and (name not in taken or taken[name] != self._taken.get(name))
            if image is not None and (fresh or not encoder.frames):
                encoder.add(np.asarray(image))
            elif encoder.frames:
                encoder.repeat()
            else:
                there = ", ".join(step.observation.images) or "none"
                raise DatasetError(f"camera '{name}' gave no image at step {step.index}; there are: {there}.")
            self._stale[name] = 0 if fresh else self._stale[name] + 1
            self._check_patience(name, encoder)
        self._taken = dict(taken)

    def end(self) -> None:
        """No more steps will come; returns at once."""
        for encoder in self._live.values():
            encoder.end()

    def finish(self) -> EpisodePart:
        return dataclasses.replace(super().finish(), repeated_frames=self.repeated_frames)

    def _check_patience(self, name: str, encoder: LiveVideoEncoder) -> None:
        if encoder.repeated_in_a_row < self._patience:
            return
        seconds = f"{self._patience / self._rate_hz:g} s"
        if self._stale[name] >= self._patience:
            raise DatasetError(
                f"camera '{name}' has given no fresh picture for {seconds}; the running episode is not kept.",
                "Check its cable, then continue with --resume.",
            )
        raise DatasetError(
            f"the video encoder of camera '{name}' cannot keep up: {seconds} of pictures could not be kept; the "
            "running episode is not kept.",
            "Use fewer or smaller pictures, a faster preset, or close what else uses the processor.",
        )

    def _open_encoders(self, recording: Recording) -> Mapping[str, LiveVideoEncoder]:
        for camera in recording.embodiment.cameras:
            path = self._folder / f"{camera.name}.mp4"
            self._live[camera.name] = LiveVideoEncoder(
                path, camera.width, camera.height, recording.fps, recording.video
            )
        return self._live

    def _statistics_of_images(self) -> dict[str, Statistics]:
        return {image_key(name): encoder.image_statistics() for name, encoder in self._live.items()}
