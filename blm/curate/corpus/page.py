"""The `report.html` of a corpus: what it teaches and shows, what was left out and why, and where it comes from."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from blm.curate.corpus.comparison import Comparison
from blm.curate.corpus.conversation import Conversation
from blm.curate.corpus.spool import Spool, exchanges
from blm.curate.corpus.stages import StageReport
from blm.pages.charts import histogram_chart
from blm.pages.page import Chart, Figure, Picture, Section, Table, render_page
from blm.schemas.corpus import CorpusRecord
from blm.schemas.manifest import Manifest

REPORT_FILE = "report.html"
SAMPLED_ROWS = 20_000
"""Conversations looked at for lengths and examples, evenly spread."""
FAMILIES_SHOWN, CLUSTERS_SHOWN, MATCHES_SHOWN, IMAGES_SHOWN = 12, 8, 12, 6
MOSAIC_COLUMNS, MOSAIC_ROWS = 12, 5
_TILE = (160, 120)
_EXAMPLE = (300, 225)
_PAIRED = (240, 180)
_TEXT = 160


class CorpusContent(NamedTuple):
    """What the page is made from: the build's manifest, what its stages did, licences by source, and the content."""

    manifest: Manifest
    reports: Sequence[StageReport]
    licences: Mapping[str, str]
    counts: Mapping[tuple[str, str], int]
    spool: Spool
    comparison: Comparison


def corpus_page(content: CorpusContent) -> str:
    """The HTML text of the page; the same build gives the same text. `counts` are by split and source/family."""
    manifest = content.manifest
    kept = np.flatnonzero(content.comparison.keep)
    rows = kept[np.unique(np.linspace(0, len(kept) - 1, min(len(kept), SAMPLED_ROWS)).astype(int))]
    records = content.spool.records_of(rows)
    numbers, starts = content.spool.media()
    owners = np.repeat(content.comparison.keep, np.diff(starts))
    images = np.unique(numbers[owners])
    counts = manifest.counts
    figures = [
        Figure(f"{counts.inputs:,}", "conversations in"),
        Figure(f"{counts.kept:,}", "kept"),
        Figure(f"{sum(counts.dropped.values()):,}", "left out"),
        Figure(f"{len(images):,}", "images"),
        Figure(f"{len(manifest.inputs):,}", "sources"),
    ]
    sections = [
        _families(content),
        _examples(content.spool, rows, records),
        _mosaic(content.spool, images),
        _lengths(records),
        _dropped(content.reports),
        _near_duplicates(content),
        _contamination(content),
        _sources(content),
    ]
    lead = f"Conversations for fine-tuning a multimodal language model, curated by blm {manifest.software}."
    return render_page("Stage 1 corpus", lead, figures, [section for section in sections if section])


def _families(content: CorpusContent) -> Section:
    splits = [split for split, count in content.manifest.splits.items() if count]
    groups = sorted({group for _, group in content.counts})
    total = max(1, content.manifest.counts.kept)
    rows = []
    for group in groups:
        numbers = [content.counts.get((split, group), 0) for split in splits]
        rows.append(
            [
                *group.split("/", 1),
                *(f"{number:,}" for number in numbers),
                f"{100 * sum(numbers) / total:.1f} %",
            ]
        )
    rows.append(["all", "", *(f"{content.manifest.splits[split]:,}" for split in splits), "100.0 %"])
    columns = ("source", "task family", *splits, "share")
    return Section(
        "What is in it",
        "Conversations per split. All about one episode or one image share a split, and adding data moves none.",
        Table(columns, rows, frozenset(range(2, len(columns)))),
    )


def _examples(spool: Spool, rows: np.ndarray, records: Sequence[CorpusRecord]) -> Section | None:
    """One conversation per source and family, the middle one of those with an image."""
    members: dict[tuple[str, str], list[int]] = {}
    for place, record in enumerate(records):
        if record.media:
            members.setdefault((record.source, record.task_family), []).append(place)
    pictures = []
    for (source, family), places in sorted(members.items())[:FAMILIES_SHOWN]:
        conversation = spool.conversation(int(rows[places[len(places) // 2]]))
        picture = _thumbnail(conversation.media[0], _EXAMPLE)
        if picture:
            pictures.append(Picture(_jpeg(picture), f"{family} ({source}): {_said(conversation.record)}"))
    return Section("One of each kind", pictures=pictures) if pictures else None


def _mosaic(spool: Spool, images: np.ndarray) -> Section | None:
    places = np.unique(
        np.linspace(0, len(images) - 1, min(len(images), MOSAIC_COLUMNS * MOSAIC_ROWS)).astype(int)
    )
    tiles = [tile for number in images[places] if (tile := _thumbnail(spool.content(int(number)), _TILE))]
    if not tiles:
        return None
    width, height = _TILE
    columns = min(MOSAIC_COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for place, tile in enumerate(tiles):
        left, top = place % columns * width, place // columns * height
        sheet.paste(tile, (left + (width - tile.width) // 2, top + (height - tile.height) // 2))
    caption = f"{len(tiles)} of {len(images):,} images, evenly spread over the corpus."
    return Section(
        "What it looks like", pictures=[Picture(_jpeg(sheet), caption, wide=len(tiles) >= columns > 6)]
    )


def _lengths(records: Sequence[CorpusRecord]) -> Section:
    spoken = [exchange for record in records for exchange in exchanges(record)]
    questions = np.array([len(question.split()) for question, _ in spoken])
    answers = np.array([len(answer.split()) for _, answer in spoken])
    charts = [
        Chart(
            histogram_chart({name: np.minimum(values, _limit(values))}, "words", y_label=f"{name}s"),
            f"Words per {name}: median {np.median(values):.0f}, most {values.max():,}.",
        )
        for name, values in (("question", questions), ("answer", answers))
    ]
    return Section("How long", charts=charts)


def _limit(values: np.ndarray) -> float:
    """The longest texts are drawn at the 99.5th percentile, so that the rest can be seen."""
    return max(1.0, float(np.percentile(values, 99.5)))


def _dropped(reports: Iterable[StageReport]) -> Section:
    rows = []
    for report in reports:
        why = ", ".join(f"{reason} {count:,}" for reason, count in sorted(report.dropped.items()))
        rows.append(
            [report.name, *(f"{n:,}" for n in (report.inputs, report.kept, report.dropped.total())), why]
        )
    return Section(
        "What was left out",
        "Stage by stage (stages.parquet); dropped.parquet names each conversation, the reason and what was found.",
        Table(("stage", "in", "kept", "left out", "why"), rows, frozenset({1, 2, 3})),
    )


def _near_duplicates(content: CorpusContent) -> Section | None:
    found = content.comparison.duplicates
    if not found:
        return None
    chosen = _spread(found, CLUSTERS_SHOWN)
    rows_of = _rows_of(content.spool, {str(row[key]) for row in chosen for key in ("id", "partner")})
    rows, pictures = [], []
    for row in chosen:
        one, other = (content.spool.conversation(rows_of[str(row[key])]) for key in ("partner", "id"))
        rows.append([*_apart(_said(one.record, None), _said(other.record, None)), f"{row['similarity']:.2f}"])
        side_by_side = _pair(one, other)
        if side_by_side and row["reason"] == "near_duplicate_image":
            pictures.append(
                Picture(_jpeg(side_by_side), f"{row['partner']} and {row['id']}: {row['similarity']:.2f}")
            )
    clusters = Counter(row["kept"] for row in found)
    return Section(
        "Near-duplicates",
        f"{len(found):,} conversations in {len(clusters):,} clusters (the largest: {max(clusters.values()) + 1:,}). Of "
        "each cluster the first stayed; near_duplicates.parquet lists the rest. Some pairs, from where they differ:",
        Table(("alike", "left out", "similarity"), rows, frozenset({2})),
        pictures=pictures,
    )


def _contamination(content: CorpusContent) -> Section | None:
    if not any(report.name == "decontaminate" for report in content.reports):
        return None
    matches = content.comparison.matches
    if not matches:
        return Section(
            "Benchmarks", "No conversation shares a question, an answer or an image with the benchmarks."
        )
    counted = Counter((str(row["benchmark"]), str(row["match"])) for row in matches)
    kinds = ", ".join(f"{name}: {kind} {count:,}" for (name, kind), count in sorted(counted.items()))
    rows = [
        [f"{row[key]}" for key in ("benchmark", "item", "match")]
        + [f"{row['share']:.2f}", _short(str(row["evidence"]))]
        for row in _spread(matches, MATCHES_SHOWN)
    ]
    return Section(
        "Benchmarks",
        f"Left out because a benchmark holds it too ({kinds}). contamination.parquet says what matched what.",
        Table(("benchmark", "row", "match", "share", "what both hold"), rows, frozenset({1, 3})),
        pictures=_contaminated_images(content.spool, matches),
    )


def _contaminated_images(spool: Spool, matches: Sequence[Mapping[str, object]]) -> list[Picture]:
    """Some of the images that benchmarks show too."""
    shown = {str(row["evidence"]): row for row in matches if row["match"] == "image"}
    numbers = {digest.hex(): number for number, digest in enumerate(spool.digests())}
    pictures = []
    for digest, row in _spread(sorted(shown.items()), IMAGES_SHOWN):
        picture = _thumbnail(spool.content(numbers[digest]), _TILE)
        if picture:
            pictures.append(
                Picture(_jpeg(picture), f"{row['id']} and row {row['item']} of {row['benchmark']}")
            )
    return pictures


def _sources(content: CorpusContent) -> Section:
    rows = [
        [one.name, one.kind or "", content.licences.get(one.name, ""), one.path, one.sha256[:12]]
        for one in content.manifest.inputs
    ]
    return Section(
        "Sources and licences",
        table=Table(("source", "kind", "licence", "path", "content"), rows),
        command=f"build fingerprint {content.manifest.fingerprint}",
    )


def _rows_of(spool: Spool, wanted: set[str]) -> dict[str, int]:
    """The row of each id."""
    ids = spool.table["id"]
    is_wanted = pc.is_in(ids, value_set=pa.array(sorted(wanted)))  # type: ignore[attr-defined]
    there = np.flatnonzero(is_wanted.to_numpy())
    return {ids[int(row)].as_py(): int(row) for row in there}


def _spread[Row](rows: Sequence[Row], wanted: int) -> list[Row]:
    places = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), wanted)).astype(int))
    return [rows[int(place)] for place in places]


def _said(record: CorpusRecord, limit: int | None = _TEXT) -> str:
    """The first question and answer."""
    question, answer = exchanges(record)[0]
    said = f"“{' '.join(question.split())}” → “{' '.join(answer.split())}”"
    return said if limit is None else _short(said, limit)


def _short(text: str, limit: int = _TEXT) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _apart(one: str, other: str) -> tuple[str, str]:
    """Both texts around the place where they begin to differ."""
    same = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    start = max(0, same - _TEXT // 3)
    mark = "…" * (start > 0)
    return mark + _short(one[start:]), mark + _short(other[start:])


def _thumbnail(content: bytes, size: tuple[int, int]) -> Image.Image | None:
    """The image no larger than `size`; None where it does not decode here."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft("RGB", size)
            image = image.convert("RGB")
            image.thumbnail(size)
            return image
    except Exception:  # decoders raise nearly anything; the page does without
        return None


def _pair(one: Conversation, other: Conversation) -> Image.Image | None:
    """The first image of each, side by side."""
    thumbnails = [_thumbnail(each.media[0], _PAIRED) for each in (one, other) if each.media]
    shown = [image for image in thumbnails if image]
    if len(shown) < 2:
        return None
    sheet = Image.new(
        "RGB", (shown[0].width + shown[1].width + 8, max(image.height for image in shown)), "white"
    )
    sheet.paste(shown[0], (0, 0))
    sheet.paste(shown[1], (shown[0].width + 8, 0))
    return sheet


def _jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()
