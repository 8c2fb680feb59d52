"""Primitives: the named steps a task is decomposed into, each a tool target and a gripper target.

They are plain data made by small pure functions. A skill strings them together; the planner finds configurations,
checks them, and turns them into motion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from blm.collect.planning.failure import Failure, FailureCause
from blm.collect.planning.pose import Pose, ToolTarget
from blm.collect.planning.scene import PlannableEnvironment
from blm.schemas.rollout import Observation

Check = Callable[[PlannableEnvironment, Observation], Failure | None]
"""Looks at the world after a primitive; returns what went wrong, or None."""


@dataclass(frozen=True)
class Holding:
    """An object that moves with the tool, and its pose in the tool frame."""

    name: str
    grasp: Pose


@dataclass(frozen=True)
class Primitive:
    """One step.

    Attributes:
        name: the subtask as recorded, e.g. 'approach'.
        targets: tool targets in order of preference; the first feasible one is taken. Empty: the arm stays.
        gripper: axis value at the end of the step, in the axis' unit; None: as before.
        straight: move the tool along a straight line (otherwise straight in joint space).
        through: pass into the next step without stopping.
        free: in open space, so that it may be varied and led around obstacles.
        speed_m_s: tool speed limit of a straight step.
        at_least_s: shortest duration of the motion that ends with this step.
        may_touch: objects (or 'table') that gripper and held object may touch meanwhile.
        holding: what is carried meanwhile.
        check: looked at after the step.
    """

    name: str
    targets: tuple[ToolTarget, ...] = ()
    gripper: float | None = None
    straight: bool = False
    through: bool = False
    free: bool = False
    speed_m_s: float = np.inf
    at_least_s: float = 0.0
    may_touch: frozenset[str] = field(default_factory=frozenset)
    holding: Holding | None = None
    check: Check | None = None

    def named(self, name: str) -> Primitive:
        return replace(self, name=name)


def approach(targets: tuple[ToolTarget, ...], gripper: float) -> Primitive:
    """Move through open space to where the next step begins, and pass on without stopping."""
    return Primitive("approach", targets, gripper, through=True, free=True)


def reach(target: ToolTarget, speed_m_s: float, through: bool = False) -> Primitive:
    """Go straight to where an object will be grasped or pushed, without touching it yet."""
    return Primitive("approach", (target,), straight=True, through=through, speed_m_s=speed_m_s)


def grasp(object_name: str, closed: float, at_least_s: float) -> Primitive:
    """Close the gripper on an object and make sure that it is held."""
    return Primitive(
        "grasp",
        gripper=closed,
        at_least_s=at_least_s,
        may_touch=frozenset({object_name}),
        check=holds(object_name, closed),
    )


def lift(target: ToolTarget, holding: Holding, may_touch: frozenset[str] = frozenset()) -> Primitive:
    """Raise a held object off what it stands on, and pass on without stopping."""
    touch = may_touch | {holding.name, "table"}
    return Primitive("lift", (target,), straight=True, through=True, may_touch=touch, holding=holding)


def move(
    targets: tuple[ToolTarget, ...], holding: Holding, through: bool = False, onto: str | None = None
) -> Primitive:
    """Carry a held object through open space to the first feasible of `targets`; it may graze `onto`."""
    touch = frozenset({holding.name} if onto is None else {holding.name, onto})
    return Primitive("move", targets, free=True, through=through, may_touch=touch, holding=holding)


def place(
    target: ToolTarget, holding: Holding, onto: str, speed_m_s: float, check: Check | None = None
) -> Primitive:
    """Lower a held object straight onto something."""
    touch = frozenset({onto, holding.name})
    return Primitive(
        "place",
        (target,),
        straight=True,
        speed_m_s=speed_m_s,
        may_touch=touch,
        holding=holding,
        check=check,
    )


def release(object_name: str, opened: float) -> Primitive:
    """Open the gripper and let go."""
    return Primitive("release", gripper=opened, may_touch=frozenset({object_name}))


def push(target: ToolTarget, object_name: str, speed_m_s: float, check: Check | None = None) -> Primitive:
    """Move straight against an object and take it along."""
    return Primitive(
        "push",
        (target,),
        straight=True,
        speed_m_s=speed_m_s,
        may_touch=frozenset({object_name}),
        check=check,
    )


def retract(
    targets: tuple[ToolTarget, ...], leaving: frozenset[str], gripper: float | None = None
) -> Primitive:
    """Back away straight from what was touched."""
    return Primitive("retract", targets, gripper, straight=True, may_touch=leaving)


def holds(object_name: str, closed: float) -> Check:
    """The gripper touches the object and something keeps it from closing fully."""

    def check(environment: PlannableEnvironment, observation: Observation) -> Failure | None:
        embodiment = environment.embodiment
        index = embodiment.gripper_index
        travel = abs(embodiment.gripper.open - embodiment.gripper.closed)
        gap = abs(float(observation.state[index]) - closed) / travel
        if not environment.touching(object_name):
            return Failure(FailureCause.GRASP_FAILED, f"{object_name} is not in the gripper")
        if gap <= 0.03:
            return Failure(FailureCause.GRASP_FAILED, f"the gripper closed beside {object_name}")
        return None

    return check


def succeeds() -> Check:
    """The task's criteria hold."""

    def check(environment: PlannableEnvironment, observation: Observation) -> Failure | None:
        del observation
        if environment.succeeded():
            return None
        return Failure(FailureCause.GOAL_NOT_REACHED, "the goal was missed")

    return check
