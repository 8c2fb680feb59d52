"""Where the robot has to act, as a box in the image."""

from __future__ import annotations

from random import Random

import numpy as np

from blm.curate.corpus.projection import POINT_SCALE
from blm.curate.corpus.questions.question import Question
from blm.curate.corpus.questions.scene import Scene

_LEAST_SIDE = 8
_BOX_FORM = (
    f"Answer as (left, top, right, bottom) in thousandths of the image's width and height, (0, 0) at the upper left "
    f"corner and ({POINT_SCALE}, {POINT_SCALE}) at the lower right."
)


def action_box(scene: Scene, rng: Random) -> Question | None:
    """The box around an object that the task is about, in thousandths: of its corners through the camera.

    Distractors have its size, moved by about its width, or its place, twice as large.
    """
    named = [thing for thing in scene.named() if thing.kind.role == "task" and thing.corners is not None]
    if scene.camera is None or not named:
        return None
    thing = rng.choice(named)
    corners = [scene.camera.thousandths(corner) for corner in thing.corners]  # type: ignore[union-attr]
    if any(corner is None for corner in corners):
        return None
    points = np.array(corners)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    width, height = right - left, bottom - top
    if min(width, height) < _LEAST_SIDE:
        return None
    moves = [(width, 0), (-width, 0), (0, height), (0, -height)]
    wrong = [(left + x, top + y, right + x, bottom + y) for x, y in moves]
    wrong.append((left - width // 2, top - height // 2, right + width // 2, bottom + height // 2))
    inside = [box for box in wrong if min(box) >= 0 and max(box) <= POINT_SCALE]
    return Question(
        wordings=(
            f"Task: {scene.instruction}. Give the box around the {thing.phrase}. {_BOX_FORM}",
            f"Where in the image is the {thing.phrase} that the robot has to handle? {_BOX_FORM}",
            f"Mark the {thing.phrase} that the robot acts on with a box. {_BOX_FORM}",
        ),
        answer=_box_text((left, top, right, bottom)),
        distractors=tuple(map(_box_text, inside)),
        shows=(thing,),
    )


def _box_text(box: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, box))})"
