"""Tasks as data: objects and where they start, the goal, success criteria with thresholds, instruction wordings.

Lengths are metres in the workspace frame: x away from the robot, y to its left, z up, table surface at z = 0, origin
at the middle of the workspace. A task file holds the values for a full-size arm and, under `per_embodiment`, what
differs for a named embodiment; `load_task` returns the merged result.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from blm.schemas.embodiment import Vector3
from blm.schemas.errors import ConfigError
from blm.schemas.registry import named_files, resolve_file
from blm.schemas.yaml_model import FrozenModel, read_yaml, validate

Range = tuple[float, float]
Colour = tuple[float, float, float, float]

Measure = Literal[
    "object_to_goal_distance_m",
    "object_to_goal_xy_distance_m",
    "object_height_m",
    "object_height_error_m",
    "object_tilt_rad",
    "object_speed_m_s",
    "object_angular_speed_rad_s",
    "objects_xy_distance_m",
    "objects_height_difference_error_m",
    "arm_joint_speed_rad_s",
    "gripper_contacts",
]


class Spawn(FrozenModel):
    """Where an object starts: uniform ranges, metres and degrees, in the workspace frame.

    With `relative_to`, x and y are offsets from that object. With `clearance_m`, poses whose centre lies closer than
    that (in xy) to an object placed before are drawn again.
    """

    x: Range
    y: Range
    yaw_deg: Range = (0.0, 0.0)
    relative_to: str | None = None
    clearance_m: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for key in ("x", "y", "yaw_deg"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"{key}: the lower end ({low}) is above the upper end ({high})")
        return self


class TaskObject(FrozenModel):
    """A rigid thing on the table.

    `half_size` is (x, y, z) of a box or a bin's base, (radius, radius, radius) of a sphere, and (half length, half
    width, half width) of a peg, which starts lying along its own x axis. A bin has rims and does not move.
    """

    shape: Literal["box", "sphere", "peg", "bin"]
    half_size: Vector3
    colour: Colour
    colour_name: str
    density_kg_m3: float = Field(default=400.0, gt=0)
    spawn: Spawn


class Goal(FrozenModel):
    """Where an object should go: a point in the air, or a disc on the table, drawn into the scene.

    Either `offset` from the start position of `relative_to`, or uniform `x`, `y`, `z` ranges.
    """

    shape: Literal["point", "disc"]
    radius_m: float = Field(gt=0)
    colour: Colour = (0.1, 0.75, 0.2, 1.0)
    relative_to: str | None = None
    offset: Vector3 | None = None
    x: Range | None = None
    y: Range | None = None
    z: Range | None = None

    @model_validator(mode="after")
    def _placed(self) -> Self:
        relative = self.relative_to is not None and self.offset is not None
        ranged = self.x is not None and self.y is not None and self.z is not None
        if relative == ranged:
            raise ValueError("give either relative_to and offset, or x, y and z ranges")
        return self


class Criterion(FrozenModel):
    """One success term: |measure(object, target) − expected| style quantities, `at_most` in the measure's unit."""

    measure: Measure
    object: str | None = None
    target: str | None = None
    expected: float = 0.0
    at_most: float


class Task(FrozenModel):
    """One task for one embodiment. The episode succeeds when every criterion holds at the same moment."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    instructions: tuple[str, ...] = Field(min_length=3)
    max_duration_s: float = Field(gt=0)
    objects: dict[str, TaskObject] = Field(min_length=1)
    goal: Goal | None = None
    success: dict[str, Criterion] = Field(min_length=1)

    @model_validator(mode="after")
    def _references(self) -> Self:
        used = [c.object for c in self.success.values()] + [c.target for c in self.success.values()]
        used += [thing.spawn.relative_to for thing in self.objects.values()]
        used += [self.goal.relative_to] if self.goal else []
        for name in used:
            if name is not None and name not in self.objects:
                raise ValueError(f"object '{name}' is not defined; there are: {', '.join(self.objects)}")
        if self.goal is None and any("goal" in c.measure for c in self.success.values()):
            raise ValueError("a success criterion needs a goal, and none is defined")
        return self


ENTRY_POINTS = "blm.tasks"


def task_names() -> tuple[str, ...]:
    """Every task known by name: built in, or from an installed package's `blm.tasks` entry point."""
    return tuple(sorted(named_files("tasks", ENTRY_POINTS)))


@lru_cache(maxsize=256)
def load_task(name: str, embodiment: str) -> Task:
    """Return a task (a known name or the path of a YAML file) with the named embodiment's changes applied.

    Raises:
        UnknownNameError: no such task.
        ConfigError: the file is wrong; names the file and the key.
    """
    path: Path = resolve_file("task", name, "tasks", ENTRY_POINTS)
    content = read_yaml(path)
    per_embodiment = content.pop("per_embodiment", {})
    if not isinstance(per_embodiment, Mapping):
        raise ConfigError(f"{path}: key 'per_embodiment' must map robots to what differs for them.")
    return validate(Task, _merged(content, per_embodiment.get(embodiment) or {}), str(path))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping; lists and scalars are replaced."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = _merged(below, value)
        result[key] = value
    return result
