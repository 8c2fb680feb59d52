"""Whether the task is done now, and whether the episode ended in success."""

from __future__ import annotations

from random import Random

from blm.curate.corpus.questions.question import Question
from blm.curate.corpus.questions.scene import Scene

_YES_NO = ("yes", "no")
_FORM = "Answer with yes or no."


def complete_now(scene: Scene, rng: Random) -> Question | None:
    """Whether the task's criteria hold at this frame."""
    if scene.complete is None:
        return None
    return Question(
        wordings=(
            f"The robot was told to '{scene.instruction}'. Is this done at this moment?",
            f"Task: {scene.instruction}. Does the image show it completed?",
            f"Has the robot finished this already: {scene.instruction}?",
        ),
        answer="yes" if scene.complete else "no",
        distractors=_YES_NO,
        form=_FORM,
    )


def outcome(scene: Scene, rng: Random) -> Question | None:
    """Whether the episode, of which this is the last frame, succeeded."""
    if scene.succeeded is None:
        return None
    return Question(
        wordings=(
            f"This is the last image of an attempt to '{scene.instruction}'. Did the robot succeed?",
            f"The attempt is over. Was the task accomplished: {scene.instruction}?",
            f"Judge the result of this attempt: did the robot manage to {scene.instruction}?",
        ),
        answer="yes" if scene.succeeded else "no",
        distractors=_YES_NO,
        form=_FORM,
    )
