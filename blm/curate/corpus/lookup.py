"""Find one record of a finished corpus, kept or left out, with all that the build knows about it.

    manifest.json ─ source │ records.parquet ─ what is said, origin, changes │ index.parquet ─ place, media
    dropped.parquet ─ why it is not there │ near_duplicates.parquet, contamination.parquet ─ like what

Cost: one column of each table, and the media of one record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blm.curate.corpus.build_files import CONTAMINATION_FILE, DUPLICATES_FILE, KIND, RECORDS_FILE
from blm.curate.corpus.conversation import Conversation
from blm.curate.corpus.source_cache import kept_conversation
from blm.curate.output_folder import CACHE_FOLDER
from blm.curate.parquet_files import open_in_batches
from blm.schemas.corpus import CorpusRecord, Media, table_to_records
from blm.schemas.errors import DatasetError, UsageError
from blm.schemas.manifest import DROPPED_FILE, INDEX_FILE, InputFingerprint, Manifest, read_manifest
from blm.schemas.shard import META_SUFFIX, IndexRow

_CHANGES = {
    "cleaned": ("normalise", "characters, spaces and line breaks brought into one form"),
    "escaped_control_tokens": ("normalise", "tokens of chat templates escaped"),
}
_MASKED = "masked_"
_CLOSE = 3


@dataclass(frozen=True)
class Alike:
    """Another record, and why it counts as the same: the reason it was dropped for, and the similarity, 0 to 1."""

    id: str
    reason: str
    similarity: float


@dataclass(frozen=True)
class KeptRecord:
    """A record of the corpus.

    Attributes:
        media: the bytes of its images, in its order.
        source: the input of the build that it comes from; None where the manifest names none.
        origin: where in the source: file and row, or episode and frame, and what the source says of it.
        changes: stage and what it changed, in order.
        represents: what was left out because it is the same, or alike.
        members: where its members lie in the shard.
    """

    record: CorpusRecord
    media: tuple[bytes, ...]
    source: InputFingerprint | None
    origin: dict[str, Any]
    changes: tuple[tuple[str, str], ...]
    represents: tuple[Alike, ...]
    members: tuple[IndexRow, ...]


@dataclass(frozen=True)
class DroppedInput:
    """An input that was left out.

    Attributes:
        partner: the conversation that it is the same as or alike, if that is why.
        kept: the one that stands for both in the corpus; another than the partner where that was left out as well.
        matches: what benchmarks hold of it, rows of `contamination.parquet`.
        content: what it said and showed before quality rules and masks, where the build keeps that.
    """

    source: InputFingerprint | None
    source_name: str
    row: str
    stage: str
    reason: str
    field: str
    note: str
    partner: Alike | None
    kept: KeptRecord | None
    matches: tuple[Mapping[str, Any], ...]
    content: Conversation | None


class Corpus:
    """A finished build, to look things up in.

    Raises:
        DatasetError: `folder` holds no finished corpus.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder, KIND)
        self._sources = {one.name: one for one in self.manifest.inputs}

    def find(self, name: str) -> KeptRecord | DroppedInput:
        """The record with this id, or the input that was left out: by its id, or as SOURCE:ROW where it has none.

        Raises:
            UsageError: there is none; names the nearest ids. Or the row is one of several sources.
            DatasetError: the build is damaged.
        """
        return self._kept(name) or self._dropped(name) or self._unknown(name)

    def some_id(self) -> str | None:
        """The id of a record, with an image where one has."""
        records = open_in_batches(self.folder / RECORDS_FILE)
        first = next(records.iter_batches(1024, columns=["id", "media"]), None)
        rows = first.to_pylist() if first is not None else []
        return next((row["id"] for row in sorted(rows, key=lambda row: not row["media"])), None)

    def nearest(self, name: str, most: int = _CLOSE) -> list[str]:
        """The ids, of kept and dropped ones, that look most like `name`."""
        import duckdb

        query = """
            SELECT id FROM (SELECT id FROM read_parquet($1) UNION SELECT "row" FROM read_parquet($2))
            ORDER BY jaro_winkler_similarity(id, $3) DESC, id LIMIT $4
        """
        files = [str(self.folder / RECORDS_FILE), str(self.folder / DROPPED_FILE)]
        with duckdb.connect() as connection:
            return [row[0] for row in connection.execute(query, [*files, name, most]).fetchall()]

    def _kept(self, name: str) -> KeptRecord | None:
        found = table_to_records(self._rows(RECORDS_FILE, "id", name))
        if not found:
            return None
        record = found[0]
        origin = json.loads(record.provenance)
        members = tuple(
            IndexRow.model_validate(row) for row in self._rows(INDEX_FILE, "key", name).to_pylist()
        )
        return KeptRecord(
            record,
            tuple(self._content(number, one, members, name) for number, one in enumerate(record.media)),
            self._sources.get(record.source),
            {key: value for key, value in origin.items() if key != "transforms"},
            tuple(_change(one) for one in origin.get("transforms", ())),
            tuple(self._represented(name)),
            members,
        )

    def _represented(self, name: str) -> Iterable[Alike]:
        same = self._dropped_rows("partner", name)
        yield from (Alike(row["row"], row["reason"], 1.0) for row in same if row["reason"] == "duplicate")
        for row in self._rows(DUPLICATES_FILE, "kept", name).to_pylist():
            yield Alike(row["id"], row["reason"], row["similarity"])

    def _dropped(self, name: str) -> DroppedInput | None:
        found = self._dropped_rows("row", name)
        for source in () if found else self._sources:
            row = _row_of(name, source)
            found += [one for one in self._dropped_rows("row", row) if one["source"] == source] if row else []
        if not found:
            return None
        if len({row["source"] for row in found}) > 1:
            named = ", ".join(f"{row['source']}:{row['row']}" for row in found)
            raise UsageError(f"several sources left out a row '{name}'.", f"Say which one: {named}.")
        row = found[0]
        alike = self._rows(DUPLICATES_FILE, "id", name).to_pylist()
        partner = _partner(row, alike)
        kept = alike[0]["kept"] if alike else row.get("partner")
        return DroppedInput(
            source=self._sources.get(row["source"]),
            source_name=row["source"],
            **{key: row[key] for key in ("row", "stage", "reason", "field", "note")},
            partner=partner,
            kept=self._kept(kept) if kept else None,
            matches=tuple(self._rows(CONTAMINATION_FILE, "id", name).to_pylist()),
            content=kept_conversation(self.folder / CACHE_FOLDER, row["source"], row["row"]),
        )

    def _dropped_rows(self, column: str, value: str) -> list[dict[str, Any]]:
        if column not in pq.read_schema(self.folder / DROPPED_FILE).names:
            return []
        return self._rows(DROPPED_FILE, column, value).to_pylist()

    def _unknown(self, name: str) -> KeptRecord | DroppedInput:
        close = ", ".join(self.nearest(name))
        raise UsageError(
            f"{self.folder} holds no record '{name}', neither kept nor dropped.",
            f"The nearest are: {close}. A dataset is named by its folder, or ORG/NAME.",
        )

    def _rows(self, file: str, column: str, value: str) -> pa.Table:
        try:
            return pq.read_table(self.folder / file, filters=[(column, "==", value)])
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{self.folder / file} is not readable: {error}", "Build it again.") from error

    def _content(self, number: int, media: Media, members: Iterable[IndexRow], name: str) -> bytes:
        """The bytes of a record's media, which must be those that were written."""
        suffix = f"{number}.{media.extension}"
        member = next((one for one in members if one.suffix == suffix), None)
        content = b""
        if member is not None and (self.folder / member.shard).is_file():
            with (self.folder / member.shard).open("rb") as stream:
                stream.seek(member.offset)
                content = stream.read(member.size)
        if hashlib.sha256(content).hexdigest() != media.sha256:
            raise DatasetError(
                f"{self.folder}: image {number} of '{name}' is missing or not what was written.",
                f"`blm doctor {self.folder}` says what is damaged; build it again.",
            )
        return content


def place(found: KeptRecord) -> IndexRow | None:
    """Where the record itself, as JSON, lies."""
    return next((one for one in found.members if one.suffix == META_SUFFIX), None)


def _row_of(name: str, source: str) -> str | None:
    """The row that SOURCE:ROW speaks of, or the one whose conversation would have this id."""
    if name.startswith(f"{source}:"):
        return name.removeprefix(f"{source}:")
    number = name.removeprefix(f"{source}-")
    return str(int(number)) if number != name and number.isdecimal() else None


def _partner(row: Mapping[str, Any], alike: list[dict[str, Any]]) -> Alike | None:
    if alike:
        return Alike(alike[0]["partner"], alike[0]["reason"], alike[0]["similarity"])
    return Alike(row["partner"], row["reason"], 1.0) if row.get("partner") else None


def _change(transform: str) -> tuple[str, str]:
    """The stage that did it, and what it is."""
    if transform.startswith(_MASKED):
        return "mask", f"{transform.removeprefix(_MASKED)} replaced by [{transform.removeprefix(_MASKED)}]"
    return _CHANGES.get(transform, ("read", transform))
