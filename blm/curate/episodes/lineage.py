"""Which episode of which dataset became which sample, with what: one row per sample of a Stage II build."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from blm.curate.episodes.segment import Segment
from blm.curate.shards import FinishedShard
from blm.schemas.shard import META_SUFFIX, SegmentMeta

LINEAGE_FILE = "lineage.parquet"

LINEAGE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("dataset", pa.string()),
        ("episode", pa.int64()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("split", pa.string()),
        ("embodiment", pa.string()),
        ("task", pa.string()),
        ("instruction", pa.string()),
        ("operator", pa.string()),
        ("seed", pa.int64()),
        ("success", pa.string()),
        ("frames", pa.int64()),
        ("seconds", pa.float64()),
        ("top_speed", pa.float64()),
        ("identity", pa.string()),
    ]
)
"""`start` and `stop` are frames of the source episode (stop exclusive), `frames` how many of them are kept,
`top_speed` the fastest axis' in axis ranges per second, `identity` the XXH3-128 of its content."""


_TAKEN = [name for name in LINEAGE_SCHEMA.names if name not in ("key", "shard", "frames", "seconds")]


def lineage_table(segments: Sequence[Segment], shards: Sequence[FinishedShard]) -> pa.Table:
    """A row per packed segment, in the order of dataset and episode."""
    shard_of = {row.key: row.shard for shard in shards for row in shard.index}
    rows = [
        {
            "key": segment.key,
            "shard": shard_of[segment.key],
            "frames": segment.frames,
            "seconds": round(segment.row["kept_s"], 6),
            **{name: segment.row[name] for name in _TAKEN},
        }
        for segment in segments
    ]
    table = pa.Table.from_pylist(rows, schema=LINEAGE_SCHEMA)
    return table.sort_by([("dataset", "ascending"), ("episode", "ascending")])


def picture_notes(folder: Path, shards: Sequence[FinishedShard]) -> dict[tuple[str, int], str]:
    """What packing noted about the pictures of samples that it kept, by (dataset, episode).

    It stands in the samples, so that a shard taken over from an earlier build tells it too.
    """
    notes = {}
    members = (row for shard in shards for row in shard.index)
    for name, rows in groupby(members, lambda row: row.shard):
        with (folder / name).open("rb") as stream:
            for row in rows:
                if row.suffix == META_SUFFIX:
                    stream.seek(row.offset)
                    meta = SegmentMeta.model_validate_json(stream.read(row.size))
                    if meta.picture_findings:
                        notes[meta.dataset, meta.episode] = meta.picture_findings
    return notes
