"""Time along a smooth path: jerk-limited progress that keeps every axis within its limits, at the control rate.

Progress s(t) along the path is a one-dimensional, rest-to-rest, jerk-limited profile (ruckig). An axis q(s) then has

    q̇ = q' ṡ        q̈ = q'' ṡ² + q' s̈        q⃛ = q''' ṡ³ + 3 q'' ṡ s̈ + q' s⃛

Playing a profile k times slower divides these by k, k² and k³. So each of a few profile shapes is stretched until all
axes are within their limits, and the one that is fastest then is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import ruckig

from blm.collect.planning.path import SmoothPath
from blm.schemas.embodiment import Embodiment

_SAMPLES = 161
_MARGIN = 1.02
_CRUISE_FRACTIONS = (0.0, 0.15, 0.3, 0.5, 0.7)
_JERK_FRACTIONS = (0.25, 0.4, 0.5)


@dataclass(frozen=True)
class Limits:
    """Largest velocity, acceleration and jerk per column, shape (C,), in units of the column per s, s², s³."""

    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray

    @classmethod
    def of(cls, embodiment: Embodiment) -> Limits:
        """The embodiment's limits in axis order, model units (rad or m)."""
        return cls(*(embodiment.column(f"max_{name}") for name in ("velocity", "acceleration", "jerk")))


@dataclass(frozen=True)
class _Profile:
    """Rest-to-rest progress from 0 to 1 in unit time; `samples` (4, N) are s, ṡ, s̈ and s⃛ at evenly spaced times."""

    trajectory: ruckig.Trajectory
    samples: np.ndarray

    def at(self, fractions: np.ndarray) -> np.ndarray:
        """Progress (N,) at fractions (N,) of the duration."""
        duration = self.trajectory.duration
        return np.array([self.trajectory.at_time(f * duration)[0][0] for f in fractions]).clip(0.0, 1.0)


def progress_at_rate(
    path: SmoothPath, limits: Limits, rate_hz: float, speed: float = 1.0, at_least_s: float = 0.0
) -> np.ndarray:
    """Path parameters (N,) of successive control ticks, from just after the start to exactly the end.

    `limits` covers the path's first columns; further columns are free. All motion is played at `speed` (0..1] times
    what limits and the path's own pace allow. The duration is rounded up to whole ticks by playing the profile a
    little slower, and is `at_least_s` or more. A path without length gives no ticks.
    """
    columns = len(limits.velocity)
    if not np.any(np.ptp(path.controls[:, :columns], axis=0) > 1e-9):
        return np.zeros(0)
    profile = min(_profiles(), key=lambda candidate: _needed_duration(path, candidate.samples, limits))
    duration = _needed_duration(path, _with_knots(profile.samples, path), limits) / speed
    ticks = max(1, int(np.ceil(max(duration, at_least_s) * rate_hz - 1e-9)))
    return path.length * profile.at(np.arange(1, ticks + 1) / ticks)


def _needed_duration(path: SmoothPath, samples: np.ndarray, limits: Limits) -> float:
    """Seconds a profile, given by `samples` (4, N), must take along the path for every axis to keep its limits."""
    columns = len(limits.velocity)
    s, speed, acceleration, jerk = samples * path.length
    one, two, three = (path.at(s, order)[:, :columns] for order in (1, 2, 3))
    speed, acceleration, jerk = speed[:, None], acceleration[:, None], jerk[:, None]
    velocity_ratio = np.abs(one * speed) / limits.velocity
    acceleration_ratio = np.abs(two * speed**2 + one * acceleration) / limits.acceleration
    jerk_ratio = np.abs(three * speed**3 + 3 * two * speed * acceleration + one * jerk) / limits.jerk
    needed = (
        velocity_ratio.max(),
        np.sqrt(acceleration_ratio.max()),
        np.cbrt(jerk_ratio.max()),
        speed.max() * path.pace_s,
    )
    return _MARGIN * float(max(needed))


def _with_knots(samples: np.ndarray, path: SmoothPath) -> np.ndarray:
    """Samples (4, M) that also lie at, and just before, every knot of the path, where its derivatives peak."""
    s = samples[0]
    knots = np.arange(1.0, path.length) / path.length
    wanted = np.sort(np.concatenate([s, knots, knots * (1 - 1e-9), knots - 0.5 / path.length]))
    return np.stack([np.interp(wanted, s, row) for row in samples])


@lru_cache(maxsize=1)
def _profiles() -> tuple[_Profile, ...]:
    """Profiles with different shares of constant speed and of constant jerk."""
    return tuple(_profile(cruise, jerk) for cruise in _CRUISE_FRACTIONS for jerk in _JERK_FRACTIONS)


def _profile(cruise: float, jerk_fraction: float) -> _Profile:
    """`cruise`: share of the duration at top speed; `jerk_fraction`: share of a ramp spent raising acceleration."""
    ramp = 0.5 * (1 - cruise)
    speed = 1.0 / (1.0 - ramp)
    rise = ramp * jerk_fraction
    acceleration = speed / (ramp - rise)
    request = ruckig.InputParameter(1)
    request.target_position = [1.0]
    request.max_velocity, request.max_acceleration = [speed], [acceleration]
    request.max_jerk = [acceleration / rise]
    trajectory = ruckig.Trajectory(1)
    ruckig.Ruckig(1).calculate(request, trajectory)
    duration = trajectory.duration
    times = np.linspace(0.0, duration, _SAMPLES)
    s, v, a = (np.array([trajectory.at_time(time)[k][0] for time in times]) for k in range(3))
    j = np.diff(a, append=2 * a[-1] - a[-2]) / times[1]
    return _Profile(trajectory, np.stack([s.clip(0.0, 1.0), v * duration, a * duration**2, j * duration**3]))
