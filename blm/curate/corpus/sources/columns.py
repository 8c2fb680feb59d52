"""Fields of a row, checked: texts, lists, media, choices. Errors name the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blm.curate.corpus.questions.question import LETTERS
from blm.curate.corpus.sources.rows import RowError
from blm.curate.corpus.sources.turns import Reference

LETTER_FORM = "Answer with the letter of the right option."


def mapping(value: Any, field: str = "") -> dict[str, Any]:
    """Raises RowError 'bad_row' for anything but a mapping."""
    if not isinstance(value, dict):
        found = "is missing" if value is None and field else f"a {type(value).__name__}, not a mapping"
        raise RowError("bad_row", field, found)
    return value


def text(row: Mapping[str, Any], field: str, where: str = "") -> str:
    """A text that is there and not empty."""
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        found = "is empty" if value == "" else f"{value!r:.80}, not a text"
        if value is None:
            found = f"is missing; there are: {', '.join(map(str, row))}"[:200] if row else "is missing"
        raise RowError("bad_text", f"{where}{field}", found)
    return value


def numbers(value: Any, count: int, field: str) -> tuple[float, ...]:
    """`count` finite numbers."""
    good = isinstance(value, list | tuple) and len(value) == count
    if not good or not all(_is_number(one) for one in value):
        raise RowError("bad_row", field, f"{value!r:.80}, not {count} numbers")
    return tuple(float(one) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def references(value: Any, field: str) -> list[Reference]:
    """Media of a cell: a path, bytes, the {'bytes', 'path'} that `datasets` writes, a list of these, or nothing."""
    if value is None or value == "":
        return []
    if isinstance(value, list):
        return [_reference(one, f"{field}[{number}]") for number, one in enumerate(value)]
    return [_reference(value, field)]


def _reference(value: Any, field: str) -> Reference:
    if isinstance(value, dict) and ("bytes" in value or "path" in value):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if isinstance(value, str) and value:
        return value
    raise RowError("bad_row", field, f"not a path: {value!r:.80}")


def choices(value: Any, field: str) -> dict[str, str]:
    """Options by letter, of a list in order or a mapping from letters."""
    if isinstance(value, dict):
        value = {letter: option for letter, option in value.items() if option is not None}
        listed = {str(letter).strip().upper(): option for letter, option in sorted(value.items(), key=_first)}
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        listed = dict(zip(LETTERS, value, strict=False))
    else:
        listed = {}
    if not 2 <= len(listed) <= len(LETTERS) or len(listed) != len(value):
        raise RowError("bad_choices", field, f"{value!r:.80}: not 2 to {len(LETTERS)} options")
    if list(listed) != list(LETTERS[: len(listed)]):
        raise RowError("bad_choices", field, f"lettered {', '.join(listed)[:80]}, not A, B, … in order")
    for letter, option in listed.items():
        if not isinstance(option, str) or not option.strip():
            raise RowError("bad_choices", f"{field}.{letter}", f"{option!r:.80}, not a text")
    return listed


def _first(pair: tuple[Any, Any]) -> str:
    return str(pair[0])


def right_letter(answer: Any, options: Mapping[str, str], field: str) -> str:
    """The letter that an answer means: a letter, an index from 0, or the option's own text."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return list(options)[answer]
    if isinstance(answer, str):
        letter = answer.strip().strip("().").upper()
        if letter in options:
            return letter
        same = [one for one, option in options.items() if option.strip() == answer.strip()]
        if len(same) == 1:
            return same[0]
    raise RowError("bad_choices", field, f"{answer!r:.80} is none of {', '.join(options)}")


def lettered(question: str, options: Mapping[str, str]) -> str:
    """A question with its options, one a line, and how to answer."""
    listed = "\n".join(f"{letter}. {option.strip()}" for letter, option in options.items())
    return f"{question.strip()}\n{listed}\n{LETTER_FORM}"
