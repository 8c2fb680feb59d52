"""Which language a text is in: by its letters, and by whichever identifier is installed, pycld2 (fast) or py3langid."""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any

Identifier = Callable[[str], str]
"""Text → ISO 639-1 code, '' where it is not sure."""

LANGUAGE_EXTRA = "language"
_LIBRARIES = ("pycld2", "py3langid")
_LEAST_LETTERS = 30
"""Below, identifiers guess: 'left' is no more English than Danish. Of remarks of 30 to 60 letters in ten languages,
py3langid took 13 of 857 foreign ones for English, and 2 of 800 English ones for foreign."""
_SCRIPTS = {
    "CJK": "zh ja ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CYRILLIC": "ru uk be bg sr mk kk ky mn tg",
    "ARABIC": "ar fa ur ps ug sd ckb",
    "HEBREW": "he yi",
    "DEVANAGARI": "hi mr ne sa",
    "BENGALI": "bn as",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "ORIYA": "or",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "THAI": "th",
    "LAO": "lo",
    "TIBETAN": "bo dz",
    "MYANMAR": "my",
    "KHMER": "km",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "ETHIOPIC": "am ti",
}
"""The languages written in each script, called as in the names of its characters; not Greek: it is mathematics too."""
_CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_LETTER = re.compile(r"[^\W\d_]")


def load_identifier() -> Identifier | None:
    """None if no library is installed."""
    name, library = _installed()
    if not name:
        return None
    return _with_pycld2(library) if name == "pycld2" else _with_py3langid(library)


def identifier_identity() -> str:
    """Which library `load_identifier` takes, and its version; '' if none is installed."""
    name, _ = _installed()
    return f"{name} {version(name)}" if name else ""


def _installed() -> tuple[str, Any]:
    """The first library that is there, with its name; '' if there is none."""
    for name in _LIBRARIES:
        with suppress(ImportError):
            return name, importlib.import_module(name)
    return "", None


def unwanted_language(text: str, wanted: Sequence[str], identify: Identifier | None) -> str:
    """The language, or else the script, that a text is in and that is not `wanted`; '' where it is, or who can tell.

    Most letters decide about the script, so a sentence that names something in another one is no matter.
    """
    prose = _CODE_BLOCK.sub("", text)
    letters = _LETTER.findall(prose)
    if identify and len(letters) >= _LEAST_LETTERS:
        found = identify(prose)
        return "" if found in wanted else found
    script = "" if prose.isascii() else _unwanted_script(letters, wanted)
    return f"{'Han' if script == 'CJK' else script.title()} script" if script else ""


def _unwanted_script(letters: Sequence[str], wanted: Sequence[str]) -> str:
    """That of most letters if more than half are in scripts that no wanted language uses; else ''."""
    counts = Counter(unicodedata.name(letter, "").partition(" ")[0] for letter in letters)
    foreign = {
        script: count
        for script, count in counts.items()
        if script in _SCRIPTS and not set(_SCRIPTS[script].split()) & set(wanted)
    }
    return (
        max(sorted(foreign), key=lambda one: foreign[one]) if 2 * sum(foreign.values()) > len(letters) else ""
    )


def _with_pycld2(library: Any) -> Identifier:
    def identify(text: str) -> str:
        try:
            sure, _, details = library.detect(text)
        except library.error:
            return ""
        return details[0][1].partition("-")[0] if sure else ""

    return identify


def _with_py3langid(library: Any) -> Identifier:
    def identify(text: str) -> str:
        code, _ = library.classify(text)
        return str(code)

    return identify
