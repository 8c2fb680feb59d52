"""`robovqa:PATH`: questions about long tasks, in the form of RoboVQA's text and video files.

    {"uid": "…", "video": "a.mp4", "text": "<task:planning:freeform>\\ncurrent goal is: … Q: …? <PRED>A: …</PRED>"}

| field | becomes |
|---|---|
| `text` (or `texts`, a list) | a conversation per `<task:…>`: what stands before `<PRED>` asks, what is in it answers |
| the block's name | the task family: planning, success → judgement, affordance, future, past → temporal |
| `video`, else `videos/<uid>.mp4` | frames before the question; `image` and `images` are read as well |

Marks such as `Q:`, `A:` and `<PRED:BINARY>` are taken off. The first word of the block's name is kept as provenance.
Reasons: bad_row, bad_text, and those of media.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.columns import mapping, references
from blm.curate.corpus.sources.rows import RowError, row_files
from blm.curate.corpus.sources.turns import (
    Reference,
    Turns,
    family_in,
    question_and_answer,
    read_conversations,
    referenced_files,
)

_TASK = re.compile(r"<task:([^<>]{1,200})>")
_INNER_MARK = re.compile(r"</?PRED(?::[A-Z]+)?>")


def read_robovqa(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of a file or a folder's files, in order.

    Raises:
        DatasetError: a file is missing, or as a whole unreadable.
    """
    yield from read_conversations(row_files(path), path, robovqa_turns, config)


def robovqa_files(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The files of rows and the videos they use, each once."""
    return referenced_files(row_files(path), robovqa_turns, config)


def robovqa_turns(row: Any) -> Iterable[Turns]:
    """One conversation per task block of a row.

    Raises:
        RowError: with the reason and the field.
    """
    row = mapping(row)
    field = "texts" if row.get("text") is None and "texts" in row else "text"
    texts = row.get(field)
    texts = texts if isinstance(texts, list) else [texts]
    if not texts or not all(isinstance(one, str) for one in texts):
        raise RowError("bad_text", field, "no text")
    media, kind = _media(row)
    blocks = [block for one in texts for block in _blocks(one, field)]
    return [_turns(name, content, media, kind, field) for name, content in blocks]


def _media(row: dict[str, Any]) -> tuple[list[Reference], str]:
    for name in ("image", "images"):
        if row.get(name):
            return references(row[name], name), "image"
    if row.get("video"):
        return references(row["video"], "video"), "video"
    if isinstance(row.get("uid"), str | int):
        return [f"videos/{row['uid']}.mp4"], "video"
    raise RowError("media_mismatch", "video", "neither a video nor a uid that names one")


def _blocks(text: str, field: str) -> list[tuple[str, str]]:
    """Names of tasks and what stands behind each."""
    pieces = _TASK.split(text)
    if len(pieces) < 3 or pieces[0].strip():
        raise RowError("bad_text", field, f"does not begin with <task:…>: {text!r:.80}")
    return list(zip(pieces[1::2], pieces[2::2], strict=True))


def _turns(name: str, content: str, media: list[Reference], kind: str, field: str) -> Turns:
    asked, mark, answered = content.partition("<PRED>")
    answer, end, _ = answered.rpartition("</PRED>")
    if not mark or not end:
        raise RowError("bad_text", field, f"the block '{name:.80}' has no <PRED>…</PRED>")
    before, _, question = asked.partition("Q:")
    question = " ".join(f"{before.strip()} {question.strip()}".split())
    answer = " ".join(_INNER_MARK.sub(" ", answer).split()).removeprefix("A:").strip()
    if not question or not answer:
        raise RowError("bad_text", field, f"the block '{name:.80}' asks or answers nothing")
    return question_and_answer(question, answer, media, kind, family_in(name), {"task": name})
