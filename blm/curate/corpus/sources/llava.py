"""`llava:PATH`: conversations in LLaVA/ShareGPT form, a JSON list or JSON lines.

    {"id": …, "image": "a.jpg" | [..], "conversations": [{"from": "human", "value": "<image>\\nWhat?"}, …]}
    {"images": ["a.jpg"], "messages": [{"role": "user", "content": "…" | [{"type": "image"}, {"type": "text", …}]}, …]}

Images are files below the media root: paths that lead out of it, absolute paths and addresses are dropped, not
followed. A row that cannot be used becomes a `Drop` that names the row and the field; no row stops the build.

Reasons: bad_json, bad_row, bad_roles, bad_text, media_mismatch, missing_media, media_too_large, outside_root,
unsupported_media.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.schemas.corpus import CorpusRecord, Media, Message, Part, Role
from blm.schemas.errors import DatasetError

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
IMAGE_PLACEHOLDER = "<image>"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class _RowError(Exception):
    """A row that cannot be used: the reason, the field at fault, and what was found."""

    def __init__(self, reason: str, field: str, note: str) -> None:
        super().__init__(note)
        self.reason, self.field, self.note = reason, field, note


@dataclass(frozen=True)
class _Turns:
    """A row's messages, and the paths of the images that their parts refer to."""

    messages: tuple[Message, ...]
    images: tuple[str, ...]


def read_llava(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of a file, in its order.

    Raises:
        DatasetError: the file is missing, or as a whole not JSON.
    """
    root = config.media_root or path.parent
    for number, row in _rows(path):
        try:
            yield _conversation(row, number, path, root, config)
        except _RowError as error:
            note = f"{path.name} row {number}, field '{error.field}': {error.note}"
            yield Drop(config.name, str(number), error.reason, error.field, note)


def llava_files(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The file itself and every image it uses, each once."""
    root = config.media_root or path.parent
    yield path
    seen = set()
    for _, row in _rows(path):
        try:
            images = _turns(row).images
        except _RowError:
            continue
        for image in images:
            try:
                found = _inside(root, image)
            except _RowError:
                continue
            if found not in seen:
                seen.add(found)
                yield found


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Row number from 0 (lines count where they are not empty) and content; an unreadable line is a `_RowError`."""
    if not path.is_file():
        raise DatasetError(f"{path} does not exist.", "Give a JSON or JSONL file of conversations.")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        with path.open("rb") as lines:
            filled = (line for line in lines if line.strip())
            yield from ((number, _line(line)) for number, line in enumerate(filled))
        return
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path} is not readable as JSON: {error}", "Mend it; JSON lines need the ending .jsonl."
        ) from error
    if not isinstance(content, list):
        raise DatasetError(f"{path} holds {type(content).__name__}, not a list of conversations.", "Mend it.")
    yield from enumerate(content)


def _line(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return _RowError("bad_json", "", f"not readable as JSON: {error}")


def _conversation(row: Any, number: int, path: Path, root: Path, config: SourceConfig) -> Conversation:
    turns = _turns(row)
    contents = [_read(root, image, config) for image in turns.images]
    media = tuple(
        Media("image", hashlib.sha256(content).hexdigest(), 0, 0, extension="") for content in contents
    )
    provenance = {"file": path.name, "row": number, "images": list(turns.images)}
    if isinstance(row.get("id"), str | int):
        provenance["id"] = row["id"]
    record = CorpusRecord(
        id=f"{config.name}-{number:08d}",
        messages=turns.messages,
        media=media,
        source=config.name,
        licence=config.licence,
        space=config.space,
        task_family=config.task_family,
        provenance=json.dumps(provenance, sort_keys=True),
    )
    return Conversation(record, tuple(contents))


def _turns(row: Any) -> _Turns:
    if isinstance(row, _RowError):
        raise row
    if not isinstance(row, dict):
        raise _RowError("bad_row", "", f"a {type(row).__name__}, not a mapping")
    if row.get("video") or row.get("videos"):
        raise _RowError("unsupported_media", "video", "video is not read from this form")
    field, role_key, text_key = ("conversations", "from", "value")
    if "conversations" not in row:
        field, role_key, text_key = ("messages", "role", "content")
    listed = row.get(field)
    if not isinstance(listed, list) or not listed:
        raise _RowError("bad_row", field, "no list of messages ('conversations' or 'messages')")
    images = _listed_images(row)
    messages, inline = [], []
    for index, entry in enumerate(listed):
        where = f"{field}[{index}]"
        if not isinstance(entry, dict):
            raise _RowError("bad_row", where, f"a {type(entry).__name__}, not a mapping")
        role = ROLES.get(str(entry.get(role_key)))
        if role is None:
            known = ", ".join(ROLES)
            raise _RowError(
                "bad_roles", f"{where}.{role_key}", f"{entry.get(role_key)!r:.80}; known: {known}"
            )
        messages.append((role, _pieces(entry.get(text_key), role, f"{where}.{text_key}", inline)))
    return _numbered(messages, images, inline)


def _listed_images(row: dict[str, Any]) -> list[str]:
    field = "image" if row.get("image") else "images"
    value = row.get(field)
    listed = value if isinstance(value, list) else [value] if value else []
    for index, image in enumerate(listed):
        if not isinstance(image, str) or not image:
            raise _RowError("bad_row", f"{field}[{index}]", f"not a path: {image!r:.80}")
    return listed


def _pieces(content: Any, role: Role, field: str, inline: list[str]) -> list[str | None]:
    """Text pieces, and None for each image; paths named inside typed parts are appended to `inline`."""
    if isinstance(content, str):
        return _split(content) if role == "user" else [content]
    if not isinstance(content, list):
        raise _RowError("bad_text", field, f"a {type(content).__name__}, not text or parts")
    pieces: list[str | None] = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            pieces.append(part["text"])
        elif kind == "image":
            named = part.get("image") or part.get("path") or part.get("url")
            if named is not None:
                if not isinstance(named, str):
                    raise _RowError("bad_row", f"{field}[{index}]", f"not a path: {named!r:.80}")
                inline.append(named)
            pieces.append(None)
        else:
            reason = "unsupported_media" if kind not in (None, "text") else "bad_text"
            raise _RowError(reason, f"{field}[{index}]", f"a part of type {kind!r:.40}")
    return pieces


def _split(text: str) -> list[str | None]:
    pieces: list[str | None] = []
    for index, piece in enumerate(text.split(IMAGE_PLACEHOLDER)):
        pieces += [None, piece] if index else [piece]
    return pieces


def _numbered(messages: list[tuple[Role, list[str | None]]], listed: list[str], inline: list[str]) -> _Turns:
    """Tie placeholders to images in order; images that no message mentions stand before the first question."""
    images = inline or listed
    mentioned = sum(pieces.count(None) for _, pieces in messages)
    if images and not mentioned:
        first = next((pieces for role, pieces in messages if role == "user"), None)
        if first is None:
            raise _RowError("bad_roles", "messages", "no user turn to show the images in")
        first[:0] = [None] * len(images)
    elif mentioned != len(images):
        raise _RowError("media_mismatch", "image", f"{mentioned} places for images, {len(images)} images")
    count = 0
    result = []
    for role, pieces in messages:
        parts = []
        for piece in pieces:
            if piece is None:
                parts.append(Part("image", media=count))
                count += 1
            elif piece.strip():
                parts.append(Part("text", piece))
        result.append(Message(role, tuple(parts)))
    return _Turns(tuple(result), tuple(images))


def _inside(root: Path, image: str) -> Path:
    """The file that `image` names below `root`, links resolved."""
    posix, windows = PurePosixPath(image), PureWindowsPath(image)
    if _ADDRESS.match(image) or posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise _RowError(
            "outside_root", "image", f"{image!r:.200} is not a relative path below the media root"
        )
    try:
        path = (root / image).resolve()
        inside, there = path.is_relative_to(root.resolve()), path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise _RowError("missing_media", "image", f"{image!r:.200}: {error}") from error
    if not inside:
        raise _RowError("outside_root", "image", f"{image!r:.200} leads out of the media root")
    if not there:
        raise _RowError("missing_media", "image", f"{image!r:.200} does not exist")
    return path


def _read(root: Path, image: str, config: SourceConfig) -> bytes:
    path, limit = _inside(root, image), config.limits.max_media_bytes
    try:
        size = path.stat().st_size
        if size > limit:
            raise _RowError("media_too_large", "image", f"{image!r:.200} has {size} bytes, more than {limit}")
        return path.read_bytes()
    except OSError as error:
        raise _RowError("missing_media", "image", f"{image!r:.200}: {error.strerror}") from error
