"""A LeRobot camera plugin without a camera: a square wanders over a gradient; it can be unplugged."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from lerobot.cameras import Camera

from tests.collect.robots.config_emulated_camera import EmulatedCameraConfig

_PLUGGED_IN: dict[str, bool] = {}


def unplug(source: str = "moving") -> None:
    """Cameras of this source deliver nothing from now on."""
    _PLUGGED_IN[source] = False


def plug_in(source: str = "moving") -> None:
    _PLUGGED_IN[source] = True


class EmulatedCamera(Camera):
    """Delivers a new picture every 1/fps s, computed when it is asked for."""

    def __init__(self, config: EmulatedCameraConfig) -> None:
        super().__init__(config)
        self._source = config.source
        self._rate = config.fps or 30
        self._connected = False
        self._began = 0.0
        self._frame = -1
        self.latest_frame: np.ndarray | None = None
        self.latest_timestamp: float | None = None
        self._base = _gradient(config.width or 64, config.height or 48)

    @property
    def is_connected(self) -> bool:
        return self._connected and _PLUGGED_IN.get(self._source, True)

    @staticmethod
    def find_cameras() -> list[dict[str, Any]]:
        return [{"type": "emulated", "id": source} for source, there in _PLUGGED_IN.items() if there]

    def connect(self, warmup: bool = True) -> None:
        if not _PLUGGED_IN.get(self._source, True):
            raise ConnectionError(f"no camera '{self._source}'")
        self._connected, self._began = True, time.perf_counter()

    def read(self) -> np.ndarray:
        return self.read_latest()

    def async_read(self, timeout_ms: float = 200) -> np.ndarray:
        return self.read_latest()

    def read_latest(self, max_age_ms: int = 500) -> np.ndarray:
        if not self.is_connected:
            raise RuntimeError(f"camera '{self._source}' is gone")
        frame = int((time.perf_counter() - self._began) * self._rate)
        if frame != self._frame or self.latest_frame is None:
            self._frame, self.latest_frame = frame, self._picture(frame)
            self.latest_timestamp = self._began + frame / self._rate
        return self.latest_frame

    def disconnect(self) -> None:
        self._connected = False

    def _picture(self, frame: int) -> np.ndarray:
        picture = self._base.copy()
        height, width, _ = picture.shape
        side = max(4, height // 6)
        x, y = (3 * frame) % (width - side), (2 * frame) % (height - side)
        picture[y : y + side, x : x + side] = (230, 40, 40)
        return picture


def _gradient(width: int, height: int) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 1] = np.linspace(20, 200, width, dtype=np.uint8)
    picture[..., 2] = np.linspace(20, 200, height, dtype=np.uint8)[:, None]
    return picture
