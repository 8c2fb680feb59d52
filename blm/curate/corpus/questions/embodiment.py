"""Which robot it is, and how it is built."""

from __future__ import annotations

from functools import lru_cache
from random import Random

from blm.curate.corpus.questions.question import Question
from blm.curate.corpus.questions.scene import Scene
from blm.schemas.embodiment import embodiment_names, load_embodiment


def robot_name(scene: Scene, rng: Random) -> Question | None:
    """The robot's title."""
    return Question(
        wordings=(
            "Which robot is this?",
            "Name the robot arm in the picture.",
            "What model of robot arm is at work here?",
        ),
        answer=scene.robot.title,
        distractors=_titles(),
    )


def robot_joints(scene: Scene, rng: Random) -> Question | None:
    """How many joints the arm has without its gripper."""
    return Question(
        wordings=(
            "How many joints does this robot's arm have, not counting the gripper?",
            "Without its gripper, how many axes can this arm move?",
            "How many degrees of freedom does the arm have, leaving out the gripper?",
        ),
        answer=str(sum(axis.role == "arm" for axis in scene.robot.axes)),
        distractors=("4", "5", "6", "7", "8"),
        form="Answer with a number.",
    )


@lru_cache(maxsize=1)
def _titles() -> tuple[str, ...]:
    return tuple(load_embodiment(name).title for name in embodiment_names())
