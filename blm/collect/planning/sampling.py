"""Ways around obstacles found by sampling: OMPL's RRT-Connect in joint space, for what simpler ways cannot pass.

The same seed gives the same way, whatever was planned before and however busy the machine is: OMPL's seeds start anew
for every search, and what bounds a search is the number of configurations checked, not time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MAX_CHECKS = 4000
"""Configurations checked in one search; a way over a wall took an arm 800 to 2000."""
_STEP_RAD = 0.05
"""Between two checks on a straight piece, as a distance in joint space."""
_RANGE_RAD = 0.6
_SIMPLIFY_STEPS = 60


def way_around(
    start: np.ndarray,
    end: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
    free: Callable[[np.ndarray], bool],
    seed: int,
    max_checks: int = MAX_CHECKS,
) -> np.ndarray | None:
    """A simplified polyline (m, K) from `start` to `end` (K,) within `bounds` along which `free` holds.

    Args:
        start, end: configurations of the arm's joints, rad.
        bounds: lower and upper joint limits, each (K,), rad.
        free: whether a configuration (K,) touches nothing.
        seed: 1 or more; decides the way.
        max_checks: how often `free` is asked before the search is given up.

    Returns None where no way was found. See Kuffner and LaValle, "RRT-Connect", ICRA 2000.
    """
    from ompl import base, geometric
    from ompl import util as ompl_util

    # OMPL warns that a new seed comes too late for what drew numbers already: all that does so is made below.
    ompl_util.setLogLevel(ompl_util.LogLevel.LOG_NONE)
    ompl_util.RNG.setSeed(seed)
    checks = _Budget(free, len(start), max_checks)
    space = base.RealVectorStateSpace(len(start))
    limits = base.RealVectorBounds(len(start))
    for axis, (lower, upper) in enumerate(zip(*bounds, strict=True)):
        limits.setLow(axis, float(min(lower, start[axis], end[axis])))
        limits.setHigh(axis, float(max(upper, start[axis], end[axis])))
    space.setBounds(limits)
    setup = geometric.SimpleSetup(space)
    setup.setStateValidityChecker(checks.allows)
    information = setup.getSpaceInformation()
    information.setStateValidityCheckingResolution(_STEP_RAD / space.getMaximumExtent())
    setup.setStartAndGoalStates(_state(space, start), _state(space, end))
    planner = geometric.RRTConnect(information)
    planner.setRange(_RANGE_RAD)
    setup.setPlanner(planner)
    setup.solve(base.PlannerTerminationCondition(lambda: checks.spent))
    if not setup.haveExactSolutionPath():
        return None
    path = setup.getSolutionPath()
    simplifier = geometric.PathSimplifier(information)
    checks.left = max_checks
    simplifier.reduceVertices(path, _SIMPLIFY_STEPS, _SIMPLIFY_STEPS)
    simplifier.partialShortcutPath(path, _SIMPLIFY_STEPS, _SIMPLIFY_STEPS)
    simplifier.reduceVertices(path, _SIMPLIFY_STEPS, _SIMPLIFY_STEPS)
    states: list[Any] = path.getStates()
    return np.array([[state[axis] for axis in range(len(start))] for state in states])


class _Budget:
    """Counts the checks of one search; once they are spent everything counts as blocked, which ends it soon."""

    def __init__(self, free: Callable[[np.ndarray], bool], axes: int, checks: int) -> None:
        self._free = free
        self._axes = range(axes)
        self.left = checks

    @property
    def spent(self) -> bool:
        return self.left <= 0

    def allows(self, state: Any) -> bool:
        self.left -= 1
        return not self.spent and bool(self._free(np.array([state[axis] for axis in self._axes])))


def _state(space: Any, values: np.ndarray) -> Any:
    state = space.allocState()
    for axis, value in enumerate(values.tolist()):
        state[axis] = value
    return state
