"""Text from files that somebody else wrote, as it may be shown: nothing in it steers a terminal or hides."""

from __future__ import annotations

import unicodedata

_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"
"""Scripts and emoji need them."""


def printable(text: str, most: int = 4_000) -> str:
    """`text` with control and direction characters spelt out (`\\x1b`), cut after `most` characters.

    Line breaks and tabs stay.
    """
    cut = text if len(text) <= most else f"{text[:most]}… ({len(text) - most} characters more)"
    if cut.isprintable():
        return cut
    return "".join(one if _shown(one) else one.encode("unicode_escape").decode("ascii") for one in cut)


def plain_text(text: str) -> str:
    """`text` with a blank for each control or direction character."""
    return text if text.isprintable() else "".join(one if _shown(one) else " " for one in text)


def _shown(character: str) -> bool:
    return character in "\n\t" or character in _JOINERS or unicodedata.category(character) not in _HIDDEN
