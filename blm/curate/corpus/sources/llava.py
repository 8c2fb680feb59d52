"""`llava:PATH`: conversations in LLaVA/ShareGPT form, as JSON list, JSON lines, CSV or Parquet, a file or a folder.

    {"id": …, "image": "a.jpg" | [..], "conversations": [{"from": "human", "value": "<image>\\nWhat?"}, …]}
    {"images": ["a.jpg"], "messages": [{"role": "user", "content": "…" | [{"type": "image"}, {"type": "text", …}]}, …]}
    {"video": "a.mp4", "conversations": [{"from": "human", "value": "<video>\\nWhat?"}, …]}

Images are files below the media root, or bytes in a Parquet cell: paths that lead out of it, absolute paths and
addresses are dropped, not followed.

Reasons: bad_json, bad_row, bad_roles, bad_text, bad_media, media_mismatch, missing_media, media_too_large,
outside_root, row_too_long, unsupported_media.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.sources.columns import mapping, references
from blm.curate.corpus.sources.rows import RowError, row_files
from blm.curate.corpus.sources.turns import Reference, Turns, read_conversations, referenced_files
from blm.schemas.corpus import Message, Part, Role

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
_PLACEHOLDER = re.compile(r"<(?:image|video)>")


def read_llava(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of a file or a folder's files, in order.

    Raises:
        DatasetError: a file is missing, or as a whole unreadable.
    """
    yield from read_conversations(row_files(path), path, chat_turns, config)


def llava_files(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The file itself and every image it uses, each once."""
    return referenced_files(row_files(path), chat_turns, config)


def chat_turns(row: Any) -> tuple[Turns]:
    """The conversation of a row.

    Raises:
        RowError: with the reason and the field.
    """
    row = mapping(row)
    video = _listed(row, "video")
    media = _listed(row, "image")
    if video and media:
        raise RowError("unsupported_media", "video", "a video beside images")
    field, role_key, text_key = ("conversations", "from", "value")
    if row.get("conversations") is None:
        field, role_key, text_key = ("messages", "role", "content")
    listed = row.get(field)
    if not isinstance(listed, list) or not listed:
        raise RowError("bad_row", field, "no list of messages ('conversations' or 'messages')")
    messages: list[tuple[Role, list[str | None]]] = []
    inline: list[Reference] = []
    for index, entry in enumerate(listed):
        where = f"{field}[{index}]"
        entry = mapping(entry, where)
        role = ROLES.get(str(entry.get(role_key)))
        if role is None:
            known = ", ".join(ROLES)
            raise RowError("bad_roles", f"{where}.{role_key}", f"{entry.get(role_key)!r:.80}; known: {known}")
        messages.append((role, _pieces(entry.get(text_key), role, f"{where}.{text_key}", inline)))
    origin: dict[str, Any] = {"images": [one for one in media if isinstance(one, str)]}
    if isinstance(row.get("id"), str | int):
        origin["id"] = row["id"]
    found = inline or media or video
    return (Turns(_numbered(messages, found, "video" if video else "image"), tuple(found), origin=origin),)


def _listed(row: dict[str, Any], singular: str) -> list[Reference]:
    field = singular if row.get(singular) else f"{singular}s"
    return references(row.get(field), field)


def _pieces(content: Any, role: Role, field: str, inline: list[Reference]) -> list[str | None]:
    """Text pieces, and None for each image; paths named inside typed parts are appended to `inline`."""
    if isinstance(content, str):
        return _split(content) if role == "user" else [content]
    if not isinstance(content, list):
        raise RowError("bad_text", field, f"a {type(content).__name__}, not text or parts")
    pieces: list[str | None] = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            pieces.append(part["text"])
        elif kind == "image":
            named = part.get("image") or part.get("path") or part.get("url")
            if named is not None:
                inline += references(named, f"{field}[{index}]")[:1]
            pieces.append(None)
        else:
            reason = "unsupported_media" if kind not in (None, "text") else "bad_text"
            raise RowError(reason, f"{field}[{index}]", f"a part of type {kind!r:.40}")
    return pieces


def _split(text: str) -> list[str | None]:
    pieces: list[str | None] = []
    for index, piece in enumerate(_PLACEHOLDER.split(text)):
        pieces += [None, piece] if index else [piece]
    return pieces


def _numbered(
    messages: list[tuple[Role, list[str | None]]], media: list[Reference], kind: str
) -> tuple[Message, ...]:
    """Tie placeholders to media in order; media that no message mentions stand before the first question."""
    mentioned = sum(pieces.count(None) for _, pieces in messages)
    if media and not mentioned:
        first = next((pieces for role, pieces in messages if role == "user"), None)
        if first is None:
            raise RowError("bad_roles", "messages", f"no user turn to show the {kind}s in")
        first[:0] = [None] * len(media)
    elif mentioned != len(media):
        raise RowError("media_mismatch", kind, f"{mentioned} places for {kind}s, {len(media)} {kind}s")
    count = 0
    result = []
    for role, pieces in messages:
        parts = []
        for piece in pieces:
            if piece is None:
                parts.append(Part("video" if kind == "video" else "image", media=count))
                count += 1
            elif piece.strip():
                parts.append(Part("text", piece))
        result.append(Message(role, tuple(parts)))
    return tuple(result)
