"""The `report.html` of a corpus: what it teaches and shows, what was left out and why, and where it comes from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blm.curate.corpus.card import stage_row
from blm.curate.corpus.comparison import NEAR_IMAGE, Comparison
from blm.curate.corpus.empty_sources import kept_by_source
from blm.curate.corpus.page_pictures import draw_place, jpeg, mosaic, side_by_side, thumbnail
from blm.curate.corpus.spool import Spool, exchanges
from blm.curate.corpus.stages import StageReport
from blm.pages.charts import change_chart, histogram_chart
from blm.pages.page import Chart, Figure, Picture, Section, Table, render_page
from blm.schemas.corpus import CorpusRecord
from blm.schemas.manifest import Manifest

REPORT_FILE = "report.html"
_OPTION = re.compile(r"^([A-H])\. (.+)$", re.MULTILINE)
SAMPLED_ROWS = 20_000
"""Conversations looked at for lengths and examples, evenly spread."""
PER_FAMILY, CLUSTERS_SHOWN, MATCHES_SHOWN, IMAGES_SHOWN = 2, 8, 12, 6
MOSAIC_COLUMNS, MOSAIC_ROWS = 12, 5
_EXAMPLE = (238, 238)
_PAIRED = (240, 180)
_TEXT = 160


class CorpusContent(NamedTuple):
    """What the page is made from: the build's manifest, what its stages did, licences by source, and the content."""

    manifest: Manifest
    reports: Sequence[StageReport]
    licences: Mapping[str, Sequence[str]]
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
        _mixture(content),
        *_examples(content.spool, rows, records),
        _mosaic(content.spool, content.comparison.keep),
        _lengths(records),
        _dropped(content.reports),
        _near_duplicates(content),
        _contamination(content),
        _sources(content),
    ]
    lead = f"Conversations for fine-tuning a multimodal language model, curated by blm {manifest.software}."
    return render_page("Stage 1 corpus", lead, figures, [section for section in sections if section])


def _families(content: CorpusContent) -> Section:
    """A row per source, a column per task family."""
    numbers: Counter[tuple[str, str]] = Counter()
    for (_, group), count in content.counts.items():
        source, family = group.split("/", 1)
        numbers[source, family] += count
    sources, families = (sorted({pair[place] for pair in numbers}) for place in (0, 1))
    total = max(1, numbers.total())
    rows = []
    for name in [*sources, ""]:
        counted = [
            sum(count for (source, one), count in numbers.items() if one == family and name in (source, ""))
            for family in families
        ]
        shown = [f"{count:,}" if count else "" for count in counted]
        rows.append([name or "all", *shown, f"{sum(counted):,}", _percent(sum(counted) / total)])
    splits = ", ".join(
        f"{split} {count:,}" for split, count in content.manifest.splits.items() if count or split == "train"
    )
    columns = ("source", *families, "all", "share")
    return Section(
        "What is in it",
        f"Conversations by source and task family. Splits: {splits}; all about one episode or one image share a split, "
        "and adding data moves none.",
        Table(columns, rows, frozenset(range(1, len(columns)))),
    )


def _mixture(content: CorpusContent) -> Section | None:
    """What the mixture changed, by source and by family."""
    before = content.comparison.unmixed
    if not before:
        return None
    after: Counter[str] = Counter()
    for (_, group), count in content.counts.items():
        after[group] += count
    charts = []
    for place, name in enumerate(("source", "task family")):
        pairs = [_shares(counted, place) for counted in (before, after)]
        rows = [(label, share, pairs[1].get(label, 0.0)) for label, share in sorted(pairs[0].items())]
        charts.append(Chart(change_chart(rows, "share of the conversations, %"), f"By {name}."))
    return Section(
        "How it was mixed",
        f"{before.total():,} conversations passed every check; {after.total():,} of them make the mixture asked for.",
        charts=charts,
    )


def _shares(counted: Mapping[str, int], place: int) -> dict[str, float]:
    """Percent of the conversations by source (`place` 0) or family (1)."""
    shares: Counter[str] = Counter()
    for group, count in counted.items():
        shares[group.split("/", 1)[place]] += count
    return {label: 100 * count / max(1, sum(counted.values())) for label, count in shares.items()}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _examples(spool: Spool, rows: np.ndarray, records: Sequence[CorpusRecord]) -> list[Section]:
    """Of each task family some conversations with an image, from as many sources as there are, and some without."""
    seen = [
        (record.task_family, record.source, place) for place, record in enumerate(records) if record.media
    ]
    pictures = []
    for place in _one_of_each(seen, PER_FAMILY):
        conversation = spool.conversation(int(rows[place]))
        picture = thumbnail(conversation.media[0], _EXAMPLE)
        if picture:
            record = conversation.record
            drawn = draw_place(picture, _answer(record))
            caption = f"{record.task_family} · {record.source}\n{_said(record)}{', drawn' if drawn else ''}"
            pictures.append(Picture(jpeg(picture), caption, narrow=True))
    unseen = [(r.task_family, r.source, place) for place, r in enumerate(records) if not r.media]
    said = [
        [record.task_family, record.source, *(_short(_plain(text)) for text in exchanges(record)[0])]
        for place in _one_of_each(unseen, PER_FAMILY)
        for record in (records[place],)
    ]
    shown = Section("Some of each family", pictures=pictures)
    texts = Table(("task family", "source", "question", "answer"), said)
    return [shown] * bool(pictures) + [Section("Without an image", table=texts)] * bool(said)


def _one_of_each(listed: Sequence[tuple[str, str, int]], wanted: int) -> list[int]:
    """Places of (family, source, place): `wanted` of each family, from the sources shown least so far."""
    members: dict[str, dict[str, list[int]]] = {}
    for family, source, place in listed:
        members.setdefault(family, {}).setdefault(source, []).append(place)
    shown: Counter[str] = Counter()
    chosen = []
    for _, sources in sorted(members.items(), key=lambda one: (len(one[1]), one[0])):
        for turn in range(wanted):
            source = min(sources, key=lambda name: (shown[name], name))
            places = sources[source]
            chosen.append(places[(2 * turn + 1) * len(places) // (2 * wanted)])
            shown[source] += 1
    return list(dict.fromkeys(chosen))


def _mosaic(spool: Spool, kept: np.ndarray) -> Section | None:
    """Equally many images of each source, as far as they go."""
    numbers, starts = spool.media()
    sources = np.asarray(spool.table["source"].combine_chunks().dictionary_encode().indices)
    owners = np.repeat(sources, np.diff(starts))[np.repeat(kept, np.diff(starts))]
    numbers = numbers[np.repeat(kept, np.diff(starts))]
    groups = [np.unique(numbers[owners == owner]) for owner in np.unique(owners)]
    room = MOSAIC_COLUMNS * MOSAIC_ROWS
    chosen: list[int] = []
    for left, images in zip(range(len(groups), 0, -1), sorted(groups, key=len), strict=True):
        chosen += _spread(images.tolist(), (room - len(chosen)) // left)
    sheet = mosaic([spool.content(number) for number in sorted(chosen)], MOSAIC_COLUMNS)
    if sheet is None:
        return None
    picture, count = sheet
    total = len(np.unique(numbers))
    caption = f"{count} of {total:,} images, as many of each source as there are, up to an equal number."
    return Section(
        "What it looks like", pictures=[Picture(jpeg(picture), caption, wide=count >= MOSAIC_COLUMNS)]
    )


def _lengths(records: Sequence[CorpusRecord]) -> Section:
    spoken = [exchange for record in records for exchange in exchanges(record)]
    questions = np.array([len(question.split()) for question, _ in spoken])
    answers = np.array([len(answer.split()) for _, answer in spoken])
    charts = [
        Chart(
            histogram_chart({name: values[values <= _limit(values)]}, "words", y_label=f"{name}s"),
            f"Words per {name}: median {np.median(values):.0f}, most {values.max():,}{_undrawn(values)}.",
        )
        for name, values in (("question", questions), ("answer", answers))
    ]
    return Section("How long", charts=charts)


def _undrawn(values: np.ndarray) -> str:
    longer = int(np.sum(values > _limit(values)))
    return f"; the longest {longer:,} are not drawn" if longer else ""


def _limit(values: np.ndarray) -> float:
    """The 99.5th percentile: a few very long texts would leave no room for the rest."""
    return max(1.0, float(np.percentile(values, 99.5)))


def _dropped(reports: Iterable[StageReport]) -> Section:
    return Section(
        "What was left out",
        "Stage by stage (stages.parquet); dropped.parquet names each conversation, the reason and what was found.",
        Table(("stage", "in", "kept", "left out", "why"), [*map(stage_row, reports)], frozenset({1, 2, 3})),
    )


def _near_duplicates(content: CorpusContent) -> Section | None:
    found = content.comparison.duplicates
    if not found:
        return None
    shown = [row for row in found if row["reason"] == NEAR_IMAGE]
    said = [row for row in found if row["reason"] != NEAR_IMAGE] or shown
    one_a_cluster = {str(row["kept"]): row for row in said}.values()
    said = _spread(sorted(one_a_cluster, key=lambda row: str(row["similarity"])), CLUSTERS_SHOWN)
    shown = _spread(shown, IMAGES_SHOWN)
    rows_of = _rows_of(content.spool, {str(row[key]) for row in shown + said for key in ("id", "partner")})
    rows, pictures = [], []
    for row in said:
        one, other = (content.spool.conversation(rows_of[str(row[key])]) for key in ("partner", "id"))
        rows.append([*_apart(_said(one.record, None), _said(other.record, None)), f"{row['similarity']:.2f}"])
    for row in shown:
        one, other = (content.spool.conversation(rows_of[str(row[key])]) for key in ("partner", "id"))
        sheet = side_by_side(one.media[0], other.media[0], _PAIRED)
        if sheet:
            caption = f"{row['partner']} stayed, {row['id']} is {row['similarity']:.2f} alike"
            pictures.append(Picture(jpeg(sheet), caption, narrow=True))
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
            "Benchmarks",
            "No conversation shares 13 words in a row, a question with its answer, or an image with the benchmarks.",
        )
    counted = Counter((str(row["benchmark"]), str(row["match"])) for row in matches)
    kinds = ", ".join(f"{name}: {kind} {count:,}" for (name, kind), count in sorted(counted.items()))
    rows = [
        [f"{row[key]}" for key in ("benchmark", "item", "match")]
        + [
            f"{row['share']:.2f}",
            "the image below" if row["match"] == "image" else _short(str(row["evidence"])),
        ]
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
        picture = thumbnail(spool.content(numbers[digest]), _PAIRED)
        if picture:
            caption = f"{row['id']} and row {row['item']} of {row['benchmark']}"
            pictures.append(Picture(jpeg(picture), caption, narrow=True))
    return pictures


def _sources(content: CorpusContent) -> Section:
    kept = kept_by_source(content.manifest)
    rows = [
        [
            one.name,
            one.kind or "",
            ", ".join(content.licences.get(one.name, ())),
            f"{kept[one.name]:,}",
            one.path,
            one.sha256[:12],
        ]
        for one in content.manifest.inputs
    ]
    return Section(
        "Sources and licences",
        table=Table(("source", "kind", "licence", "kept", "path", "content"), rows, frozenset({3})),
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
    """The first question and answer, each no longer than `limit`; of a letter also what it stands for."""
    question, answer = (_plain(text) for text in exchanges(record)[0])
    meant = _plain(_answer(record))
    meaning = f" = {meant}" if meant != answer else ""
    if limit is not None:
        question, answer = _short(question, limit), _short(answer, limit)
    return f"“{question}” → “{answer}”{meaning}"


def _answer(record: CorpusRecord) -> str:
    """The first answer; where it is the letter of an option, that option."""
    question, answer = exchanges(record)[0]
    options = dict(_OPTION.findall(question))
    return options.get(answer.strip(), answer)


def _plain(text: str) -> str:
    return " ".join(text.split())


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
