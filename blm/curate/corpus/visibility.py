"""Whether things can be made out in a recorded picture: by their colours, at the places where they are.

Recorded poses do not tell that an arm stands in front of something. A thing is taken for hidden where hardly a point of
its outline has its colour although it does in another picture of the episode: so a colour that cannot be told, e.g.
in odd light, hides nothing. What has the colour of the robot itself passes for visible in front of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from blm.curate.corpus.projection import PinholeCamera
from blm.curate.corpus.questions.scene import Thing

_HUES_DEG = {"red": 0, "orange": 29, "yellow": 52, "green": 131, "blue": 228, "purple": 278}
_HUE_REACH_DEG = {"red": 14, "orange": 13, "yellow": 12, "green": 35, "blue": 30, "purple": 25}
_LEAST_CHROMA = 40
"""Of 255, between the strongest and the weakest channel."""
_LEAST_SHARE = 0.12


class SeenThings:
    """Gathers what pictures of one episode show; then says what is hidden in which."""

    def __init__(self, camera: PinholeCamera) -> None:
        self._camera = camera
        self._visible: dict[tuple[int, str], bool] = {}

    def look(self, frame: int, image: np.ndarray, things: Iterable[Thing]) -> None:
        """Note which things an image (H, W, 3) uint8 shows."""
        for thing in things:
            self._visible[frame, thing.phrase] = _colour_share(image, thing, self._camera) >= _LEAST_SHARE

    def hidden(self, frame: int, thing: Thing) -> bool:
        """Whether a thing that was looked for in this frame is to be seen in others only."""
        elsewhere = any(seen for (_, phrase), seen in self._visible.items() if phrase == thing.phrase)
        return elsewhere and not self._visible[frame, thing.phrase]


def _colour_share(image: np.ndarray, thing: Thing, camera: PinholeCamera) -> float:
    """The share of the points in the box around a thing that have its colour; 1 for colours that hues do not tell."""
    colour = thing.kind.colour
    if colour not in _HUES_DEG:
        return 1.0
    reach = np.array(thing.kind.half_size)
    corners = thing.corners
    if corners is None:
        corners = (
            thing.position + np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * reach
        )
    points = camera.project(corners)
    height, width = image.shape[:2]
    scale = np.array([width / camera.width, height / camera.height])
    if not np.isfinite(points).all():
        return 0.0
    low = np.clip(np.floor(points.min(axis=0) * scale), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(points.max(axis=0) * scale), low + 1, (width, height)).astype(int)
    return _hue_share(image[low[1] : high[1], low[0] : high[0]].reshape(-1, 3).astype(np.int16), colour)


def _hue_share(points: np.ndarray, colour: str) -> float:
    """Of (N, 3) RGB points."""
    red, green, blue = points.T
    chroma = points.max(axis=1) - points.min(axis=1)
    # The hue as an angle in the plane across the axis of greys.
    hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
    away = np.abs((hue - _HUES_DEG[colour] + 180) % 360 - 180)
    return float(np.mean((chroma >= _LEAST_CHROMA) & (away <= _HUE_REACH_DEG[colour])))
