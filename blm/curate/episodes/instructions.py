"""The wording of an episode's instruction: one form for all spellings, and whether it fits what was recorded."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache

from blm.schemas.printable import plain_text
from blm.schemas.task import load_task, task_names

MAX_INSTRUCTION_CHARACTERS = 2_000
"""Of an instruction; longer ones are cut, and their episodes dropped."""

_COLOURS = "red|green|blue|yellow|orange|purple|pink|cyan|brown|black|white|grey|gray"
_THINGS = "cube|block|box|ball|sphere|peg|bin|tray|cylinder"
_NAMED_THING = re.compile(rf"\b({_COLOURS}) (?:{_THINGS})s?\b")
_SAME_COLOUR = {"gray": "grey"}


@lru_cache(maxsize=1024)  # a dataset has a few, and says them in every episode
def normalised_instruction(text: str) -> str:
    """One text for all spellings: single blanks, lower case, no final full stop, composed Unicode characters.

    Control characters are blanks.
    """
    plain = " ".join(plain_text(unicodedata.normalize("NFC", text)).split()).lower()
    return plain.rstrip(".").rstrip() if not plain.endswith("...") else plain


@lru_cache(maxsize=1024)
def slug(text: str) -> str:
    """Letters and digits, joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def task_name(recorded: str | None) -> str:
    """A recorded name of a task, as it may stand in tables and file names; '' where there is none."""
    if not recorded or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", recorded):
        return recorded or ""
    return slug(recorded)[:60].strip("-")


def task_of_instruction(instruction: str, embodiment: str) -> str:
    """The known task with this wording, else the wording itself as a name ('Fold it!' → 'fold-it')."""
    wording = slug(instruction)
    return _tasks_by_wording(embodiment).get(wording) or wording[:60].strip("-") or "unnamed"


@lru_cache(maxsize=1024)
def contradictions(instruction: str, task: str, objects: str | None, embodiment: str) -> tuple[str, ...]:
    """What in the instruction cannot be true of the episode, in words.

    That is a wording of another known task, and a coloured thing ('the red cube') while nothing in the scene has that
    colour. `objects` is the recorded JSON list of the scene's objects, or None where there is none.
    """
    found = []
    wording = slug(instruction)
    known = _tasks_by_wording(embodiment).get(wording)
    if known is not None and task in task_names() and wording not in _wordings(task, embodiment):
        found.append(f"a wording of '{known}', not of '{task}'")
    colours = _colours(objects)
    named: set[str] = {_one_colour(found.group(1)) for found in _NAMED_THING.finditer(instruction.lower())}
    if colours and (absent := sorted(named - colours)):
        found.append(f"nothing {' or '.join(absent)} in the scene")
    return tuple(found)


def _colours(objects: str | None) -> set[str]:
    if not objects:
        return set()
    try:
        listed = json.loads(objects)
        names = [str(thing["colour_name"]).lower() for thing in listed]
    except (ValueError, TypeError, KeyError, RecursionError):
        return set()
    return {_one_colour(name) for name in names}


def _one_colour(name: str) -> str:
    return _SAME_COLOUR.get(name, name)


@cache
def _wordings(task: str, embodiment: str) -> frozenset[str]:
    return frozenset(map(slug, load_task(task, embodiment).instructions))


@cache
def _tasks_by_wording(embodiment: str) -> dict[str, str]:
    tasks: Sequence[str] = task_names()
    return {wording: task for task in reversed(tasks) for wording in _wordings(task, embodiment)}
