"""`parquet:PATH`: tables of conversations or of questions with answers; a file, or a folder of files.

Rows are Parquet, but JSON, JSON lines and CSV are read alike. A row is either a chat, as in `llava`, or has

    question, answer             texts; `question` may also be called prompt, instruction, query or problem,
                                 `answer` response, output, solution, label or caption
    choices, optional            a list or mapping from letters; then `answer` is a letter, an index from 0 or an option
    image or images, optional    a path, bytes, {'bytes', 'path'} as `datasets` writes it, or a list of these
    video, optional              a path; a few of its frames are shown

`options: {columns: {question: …, answer: …, choices: …, image: …, video: …}}` of the source names other columns.

Reasons: those of `llava`, and bad_choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.columns import choices, lettered, mapping, references, right_letter, text
from blm.curate.corpus.sources.llava import chat_turns
from blm.curate.corpus.sources.rows import RowError, row_files
from blm.curate.corpus.sources.turns import (
    Mapper,
    Turns,
    as_recorded,
    is_recorded,
    question_and_answer,
    read_conversations,
    referenced_files,
)
from blm.schemas.errors import ConfigError

_KNOWN_COLUMNS = {
    "question": ("question", "prompt", "instruction", "query", "problem"),
    "answer": ("answer", "response", "output", "solution", "label", "caption"),
    "choices": ("choices", "options"),
    "image": ("image", "images"),
    "video": ("video",),
}


def read_parquet(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of a file or a folder's files, in order.

    Raises:
        DatasetError: a file is missing, or as a whole unreadable.
        ConfigError: `options.columns` names a role that does not exist.
    """
    yield from read_conversations(row_files(path), path, table_mapper(config), config)


def parquet_files(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The files of rows and the media they use, each once."""
    return referenced_files(row_files(path), table_mapper(config), config)


def table_mapper(config: SourceConfig) -> Mapper:
    """Reads a row by the columns that the source names, or the first known ones that it has."""
    named = config.options.get("columns", {})
    if not isinstance(named, Mapping) or not set(named) <= set(_KNOWN_COLUMNS):
        raise ConfigError(
            f"source '{config.name}': options.columns is {named!r}.", f"Allowed: {', '.join(_KNOWN_COLUMNS)}."
        )
    known = {role: (str(named[role]),) if role in named else names for role, names in _KNOWN_COLUMNS.items()}
    return lambda row: table_turns(row, known)


def table_turns(row: Any, columns: Mapping[str, tuple[str, ...]] = _KNOWN_COLUMNS) -> tuple[Turns]:
    """The conversation of a row.

    Raises:
        RowError: with the reason and the field.
    """
    row = mapping(row)
    if isinstance(row.get("conversations"), list) or isinstance(row.get("messages"), list):
        (turns,) = chat_turns(row)
        return (as_recorded(turns, row) if is_recorded(row) else turns,)
    found = {role: _first_there(row, names) for role, names in columns.items()}
    question, answer = text(row, found["question"]), row.get(found["answer"])
    images = references(row.get(found["image"]), found["image"])
    videos = references(row.get(found["video"]), found["video"])
    if images and videos:
        raise RowError("unsupported_media", found["video"], "a video beside images")
    if row.get(found["choices"]):
        options = choices(row[found["choices"]], found["choices"])
        answer = right_letter(answer, options, found["answer"])
        question = lettered(question, options)
    elif not isinstance(answer, str):
        answer = text(row, found["answer"])
    origin = {"id": row["id"]} if isinstance(row.get("id"), str | int) else {}
    kind = "video" if videos else "image"
    return (question_and_answer(question, answer, images or videos, kind, origin=origin),)


def _first_there(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if row.get(name) is not None), names[0])
