"""What a row says, in one form for every kind of source, and the conversations made of it.

    row ─mapper─▶ Turns (messages, references to media) ─▶ media read ─▶ Conversation, or a Drop with the reason

A mapper is a function `row -> Iterable[Turns]` that raises `RowError`. A row that cannot be used becomes a `Drop` that
names the file, the row and the field; no row stops the build.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from blm.curate.corpus.config import UNKNOWN_LICENCE, SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.media_folder import (
    check_size,
    fetched_media,
    file_inside,
    media_file,
    read_media,
)
from blm.curate.corpus.sources.rows import RowError, read_rows
from blm.curate.corpus.sources.video_frames import video_frames
from blm.schemas.corpus import CorpusRecord, Media, Message, Part, Space, TaskFamily

Reference = str | bytes
"""A path below the media root, or the file's content itself."""


@dataclass(frozen=True)
class Turns:
    """What one conversation says.

    Attributes:
        messages: whose parts refer to `media`. A part of kind 'video' becomes a few images.
        media: of each, where it is.
        family, space, licence: of the conversation, where the row itself says so.
        origin: what of the row is worth keeping as provenance.
    """

    messages: tuple[Message, ...]
    media: tuple[Reference, ...] = ()
    family: TaskFamily | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    space: Space | None = None
    licence: str | None = None


Mapper = Callable[[Any], Iterable[Turns]]

_FAMILIES: tuple[tuple[str, TaskFamily], ...] = (
    ("planning", "planning"),
    ("success", "judgement"),
    ("affordance", "affordance"),
    ("future", "temporal"),
    ("past", "temporal"),
)
"""By words in the names of tasks that RoboVQA coined and ShareRobot took over."""


_RECORDED = ("id", "source", "licence", "space", "task_family", "provenance")
_LICENCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()-]{0,99}")


def family_in(task: str) -> TaskFamily | None:
    """What a conversation trains, by the name of its task in lower case; None where the name does not tell."""
    return next((family for word, family in _FAMILIES if word in task), None)


def is_recorded(row: Any) -> bool:
    """Whether a row is a conversation of a corpus that blm built, from a shard or the Parquet form."""
    return isinstance(row, dict) and {"messages", *_RECORDED} <= set(row)


def as_recorded(turns: Turns, row: Mapping[str, Any]) -> Turns:
    """The conversation of such a row with the licence, space, family and lineage that it had there.

    Raises:
        RowError: 'bad_row', with the field at fault.
    """
    for name in _RECORDED:
        if not isinstance(row[name], str):
            raise RowError("bad_row", name, f"{row[name]!r:.80}, not a text")
    for name, known in (("space", get_args(Space)), ("task_family", get_args(TaskFamily))):
        if row[name] not in known:
            raise RowError("bad_row", name, f"{row[name]!r:.80} is none of {', '.join(known)}")
    if not _LICENCE_NAME.fullmatch(row["licence"]):
        raise RowError("bad_row", "licence", f"{row['licence']!r:.80}, not a licence's name")
    return replace(
        turns,
        family=row["task_family"],
        space=row["space"],
        licence=None if row["licence"] == UNKNOWN_LICENCE else row["licence"],
        origin={"id": row["id"], "from": row["source"], "earlier": row["provenance"]},
    )


def question_and_answer(
    question: str,
    answer: str,
    media: Sequence[Reference] = (),
    kind: str = "image",
    family: TaskFamily | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Turns:
    """One question about media that stand before it, and its answer."""
    shown = tuple(Part("video" if kind == "video" else "image", media=number) for number in range(len(media)))
    messages = (
        Message("user", (*shown, Part("text", question))),
        Message("assistant", (Part("text", answer),)),
    )
    return Turns(messages, tuple(media), family, origin or {})


def read_conversations(
    files: Sequence[Path], base: Path, mapper: Mapper, config: SourceConfig
) -> Iterator[Conversation | Drop]:
    """The conversations of files of rows; `base` is the source's path.

    Media are looked for below `config.media_root`, else next to each file.

    Raises:
        DatasetError: a file is as a whole unreadable.
    """
    for path in files:
        root = config.media_root or path.parent
        place = RowPlace.of(path, base, config)
        for number, row in enumerate(read_rows(path, config.limits)):
            yield from conversations_of_row(row, number, place, mapper, root, config)


@dataclass(frozen=True)
class RowPlace:
    """Where rows come from: the file's name for people, what rows are called in drops, and how ids begin."""

    file: str
    row_prefix: str
    id_prefix: str

    @classmethod
    def of(cls, path: Path, base: Path, config: SourceConfig) -> RowPlace:
        """Of the file `path` of the source at `base`. Ids of a file in a folder do not depend on other files."""
        if path == base:
            return cls(path.name, "", f"{config.name}-")
        relative = path.relative_to(base).as_posix()
        digest = hashlib.sha256(relative.encode(errors="surrogateescape")).hexdigest()[:8]
        return cls(relative, f"{relative}:", f"{config.name}-{digest}-")


def conversations_of_row(
    row: Any, number: int, place: RowPlace, mapper: Mapper, root: Path, config: SourceConfig
) -> Iterator[Conversation | Drop]:
    """Every conversation that a row holds, or the drop that it, or one of its conversations, becomes."""
    try:
        if isinstance(row, RowError):
            raise row
        listed = list(mapper(row))
        if not listed:
            raise RowError("bad_row", "", "holds no conversation")
    except RowError as error:
        yield _drop(error, str(number), number, place, config)
        return
    for part, turns in enumerate(listed):
        suffix = f"-{part:02d}" if len(listed) > 1 else ""
        try:
            contents, messages = _with_media(turns, root, config)
        except RowError as error:
            yield _drop(error, f"{number}{suffix}", number, place, config)
            continue
        record = CorpusRecord(
            id=f"{place.id_prefix}{number:08d}{suffix}",
            messages=messages,
            media=tuple(
                Media("image", hashlib.sha256(content).hexdigest(), 0, 0, extension="")
                for content in contents
            ),
            source=config.name,
            licence=turns.licence or config.licence,
            space=turns.space or config.space,
            task_family=turns.family or config.task_family,
            provenance=json.dumps({"file": place.file, "row": number, **turns.origin}, sort_keys=True),
        )
        yield Conversation(record, tuple(contents))


def referenced_files(files: Sequence[Path], mapper: Mapper, config: SourceConfig) -> Iterator[Path]:
    """The files of rows and every media file that they use, each once."""
    seen: set[Path] = set()
    for path in files:
        yield path
        root = config.media_root or path.parent
        for row in read_rows(path, config.limits):
            for found in files_of_row(row, mapper, root, config):
                if found not in seen:
                    seen.add(found)
                    yield found


def files_of_row(row: Any, mapper: Mapper, root: Path, config: SourceConfig) -> Iterator[Path]:
    """The media files that a row uses, as far as they are there; for what is fetched, the file that says so."""
    try:
        if isinstance(row, RowError):
            return
        listed = list(mapper(row))
    except RowError:
        return
    for turns in listed:
        videos = _videos(turns)
        for number, reference in enumerate(turns.media):
            try:
                if isinstance(reference, str):
                    fetched = fetched_media(reference, "video" if number in videos else "image", config)
                    yield fetched.address_file if fetched else file_inside(root, reference, "")
            except RowError:
                continue


def _videos(turns: Turns) -> set[int]:
    """The numbers of media that are videos."""
    return {part.media for message in turns.messages for part in message.content if part.kind == "video"}


def _drop(error: RowError, row: str, number: int, place: RowPlace, config: SourceConfig) -> Drop:
    field = f", field '{error.field}'" if error.field else ""
    note = f"{place.file} row {number}{field}: {error.note}"
    return Drop(config.name, f"{place.row_prefix}{row}", error.reason, error.field, note)


def _with_media(turns: Turns, root: Path, config: SourceConfig) -> tuple[list[bytes], tuple[Message, ...]]:
    """The contents, and messages that refer to them; a video stands for the images of its frames."""
    videos = _videos(turns)
    contents: list[bytes] = []
    places: list[tuple[Part, ...]] = []
    for number, reference in enumerate(turns.media):
        loaded = _load(reference, number in videos, root, config)
        places.append(tuple(Part("image", media=len(contents) + step) for step in range(len(loaded))))
        contents += loaded
    messages = tuple(
        Message(
            message.role,
            tuple(
                part
                for one in message.content
                for part in ((one,) if one.kind == "text" else places[one.media])
            ),
        )
        for message in turns.messages
    )
    return contents, messages


def _load(reference: Reference, video: bool, root: Path, config: SourceConfig) -> list[bytes]:
    if video:
        if isinstance(reference, bytes):
            raise RowError("unsupported_media", "video", "video is read from files only")
        path = media_file(root, reference, "video", config)
        return video_frames(path, config.video_frames, config.jpeg_quality, config.limits, "video")
    if isinstance(reference, bytes):
        check_size(len(reference), "in the row", "image", config.limits)
        return [reference]
    return [read_media(root, reference, config)]
