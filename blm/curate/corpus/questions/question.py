"""A question with its answer, and how it is put: openly, or with lettered options."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from blm.curate.corpus.questions.scene import Thing

LETTERS = "ABCDEFGH"
MOST_OPTIONS = 4


@dataclass(frozen=True)
class Question:
    """What is asked and what is right.

    Attributes:
        wordings: ways to ask the same thing; one is drawn.
        answer: the right answer, in the form that `form` asks for.
        distractors: wrong answers for the form with options; at most `MOST_OPTIONS` - 1 of them are drawn.
        form: a sentence about the form of an open answer, e.g. its unit.
        shows: what has to be visible for the question to make sense.
    """

    wordings: tuple[str, ...]
    answer: str
    distractors: tuple[str, ...]
    form: str = ""
    shows: tuple[Thing, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A question as it is put. `options` are in the order of their letters, none where the question is open."""

    text: str
    answer: str
    options: tuple[str, ...] = ()


def ask(question: Question, rng: Random, choice_share: float) -> Asked:
    """Draw a wording and, for `choice_share` of questions, options in an order where each letter is equally likely."""
    wording = rng.choice(question.wordings)
    wrong = sorted(set(question.distractors) - {question.answer})
    if not wrong or rng.random() >= choice_share:
        return Asked(f"{wording} {question.form}".rstrip(), question.answer)
    options = [question.answer, *rng.sample(wrong, min(len(wrong), MOST_OPTIONS - 1))]
    rng.shuffle(options)
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    text = f"{wording}\n{listed}\nAnswer with the letter of the right option."
    return Asked(text, LETTERS[options.index(question.answer)], tuple(options))
