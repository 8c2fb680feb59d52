"""What flows through the corpus build: a conversation with its media, or a drop with its reason."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import NamedTuple

from blm.schemas.corpus import CorpusRecord


class Conversation(NamedTuple):
    """A corpus record and the bytes of its media, in the record's order.

    `group` names what must stay in one split, e.g. the content hash of the episode that questions were asked about.
    Left empty, it is the first image's hash, or the text's where there is no image.
    """

    record: CorpusRecord
    media: tuple[bytes, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Drop:
    """One input that was left out.

    Attributes:
        source: the source's name in the build.
        row: which input of that source: a row number, an episode, or a record id.
        reason: from the vocabulary of the reader or stage that dropped it.
        field: the field at fault, where one is.
        note: what was found, for a person.
        stage: where; filled in by the pipeline.
        partner: the record that it is the same as, or alike.
    """

    source: str
    row: str
    reason: str
    field: str = ""
    note: str = ""
    stage: str = "read"
    partner: str = ""


def content_digest(record: CorpusRecord) -> str:
    """SHA-256 of what is said and shown: roles, text and media hashes; not ids, sources or provenance."""
    said = [
        (
            message.role,
            [
                part.text if part.kind == "text" else [record.media[part.media].sha256]
                for part in message.content
            ],
        )
        for message in record.messages
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def split_group(conversation: Conversation) -> str:
    """What decides the conversation's split (see `Conversation.group`)."""
    record = conversation.record
    if conversation.group:
        return conversation.group
    return record.media[0].sha256 if record.media else content_digest(record)
