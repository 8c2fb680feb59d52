"""`webdataset:PATH`: samples of WebDataset tars, our own corpora among them; a tar, or a folder of tars.

    000.json + 000.jpg         the JSON is a chat or a question with its answer, as `parquet` reads them
    000.txt + 000.jpg          a caption
    <id>.json + <id>.0.jpg …   a record of a corpus that blm built (also its text-only ones)

Members are read, never extracted. Those that are no plain files, lead out of the archive, are pickled, or are larger
than the limits are left alone, and their sample is dropped. Compressed tars are refused: unpack them first.

Reasons: those of `parquet`, and bad_tar, no_text, pickle_refused, unsafe_member.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.captions import caption_question
from blm.curate.corpus.sources.parquet import table_mapper
from blm.curate.corpus.sources.rows import RowError, parse_json
from blm.curate.corpus.sources.turns import (
    Mapper,
    RowPlace,
    Turns,
    as_recorded,
    conversations_of_row,
    is_recorded,
    question_and_answer,
)
from blm.schemas.corpus import CorpusRecord
from blm.schemas.errors import DatasetError

_IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "svg"})
_TEXTS = frozenset({"txt", "text", "caption"})
_PICKLES = frozenset({"pkl", "pickle", "pyd", "pth", "pt", "npy", "npz"})
_MOST_MEMBERS = 64


@dataclass
class _Sample:
    """The members of one key, by what follows the key's dot; or why it cannot be used."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    problem: RowError | None = None


def read_webdataset(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of every tar, in order.

    Raises:
        DatasetError: there is no tar.
    """
    mapper = table_mapper(config)
    for file in webdataset_files(path, config):
        place = RowPlace.of(file, path, config)
        for number, sample in enumerate(_samples(file, config)):
            row = sample.problem or sample
            yield from conversations_of_row(
                row, number, place, lambda found: _turns(found, mapper), file.parent, config
            )


def webdataset_files(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The tars themselves."""
    found = [path] if path.is_file() else sorted(path.rglob("*.tar"))
    if not found:
        raise DatasetError(f"{path} holds no .tar file.", "Give a tar, or a folder of tars.")
    yield from found


def _samples(path: Path, config: SourceConfig) -> Iterator[_Sample]:
    """Neighbouring members with the same key, as WebDataset groups them."""
    sample: _Sample | None = None
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                # The archive would otherwise remember every member it has read.
                tar.members = []  # pyright: ignore[reportAttributeAccessIssue]
                if member.isdir():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                    sample = _Sample(key)
                _add(sample, member, ending.lower(), tar, config)
            _check_end(path, tar)
    except (tarfile.TarError, OSError, ValueError, EOFError, OverflowError) as error:
        if sample is not None:
            yield sample
        yield _Sample("", problem=RowError("bad_tar", "", f"{path.name} breaks off: {error}"[:300]))
        return
    if sample is not None:
        yield sample


def _check_end(path: Path, tar: tarfile.TarFile) -> None:
    """A broken header in the middle looks like the end to `tarfile`: the end is empty, or zeros."""
    with path.open("rb") as stream:
        stream.seek(tar.offset)
        if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no header at byte {tar.offset}")


def _add(
    sample: _Sample, member: tarfile.TarInfo, ending: str, tar: tarfile.TarFile, config: SourceConfig
) -> None:
    if sample.problem is not None:
        return
    name, limits = member.name, config.limits
    parts = PurePosixPath(name).parts
    image = ending.rpartition(".")[2] in _IMAGES
    limit = limits.max_media_bytes if image else limits.max_row_bytes
    if not member.isreg() or member.issparse() or name.startswith("/") or ".." in parts or "\\" in name:
        sample.problem = RowError("unsafe_member", "", f"{name!r:.200} is no plain file below the archive")
    elif ending.rpartition(".")[2] in _PICKLES:
        sample.problem = RowError("pickle_refused", ending, f"{name!r:.200} may run code when it is read")
    elif member.size > limit:
        sample.problem = RowError(
            "media_too_large" if image else "row_too_long", ending, f"{member.size} bytes"
        )
    elif len(sample.members) >= _MOST_MEMBERS or ending in sample.members:
        sample.problem = RowError("bad_row", ending, f"{name!r:.200} comes twice, or too many members")
    else:
        stream = tar.extractfile(member)
        content = stream.read() if stream is not None else b""
        if len(content) != member.size:
            sample.problem = RowError("bad_tar", ending, f"{name!r:.200} is cut short")
        sample.members[ending] = content


def _turns(sample: _Sample, mapper: Mapper) -> Iterator[Turns]:
    images = [sample.members[name] for name in sorted(sample.members, key=_image_order) if _is_image(name)]
    if "json" in sample.members:
        row = parse_json(sample.members["json"], "json")
        if is_recorded(row) and "media" in row:
            yield _recorded(row, images)
            return
        if isinstance(row, dict) and images:
            row = {name: value for name, value in row.items() if name not in ("image", "images")}
            row["images"] = images
        yield from mapper(row)
        return
    caption = next((sample.members[name] for name in sorted(_TEXTS & set(sample.members))), None)
    if caption is None:
        raise RowError("no_text", "", f"'{sample.key:.100}' has {', '.join(sorted(sample.members))[:200]}")
    said = caption.decode(errors="replace").strip()
    if not said:
        raise RowError("bad_text", "txt", "is empty")
    question = caption_question(sample.key)
    yield question_and_answer(question, said, images, family="perception", origin={"key": sample.key})


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2] in _IMAGES


def _image_order(name: str) -> tuple[int, str]:
    number = name.partition(".")[0]
    return (int(number) if number.isascii() and number.isdigit() and len(number) < 9 else 0, name)


def _recorded(row: dict[str, Any], images: list[bytes]) -> Turns:
    """A record of an earlier build: said and shown as it was, with its lineage."""
    try:
        record = CorpusRecord.from_row(row)
    except (DatasetError, TypeError, AttributeError, ValueError) as error:
        raise RowError("bad_row", "json", f"no record of a corpus: {error}"[:300]) from error
    texts = [part.text for message in record.messages for part in message.content]
    if not all(isinstance(one, str) for one in texts):
        raise RowError("bad_row", "messages", "a text that is none")
    if len(record.media) != len(images):
        raise RowError("media_mismatch", "media", f"{len(record.media)} named, {len(images)} there")
    return as_recorded(Turns(record.messages, tuple(images)), row)
