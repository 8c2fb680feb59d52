"""The files of a finished corpus: their names, and the schemas of its tables."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from blm.curate.corpus.conversation import Drop
from blm.curate.corpus.stages import StageReport

KIND = "stage1-corpus"
RECORDS_FILE = "records.parquet"
STAGES_FILE = "stages.parquet"
DUPLICATES_FILE = "near_duplicates.parquet"
CONTAMINATION_FILE = "contamination.parquet"
PARQUET_FOLDER = "parquet"
"""Holds the form for `datasets`, where it is asked for."""

DROPPED_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("source", "row", "stage", "reason", "field", "note", "partner")]
)
"""`partner` is the conversation that it is the same as, or alike; builds before it have no such column."""
_COUNTS = pa.map_(pa.string(), pa.int64())
STAGES_SCHEMA = pa.schema(
    [
        ("order", pa.int32()),
        ("stage", pa.string()),
        ("inputs", pa.int64()),
        ("kept", pa.int64()),
        ("dropped", pa.int64()),
        ("reasons", _COUNTS),
        ("changed", _COUNTS),
        ("note", pa.string()),
    ]
)
"""A row per stage in the order they ran; what one keeps is what the next has as input. `reasons` counts what was
dropped, `changed` what was changed in those kept."""


def dropped_table(drops: Iterable[Drop]) -> pa.Table:
    """`dropped.parquet`: a row per input that was left out, in the order of the inputs."""
    drops = list(drops)

    def column(name: str) -> list[str]:
        return [getattr(drop, name).encode(errors="replace").decode() for drop in drops]

    return pa.table({name: column(name) for name in DROPPED_SCHEMA.names}, schema=DROPPED_SCHEMA)


def stages_table(reports: Iterable[StageReport]) -> pa.Table:
    """`stages.parquet`; see `STAGES_SCHEMA`."""
    rows = [
        {
            "order": order,
            "stage": report.name,
            "inputs": report.inputs,
            "kept": report.kept,
            "dropped": report.dropped.total(),
            "reasons": sorted(report.dropped.items()),
            "changed": sorted(report.changed.items()),
            "note": report.note,
        }
        for order, report in enumerate(reports)
    ]
    return pa.Table.from_pylist(rows, schema=STAGES_SCHEMA)
