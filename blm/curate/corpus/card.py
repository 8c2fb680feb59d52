"""The `README.md` of a corpus: a data card in the form that dataset hubs and `datasets.load_dataset` read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import yaml

from blm.curate.corpus.empty_sources import kept_by_source
from blm.curate.corpus.parquet_form import parquet_configs
from blm.curate.corpus.stages import StageReport
from blm.schemas.manifest import Manifest
from blm.schemas.shard import ShardRow

CARD_FILE = "README.md"
_PARQUET_FORM = (
    "The same conversations as Parquet, with their images: `load_dataset(FOLDER)` of `datasets` gives `messages`, as "
    "chat templates take them, and decoded `images`, in the order in which the messages show them. The shards are "
    'opened by name: `load_dataset("webdataset", data_files={"train": "FOLDER/train-jpg-*.tar"})`, '
    "one kind of media at once."
)
_SHARDS_ALONE = (
    "`load_dataset(FOLDER, NAME)` of `datasets` opens the shards with the kinds of media listed above."
)


def corpus_card(
    manifest: Manifest,
    shards: Sequence[ShardRow],
    reports: Iterable[StageReport],
    licences: Mapping[str, Sequence[str]],
) -> str:
    """The card as Markdown; the same build gives the same card."""
    splits = [split for split, count in manifest.splits.items() if count]
    counts = manifest.counts
    with_parquet = bool(manifest.config.get("parquet"))
    configs = parquet_configs(splits) if with_parquet else _configs(shards)
    kept = kept_by_source(manifest)
    held = {licence for name, count in kept.items() if count for licence in licences[name]}
    front = {"license": sorted(held), "configs": configs}
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        "# Stage I corpus",
        f"{counts.kept:,} training conversations ({counts.inputs:,} read, {sum(counts.dropped.values()):,} dropped), "
        f"built by blm {manifest.software}. Fingerprint `{manifest.fingerprint[:16]}`.",
        "## What is in it",
        _table(["source / task family", *splits], _groups(shards, splits)),
        "## Sources",
        _table(
            ["source", "kind", "licence", "conversations", "sha256"],
            [
                [
                    one.name,
                    one.kind,
                    ", ".join(licences[one.name]),
                    f"{kept[one.name]:,}",
                    f"`{one.sha256[:16]}`",
                ]
                for one in manifest.inputs
            ],
        ),
        "## What was dropped",
        _table(["stage", "in", "kept", "dropped", "why"], [stage_row(report) for report in reports]),
        "Each input that was left out is named in `dropped.parquet`, with the field at fault; what it was alike in "
        "`near_duplicates.parquet`, what it shared with a benchmark in `contamination.parquet`. `stages.parquet` has "
        "the table above, `report.html` shows examples.",
        "## Form",
        "WebDataset shards: `<id>.json` is the record (also a row of `records.parquet`), `<id>.<i>.<ext>` its media. "
        "`index.parquet` has the place of each member, `manifest.parquet` a row per shard. Points in answers are "
        "thousandths of the image's width and height, from the upper left corner. Questions about recorded episodes "
        "are answered from the recorded state; none is about what the arm hides, as far as colours tell.",
        _PARQUET_FORM if with_parquet else _SHARDS_ALONE,
    ]
    return "\n\n".join(parts) + "\n"


def _configs(shards: Sequence[ShardRow]) -> list[dict[str, object]]:
    """One configuration per kinds of media, each with a file pattern per split."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in shards:
        signature = row.name.removeprefix(f"{row.split}-").rsplit("-", 1)[0]
        files = {"split": row.split, "path": f"{row.split}-{signature}-[0-9]*.tar"}
        listed = found.setdefault(signature, [])
        if files not in listed:
            listed.append(files)
    return [{"config_name": name, "data_files": files} for name, files in sorted(found.items())]


def _groups(shards: Sequence[ShardRow], splits: list[str]) -> list[list[str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for row in shards:
        for group, number in row.counts.items():
            counts[group, row.split] += number
    groups = sorted({group for group, _ in counts})
    rows = [[group, *(f"{counts[group, split]:,}" for split in splits)] for group in groups]
    totals = [f"{sum(counts[group, split] for group in groups):,}" for split in splits]
    return [*rows, ["**all**", *totals]]


def stage_row(report: StageReport) -> list[str]:
    """A stage's name, how many came in, stayed and were dropped, and why."""
    why = ", ".join(f"{reason} {count:,}" for reason, count in sorted(report.dropped.items()))
    masked = ", ".join(f"{kind} masked {count:,} times" for kind, count in sorted(report.changed.items()))
    numbers = (report.inputs, report.kept, report.dropped.total())
    said = "; ".join(text for text in (why, masked, report.note) if text)
    return [report.name, *(f"{number:,}" for number in numbers), said or "–"]


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
