"""Filter, exact dedup and stratified split over the metadata of millions of records: CPU seconds and peak memory.

Rows are made: eight columns as in a corpus's table of records, a tenth of them copies. The task: keep those that meet a
condition, of equal contents the first, split 90/5/5 in each source and task family, write all columns with the split.
`duckdb` is the query one would write by hand, without a limit of memory and with one of 300 MB; `ours` is
`select_records` with a limit of 600 MB for the whole process. Each runs in a process of its own, on one thread. PEERS
may name folders of packages, as for `near_duplicate_text.py`.

Run: make bench ARGS="benchmarks/corpus_metadata.py 5000000"
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.process_memory import peak_mb  # noqa: E402

ROWS = 5_000_000
CONDITION = "words BETWEEN 20 AND 1800 AND least(width, height) >= 128 AND licence NOT LIKE '%-nc-%'"
FAMILIES = (
    "['perception', 'spatial', 'temporal', 'planning', 'affordance', 'judgement', 'embodiment', 'general']"
)
LICENCES = "['cc-by-4.0', 'mit', 'apache-2.0', 'cc-by-nc-4.0']"


def main() -> None:
    """A Markdown table of the ways named on the command line, or all."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "records.parquet"
        write_rows(path, rows)
        print(f"{rows:,} rows, {path.stat().st_size / 1e6:.0f} MB\n")
        print("| way | CPU s | beside the bare query | peak MB | kept |\n|---|---:|---:|---:|---:|")
        bare = None
        for name in sys.argv[2:] or list(WAYS):
            found = measured(name, path, Path(scratch))
            if "error" in found:
                print(f"| {name} | left out: {found['error']} | | | |", flush=True)
                continue
            bare = bare or found["cpu_s"]
            print(
                f"| {name} {found['version']} | {found['cpu_s']:.1f} | {found['cpu_s'] / bare:.2f} "
                f"| {found['peak_mb']:.0f} | {found['kept']:,} |",
                flush=True,
            )


def write_rows(path: Path, rows: int) -> None:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(
            f"COPY (SELECT 'source' || i % 7 || ':' || i AS id, 'source' || i % 7 AS source, "
            f"{FAMILIES}[1 + (hash(i) % 8)::INT] AS task_family, {LICENCES}[1 + (hash(i, 1) % 4)::INT] AS licence, "
            f"sha256('t' || CASE WHEN hash(i, 2) % 10 = 0 THEN (hash(i, 3) % {rows})::BIGINT ELSE i END) AS content, "
            "(hash(i, 4) % 2000)::INT AS words, (64 + hash(i, 5) % 1024)::INT AS width, "
            f"(64 + hash(i, 6) % 1024)::INT AS height FROM range({rows}) numbers(i)) "
            f"TO '{path}' (FORMAT parquet, COMPRESSION zstd)"
        )


def measured(name: str, path: Path, folder: Path) -> dict[str, Any]:
    """What a way costs, and how many rows it keeps, or the `error` it met."""
    settings = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    if name == "polars":
        settings["PYTHONPATH"] = os.environ.get("PEERS", "")
    command = [sys.executable, __file__, "--child", name, str(path), str(folder / "selected.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:80]}
    return json.loads(done.stdout.splitlines()[-1])


def bare_query(path: Path, output: Path, limit: str = "") -> None:
    settings: dict[str, Any] = {"threads": 1, "temp_directory": str(output.parent / "spill")}
    with duckdb.connect(config=settings | ({"memory_limit": limit} if limit else {})) as connection:
        connection.execute(
            f"COPY (WITH kept AS (SELECT * FROM '{path}' WHERE {CONDITION} "
            "QUALIFY row_number() OVER (PARTITION BY content ORDER BY id) = 1), "
            "placed AS (SELECT *, row_number() OVER (PARTITION BY source, task_family ORDER BY hash(id)) AS place, "
            "count(*) OVER (PARTITION BY source, task_family) AS size FROM kept) "
            "SELECT * EXCLUDE (place, size), CASE WHEN place <= 0.9 * size THEN 'train' "
            f"WHEN place <= 0.95 * size THEN 'val' ELSE 'test' END AS split FROM placed) TO '{output}' "
            "(FORMAT parquet, COMPRESSION zstd)"
        )


def ours(path: Path, output: Path) -> None:
    from blm.curate.corpus.selection import Selection, select_records

    wanted = Selection(where=CONDITION, distinct=("content",), strata=("source", "task_family"))
    select_records([path], output, wanted, memory_bytes=600_000_000, threads=1)


def pandas(path: Path, output: Path) -> None:
    import pandas as pd

    rows: Any = pd.read_parquet(path)
    rows = rows.query("20 <= words <= 1800 and width >= 128 and height >= 128")
    rows = rows[~rows["licence"].str.contains("-nc-")].drop_duplicates(["content"])
    shuffled = rows.sample(frac=1, random_state=0)
    share = shuffled.groupby(["source", "task_family"]).cumcount() / shuffled.groupby(
        ["source", "task_family"]
    )["id"].transform("size")
    split = share.map(lambda one: "train" if one < 0.9 else "val" if one < 0.95 else "test")
    rows.assign(split=split).to_parquet(output, compression="zstd")


def polars(path: Path, output: Path) -> None:
    import polars as pl  # type: ignore[import-not-found]

    kept = (
        pl.scan_parquet(path)
        .filter(
            pl.col("words").is_between(20, 1800),
            pl.min_horizontal("width", "height") >= 128,
            ~pl.col("licence").str.contains("-nc-"),
        )
        .unique("content", keep="first", maintain_order=True)
    )
    share = pl.col("id").hash().rank("ordinal").over("source", "task_family") / pl.len().over(
        "source", "task_family"
    )
    split = pl.when(share <= 0.9).then(pl.lit("train")).when(share <= 0.95).then(pl.lit("val"))
    kept.with_columns(split=split.otherwise(pl.lit("test"))).collect().write_parquet(output)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "duckdb": bare_query,
    "duckdb_300mb": partial(bare_query, limit="300MB"),
    "ours": ours,
    "pandas": pandas,
    "polars": polars,
}
DISTRIBUTIONS = {"ours": "blm", "duckdb_300mb": "duckdb"}
"""What a way's package is called, where it is not its own name."""


def child(name: str, path: Path, output: Path) -> None:
    """Run one way; prints what it cost without its imports' time but with their memory, as JSON."""
    few = output.with_name("few.parquet")
    pq.write_table(pa.Table.from_batches([next(pq.ParquetFile(path).iter_batches(1000))]), few)
    WAYS[name](few, output)
    start = time.process_time()
    WAYS[name](path, output)
    cpu_s = time.process_time() - start
    print(
        json.dumps(
            {
                "cpu_s": cpu_s,
                "peak_mb": peak_mb(),
                "kept": pq.read_metadata(output).num_rows,
                "version": version(DISTRIBUTIONS.get(name, name)),
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
