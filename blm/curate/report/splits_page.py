"""The `report.html` of a Stage II build: what went in, what stayed, what did not and why, and what it looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blm.curate.episodes.mixture import group_label
from blm.curate.episodes.reasons import RULES, Reason
from blm.pages.charts import density_chart, histogram_chart, range_chart
from blm.pages.page import Chart, Figure, Picture, Section, Table, render_page
from blm.schemas.embodiment import Embodiment
from blm.schemas.manifest import Manifest

EXAMPLES_PER_REASON = 3
LINEAGE_ROWS = 12


@dataclass(frozen=True)
class DroppedExample:
    """A frame of an episode that was dropped: JPEG bytes, the reason, and words that say which episode and why."""

    reason: str
    jpeg: bytes
    caption: str


@dataclass(frozen=True)
class Recorded:
    """What the page shows of one embodiment besides its manifest entry.

    Attributes:
        embodiment: with its axes' limits.
        tool_positions: (N, 3) m, base frame, of training frames; empty where the dataset records no tool pose.
        pictures: JPEG bytes of kept frames with their captions.
    """

    embodiment: Embodiment
    tool_positions: np.ndarray
    pictures: Sequence[tuple[bytes, str]] = ()


def splits_page(
    manifest: Manifest,
    lineage: pa.Table,
    findings: pa.Table,
    recorded: Sequence[Recorded],
    examples: Sequence[DroppedExample],
    licence: str,
) -> str:
    """The HTML text of the page; the same build gives the same text.

    `lineage` is the table of `blm.curate.episodes.lineage`, `findings` holds every finding of the checks, those of
    dropped episodes and warnings.
    """
    counts = manifest.counts
    frames = int(lineage["frames"].to_numpy().sum())
    hours = float(lineage["seconds"].to_numpy().sum()) / 3600
    figures = [
        Figure(f"{counts.inputs:,}", "episodes in"),
        Figure(f"{counts.kept:,}", "kept"),
        Figure(f"{sum(counts.dropped.values()):,}", "dropped"),
        Figure(f"{frames:,}", "frames"),
        Figure(f"{hours:.2f} h", "of robot data"),
    ]
    if manifest.skipped:
        noun = "dataset" if len(manifest.skipped) == 1 else "datasets"
        figures.insert(0, Figure(f"{len(manifest.skipped):,}", f"broken {noun} left out"))
    sections = [
        _skipped(manifest),
        _splits(manifest, lineage),
        _mixture(manifest, lineage),
        _dropped(manifest, examples),
        _warnings(findings),
        *(_embodiment(one, manifest, lineage) for one in recorded),
        _lineage(manifest, lineage, licence),
    ]
    lead = f"Curated by blm {manifest.software} from {_counted(len(manifest.inputs), 'dataset')} for training policies."
    return render_page("Robot demonstrations", lead, figures, [section for section in sections if section])


def _skipped(manifest: Manifest) -> Section | None:
    if not manifest.skipped:
        return None
    rows = [
        [one.name, "unknown" if one.episodes is None else f"{one.episodes:,}", f"{one.problem} {one.remedy}"]
        for one in manifest.skipped
    ]
    return Section(
        "Datasets left out",
        "They were given, and could not be used. None of their episodes is in the counts of this page.",
        Table(("dataset", "episodes announced", "why, and what to do"), rows, frozenset({1})),
    )


def _splits(manifest: Manifest, lineage: pa.Table) -> Section:
    names = list(manifest.splits)
    counted = lineage.group_by(["embodiment", "task", "split"]).aggregate(
        [("key", "count"), ("frames", "sum")]
    )
    episodes: dict[tuple[str, str], dict[str, int]] = {}
    for row in counted.to_pylist():
        episodes.setdefault((row["embodiment"], row["task"]), {})[row["split"]] = row["key_count"]
    rows = [
        [*group, *(f"{found.get(name, 0):,}" for name in names)] for group, found in sorted(episodes.items())
    ]
    rows.append(["all", "", *(f"{manifest.splits[name]:,}" for name in names)])
    columns = ("robot", "task", *names)
    return Section(
        "Splits",
        "Episodes per split. An episode's split follows from its own content: adding data later moves none from "
        "test to train, and near-duplicates stay together.",
        Table(columns, rows, frozenset(range(2, len(columns)))),
    )


def _mixture(manifest: Manifest, lineage: pa.Table) -> Section | None:
    if manifest.mixture is None:
        return None
    natural: Counter[str] = Counter()
    for row in lineage.filter(pc.field("split") == "train").to_pylist():
        natural[group_label(row["dataset"], row["embodiment"], row["task"])] += row["frames"]
    total = max(1, sum(natural.values()))
    rows = [
        [
            key,
            f"{natural[key]:,}",
            f"{100 * natural[key] / total:.1f} %",
            f"{100 * weight:.1f} %",
        ]
        for key, weight in sorted(manifest.mixture.weights.items())
    ]
    return Section(
        "Mixture",
        f"How often training draws from each group (strategy: {manifest.mixture.strategy}).",
        Table(
            ("dataset / robot / task", "frames", "share of frames", "share drawn"), rows, frozenset({1, 2, 3})
        ),
    )


def _dropped(manifest: Manifest, examples: Sequence[DroppedExample]) -> Section:
    dropped = manifest.counts.dropped
    if not dropped:
        return Section("What was dropped", "Nothing: every episode passed every check.")
    rows = [
        [reason, f"{count:,}", _meaning(reason)]
        for reason, count in sorted(dropped.items(), key=lambda item: -item[1])
    ]
    shown: list[DroppedExample] = []
    for reason, *_ in rows:
        shown += [one for one in examples if one.reason == reason][:EXAMPLES_PER_REASON]
    return Section(
        "What was dropped",
        "Each episode counts under the first check it failed; dropped.parquet names them, findings.parquet lists all "
        "that was found.",
        Table(("reason", "episodes", "what it means"), rows, frozenset({1})),
        pictures=[Picture(one.jpeg, one.caption, narrow=True) for one in shown],
    )


def _warnings(findings: pa.Table) -> Section | None:
    warned = findings.filter(pc.field("severity") == "warn")
    if not len(warned):
        return None
    by_reason = warned.group_by(["reason", "unit"]).aggregate(
        [("value", "count"), ("value", "min"), ("value", "max")]
    )
    rows = [
        [row["reason"], f"{row['value_count']:,}", _worst(row), _meaning(row["reason"])]
        for row in by_reason.sort_by([("value_count", "descending"), ("reason", "ascending")]).to_pylist()
    ]
    return Section(
        "Warnings",
        "Found, and kept. A check's severity is set in splits.yaml.",
        Table(("reason", "findings", "worst", "what it means"), rows, frozenset({1, 2})),
    )


def _worst(row: dict[str, Any]) -> str:
    """The value furthest beyond the threshold: the smallest where a rule asks for enough of something."""
    rule = RULES.get(cast(Reason, row["reason"]))
    value = row["value_min"] if rule is not None and rule.fails == "below" else row["value_max"]
    return f"{value:.4g} {row['unit'] or ''}".strip()


def _meaning(reason: str) -> str:
    rule = RULES.get(cast(Reason, reason))
    return rule.meaning if rule is not None else ""


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _embodiment(recorded: Recorded, manifest: Manifest, lineage: pa.Table) -> Section:
    name = recorded.embodiment.name
    mine = lineage.filter(pc.field("embodiment") == name)
    tasks = sorted(set(mine["task"].to_pylist()))
    by_task = {task: mine.filter(pc.field("task") == task) for task in tasks}
    durations = {task: table["seconds"].to_numpy() for task, table in by_task.items()}
    speeds = {task: table["top_speed"].to_numpy() for task, table in by_task.items()}
    charts = [
        Chart(histogram_chart(durations, "seconds"), "Length of the kept episodes, after trimming."),
        Chart(histogram_chart(speeds, "axis ranges per second"), "Top speed of the fastest axis."),
    ]
    if name in manifest.statistics:
        charts.append(
            Chart(range_chart(_ranges(recorded.embodiment, manifest)), "How much of each axis is used.")
        )
    if len(recorded.tool_positions):
        floor = density_chart(recorded.tool_positions[:, :2], "x, m (ahead of the base)", "y, m")
        side = density_chart(recorded.tool_positions[:, [0, 2]], "x, m (ahead of the base)", "z, m")
        charts += [
            Chart(floor, "Where the tool has been, from above (base frame)."),
            Chart(side, "Where the tool has been, from the side."),
        ]
    return Section(
        f"{recorded.embodiment.title} ({name})",
        f"{len(mine):,} episodes, {mine['frames'].to_numpy().sum():,} frames, {_counted(len(tasks), 'task')}.",
        charts=charts,
        pictures=[Picture(jpeg, caption) for jpeg, caption in recorded.pictures],
    )


def _ranges(embodiment: Embodiment, manifest: Manifest) -> list[tuple[str, float, float, float, float]]:
    statistics = manifest.statistics[embodiment.name]
    rows = []
    for number, axis in enumerate(embodiment.axes):
        span = axis.upper - axis.lower
        values = [getattr(statistics.state, field)[number] for field in ("min", "q01", "q99", "max")]
        least, low, high, most = ((value - axis.lower) / span for value in values)
        rows.append((axis.name, least, low, high, most))
    return rows


def _lineage(manifest: Manifest, lineage: pa.Table, licence: str) -> Section:
    shown = [lineage.slice(int(at), 1).to_pylist()[0] for at in _spread(len(lineage), LINEAGE_ROWS)]
    rows = [
        [
            row["dataset"],
            f"{row['episode']}",
            f"{row['start']}–{row['stop'] - 1}",
            row["split"],
            row["shard"],
            row["key"],
        ]
        for row in shown
    ]
    inputs = "; ".join(f"{one.name} ({one.path}, content {one.sha256[:12]})" for one in manifest.inputs)
    return Section(
        "Lineage and licence",
        f"Licence: {licence or 'not stated'}. Inputs: {inputs}. lineage.parquet holds a row for each of the "
        f"{len(lineage):,} samples; {len(rows)} of them:",
        Table(("dataset", "episode", "frames", "split", "shard", "sample"), rows, frozenset({1})),
        command=f"build fingerprint {manifest.fingerprint}",
    )


def _spread(count: int, wanted: int) -> Sequence[int]:
    """Up to `wanted` indices, evenly spread over `count`."""
    return (
        np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)).tolist() if count else []
    )
