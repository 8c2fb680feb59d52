"""Task objects and the goal marker: how they look and collide, and where they start in an episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from blm.schemas.errors import ConfigError, SimulationError
from blm.schemas.task import Goal, Spawn, Task, TaskObject

GOAL_BODY = "goal"
SLIDING_FRICTION = 0.5
"""Of objects on the table: low enough that a pushed cube slides instead of tipping over. A contact takes the larger
friction of its two sides, so what a gripper can hold is set by its pads."""
ROLLING_FRICTION_M = 0.0006
"""Of a ball: it comes to rest within centimetres instead of leaving the table."""
PLACEMENT_TRIES = 1000

_DISC_RINGS = ((1.0, True), (0.72, False), (0.44, True))
"""Radius as a share of the disc's, and whether the ring has the goal's colour (else white)."""
_DISC_HALF_HEIGHT_M = 0.0004


@dataclass(frozen=True)
class Placement:
    """Where an object starts: metres and radians, workspace frame, lying on the table."""

    x: float
    y: float
    yaw_rad: float


def object_element(name: str) -> str:
    """Name of a task object's body, joint and geom in the model: apart from the robot's own names."""
    return f"object/{name}"


def is_movable(thing: TaskObject) -> bool:
    return thing.shape != "bin"


def resting_height_m(thing: TaskObject) -> float:
    """Height of the centre of an object that lies on the table as it was spawned."""
    return thing.half_size[2]


def bin_rim_m(thing: TaskObject) -> tuple[float, float]:
    """Thickness and height of a bin's rims, metres: a fifth and two fifths of its half length.

    At full size these are the 5 mm and 10 mm of ManiSkill's PlaceSphere; in proportion, so that a scaled ball
    still fits inside a scaled bin.
    """
    return thing.half_size[0] / 5, thing.half_size[0] * 2 / 5


def add_object(spec: mujoco.MjSpec, name: str, thing: TaskObject) -> None:
    """Add one object as body `name`: free to move, or (a bin) a mocap body that only a reset moves."""
    element = object_element(name)
    body = spec.worldbody.add_body(name=element, pos=[0, 0, resting_height_m(thing)])
    if not is_movable(thing):
        body.mocap = True
        _add_bin_geoms(body, element, thing)
        return
    body.add_freejoint(name=element)
    size, kind, condim = list(thing.half_size), mujoco.mjtGeom.mjGEOM_BOX, 4
    friction = [SLIDING_FRICTION, 0.005, 0.0001]
    if thing.shape == "sphere":
        size, kind, condim = [thing.half_size[0], 0, 0], mujoco.mjtGeom.mjGEOM_SPHERE, 6
        friction = [SLIDING_FRICTION, 0.002, ROLLING_FRICTION_M]
    body.add_geom(
        name=element,
        type=kind,
        size=size,
        rgba=list(thing.colour),
        density=thing.density_kg_m3,
        friction=friction,
        condim=condim,
    )


def _add_bin_geoms(body: mujoco.MjsBody, element: str, thing: TaskObject) -> None:
    half_x, half_y, half_z = thing.half_size
    thickness, height = bin_rim_m(thing)
    rim_z = half_z + height / 2
    parts = {
        "base": ([0.0, 0.0, 0.0], [half_x, half_y, half_z]),
        "rim_left": ([0.0, half_y - thickness / 2, rim_z], [half_x, thickness / 2, height / 2]),
        "rim_right": ([0.0, thickness / 2 - half_y, rim_z], [half_x, thickness / 2, height / 2]),
        "rim_far": ([half_x - thickness / 2, 0.0, rim_z], [thickness / 2, half_y - thickness, height / 2]),
        "rim_near": ([thickness / 2 - half_x, 0.0, rim_z], [thickness / 2, half_y - thickness, height / 2]),
    }
    shade = np.array([0.7, 0.7, 0.7, 1.0])
    for part, (position, size) in parts.items():
        colour = np.array(thing.colour) * (shade if part == "base" else 1.0)
        body.add_geom(
            name=f"{element}_{part}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=position,
            size=size,
            rgba=colour.tolist(),
            friction=[SLIDING_FRICTION, 0.005, 0.0001],
        )


def add_goal(spec: mujoco.MjSpec, goal: Goal) -> None:
    """Add the goal marker as mocap body `goal`: seen by cameras, touched by nothing.

    A disc is drawn as rings in the goal's colour and white, a point as a translucent ball of the goal's radius.
    """
    body = spec.worldbody.add_body(name=GOAL_BODY, mocap=True)
    if goal.shape == "point":
        colour = [*goal.colour[:3], 0.55]
        _add_visual(body, mujoco.mjtGeom.mjGEOM_SPHERE, [goal.radius_m, 0, 0], [0, 0, 0], colour)
        return
    for layer, (share, coloured) in enumerate(_DISC_RINGS):
        colour = list(goal.colour) if coloured else [0.95, 0.95, 0.95, 1.0]
        height = _DISC_HALF_HEIGHT_M * (1 + layer)
        size = [goal.radius_m * share, height, 0]
        _add_visual(body, mujoco.mjtGeom.mjGEOM_CYLINDER, size, [0, 0, height], colour)


def _add_visual(
    body: mujoco.MjsBody, kind: mujoco.mjtGeom, size: list[float], position: list[float], colour: list[float]
) -> None:
    body.add_geom(type=kind, size=size, pos=position, rgba=colour, contype=0, conaffinity=0, mass=0)


def draw_placements(task: Task, generator: np.random.Generator) -> dict[str, Placement]:
    """Draw a start for every object by its `Spawn` rule, in the order the task defines them.

    Raises:
        ConfigError: an object is placed relative to one that is defined after it.
        SimulationError: no place with the asked clearance was found.
    """
    placed: dict[str, Placement] = {}
    for name, thing in task.objects.items():
        if thing.spawn.relative_to is not None and thing.spawn.relative_to not in placed:
            raise ConfigError(
                f"task '{task.name}': object '{name}' is placed relative to '{thing.spawn.relative_to}', "
                "which comes after it.",
                f"Define '{thing.spawn.relative_to}' before '{name}'.",
            )
        placed[name] = _draw_clear(task.name, name, thing.spawn, placed, generator)
    return placed


def _draw_clear(
    task_name: str,
    name: str,
    spawn: Spawn,
    placed: Mapping[str, Placement],
    generator: np.random.Generator,
) -> Placement:
    for _ in range(PLACEMENT_TRIES):
        origin = placed[spawn.relative_to] if spawn.relative_to is not None else Placement(0.0, 0.0, 0.0)
        candidate = Placement(
            x=origin.x + generator.uniform(*spawn.x),
            y=origin.y + generator.uniform(*spawn.y),
            yaw_rad=float(np.deg2rad(generator.uniform(*spawn.yaw_deg))),
        )
        distances = [np.hypot(candidate.x - other.x, candidate.y - other.y) for other in placed.values()]
        if all(distance >= spawn.clearance_m for distance in distances):
            return candidate
    raise SimulationError(
        f"task '{task_name}': no place for object '{name}' is {spawn.clearance_m} m clear of the others.",
        "Widen its spawn ranges or lower clearance_m.",
    )


def draw_goal(
    task: Task, placements: Mapping[str, Placement], generator: np.random.Generator
) -> np.ndarray | None:
    """Position of the goal (3,), metres, workspace frame; None where the task has none.

    A disc lies on the table whatever its object's height.
    """
    goal = task.goal
    if goal is None:
        return None
    if goal.relative_to is not None and goal.offset is not None:
        start = placements[goal.relative_to]
        z = 0.0 if goal.shape == "disc" else resting_height_m(task.objects[goal.relative_to])
        return np.array([start.x, start.y, z]) + np.array(goal.offset)
    ranges = [bounds for bounds in (goal.x, goal.y, goal.z) if bounds is not None]
    return np.array([generator.uniform(*bounds) for bounds in ranges])


def pose_of(thing: TaskObject, placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    """World position (3,) and quaternion wxyz (4,) of an object lying on the table at `placement`."""
    half = placement.yaw_rad / 2
    position = np.array([placement.x, placement.y, resting_height_m(thing)])
    return position, np.array([np.cos(half), 0.0, 0.0, np.sin(half)])
