"""Questions about recorded frames whose answers follow from the recorded state.

Each kind is one function `(scene, rng) -> Question | None`; None where the moment does not allow a clear answer.
Random choices come from `random.Random`, whose sequence for a seed is the same in every version of Python.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from blm.curate.corpus.questions.affordance import action_box
from blm.curate.corpus.questions.embodiment import robot_joints, robot_name
from blm.curate.corpus.questions.judgement import complete_now, outcome
from blm.curate.corpus.questions.perception import (
    object_colour,
    object_count,
    object_names,
    object_present,
)
from blm.curate.corpus.questions.question import Question, ask
from blm.curate.corpus.questions.scene import Scene
from blm.curate.corpus.questions.spatial import goal_distance, gripper_side, image_side, nearer, pixel_point
from blm.curate.corpus.questions.temporal import first_step, next_step, remaining_steps, step_now
from blm.schemas.corpus import TaskFamily

__all__ = ["QUESTION_KINDS", "Question", "QuestionKind", "Scene", "ask"]


@dataclass(frozen=True)
class QuestionKind:
    """A kind of question.

    `moment` says which frame it is asked about: any; one well within a step, each step being equally likely; one chosen
    so that 'yes' and 'no' are balanced; or so that they are in attempts that succeeded, and the end of others.
    """

    family: TaskFamily
    make: Callable[[Scene, Random], Question | None]
    moment: Literal["any", "step", "balanced", "end"] = "any"


QUESTION_KINDS = {
    "object_names": QuestionKind("perception", object_names),
    "object_colour": QuestionKind("perception", object_colour),
    "object_count": QuestionKind("perception", object_count),
    "object_present": QuestionKind("perception", object_present),
    "image_side": QuestionKind("spatial", image_side),
    "gripper_side": QuestionKind("spatial", gripper_side),
    "nearer": QuestionKind("spatial", nearer),
    "pixel_point": QuestionKind("spatial", pixel_point),
    "goal_distance": QuestionKind("spatial", goal_distance),
    "action_box": QuestionKind("affordance", action_box),
    "step_now": QuestionKind("temporal", step_now, "step"),
    "first_step": QuestionKind("temporal", first_step),
    "next_step": QuestionKind("planning", next_step, "step"),
    "remaining_steps": QuestionKind("planning", remaining_steps, "step"),
    "complete_now": QuestionKind("judgement", complete_now, "balanced"),
    "outcome": QuestionKind("judgement", outcome, "end"),
    "robot_name": QuestionKind("embodiment", robot_name),
    "robot_joints": QuestionKind("embodiment", robot_joints),
}
