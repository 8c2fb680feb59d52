"""Skills: how each task is decomposed into primitives.

A skill is a function (scene, variation) → an iterator over decompositions, the preferred one first; the planner takes
the first that is feasible as a whole. Another package adds its own under the entry-point group `blm.skills`: the
entry's name is the task's name, its object the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from itertools import islice, product

import numpy as np

from blm.collect.planning import primitives
from blm.collect.planning.pose import (
    DOWN,
    UP,
    Pose,
    ToolTarget,
    angle_between,
    horizontal,
    tool_rotation,
)
from blm.collect.planning.primitives import Holding, Primitive
from blm.collect.planning.scene import Scene, SceneObject, Variation
from blm.schemas.errors import UnknownNameError

Decomposition = tuple[Primitive, ...]
Skill = Callable[[Scene, Variation], Iterator[Decomposition]]

ENTRY_POINTS = "blm.skills"

TABLE_CLEARANCE_M = 0.003
APPROACH_HEIGHT_M = 0.07
FINGER_GAP_M = 0.002
"""Left between a fixed jaw and the object while reaching for it."""
LOW_GOAL_M = 0.01
"""A carried object may graze the table on its way to a goal lower than this above it."""
PUSH_RETRACT_M = 0.025
PUSH_RUN_UP = 3.0
"""Where a push begins, in half sizes of the object behind it: room to come down in one curve."""
TOUCH_GAP_M = 0.003
"""A push may touch the object only from here on: so that no fingertip comes down on it from above."""
LONGEST_PUSH_S = 0.8
PUSH_SPEED_M_S = 0.16
REACH_SPEED_M_S = 0.2
GRASP_S = 0.4
PLACE_SPEED_M_S = 0.1
SETDOWN_M = 0.0015
"""How far above its resting place an object is let go."""
_TILTS = tuple(np.deg2rad([0.0, 12.0, 25.0, 40.0, -12.0, 55.0, -25.0]))
_OPENINGS = 4
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
    low = scene.goal[2] < scene.table_height + cube.thing.half_size[2] + LOW_GOAL_M
    for target in grasp_targets(scene, cube, variation):
        holding, steps = picking_up(scene, "cube", target, variation)
        carried = carry_targets(scene, holding, scene.goal)
        yield (*steps, primitives.move(carried, holding, onto="table" if low else None))


def push_cube(scene: Scene, variation: Variation) -> Iterator[Decomposition]:
    """Get behind the cube with the closed gripper and push it straight until it is over the goal.

    Where the arm is too short for that, half of the goal's radius is left.
    """
    yield from _sliding(scene, variation, "push")


def pull_cube(scene: Scene, variation: Variation) -> Iterator[Decomposition]:
    """Get behind the cube, seen from the goal, and drag it back with the closed gripper."""
    yield from _sliding(scene, variation, "pull")


def _sliding(scene: Scene, variation: Variation, name: str) -> Iterator[Decomposition]:
    """`name`: of the step that takes the cube along."""
    cube = scene.objects["cube"]
    assert scene.goal is not None
    way = (scene.goal - cube.position) * [1.0, 1.0, 0.0]
    distance = float(np.linalg.norm(way))
    direction = way / distance
    across = np.array([-direction[1], direction[0], 0.0])
    sideways = variation.sideways * cube.thing.half_size[1] * across
    closed = scene.embodiment.gripper.closed
    speed = max(PUSH_SPEED_M_S, distance / LONGEST_PUSH_S)
    gap = PUSH_RUN_UP * cube.thing.half_size[0] * variation.approach_height
    spare = 0.5 * scene.task.goal.radius_m if scene.task.goal else 0.0
    for short in (0.0, spare):
        for tilt, opening in product(_TILTS, (across, direction)):
            contact = _behind(scene, cube, direction, opening, tilt).shifted(sideways)
            run_ups = tuple(contact.shifted(-share * gap * direction) for share in (1.0, 0.6))
            end = contact.shifted((distance - short) * direction)
            yield (
                primitives.approach(run_ups, closed),
                primitives.reach(contact.shifted(-TOUCH_GAP_M * direction), speed, through=True).named(name),
                primitives.push(end, "cube", speed, primitives.succeeds()).named(name),
                primitives.retract((end.shifted(-PUSH_RETRACT_M * direction),), frozenset({"cube"})),
            )


def _behind(
    scene: Scene, cube: SceneObject, direction: np.ndarray, opening: np.ndarray, tilt: float
) -> ToolTarget:
    """Tool target with the closed gripper just touching the cube's face that looks against `direction`."""
    approach = scene.approach(cube.position, tilt)
    rotation = tool_rotation(approach, _nearer(opening, scene.home_opening))
    across = np.array([-direction[1], direction[0], 0.0])
    low = 2 * cube.thing.half_size[2]
    reach, left, right = (
        scene.gripper.reach_m(rotation.T @ way, above_tip_m=low) for way in (direction, across, -across)
    )
    height = lowest_tool_height(scene) + 0.25 * cube.thing.half_size[2]
    position = cube.position - direction * (cube.thing.half_size[0] + reach) - across * (left - right) / 2
    return ToolTarget(np.array([position[0], position[1], height]), approach, rotation[:, 1])


def stack_cube(scene: Scene, variation: Variation) -> Iterator[Decomposition]:
    """Grasp the cube, set it on the base cube, let go and back away."""
    cube, base = scene.objects["cube"], scene.objects["base"]
    on_top = base.position + _up(base.thing.half_size[2] + cube.thing.half_size[2] + SETDOWN_M)
    for target in grasp_targets(scene, cube, variation):
        yield from _set_down(scene, variation, "cube", target, on_top, onto="base")


def place_sphere(scene: Scene, variation: Variation) -> Iterator[Decomposition]:
    """Grasp the ball near its equator, set it into the bin, let go and back away."""
    sphere, tray = scene.objects["sphere"], scene.objects["bin"]
    radius = sphere.thing.half_size[2]
    for target in grasp_targets(scene, sphere, variation, below_centre_m=0.45 * radius):
        clear_of_rim = tray.thing.half_size[2] + 0.4 * tray.thing.half_size[0] + SETDOWN_M
        inside = tray.thing.half_size[2] + radius + SETDOWN_M
        tips = target.position[2] - scene.gripper.tip_m - sphere.position[2]
        height = max(inside, clear_of_rim - tips)
        yield from _set_down(scene, variation, "sphere", target, tray.position + _up(height), onto="bin")


def lift_peg_upright(scene: Scene, variation: Variation) -> Iterator[Decomposition]:
    """Grasp the peg across, above its middle as it will stand, turn the gripper level so that it stands, let go.

    Let go, a peg that turned a little between the fingers rights itself on its flat end.
    """
    peg = scene.objects["peg"]
    axis = peg.pose.rotation[:, 0] * [1.0, 1.0, 0.0]
    axis /= np.linalg.norm(axis)
    outwards = scene.outwards(peg.position)
    home = scene.home_opening_at(peg.position)
    sides = sorted((UP, DOWN), key=lambda side: -float(np.cross(outwards, side) @ home))
    for share, side, down_end in product((0.3, 0.5, 0.0), sides, (axis, -axis)):
        yield from _standing_up(scene, variation, share, side, down_end)


def _standing_up(
    scene: Scene, variation: Variation, share: float, side: np.ndarray, down_end: np.ndarray
) -> Iterator[Decomposition]:
    """Stand the peg on its end in direction `down_end`, held `share` of its half length above its middle.

    `side` is where the tool's x axis points when the gripper is level: up or down.
    """
    peg = scene.objects["peg"]
    half_length, half_width = peg.thing.half_size[:2]
    opening = np.cross(DOWN, -side[2] * down_end)
    middle = scene.gripper.middle_m(2 * half_width + 2 * FINGER_GAP_M)
    position = peg.position - share * half_length * down_end - middle * opening
    position[2] = max(position[2], lowest_tool_height(scene))
    holding, steps = picking_up(scene, "peg", ToolTarget(position, DOWN, opening), variation)
    height = scene.table_height + half_length * (1 + share) + SETDOWN_M
    for stand in _standing_places(scene, peg.position):
        stand = np.array([stand[0], stand[1], height])
        level = scene.approach(stand, np.pi / 2)
        upright = ToolTarget(stand - level * holding.grasp.position[2], level, np.cross(level, side))
        yield (
            *steps,
            primitives.move((upright.shifted(_up(0.02)),), holding, through=True),
            primitives.place(upright, holding, "table", PLACE_SPEED_M_S),
            primitives.release("peg", scene.embodiment.gripper.open),
        )


def _set_down(
    scene: Scene, variation: Variation, name: str, target: ToolTarget, where: np.ndarray, onto: str
) -> Iterator[Decomposition]:
    """Pick an object up at `target`, bring its centre to `where`, keeping it level, and let go."""
    holding, steps = picking_up(scene, name, target, variation)
    opened = scene.embodiment.gripper.open
    for down in level_targets(scene, target, holding, where):
        above = (down.shifted(_up(height)) for height in (0.04, 0.025))
        yield (
            *steps,
            primitives.move(tuple(above), holding, through=True),
            primitives.place(down, holding, onto, PLACE_SPEED_M_S),
            primitives.release(name, opened),
            primitives.retract(targets_before(scene, down, 0.05), frozenset({name})),
        )


def picking_up(
    scene: Scene, name: str, target: ToolTarget, variation: Variation
) -> tuple[Holding, Decomposition]:
    """Approach from along the target's approach direction, grasp, and lift a little."""
    gripper, cube = scene.embodiment.gripper, scene.objects[name]
    height = APPROACH_HEIGHT_M * variation.approach_height
    holding = grasped(target, name, cube.pose)
    steps = (
        primitives.approach(targets_before(scene, target, height), gripper.open),
        primitives.reach(target, REACH_SPEED_M_S),
        primitives.grasp(name, gripper.closed, GRASP_S),
        primitives.lift(target.shifted(_up(0.03)), holding),
    )
    return holding, steps


def grasp_targets(
    scene: Scene, thing: SceneObject, variation: Variation, below_centre_m: float | None = None
) -> Iterator[ToolTarget]:
    """Grasps from above across two opposite faces: least tilt first, then the least turn of the wrist from home.

    A varied demonstration first tries its own lean, turn and choice of faces, where there is room. The tool point
    goes to the object's centre, or so that the fingertips end `below_centre_m` below it.
    """
    if thing.thing.shape != "sphere":
        yaw = float(np.arctan2(thing.pose.rotation[1, 0], thing.pose.rotation[0, 0]))
        yield from _grasps_at(scene, thing, variation, below_centre_m, yaw)
        return
    yaw = float(np.arctan2(*scene.outwards(thing.position)[1::-1]))
    if variation.turn:
        # An arm that cannot turn its wrist so far would use up its budget on leaning.
        turned = _grasps_at(scene, thing, variation, below_centre_m, yaw + variation.turn)
        yield from islice(turned, 2 * _OPENINGS)
    yield from _grasps_at(scene, thing, variation, below_centre_m, yaw)


def _grasps_at(
    scene: Scene, thing: SceneObject, variation: Variation, below_centre_m: float | None, yaw: float
) -> Iterator[ToolTarget]:
    """Grasps whose fingers close along `yaw` or across it, in radians about the vertical."""
    openings = [horizontal(yaw + quarter * np.pi / 2) for quarter in range(_OPENINGS)]
    home = scene.home_opening_at(thing.position)
    openings.sort(key=lambda opening: -float(opening @ home))
    # A gripper with one fixed jaw has next to no room beside the object: other grasps than the plainest brush it.
    roomy = float(np.ptp(scene.gripper.middles)) < FINGER_GAP_M
    if variation.other_faces and roomy and thing.thing.shape != "sphere":
        openings[:2] = openings[1::-1]
    raised = 0.0 if below_centre_m is None else scene.gripper.tip_m - below_centre_m
    height = max(thing.position[2] + raised, lowest_tool_height(scene))
    middle = scene.gripper.middle_m(2 * thing.thing.half_size[1] + 2 * FINGER_GAP_M)
    for tilt in (*((variation.tilt,) if variation.tilt and roomy else ()), *_TILTS):
        for opening in openings:
            position = np.array([thing.position[0], thing.position[1], height]) - middle * opening
            yield ToolTarget(position, scene.approach(position, tilt), opening)


def level_targets(
    scene: Scene, target: ToolTarget, holding: Holding, where: np.ndarray
) -> tuple[ToolTarget, ...]:
    """Tool targets that bring an object grasped at `target` to `where` with the same side up.

    Grasped from straight above, any turn will do; otherwise the tool turns about the vertical only.
    """
    assert target.opening is not None
    tool = Pose(target.position, tool_rotation(target.approach, target.opening))
    before, after = scene.outwards(target.position), scene.outwards(where)
    pan = float(np.arctan2(after[1], after[0]) - np.arctan2(before[1], before[0]))
    found = []
    for turn in (pan, pan + np.pi / 2, pan - np.pi / 2, pan + np.pi):
        spin = _about_vertical(turn) @ tool.rotation
        found.append(ToolTarget(where - spin @ holding.grasp.position, spin[:, 2], spin[:, 1]))
    return tuple(found)


def targets_before(scene: Scene, target: ToolTarget, height: float) -> tuple[ToolTarget, ...]:
    """Where to come from to reach `target`: back along its approach direction, else lower, else leaning outwards.

    Short arms cannot point straight down far above the table.
    """
    above = target.shifted(_up(height))
    leaning = (
        ToolTarget(above.position, _leaned(scene, target, above.position, angle), target.opening)
        for angle in np.deg2rad([12.0, 25.0])
    )
    back = (target.shifted(-share * height * target.approach) for share in (1.0, 0.75))
    return (*back, *leaning, target.shifted(-0.5 * height * target.approach))


def _leaned(scene: Scene, target: ToolTarget, position: np.ndarray, angle: float) -> np.ndarray:
    """The approach direction of `target` leaning outwards by another `angle` radians."""
    tilt = angle_between(target.approach, DOWN) * np.sign(target.approach @ scene.outwards(position))
    return scene.approach(position, float(tilt) + angle)


def carry_targets(scene: Scene, holding: Holding, goal: np.ndarray) -> tuple[ToolTarget, ...]:
    """Tool targets that bring a held object's centre to `goal`, at any turn, from upright to level."""
    targets = []
    for tilt in _CARRY_TILTS:
        approach = scene.approach(goal, tilt)
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


def _standing_places(scene: Scene, position: np.ndarray) -> Iterator[np.ndarray]:
    """Where to stand a peg up: first where it lies, then further out and in, along the same direction."""
    for offset in (0.0, 0.04, 0.08, 0.12, -0.05, 0.16, -0.1):
        yield position + offset * scene.outwards(position)


def _up(height: float) -> np.ndarray:
    return height * UP


def _about_vertical(angle: float) -> np.ndarray:
    """Rotation (3, 3) about z."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _nearer(direction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return direction if direction @ reference >= 0 else -direction


SKILLS: dict[str, Skill] = {
    "pick-cube": pick_cube,
    "push-cube": push_cube,
    "pull-cube": pull_cube,
    "stack-cube": stack_cube,
    "place-sphere": place_sphere,
    "lift-peg-upright": lift_peg_upright,
}
