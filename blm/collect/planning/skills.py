"""Skills: how each task is decomposed into primitives.

A skill is a function (scene, variation) → an iterator over decompositions, the preferred one first; the planner takes
the first that is feasible as a whole. Another package adds its own under the entry-point group `blm.skills`: the
entry's name is the task's name, its object the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points

import numpy as np

from blm.collect.planning import primitives
from blm.collect.planning.pose import Pose, ToolTarget, horizontal, tilted_approach, tool_rotation
from blm.collect.planning.primitives import Holding, Primitive
from blm.collect.planning.scene import Scene, SceneObject, Variation
from blm.schemas.errors import UnknownNameError

Decomposition = tuple[Primitive, ...]
Skill = Callable[[Scene, Variation], Iterator[Decomposition]]

ENTRY_POINTS = "blm.skills"

TABLE_CLEARANCE_M = 0.003
FINGER_GAP_M = 0.002
"""Left between a fixed jaw and the object while reaching for it."""
PUSH_SPEED_M_S = 0.16
REACH_SPEED_M_S = 0.2
GRASP_S = 0.4
_TILTS = tuple(np.deg2rad([0.0, 12.0, -12.0, 25.0, -25.0, 40.0, 55.0]))
_CARRY_TILTS = tuple(np.deg2rad([0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 75.0, 90.0, -10.0, -20.0]))


def find_skill(task: str) -> Skill:
    """The skill registered for a task name; raises UnknownNameError listing those there are."""
    known = dict(SKILLS)
    for entry_point in entry_points(group=ENTRY_POINTS):
        known[entry_point.name] = entry_point.load()
    if task not in known:
        raise UnknownNameError("skill for task", task, known)
    return known[task]


def pick_cube(scene: Scene, variation: Variation) -> Iterator[Decomposition]:
    """Grasp the cube, lift it, carry it to the goal and stay there."""
    cube = scene.objects["cube"]
    assert scene.goal is not None
    for target in grasp_targets(scene, cube):
        holding, steps = picking_up(scene, "cube", target, variation)
        carried = carry_targets(holding, scene.goal)
        yield (*steps, primitives.move(carried, holding))


def push_cube(scene: Scene, variation: Variation) -> Iterator[Decomposition]:
    """Get behind the cube with the closed gripper and push it straight until it is over the goal."""
    yield from _sliding(scene, variation, side=-1.0)


def pull_cube(scene: Scene, variation: Variation) -> Iterator[Decomposition]:
    """Get behind the cube, seen from the goal, and drag it back with the closed gripper."""
    yield from _sliding(scene, variation, side=-1.0)


def _sliding(scene: Scene, variation: Variation, side: float) -> Iterator[Decomposition]:
    cube = scene.objects["cube"]
    assert scene.goal is not None
    way = (scene.goal - cube.position) * [1.0, 1.0, 0.0]
    distance = float(np.linalg.norm(way))
    direction = way / distance
    across = np.array([-direction[1], direction[0], 0.0])
    sideways = variation.sideways * cube.thing.half_size[1] * across
    closed = scene.embodiment.gripper.closed
    for tilt in _TILTS:
        for opening in (across, direction):
            contact = _behind(scene, cube, direction, opening, tilt)
            contact = contact.shifted(sideways)
            gap = 0.03 * variation.approach_height
            yield (
                primitives.approach(contact.shifted(-gap * direction), closed),
                primitives.push(
                    contact.shifted(distance * direction), "cube", PUSH_SPEED_M_S, primitives.succeeds()
                ),
                primitives.retract(contact.shifted((distance - 0.03) * direction), frozenset({"cube"})),
            )


def _behind(
    scene: Scene, cube: SceneObject, direction: np.ndarray, opening: np.ndarray, tilt: float
) -> ToolTarget:
    """Tool target with the closed gripper just touching the cube's face that looks against `direction`."""
    approach = tilted_approach(cube.position, tilt)
    rotation = tool_rotation(approach, _nearer(opening, scene.home_opening))
    across = np.array([-direction[1], direction[0], 0.0])
    low = 2 * cube.thing.half_size[2]
    reach, left, right = (
        scene.gripper.reach_m(rotation.T @ way, above_tip_m=low) for way in (direction, across, -across)
    )
    height = lowest_tool_height(scene) + 0.25 * cube.thing.half_size[2]
    position = cube.position - direction * (cube.thing.half_size[0] + reach) - across * (left - right) / 2
    return ToolTarget(np.array([position[0], position[1], height]), approach, rotation[:, 1])


def picking_up(
    scene: Scene, name: str, target: ToolTarget, variation: Variation
) -> tuple[Holding, Decomposition]:
    """Approach from along the target's approach direction, grasp, and lift a little."""
    gripper, cube = scene.embodiment.gripper, scene.objects[name]
    back = -0.07 * variation.approach_height * target.approach
    holding = grasped(target, name, cube.pose)
    steps = (
        primitives.approach(target.shifted(back), gripper.open),
        primitives.reach(target, REACH_SPEED_M_S),
        primitives.grasp(name, gripper.closed, GRASP_S),
        primitives.lift(target.shifted(np.array([0.0, 0.0, 0.03])), holding),
    )
    return holding, steps


def grasp_targets(scene: Scene, thing: SceneObject) -> Iterator[ToolTarget]:
    """Grasps from above across two opposite faces: least tilt first, then the least turn of the wrist from home."""
    yaw = float(np.arctan2(thing.pose.rotation[1, 0], thing.pose.rotation[0, 0]))
    openings = [horizontal(yaw + quarter * np.pi / 2) for quarter in range(4)]
    radial = _radial(thing.position)
    home = _turned_with(scene.home_opening, radial)
    openings.sort(key=lambda opening: -float(opening @ home))
    height = max(thing.position[2], lowest_tool_height(scene))
    middle = scene.gripper.middle_m(2 * thing.thing.half_size[1] + 2 * FINGER_GAP_M)
    for tilt in _TILTS:
        for opening in openings:
            position = np.array([thing.position[0], thing.position[1], height]) - middle * opening
            yield ToolTarget(position, tilted_approach(position, tilt), opening)


def carry_targets(holding: Holding, goal: np.ndarray) -> tuple[ToolTarget, ...]:
    """Tool targets that bring a held object's centre to `goal`, at any turn, from upright to level."""
    targets = []
    for tilt in _CARRY_TILTS:
        approach = tilted_approach(goal, tilt)
        targets.append(ToolTarget(goal - approach * holding.grasp.position[2], approach))
    return tuple(targets)


def grasped(target: ToolTarget, name: str, pose: Pose) -> Holding:
    """What the tool holds after grasping at `target` an object that is at `pose`."""
    assert target.opening is not None
    tool = Pose(target.position, tool_rotation(target.approach, target.opening))
    return Holding(name, tool.inverse() @ pose)


def lowest_tool_height(scene: Scene) -> float:
    """The lowest height of the tool point at which the fingertips clear the table."""
    return scene.table_height + scene.gripper.tip_m + TABLE_CLEARANCE_M


def _nearer(direction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return direction if direction @ reference >= 0 else -direction


def _radial(position: np.ndarray) -> np.ndarray:
    return np.array([position[0], position[1], 0.0]) / np.hypot(position[0], position[1])


def _turned_with(direction: np.ndarray, radial: np.ndarray) -> np.ndarray:
    """`direction` as it becomes when the base turns from straight ahead to `radial`."""
    x, y = radial[0], radial[1]
    return np.array([x * direction[0] - y * direction[1], y * direction[0] + x * direction[1], direction[2]])


SKILLS: dict[str, Skill] = {
    "pick-cube": pick_cube,
    "push-cube": push_cube,
    "pull-cube": pull_cube,
}
