"""`cosmos-reason1:PATH`: multiple choice about videos, in the form of Cosmos-Reason1's benchmark and RL files.

    {"video": "clips/a.mp4", "qa_pairs": {"question": …, "index2ans": {"A": …, "B": …}, "answer": "B"}}

| field | becomes |
|---|---|
| `video` (or `image`, `images`) | frames, or images, before the question |
| `qa_pairs` | one conversation, or one each where it is a list; without it, the row itself holds the fields below |
| `question`, `index2ans` (or `choices`, `options`) | the question with lettered options |
| `answer` | the letter |
| `reasoning` (optional) | stands before the letter |

PATH is a file, or a folder whose files are named `*qa_pairs*.json` (or are all such files).
Reasons: bad_row, bad_text, bad_choices, and those of media.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.columns import choices, lettered, mapping, references, right_letter, text
from blm.curate.corpus.sources.rows import RowError, row_files
from blm.curate.corpus.sources.turns import (
    Reference,
    Turns,
    question_and_answer,
    read_conversations,
    referenced_files,
)


def read_cosmos_reason1(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of a file or a folder's files, in order.

    Raises:
        DatasetError: a file is missing, or as a whole unreadable.
    """
    yield from read_conversations(row_files(path), path, choice_turns, config)


def cosmos_reason1_files(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The files of rows and the videos they use, each once."""
    return referenced_files(row_files(path), choice_turns, config)


def choice_turns(row: Any) -> Iterable[Turns]:
    """One conversation per question of a row.

    Raises:
        RowError: with the reason and the field.
    """
    row = mapping(row)
    videos = references(row.get("video"), "video")
    image_field = "image" if row.get("image") else "images"
    images = references(row.get(image_field), image_field)
    if bool(videos) == bool(images):
        raise RowError("media_mismatch", "video", "a row needs either a video or images")
    pairs = row.get("qa_pairs", row)
    if isinstance(pairs, list):
        return [
            _turns(mapping(pair, f"qa_pairs[{number}]"), videos, images, f"qa_pairs[{number}].")
            for number, pair in enumerate(pairs)
        ]
    return [_turns(mapping(pairs, "qa_pairs"), videos, images, "qa_pairs." if "qa_pairs" in row else "")]


def _turns(pair: dict[str, Any], videos: list[Reference], images: list[Reference], where: str) -> Turns:
    question = text(pair, "question", where)
    field = next((name for name in ("index2ans", "choices", "options") if pair.get(name)), "index2ans")
    options = choices(pair.get(field), f"{where}{field}")
    answer = right_letter(pair.get("answer"), options, f"{where}answer")
    if pair.get("reasoning"):
        answer = f"{text(pair, 'reasoning', where).strip()}\n{answer}"
    kind = "video" if videos else "image"
    return question_and_answer(lettered(question, options), answer, videos or images, kind)
