"""Whether the task is done now, and whether an attempt that ends here succeeded."""

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
    """Whether an attempt that ends with this frame succeeded: how the episode ended, or would have, if cut short."""
    succeeded = scene.succeeded if scene.last else scene.complete
    if succeeded is None:
        return None
    return Question(
        wordings=(
            f"Suppose an attempt to '{scene.instruction}' ends with this image. Did the robot succeed?",
            f"If the robot stopped for good now, would this be accomplished: {scene.instruction}?",
            f"Judge the result if the attempt is over here: did the robot manage to {scene.instruction}?",
        ),
        answer="yes" if succeeded else "no",
        distractors=_YES_NO,
        form=_FORM,
    )
