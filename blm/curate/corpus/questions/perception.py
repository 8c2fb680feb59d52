"""What can be seen: which objects, their colours, how many."""

from __future__ import annotations

from random import Random

from blm.curate.corpus.questions.question import MOST_OPTIONS, Question
from blm.curate.corpus.questions.scene import Scene

COLOURS = ("red", "green", "blue", "yellow", "orange", "brown", "purple", "white", "black")
NOUNS = ("cube", "ball", "peg", "tray")
_MOST_COUNTED = 4


def object_names(scene: Scene, rng: Random) -> Question | None:
    """Every object by colour and noun, things the task is not about too, e.g. 'a green cube and a red cube'."""
    if not scene.all_seen:
        return None
    true = [(thing.kind.colour, thing.kind.noun) for thing in scene.things]
    wrong = {_listing(_nearly(true, rng)) for _ in range(6)}
    several = len(true) > 1
    return Question(
        wordings=(
            f"Which object{'s' if several else ''} can you see in front of the robot?",
            f"What {'are the objects' if several else 'is the object'} that the robot can work on?",
            f"Name the loose object{'s' if several else ''} in the workspace.",
        ),
        answer=_listing(true),
        distractors=tuple(sorted(wrong - {_listing(true)})),
        form="Give colour and shape.",
        shows=scene.things,
    )


def _nearly(true: list[tuple[str, str]], rng: Random) -> list[tuple[str, str]]:
    """The list with another colour or another shape for one object, or with colours of two exchanged."""
    changed, place = list(true), rng.randrange(len(true))
    colour, noun = true[place]
    other = rng.randrange(len(true))
    if rng.random() < 0.5 and true[other][0] != colour and true[other][1] != noun:
        changed[place], changed[other] = (true[other][0], noun), (colour, true[other][1])
    elif rng.random() < 0.5:
        changed[place] = (rng.choice([one for one in COLOURS if one != colour]), noun)
    else:
        changed[place] = (colour, rng.choice([one for one in NOUNS if one != noun]))
    return changed


def object_present(scene: Scene, rng: Random) -> Question | None:
    """Whether there is such an object. Where there is none, one has its colour and another is of its kind."""
    if not scene.all_seen:
        return None
    there = {(thing.kind.colour, thing.kind.noun) for thing in scene.things}
    colours, nouns = {colour for colour, _ in there}, {noun for _, noun in there}
    alike = {(colour, noun) for colour in colours for noun in NOUNS} | {
        (colour, noun) for colour in COLOURS for noun in nouns
    }
    present = rng.random() < 0.5
    colour, noun = rng.choice(sorted(there if present else alike - there))
    phrase = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {noun}"
    return Question(
        wordings=(
            f"Is there {phrase} in front of the robot?",
            f"Can you see {phrase} in the workspace?",
            f"Does the picture show {phrase}?",
        ),
        answer="yes" if present else "no",
        distractors=("yes", "no"),
        form="Answer with yes or no.",
        shows=scene.things,
    )


def object_colour(scene: Scene, rng: Random) -> Question | None:
    """The colour of an object whose noun is unique in the scene. Distractors are colours of other things first."""
    nouns = [thing.kind.noun for thing in scene.things]
    told_apart = [t for t in scene.things if nouns.count(t.kind.noun) == 1 and scene.sees(t.position)]
    if not told_apart:
        return None
    thing = rng.choice(told_apart)
    kind = thing.kind
    nearby = sorted({thing.kind.colour for thing in scene.things} - {kind.colour})[: MOST_OPTIONS - 1]
    rest = [colour for colour in COLOURS if colour not in (*nearby, kind.colour)]
    return Question(
        wordings=(
            f"What colour is the {kind.noun}?",
            f"Which colour does the {kind.noun} in the picture have?",
            f"Name the colour of the {kind.noun}.",
        ),
        answer=kind.colour,
        distractors=(*nearby, *rng.sample(rest, MOST_OPTIONS - 1 - len(nearby))),
        form="Answer with one word.",
        shows=(thing,),
    )


def object_count(scene: Scene, rng: Random) -> Question | None:
    """How many loose objects there are."""
    if not scene.all_seen:
        return None
    return Question(
        wordings=(
            "How many objects, not counting the robot and markings, are in the workspace?",
            "Count the loose objects in front of the robot, leaving out painted targets.",
            "How many things that the robot could move or fill are there?",
        ),
        answer=str(len(scene.things)),
        distractors=tuple(str(count) for count in range(max(_MOST_COUNTED, len(scene.things) + 2) + 1)),
        form="Answer with a number.",
        shows=scene.things,
    )


def _listing(objects: list[tuple[str, str]]) -> str:
    """'a blue cube', 'a green cube and an orange peg': in alphabetical order."""
    phrases = sorted(f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {noun}" for colour, noun in objects)
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)
