"""Sources that a finished corpus holds nothing of: often a path, a column or a licence is not what it should be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from blm.curate.corpus.build_files import KIND
from blm.curate.summary import EmptySource
from blm.schemas.manifest import DROPPED_FILE, Manifest, read_manifest

_COLUMNS = ["source", "reason", "note"]


def kept_by_source(manifest: Manifest) -> dict[str, int]:
    """How many conversations of each source a corpus holds, 0 where none."""
    kept = Counter({one.name: 0 for one in manifest.inputs})
    for group, count in manifest.breakdown.items():
        kept[group.split("/", 1)[0]] += count
    return dict(kept)


def empty_sources(folder: Path) -> tuple[EmptySource, ...]:
    """Those of the finished corpus in `folder`, in the order of their names.

    O(inputs dropped) where there is one, else O(sources).
    """
    kept = kept_by_source(read_manifest(folder, KIND))
    names = sorted(name for name, count in kept.items() if not count)
    if not names:
        return ()
    drops = pq.read_table(
        folder / DROPPED_FILE, columns=_COLUMNS, filters=[("source", "in", names)]
    ).to_pylist()
    return tuple(_empty(name, [row for row in drops if row["source"] == name]) for name in names)


def _empty(name: str, drops: list[dict[str, str]]) -> EmptySource:
    reasons = Counter(row["reason"] for row in drops)
    example = next((row["note"] for row in drops if row["note"]), "")
    return EmptySource(name=name, dropped=dict(sorted(reasons.items())), example=example)
