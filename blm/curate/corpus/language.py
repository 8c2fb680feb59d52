"""Which language a text is in, by whichever identifier is installed: pycld2 (fast) or py3langid."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

Identifier = Callable[[str], str]
"""Text → ISO 639-1 code, '' where it is not sure."""

LANGUAGE_EXTRA = "language"
_LIBRARIES = ("pycld2", "py3langid")
_LEAST_LETTERS = 60
"""Below, identifiers guess: 'left' is no more English than Danish."""
_CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_LETTER = re.compile(r"[^\W\d_]")


def load_identifier() -> Identifier | None:
    """None if no library is installed."""
    for name in _LIBRARIES:
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        return _with_pycld2(library) if name == "pycld2" else _with_py3langid(library)
    return None


def language_of(text: str, identify: Identifier) -> str:
    """The language of a text's prose; '' where there is too little of it, or the identifier is not sure."""
    prose = _CODE_BLOCK.sub("", text)
    return identify(prose) if len(_LETTER.findall(prose)) >= _LEAST_LETTERS else ""


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
