"""What reading frames may use: memory, threads, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

DEFAULT_MEMORY_BYTES = 2 * 10**9

_ROWS_AT_ONCE = (20_000, 80_000)
"""At least and at most; within, what the memory limit allows. Larger batches leave the processor's caches: slower."""

_COPIES = 8
"""How many times over a batch's vectors are in memory at the worst moment, with what is computed from them."""

READERS = 2
"""Groups of files that are read beside each other: more are not faster than what is made of one batch at a time."""

_ROWS_FROM_DUCKDB = (2048, 8192)
"""At least and at most. DuckDB's limit does not cover what it has handed out, so vectors are looked at then."""

_BYTES_PER_ROW_FROM_DUCKDB = 2**19


@dataclass(frozen=True)
class Resources:
    """What reading may use. DuckDB spills to `spill` (default: `.tmp` in the current folder) beyond the limit."""

    memory_bytes: int = DEFAULT_MEMORY_BYTES
    threads: int = 2
    spill: Path | None = None

    def rows_at_once(self, values_per_row: int) -> int:
        """Rows of float32 values that half of the memory holds with all that is computed from them, once per reader
        and once more."""
        least, most = _ROWS_AT_ONCE
        batches = 2 * (READERS + 1)
        return max(least, min(most, self.memory_bytes // batches // (4 * values_per_row * _COPIES)))

    @property
    def rows_from_duckdb(self) -> int:
        """Rows that are handed out before the length of their vectors is known."""
        least, most = _ROWS_FROM_DUCKDB
        return max(least, min(most, self.memory_bytes // _BYTES_PER_ROW_FROM_DUCKDB))

    def connect(self, threads: int | None = None) -> duckdb.DuckDBPyConnection:
        """A database of that many threads (default: all) that takes half of the memory at most."""
        settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads or self.threads,
            "memory_limit": f"{self.memory_bytes // 2 // 1024**2} MiB",
        }
        if self.spill is not None:
            settings["temp_directory"] = str(self.spill)
        connection = duckdb.connect(config=settings)
        connection.execute("set global disable_parquet_prefetching = true")  # meant for slow links: a tenth
        return connection


DEFAULT_RESOURCES = Resources()
