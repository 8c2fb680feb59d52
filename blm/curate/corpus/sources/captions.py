"""The question that a caption answers."""

from __future__ import annotations

import hashlib

_WORDINGS = (
    "Describe the image.",
    "What does the picture show?",
    "Give a caption for this image.",
    "What can be seen here?",
)


def caption_question(name: str) -> str:
    """A wording, the same for the same name."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return _WORDINGS[digest[0] % len(_WORDINGS)]
