"""What the robot is doing, and what it does next, from the recorded primitives."""

from __future__ import annotations

from random import Random

from blm.curate.corpus.questions.question import Question
from blm.curate.corpus.questions.scene import Scene

NOTHING_NEXT = "nothing, this is the last step"
_ELSEWHERE = ("approach", "grasp", "lift", "move", "place", "push", "pull", "retreat")
"""Distractors where a dataset knows few primitives; used only among names the dataset itself does not use otherwise."""


def step_now(scene: Scene, rng: Random) -> Question | None:
    """The primitive under way."""
    if not scene.step:
        return None
    return Question(
        wordings=(
            f"The robot was told to '{scene.instruction}'. Which step is it carrying out now?",
            f"Task: {scene.instruction}. What is the robot doing at this moment?",
            f"While doing '{scene.instruction}', which primitive is under way in this image?",
        ),
        answer=_words(scene.step),
        distractors=_other_steps(scene, {scene.step}),
        form="Answer with the name of the step.",
    )


def next_step(scene: Scene, rng: Random) -> Question | None:
    """The primitive that follows the one under way."""
    if not scene.step:
        return None
    following = NOTHING_NEXT if scene.next_step is None else _words(scene.next_step)
    wrong = _other_steps(scene, {scene.next_step or ""})
    return Question(
        wordings=(
            f"The robot was told to '{scene.instruction}' and now does: {_words(scene.step)}. What comes next?",
            f"Task: {scene.instruction}. The step under way is '{_words(scene.step)}'. Which step follows it?",
            f"Plan ahead: after '{_words(scene.step)}', what should the robot do to {scene.instruction}?",
        ),
        answer=following,
        distractors=(*wrong, NOTHING_NEXT),
        form="Answer with the name of the step.",
    )


def _other_steps(scene: Scene, right: set[str]) -> tuple[str, ...]:
    known = [step for step in scene.steps if step]
    pool = known if len(known) >= 4 else [*known, *_ELSEWHERE]
    return tuple(_words(step) for step in dict.fromkeys(pool) if step not in right)


def _words(step: str) -> str:
    return step.replace("_", " ")
