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


def first_step(scene: Scene, rng: Random) -> Question | None:
    """Which of two primitives came first, or later; each was carried out once so far.

    Nearly always the earlier one is how every episode begins, so both are asked for equally often.
    """
    so_far = [*scene.earlier, scene.step]
    once = [step for step in so_far if step and so_far.count(step) == 1]
    if len(once) < 2:
        return None
    first, second = sorted(rng.sample(once, 2), key=so_far.index)
    named = [_words(first), _words(second)]
    rng.shuffle(named)
    right, wrong, when, order = rng.choice(
        ((first, second, "first", "earlier"), (second, first, "last", "later"))
    )
    return Question(
        wordings=(
            f"The robot was told to '{scene.instruction}'. What did it do {when}: {named[0]} or {named[1]}?",
            f"Task: {scene.instruction}. Which of these steps came {order}, '{named[0]}' or '{named[1]}'?",
            f"While doing '{scene.instruction}', the robot did '{named[0]}' and '{named[1]}'. Which one came {when}?",
        ),
        answer=_words(right),
        distractors=(_words(wrong),),
        form="Answer with the name of the step.",
    )


def remaining_steps(scene: Scene, rng: Random) -> Question | None:
    """The primitives that are still to come, in order. Distractors miss one, have one too many, or another order."""
    if not scene.step or not all(scene.later):
        return None
    right = tuple(map(_words, scene.later))
    return Question(
        wordings=(
            f"The robot was told to '{scene.instruction}' and now does: {_words(scene.step)}. What remains after it?",
            f"Task: {scene.instruction}. The step under way is '{_words(scene.step)}'. List the steps that follow.",
            f"Plan the rest: after '{_words(scene.step)}', what must the robot still do to {scene.instruction}?",
        ),
        answer=_plan_text(right),
        distractors=tuple(_plan_text(plan) for plan in _wrong_plans(scene, right, rng)),
        form="Give the names of the steps in order, separated by commas.",
    )


def _wrong_plans(scene: Scene, right: tuple[str, ...], rng: Random) -> list[tuple[str, ...]]:
    others = _other_steps(scene, set(scene.later))
    plans = [right[1:], right[:-1], tuple(reversed(right)), (*right, _words(scene.step)), ()]
    if others:
        other = rng.choice(others)
        plans += [(other, *right[1:]), (*right[:-1], other), (*right, other)]
    return [plan for plan in dict.fromkeys(plans) if plan != right]


def _plan_text(plan: tuple[str, ...]) -> str:
    return ", ".join(plan) or NOTHING_NEXT


def _other_steps(scene: Scene, right: set[str]) -> tuple[str, ...]:
    known = [step for step in scene.steps if step]
    pool = known if len(known) >= 4 else [*known, *_ELSEWHERE]
    return tuple(_words(step) for step in dict.fromkeys(pool) if step not in right)


def _words(step: str) -> str:
    return step.replace("_", " ")
