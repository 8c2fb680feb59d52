"""Which episode of which dataset became which sample, with what: one row per sample of a Stage II build."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from blm.curate.episodes.segment import Segment
from blm.curate.shards import FinishedShard

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
`top_speed` the fastest axis' in axis ranges per second, `identity` the SHA-256 of the episode's content."""


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
