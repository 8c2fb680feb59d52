"""`images:PATH`: a folder of images with captions.

    metadata.jsonl or metadata.csv   a row per image: `file_name`, and `caption`, `text` or `description`
                                     (or a question with its answer, as `parquet` reads them)
    a.jpg + a.txt                    where there is no such file: the caption lies beside the image

Images that nothing is said about are dropped, as are captions without an image.
Reasons: those of `parquet`, and no_caption.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.captions import caption_question
from blm.curate.corpus.sources.columns import mapping, text
from blm.curate.corpus.sources.media_folder import file_inside
from blm.curate.corpus.sources.parquet import table_turns
from blm.curate.corpus.sources.rows import RowError
from blm.curate.corpus.sources.turns import (
    RowPlace,
    Turns,
    conversations_of_row,
    question_and_answer,
    read_conversations,
    referenced_files,
)
from blm.schemas.errors import DatasetError

_LISTS = ("metadata.jsonl", "metadata.csv")
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".svg"})
_CAPTIONS = ("caption", "text", "description")


def read_image_folder(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of a folder: by its list, else image by image in the order of names.

    Raises:
        DatasetError: it is no folder, or has neither a list nor images.
    """
    listed = _lists(path)
    if listed:
        yield from read_conversations(listed, path, listed_turns, config)
        return
    images = list(_images(path))
    if not images:
        raise DatasetError(f"{path} holds no image.", f"Known endings: {', '.join(sorted(_IMAGES))}.")
    for image in images:
        place = RowPlace.of(image, path, config)
        yield from conversations_of_row(
            image, 0, place, lambda one: [_with_text_beside(one, path, config)], path, config
        )


def image_folder_files(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The list and the images it names, or every image and the text beside it."""
    listed = _lists(path)
    if listed:
        yield from referenced_files(listed, listed_turns, config)
        return
    for image in _images(path):
        yield image
        if image.with_suffix(".txt").is_file():
            yield image.with_suffix(".txt")


def listed_turns(row: Any) -> Iterable[Turns]:
    """The conversation of a row of the list.

    Raises:
        RowError: with the reason and the field.
    """
    row = mapping(row)
    name = text(row, "file_name")
    if row.get("question") is not None or row.get("messages") is not None:
        return table_turns({**row, "image": name})
    field = next((one for one in _CAPTIONS if row.get(one) is not None), _CAPTIONS[0])
    return [question_and_answer(caption_question(name), text(row, field), [name], family="perception")]


def _lists(path: Path) -> list[Path]:
    if not path.is_dir():
        raise DatasetError(f"{path} is no folder.", "Give a folder of images.")
    return [one for one in sorted(path.rglob("metadata.*")) if one.name in _LISTS and one.is_file()]


def _images(path: Path) -> Iterator[Path]:
    """Below the folder, hidden ones left out; links to folders are not followed."""
    for folder, inner, files in os.walk(path):
        inner[:] = sorted(one for one in inner if not one.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in _IMAGES:
                yield Path(folder) / name


def _with_text_beside(image: Path, base: Path, config: SourceConfig) -> Turns:
    name = image.relative_to(base).as_posix()
    beside = image.relative_to(base).with_suffix(".txt").as_posix()
    try:
        caption = file_inside(base, beside, "caption")
        if caption.stat().st_size > config.limits.max_row_bytes:
            raise RowError("row_too_long", "caption", f"{beside!r:.200} is too long")
        said = caption.read_bytes().decode(errors="replace").strip()
    except RowError as error:
        if error.reason == "missing_media":
            raise RowError("no_caption", "caption", f"{beside!r:.200} does not exist") from error
        raise
    except OSError as error:
        raise RowError("no_caption", "caption", f"{beside!r:.200}: {error.strerror}") from error
    if not said:
        raise RowError("no_caption", "caption", f"{beside!r:.200} is empty")
    return question_and_answer(caption_question(name), said, [name], family="perception")
