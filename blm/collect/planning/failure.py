"""Why an attempt fails, in a fixed vocabulary, so that failures can be counted by cause."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureCause(StrEnum):
    """Every cause the planner names; the text beside it (`Failure.detail`) is free."""

    NO_IK_SOLUTION = "no IK solution"
    COLLISION = "collision"
    TORQUE_LIMIT = "torque limit"
    GRASP_FAILED = "grasp failed"
    OBJECT_LOST = "object lost"
    GOAL_NOT_REACHED = "goal not reached"


@dataclass(frozen=True)
class Failure:
    """What went wrong: the cause to count by, and a sentence for people, e.g. 'the gripper closed beside cube'."""

    cause: FailureCause
    detail: str
