"""Colours by name, and how far one may vary before its name no longer fits."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np

NAMED_COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.10),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.93, 0.82, 0.10),
    "green": (0.10, 0.65, 0.20),
    "blue": (0.10, 0.25, 0.85),
    "purple": (0.48, 0.16, 0.66),
}
"""RGB, 0..1. What a person calls these is not in doubt, in white light and in moderately warm or cold light."""

HUE_JITTER = 0.012
SATURATION_JITTER = 0.06
VALUE_JITTER = 0.06
GOAL_DISTANCE = 0.35


def jittered(colour: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """A colour (RGBA) that still has the same name: hue ±4°, saturation and value ±0.06."""
    hue, saturation, value = colorsys.rgb_to_hsv(*colour[:3])
    hue += generator.uniform(-HUE_JITTER, HUE_JITTER)
    saturation = float(np.clip(saturation + generator.uniform(-SATURATION_JITTER, SATURATION_JITTER), 0, 1))
    value = float(np.clip(value + generator.uniform(-VALUE_JITTER, VALUE_JITTER), 0, 1))
    return np.array([*colorsys.hsv_to_rgb(hue % 1.0, saturation, value), colour[3]])


def names_unlike(colours: Sequence[Sequence[float]], names: Sequence[str]) -> list[str]:
    """Named colours that are none of `names` and far (in RGB) from all `colours`."""
    return [
        name
        for name, rgb in NAMED_COLOURS.items()
        if name not in names
        and all(np.linalg.norm(np.subtract(rgb, colour[:3])) > GOAL_DISTANCE for colour in colours)
    ]
