"""Where things are: in the image, seen from the robot, from the gripper, from the goal.

Nothing is asked where the answer is within `_MARGIN` of turning over.
"""

from __future__ import annotations

from random import Random

import numpy as np

from blm.curate.corpus.projection import POINT_SCALE
from blm.curate.corpus.questions.question import Question
from blm.curate.corpus.questions.scene import Scene, Thing

_SIDE_MARGIN_THOUSANDTHS = 50
_SIDE_MARGIN_M = 0.015
_NEARER_MARGIN_M = 0.02
_POINT_SPACING = 80
_DISTANCE_SPACING_CM = 3
_POINT_FORM = (
    f"Answer as (x, y) in thousandths of the image's width and height, (0, 0) at the upper left corner and "
    f"({POINT_SCALE}, {POINT_SCALE}) at the lower right."
)


def image_side(scene: Scene, rng: Random) -> Question | None:
    """Whether an object's centre is in the left or the right half of the image."""
    named = scene.named()
    if scene.camera is None or not named:
        return None
    offsets = [scene.camera.thousandths(thing.position)[0] - POINT_SCALE / 2 for thing in named]  # type: ignore[index]
    found = _on_a_side(named, offsets, _SIDE_MARGIN_THOUSANDTHS, rng)
    if found is None:
        return None
    thing, offset = found
    return Question(
        wordings=(
            f"Is the {thing.phrase} in the left or the right half of the image?",
            f"In which half of the picture is the {thing.phrase}, left or right?",
            f"Seen from the image's middle, on which side is the {thing.phrase}?",
        ),
        answer="left" if offset < 0 else "right",
        distractors=("left", "right"),
        form="Answer with left or right.",
        shows=(thing,),
    )


def gripper_side(scene: Scene, rng: Random) -> Question | None:
    """Whether an object is to the left or right of the gripper, seen from the robot's base (+y is its left)."""
    named = scene.named()
    if scene.tool is None or not named:
        return None
    offsets = [float(thing.position[1] - scene.tool[1]) for thing in named]
    found = _on_a_side(named, offsets, _SIDE_MARGIN_M, rng)
    if found is None:
        return None
    thing, offset = found
    return Question(
        wordings=(
            f"Seen from the robot's base looking forward, is the {thing.phrase} left or right of the gripper?",
            f"From the robot's own point of view, on which side of its gripper is the {thing.phrase}?",
            f"Facing the way the robot faces, where is the {thing.phrase}: left or right of the gripper?",
        ),
        answer="left" if offset > 0 else "right",
        distractors=("left", "right"),
        form="Answer with left or right.",
        shows=(thing,),
    )


def _on_a_side(
    things: list[Thing], offsets: list[float], margin: float, rng: Random
) -> tuple[Thing, float] | None:
    """One of the things on a side that is drawn first, so that scenes with most things on one side do not tell."""
    side = rng.choice((-1, 1))
    there = [
        (thing, offset) for thing, offset in zip(things, offsets, strict=True) if offset * side >= margin
    ]
    return rng.choice(there) if there else None


def nearer(scene: Scene, rng: Random) -> Question | None:
    """Which of two things, objects or the goal, is nearer to the gripper (or farther), in a straight line."""
    places = [(thing.phrase, thing.position) for thing in scene.named()]
    if scene.goal is not None and scene.sees(scene.goal.position):
        places.append((scene.goal.phrase, scene.goal.position))
    if scene.tool is None or len(places) < 2:
        return None
    one, other = rng.sample(places, 2)
    gap = float(np.linalg.norm(one[1] - scene.tool) - np.linalg.norm(other[1] - scene.tool))
    if abs(gap) < _NEARER_MARGIN_M:
        return None
    near, far = (one[0], other[0]) if gap < 0 else (other[0], one[0])
    word = rng.choice(("nearer to", "farther from"))
    return Question(
        wordings=(
            f"Which is {word} the gripper: the {one[0]} or the {other[0]}?",
            f"Of the {one[0]} and the {other[0]}, which one is {word} the gripper?",
            f"Compare the {one[0]} with the {other[0]}: which is {word} the tip of the gripper?",
        ),
        answer=f"the {near if word == 'nearer to' else far}",
        distractors=(f"the {near}", f"the {far}"),
        shows=tuple(thing for thing in scene.named() if thing.phrase in (near, far)),
    )


def pixel_point(scene: Scene, rng: Random) -> Question | None:
    """Where an object's centre appears, as '(x, y)' in thousandths of the image's width and height.

    Distractors are where other things are, as far as they go.
    """
    named = scene.named()
    if scene.camera is None or not named:
        return None
    thing = rng.choice(named)
    point = scene.camera.thousandths(thing.position)
    if point is None:
        return None
    elsewhere = [scene.camera.thousandths(other.position) for other in scene.things]
    rng.shuffle(elsewhere)
    chosen = [point]
    while len(chosen) < 4:
        candidate = elsewhere.pop() if elsewhere else _anywhere(rng)
        if candidate and all(
            np.hypot(candidate[0] - x, candidate[1] - y) >= _POINT_SPACING for x, y in chosen
        ):
            chosen.append(candidate)
    return Question(
        wordings=(
            f"Point at the centre of the {thing.phrase}. {_POINT_FORM}",
            f"Where in the image is the middle of the {thing.phrase}? {_POINT_FORM}",
            f"Give the image position of the {thing.phrase}. {_POINT_FORM}",
        ),
        answer=_point_text(point),
        distractors=tuple(map(_point_text, chosen[1:])),
        shows=(thing,),
    )


def goal_distance(scene: Scene, rng: Random) -> Question | None:
    """Centimetres from an object's centre to the goal's: along the table for a disc, straight for a point.

    Only of objects that the task is about: nothing else is on its way there.
    """
    named = [thing for thing in scene.named() if thing.kind.role == "task"]
    if scene.goal is None or not named or not scene.sees(scene.goal.position):
        return None
    thing, flat = rng.choice(named), scene.goal.shape == "disc"
    offset = (thing.position - scene.goal.position)[: 2 if flat else 3]
    distance = round(100 * float(np.linalg.norm(offset)))
    way = "along the table" if flat else "in a straight line"
    lowest = distance % _DISTANCE_SPACING_CM
    others = range(lowest, distance + 5 * _DISTANCE_SPACING_CM, _DISTANCE_SPACING_CM)
    goal = scene.goal.phrase
    return Question(
        wordings=(
            f"How far is the centre of the {thing.phrase} from the centre of the {goal}, {way}?",
            f"What is the distance between the {thing.phrase} and the {goal}, centre to centre, {way}?",
            f"Estimate how far the {thing.phrase}'s centre still is from that of the {goal}, {way}.",
        ),
        answer=f"{distance} cm",
        distractors=tuple(f"{other} cm" for other in others if abs(other - distance) <= 15),
        form="Answer in whole centimetres.",
        shows=(thing,),
    )


def _anywhere(rng: Random) -> tuple[int, int]:
    return rng.randrange(POINT_SCALE + 1), rng.randrange(POINT_SCALE + 1)


def _point_text(point: tuple[int, int]) -> str:
    return f"({point[0]}, {point[1]})"
