"""Stage I corpus records: one training conversation each, as an Arrow schema and as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pyarrow as pa

from blm.schemas.errors import DatasetError

CORPUS_SCHEMA_VERSION = 1

Role = Literal["system", "user", "assistant"]
Space = Literal["digital", "physical"]
TaskFamily = Literal[
    "perception", "spatial", "temporal", "planning", "affordance", "judgement", "embodiment", "general"
]

_PART = pa.struct([("kind", pa.string()), ("text", pa.string()), ("media", pa.int32())])
_MEDIA = pa.struct(
    [
        ("kind", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("frames", pa.int32()),
        ("extension", pa.string()),
    ]
)

CORPUS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field(
            "messages",
            pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(_PART))])),
            nullable=False,
        ),
        pa.field("media", pa.list_(_MEDIA), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("space", pa.string(), nullable=False),
        pa.field("task_family", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("provenance", pa.string(), nullable=False),
    ],
    metadata={"blm.schema": "corpus", "blm.schema_version": str(CORPUS_SCHEMA_VERSION)},
)
"""`provenance` is JSON: source row, transforms applied, parent episode. Media bytes live beside the records,
addressed by `sha256`."""


@dataclass(frozen=True)
class Part:
    """One piece of a message: text, or a reference into the record's `media` list."""

    kind: Literal["text", "image", "video"]
    text: str = ""
    media: int = -1


@dataclass(frozen=True)
class Message:
    role: Role
    content: tuple[Part, ...]


@dataclass(frozen=True)
class Media:
    """A content-addressed file: `sha256` of its bytes; width and height in pixels; `frames` is 1 for an image."""

    kind: Literal["image", "video"]
    sha256: str
    width: int
    height: int
    frames: int = 1
    extension: str = "jpg"


@dataclass(frozen=True)
class CorpusRecord:
    """One training conversation with its lineage."""

    id: str
    messages: tuple[Message, ...]
    media: tuple[Media, ...]
    source: str
    licence: str
    space: Space
    task_family: TaskFamily
    split: str = "train"
    provenance: str = field(default="{}")

    def to_row(self) -> dict[str, Any]:
        """A row that fits `CORPUS_SCHEMA`."""
        # As `asdict` makes it, in two thirds of the time.
        messages = tuple(
            {"role": one.role, "content": tuple(dict(vars(part)) for part in one.content)}
            for one in self.messages
        )
        return {**vars(self), "messages": messages, "media": tuple(dict(vars(one)) for one in self.media)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> CorpusRecord:
        """The inverse of `to_row`; also reads rows that came through Arrow or JSON.

        Raises:
            DatasetError: a field is missing or outside its vocabulary; names the record and the field.
        """
        try:
            record = cls(
                id=row["id"],
                messages=tuple(
                    Message(m["role"], tuple(Part(p["kind"], p["text"], p["media"]) for p in m["content"]))
                    for m in row["messages"]
                ),
                media=tuple(Media(**m) for m in row["media"]),
                source=row["source"],
                licence=row["licence"],
                space=row["space"],
                task_family=row["task_family"],
                split=row["split"],
                provenance=row["provenance"],
            )
        except (KeyError, TypeError) as error:
            name = row.get("id", "?")
            raise DatasetError(f"corpus record '{name}': field {error} is missing or wrong.") from error
        check_record(record)
        return record


def check_record(record: CorpusRecord) -> None:
    """Raise DatasetError, naming record and field, if a value is outside its vocabulary or a media index dangles."""
    vocabularies = {"space": get_args(Space), "task_family": get_args(TaskFamily)}
    for name, allowed in vocabularies.items():
        value = getattr(record, name)
        if value not in allowed:
            raise DatasetError(
                f"corpus record '{record.id}': {name} '{value}' is not known.",
                f"Allowed: {', '.join(allowed)}.",
            )
    if not any(message.role == "assistant" for message in record.messages):
        raise DatasetError(f"corpus record '{record.id}': messages hold no assistant turn.")
    for message in record.messages:
        if message.role not in get_args(Role):
            raise DatasetError(
                f"corpus record '{record.id}': role '{message.role}' is not known.",
                f"Allowed: {', '.join(get_args(Role))}.",
            )
        for part in message.content:
            if part.kind != "text" and not 0 <= part.media < len(record.media):
                raise DatasetError(
                    f"corpus record '{record.id}': media reference {part.media} is out of range "
                    f"(the record has {len(record.media)})."
                )


def records_to_table(records: list[CorpusRecord]) -> pa.Table:
    """Records as an Arrow table with `CORPUS_SCHEMA`."""
    return pa.Table.from_pylist([record.to_row() for record in records], schema=CORPUS_SCHEMA)


def table_to_records(table: pa.Table) -> list[CorpusRecord]:
    """The inverse of `records_to_table`."""
    return [CorpusRecord.from_row(row) for row in table.to_pylist()]
