"""Objects that the task is not about: what they are, and where they lie without being in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from blm.collect.sim.colour import NAMED_COLOURS, names_unlike
from blm.collect.sim.objects import Placement
from blm.schemas.embodiment import Camera, Embodiment
from blm.schemas.task import Spawn, Task, TaskObject

NAME = "distractor_{}"
PLACEMENT_TRIES = 400
IMAGE_MARGIN = 0.08
"""Share of a fixed camera's image along its edges in which no distractor is put."""
ROBOT_CLEARANCE_M = 0.06
AROUND_SPAWN_M = 0.6
"""Distractors lie around the task: within its extent, widened by this share of it on each side."""

type Shape = Literal["sphere", "box", "peg"]

_SHAPES: Mapping[Shape, tuple[float, float, float]] = {
    "sphere": (1.0, 1.0, 1.0),
    "box": (1.0, 1.0, 1.0),
    "peg": (2.0, 0.65, 0.65),
}
"""Half sizes, in units of the task's own objects' half width."""


@dataclass(frozen=True)
class KeepClear:
    """A strip of table that stays free: everything within `radius_m` of a line from `start` to `end`, each (2,)."""

    start: np.ndarray
    end: np.ndarray
    radius_m: float

    def distance_m(self, point: np.ndarray) -> float:
        """From a point (2,) to the strip's edge; negative inside."""
        along = self.end - self.start
        length = float(along @ along)
        share = 0.0 if length == 0 else float(np.clip((point - self.start) @ along / length, 0.0, 1.0))
        return float(np.linalg.norm(point - self.start - share * along)) - self.radius_m


def distractor_kinds(task: Task, count: int) -> dict[str, TaskObject]:
    """The things that may lie about in a task's scene, by name.

    Their shapes are none of the task's objects', so that 'the cube' stays one cube, and their colours neither those
    objects' nor near the goal's. They are transparent: an episode that uses some draws colours for them.
    """
    width = _half_width(task)
    shapes: list[Shape] = [
        shape for shape in _SHAPES if shape not in {thing.shape for thing in task.objects.values()}
    ]
    colours = distractor_colours(task)
    kinds = {}
    for number in range(min(count, len(colours))):
        shape, colour = shapes[number % len(shapes)], colours[number]
        x, y, z = _SHAPES[shape]
        kinds[NAME.format(number + 1)] = TaskObject(
            shape=shape,
            half_size=(width * x, width * y, width * z),
            colour=(*NAMED_COLOURS[colour], 0.0),
            colour_name=colour,
            spawn=Spawn(x=(0.0, 0.0), y=(0.0, 0.0)),
        )
    return kinds


def distractor_colours(task: Task) -> list[str]:
    """Names of the colours that distractors of a task may have."""
    goal = [] if task.goal is None else [task.goal.colour]
    return names_unlike(goal, [thing.colour_name for thing in task.objects.values()])


def drawn_colours(
    task: Task, kinds: Mapping[str, TaskObject], generator: np.random.Generator
) -> dict[str, TaskObject]:
    """The same things in colours drawn anew, no two alike."""
    names = generator.permutation(distractor_colours(task))
    return {
        name: kind.model_copy(
            update={"colour": (*NAMED_COLOURS[str(colour)], 1.0), "colour_name": str(colour)}
        )
        for (name, kind), colour in zip(kinds.items(), names, strict=False)
    }


def draw_distractors(
    embodiment: Embodiment,
    task: Task,
    kinds: Mapping[str, TaskObject],
    placements: Mapping[str, Placement],
    goal: np.ndarray | None,
    generator: np.random.Generator,
) -> dict[str, Placement]:
    """Draw one or more of `kinds` and a place on the table for each; fewer where there is no room.

    A place is clear of the task's objects, the goal, the way between them with room for the gripper on it, the robot's
    base and the other distractors, and lies within the view of every fixed camera.
    """
    wanted = int(generator.integers(1, len(kinds) + 1)) if kinds else 0
    chosen = generator.permutation(list(kinds))[:wanted]
    low, high = _extent(task, goal)
    strips = keep_clear(embodiment, task, placements, goal)
    placed: dict[str, Placement] = {}
    for name in sorted(str(one) for one in chosen):
        radius = footprint_m(kinds[name])
        others = [(np.array([p.x, p.y]), footprint_m(kinds[other])) for other, p in placed.items()]
        for _ in range(PLACEMENT_TRIES):
            point = generator.uniform(low, high)
            yaw = float(generator.uniform(-np.pi, np.pi))
            if (
                all(strip.distance_m(point) > radius for strip in strips)
                and all(np.linalg.norm(point - at) > radius + size + 0.01 for at, size in others)
                and all(_in_view(camera, point) for camera in embodiment.cameras if camera.mount is None)
            ):
                placed[name] = Placement(float(point[0]), float(point[1]), yaw)
                break
    return placed


def keep_clear(
    embodiment: Embodiment, task: Task, placements: Mapping[str, Placement], goal: np.ndarray | None
) -> list[KeepClear]:
    """What must stay free for a gripper to reach each object, and for objects to move to the goal or each other.

    A strip reaches beyond both ends by the gripper's width: a push begins behind its object.
    """
    room = 0.5 * embodiment.gripper.max_opening_m + 0.03 if embodiment.gripper.max_opening_m else 0.07
    points = [np.array([placement.x, placement.y]) for placement in placements.values()]
    sizes = [footprint_m(task.objects[name]) for name in placements]
    strips = [KeepClear(point, point, size + room) for point, size in zip(points, sizes, strict=True)]
    ends = [] if goal is None or task.goal is None else [(goal[:2], task.goal.radius_m)]
    ends += list(zip(points[1:], sizes[1:], strict=True))
    for end, size in ends:
        way = end - points[0]
        length = float(np.linalg.norm(way))
        beyond = way / length * room if length > 0 else way
        strips.append(KeepClear(points[0] - beyond, end + beyond, max(size, sizes[0] + room)))
    base = np.array(embodiment.base_position[:2])
    strips += [KeepClear(base, base, ROBOT_CLEARANCE_M + room)]
    strips += [KeepClear(base, point, room + ROBOT_CLEARANCE_M / 2) for point in points]
    return strips


def footprint_m(thing: TaskObject) -> float:
    """Radius of the circle on the table that a thing fits into, however it is turned."""
    return thing.half_size[0] if thing.shape == "sphere" else float(np.hypot(*thing.half_size[:2]))


def _half_width(task: Task) -> float:
    return min(thing.half_size[1] for thing in task.objects.values() if thing.shape != "bin")


def _extent(task: Task, goal: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner (2,) of where distractors lie."""
    spawns = [thing.spawn for thing in task.objects.values() if thing.spawn.relative_to is None]
    low = np.min([(spawn.x[0], spawn.y[0]) for spawn in spawns], axis=0)
    high = np.max([(spawn.x[1], spawn.y[1]) for spawn in spawns], axis=0)
    if goal is not None:
        low, high = np.minimum(low, goal[:2]), np.maximum(high, goal[:2])
    margin = AROUND_SPAWN_M * (high - low) + 0.05
    return low - margin, high + margin


def _in_view(camera: Camera, point: np.ndarray) -> bool:
    """Whether a point on the table (2,) is well within the image of a fixed camera."""
    position, look_at = np.array(camera.position), np.array(camera.look_at)
    forward = (look_at - position) / np.linalg.norm(look_at - position)
    up = np.array([1.0, 0.0, 0.0]) if abs(forward[2]) > 1 - 1e-9 else np.array([0.0, 0.0, 1.0])
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    offset = np.array([point[0], point[1], 0.0]) - position
    depth = float(offset @ forward)
    half_height = np.tan(np.radians(camera.vertical_fov_deg) / 2) * (1 - 2 * IMAGE_MARGIN)
    half_width = half_height * camera.width / camera.height
    across, upwards = offset @ right, offset @ np.cross(right, forward)
    return bool(depth > 0 and abs(across) < half_width * depth and abs(upwards) < half_height * depth)
