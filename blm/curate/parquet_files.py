"""Parquet files that are gone through batch by batch, whatever their size."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

_BUFFER_BYTES = 1 << 20


def open_in_batches(path: Path) -> pq.ParquetFile:
    """A file whose `iter_batches` lets go of what it has read; by default pyarrow keeps it, in the end the whole."""
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
