"""The pinhole camera of recorded episodes: points in the base frame to pixels, and back.

A camera's pose is its position (metres) and orientation (unit quaternion, w first) in the robot's base frame. It looks
along its own −z with +x to the right of the image and +y up. Pixels are continuous: (0, 0) is the upper left corner
of the image, (width, height) the lower right one, so the centre of the first pixel lies at (0.5, 0.5).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

POINT_SCALE = 1000
"""Points in answers are thousandths of the image's width and height, so that they survive any resizing."""


@dataclass(frozen=True)
class PinholeCamera:
    """A recorded camera. `mount` names the site it rides on, in which case its pose is not in the base frame."""

    name: str
    width: int
    height: int
    vertical_fov_deg: float
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    mount: str | None = None

    @property
    def focal_px(self) -> float:
        """Focal length in pixels, the same in both directions."""
        return self.height / 2 / np.tan(np.radians(self.vertical_fov_deg) / 2)

    @cached_property
    def rotation(self) -> np.ndarray:
        """(3, 3): columns are the camera's axes in the base frame."""
        return rotation_matrix(self.quaternion)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3) in metres, base frame; NaN for points not in front of the camera."""
        local = (np.asarray(points, dtype=np.float64) - self.position) @ self.rotation
        depth = np.where(local[..., 2] < 0, -local[..., 2], np.nan)
        u = self.width / 2 + self.focal_px * local[..., 0] / depth
        v = self.height / 2 - self.focal_px * local[..., 1] / depth
        return np.stack([u, v], axis=-1)

    def unproject(self, pixels: np.ndarray, depth: np.ndarray | float) -> np.ndarray:
        """Points (..., 3) in the base frame at pixels (..., 2) and `depth` metres along the viewing direction."""
        pixels = np.asarray(pixels, dtype=np.float64)
        depth = np.asarray(depth, dtype=np.float64)
        x = (pixels[..., 0] - self.width / 2) / self.focal_px * depth
        y = (self.height / 2 - pixels[..., 1]) / self.focal_px * depth
        return np.stack([x, y, -depth * np.ones_like(x)], axis=-1) @ self.rotation.T + self.position

    def thousandths(self, point: np.ndarray) -> tuple[int, int] | None:
        """Where a point (3,) appears, in thousandths of width and height; None outside of the image."""
        u, v = self.project(point) / (self.width, self.height)
        if not (0 <= u <= 1 and 0 <= v <= 1):
            return None
        return round(float(u) * POINT_SCALE), round(float(v) * POINT_SCALE)


def rotation_matrix(quaternion: tuple[float, float, float, float]) -> np.ndarray:
    """(3, 3) rotation of a quaternion with w first; it need not be of unit length, but not zero."""
    w, x, y, z = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def read_cameras(text: str) -> dict[str, PinholeCamera]:
    """Cameras by name from an episode's `blm/cameras` JSON.

    Raises:
        ValueError: the text is not such a list.
    """
    cameras = {}
    try:
        for row in json.loads(text):
            camera = PinholeCamera(
                name=str(row["name"]),
                width=int(row["width"]),
                height=int(row["height"]),
                vertical_fov_deg=float(row["vertical_fov_deg"]),
                position=_numbers(row["position"], 3),
                quaternion=_numbers(row["quaternion"], 4),
                mount=row.get("mount"),
            )
            if not any(camera.quaternion):
                raise ValueError("a quaternion of zeros")
            cameras[camera.name] = camera
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"camera descriptions lack or garble {error}") from error
    return cameras


def _numbers(values: object, count: int) -> tuple:
    numbers = tuple(float(value) for value in values)  # type: ignore[union-attr]
    if len(numbers) != count or not all(np.isfinite(numbers)):
        raise ValueError(f"expected {count} finite numbers, got {values!r}")
    return numbers
