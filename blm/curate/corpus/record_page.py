"""One record of a corpus as a person reads it: what is said and shown, and its whole lineage; as rows or a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from blm.curate.corpus.lookup import Corpus, DroppedInput, KeptRecord, place
from blm.pages.page import Picture, Section, Table, render_page
from blm.schemas.corpus import CorpusRecord, Message

ALIKE_SHOWN = 20


def record_page(corpus: Corpus, found: KeptRecord | DroppedInput) -> str:
    """The HTML text of a self-contained page."""
    kept = found if isinstance(found, KeptRecord) else found.kept
    sections = [] if isinstance(found, KeptRecord) else [_why(found)]
    if isinstance(found, DroppedInput) and found.content is not None:
        sections.append(_said("What it said, before quality rules and masks", *found.content[:2]))
    if kept is not None:
        heading = "What is said" if kept is found else f"What stands for it: {kept.record.id}"
        sections.append(_said(heading, kept.record, kept.media))
        title = "Lineage" if kept is found else f"Lineage of {kept.record.id}"
        sections.append(Section(title, table=_facts(lineage(corpus, kept))))
    if isinstance(found, KeptRecord):
        lead = f"A conversation of the corpus in {corpus.folder}, split {found.record.split}."
        return render_page(found.record.id, lead, (), sections)
    lead = f"Left out of the corpus in {corpus.folder} by the stage {found.stage}."
    return render_page(f"{found.row} of {found.source_name}", lead, (), sections)


def spoken(message: Message) -> str:
    """The text of a message, with the number of each image in its place."""
    parts = [part.text if part.kind == "text" else f"[image {part.media}] " for part in message.content]
    return "".join(parts)


def lineage(corpus: Corpus, found: KeptRecord) -> list[tuple[str, str]]:
    """What is known about a record, in the order in which it came about: labels and texts."""
    record, where = found.record, place(found)
    rows = [
        ("source", _source(found, record.source)),
        ("licence", record.licence),
        *(
            (key.replace("_", " "), _text(value))
            for key, value in found.origin.items()
            if value not in ([], {})
        ),
        *((f"changed by {stage}", what) for stage, what in found.changes),
        *_alike(found),
        ("family", f"{record.task_family}, {record.space}"),
        ("split", record.split),
    ]
    if where is not None:
        shard = corpus.folder / where.shard
        rows.append(("lies in", f"{shard}, byte {where.offset}, {where.size} bytes of JSON"))
    rows += [
        (
            f"image {number}",
            f"{one.width} × {one.height} {one.extension}, {len(content)} bytes, SHA-256 {one.sha256[:16]}…",
        )
        for number, (one, content) in enumerate(zip(record.media, found.media, strict=True))
    ]
    return rows


def reasons(found: DroppedInput) -> list[tuple[str, str]]:
    """Why an input was left out: labels and texts."""
    rows = [
        ("source", _source(found, found.source_name)),
        ("row", found.row),
        ("left out by", found.stage),
        ("because", found.reason * (found.reason != found.stage)),
        ("at", found.field),
        ("found", found.note),
    ]
    if found.partner is not None:
        rows.append(("alike", f"{found.partner.id}, similarity {found.partner.similarity:.2f}"))
    if found.partner is not None and found.kept is None:
        rows.append(("stood for by", "none any more: what was kept of these was left out by a later stage"))
    elif found.partner is not None and found.kept is not None and found.kept.record.id != found.partner.id:
        rows.append(("stood for by", found.kept.record.id))
    for match in found.matches:
        rows.append(
            (
                f"{match['match']} of {match['benchmark']}",
                f"row {match['item']}, share {match['share']:.2f}: {match['evidence']}",
            )
        )
    return [(label, text) for label, text in rows if text]


def as_json(corpus: Corpus, found: KeptRecord | DroppedInput) -> dict[str, Any]:
    """Everything but the images' bytes."""
    source = found.source.model_dump(mode="json") if found.source else None
    if isinstance(found, KeptRecord):
        return {
            "corpus": str(corpus.folder),
            "status": "kept",
            "record": found.record.to_row() | {"provenance": found.origin},
            "source": source,
            "changes": [{"stage": stage, "what": what} for stage, what in found.changes],
            "represents": [vars(one) for one in found.represents],
            "members": [member.model_dump() for member in found.members],
        }
    return {
        "corpus": str(corpus.folder),
        "status": "dropped",
        "source": source or found.source_name,
        **{name: getattr(found, name) for name in ("row", "stage", "reason", "field", "note")},
        "partner": vars(found.partner) if found.partner else None,
        "kept": found.kept.record.id if found.kept else None,
        "matches": list(found.matches),
        "record": found.content.record.to_row() if found.content else None,
    }


def write_record_page(corpus: Corpus, found: KeptRecord | DroppedInput, path: Path) -> Path:
    """Write the page to a file, whose folder is made where it is missing; returns its whole path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record_page(corpus, found), encoding="utf-8")
    return path.resolve()


def _why(found: DroppedInput) -> Section:
    return Section("Why it was left out", table=_facts(reasons(found)))


def _facts(rows: Sequence[tuple[str, str]]) -> Table:
    return Table(("", ""), rows)


def _said(heading: str, record: CorpusRecord, media: Sequence[bytes]) -> Section:
    """The messages, and the images below."""
    said = [[message.role, spoken(message)] for message in record.messages]
    pictures = [
        Picture(content, f"image {number}: {one.width} × {one.height}")
        for number, (one, content) in enumerate(zip(record.media, media, strict=True))
    ]
    return Section(heading, table=Table(("role", "says"), said), pictures=pictures)


def _source(found: KeptRecord | DroppedInput, name: str) -> str:
    if found.source is None:
        return name
    return f"{name} ({found.source.kind}) {found.source.path}, content {found.source.sha256[:12]}"


def _alike(found: KeptRecord) -> Iterator[tuple[str, str]]:
    """The records that this one stands for, the first ones by name."""
    for one in found.represents[:ALIKE_SHOWN]:
        yield "stands for", f"{one.id} ({one.reason}, {one.similarity:.2f})"
    if len(found.represents) > ALIKE_SHOWN:
        yield "stands for", f"{len(found.represents) - ALIKE_SHOWN} more (near_duplicates.parquet)"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
