"""`egothink:PATH`: first-person questions in the form of EgoThink: folders with `annotations.json` and `images/`.

    Planning/assistance/annotations.json: [{"image_path": ["a.jpg"], "question": …, "answer": …}, …]

| field | becomes |
|---|---|
| `image_path` (or `image`, `images`) | images before the question, from the folder `images/` beside the file |
| `question`, `answer` | the conversation |
| the folder's name | the task family (see `_FAMILIES`), else the source's |

PATH is one such file, one folder, or the folder above all of them. Reasons: bad_row, bad_text, and those of media.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.columns import mapping, references, text
from blm.curate.corpus.sources.rows import RowError, row_files
from blm.curate.corpus.sources.turns import (
    Mapper,
    Turns,
    question_and_answer,
    read_conversations,
    referenced_files,
)
from blm.schemas.corpus import TaskFamily

_FAMILIES: dict[str, TaskFamily] = {
    "activity": "temporal",
    "forecast": "temporal",
    "forecasting": "temporal",
    "location": "spatial",
    "spatial": "spatial",
    "affordance": "affordance",
    "attribute": "perception",
    "existence": "perception",
    "assistance": "planning",
    "navigation": "planning",
    "comparing": "perception",
    "counting": "perception",
    "situated": "general",
}
_IMAGES = "images"


def read_egothink(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of every `annotations` file, in order.

    Raises:
        DatasetError: there is none, or one is as a whole unreadable.
    """
    for file in row_files(path, "annotations.*"):
        yield from read_conversations([file], path, _mapper(file, config), config)


def egothink_files(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The annotations and the images they use."""
    for file in row_files(path, "annotations.*"):
        yield from referenced_files([file], _mapper(file, config), config)


def _mapper(file: Path, config: SourceConfig) -> Mapper:
    family = _FAMILIES.get(file.parent.name.lower())
    beside = config.media_root is None and (file.parent / _IMAGES).is_dir()
    return lambda row: (replace(egothink_turns(row, _IMAGES if beside else ""), family=family),)


def egothink_turns(row: Any, folder: str = "") -> Turns:
    """The conversation of a row whose images lie in `folder` below the media root.

    Raises:
        RowError: with the reason and the field.
    """
    row = mapping(row)
    field = next((name for name in ("image_path", "image", "images") if row.get(name)), "image_path")
    images = references(row.get(field), field)
    if not images:
        raise RowError("media_mismatch", field, "no image")
    # An absolute path or an address must stay one, so that it is refused as such.
    kept = [
        f"{folder}/{one}"
        if folder and isinstance(one, str) and one[0] not in "/\\" and ":" not in one
        else one
        for one in images
    ]
    origin = {"id": row["id"]} if isinstance(row.get("id"), str | int) else {}
    return question_and_answer(text(row, "question"), text(row, "answer"), kept, origin=origin)
