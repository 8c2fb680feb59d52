"""Select among millions of records by their metadata, with DuckDB: filter, exact dedup, stratified split.

    Parquet files ─▶ where ─▶ first of equal ones ─▶ shares of each stratum ─▶ one Parquet file with a column `split`

Columns are carried to the end only once: first row numbers and MD5 sums decide what stays, then order statistics per
stratum decide its split, so nothing is sorted and no window holds whole rows. Beyond its memory DuckDB spills to a
folder beside the output. Cost: linear; the files are read twice, the first time in a few columns.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from blm.curate.episodes.config import Fractions
from blm.curate.episodes.resources import Resources
from blm.schemas.errors import ConfigError, DatasetError, UnknownNameError
from blm.schemas.yaml_model import FrozenModel

DEFAULT_MEMORY_BYTES = 600_000_000
SPLIT = "split"
_PYTHON_BYTES = 260_000_000
_ROW = "file_index::BIGINT << 40 | file_row_number"
"""Numbers rows in the order of files and rows."""


class Selection(FrozenModel):
    """What stays, and how it is split."""

    where: str | None = Field(default=None, description="a condition in SQL on the columns; default: all")
    distinct: tuple[str, ...] = Field(
        default=(), description="of rows equal in these columns the first stays; a null equals nothing"
    )
    strata: tuple[str, ...] = Field(
        default=(), description="each combination of these columns is split into the same shares"
    )
    key: str = Field(default="id", description="column that decides, with the seed, a row's split")
    fractions: Fractions = Fractions()
    seed: int = 0


@dataclass(frozen=True)
class SelectionCounts:
    """Rows read, left out by `where`, left out as equal, and kept by split. inputs = filtered + duplicates + kept."""

    inputs: int
    filtered: int
    duplicates: int
    splits: dict[str, int]

    @property
    def kept(self) -> int:
        return sum(self.splits.values())


def select_records(
    paths: Sequence[Path],
    output: Path,
    selection: Selection,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    threads: int = 2,
) -> SelectionCounts:
    """Write the rows of Parquet files that a selection keeps, in their order, with their `split`, to `output`.

    Each stratum is split to within a row of the fractions; what is added later moves rows at their borders only.
    Without strata a row's split depends on nothing but its key and the seed, and never changes.

    Args:
        paths: Parquet files with the same columns. A column `split` is replaced.
        memory_bytes: of the whole process, Python with what it has imported included; at least 400 MB is wise.

    Raises:
        DatasetError: a file cannot be read.
        UnknownNameError: a column is not there.
        ConfigError: `where` is no condition on the columns.
    """
    schema, inputs = _schema_and_rows(paths)
    for name in (*selection.distinct, *selection.strata, selection.key):
        if name not in schema.names:
            raise UnknownNameError("column", name, schema.names)
    beside = output.with_name(f".{output.name}.tmp")
    # Resources give half to DuckDB; here it may have all but what Python and its libraries take.
    left = max(memory_bytes - _PYTHON_BYTES, memory_bytes // 2)
    resources = Resources(2 * left, threads, output.with_name(f".{output.name}.spill"))
    with resources.connect() as connection:
        connection.execute("SET autoinstall_known_extensions = false")
        try:
            _check_condition(connection, schema, selection.where)
            passed = _keep(connection, paths, selection)
            _find_borders(connection, selection)
            splits = _write(connection, paths, schema, beside)
        except duckdb.Error as error:
            beside.unlink(missing_ok=True)
            raise DatasetError(f"cannot select from {paths[0]}: {error}", "Check the files.") from error
    os.replace(beside, output)
    return SelectionCounts(inputs, inputs - passed, passed - sum(splits.values()), splits)


def _schema_and_rows(paths: Sequence[Path]) -> tuple[pa.Schema, int]:
    """The schema of the first file, and how many rows all have."""
    if not paths:
        raise ConfigError("there are no files to select from.", "Name at least one.")
    count = 0
    for path in paths:
        try:
            count += pq.read_metadata(path).num_rows
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"cannot read {path}: {error}", "It must be a Parquet file.") from error
    return pq.read_schema(paths[0]), count


def _check_condition(connection: duckdb.DuckDBPyConnection, schema: pa.Schema, where: str | None) -> None:
    empty = schema.empty_table()
    try:
        connection.register("columns", empty)
        connection.execute(f"SELECT * FROM columns WHERE ({where or 'true'}\n)")
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"`where` cannot be used: {reason}", f"Columns: {', '.join(schema.names)}."
        ) from error
    finally:
        connection.unregister("columns")


def _keep(connection: duckdb.DuckDBPyConnection, paths: Sequence[Path], selection: Selection) -> int:
    """Make the table `kept` of the rows that stay, each with its stratum and its place in it (0 to 2^64).

    Returns how many the condition leaves.
    """
    place, stratum = _place(selection), _stratum(selection)
    passed = f"FROM {_files(paths)} WHERE ({selection.where or 'true'}\n)"
    if not selection.distinct:
        connection.execute(
            f"CREATE TABLE kept AS SELECT {_ROW} AS row, {place} AS place, {stratum} AS stratum {passed}"
        )
        return connection.execute("SELECT count(*) FROM kept").fetchall()[0][0]
    equal = " || ".join(f"md5({_name(column)}::VARCHAR)" for column in selection.distinct)
    if len(selection.distinct) == 1:
        equal = f"{_name(selection.distinct[0])}::VARCHAR"
    connection.execute(
        f"CREATE TABLE kept AS SELECT min({_ROW}) AS row, arg_min({place}, {_ROW}) AS place, "
        f"arg_min({stratum}, {_ROW}) AS stratum, count(*) AS times {passed} "
        f"GROUP BY coalesce(md5_number({equal}), ({_ROW})::UHUGEINT)"
    )
    return connection.execute("SELECT coalesce(sum(times), 0)::BIGINT FROM kept").fetchall()[0][0]


def _find_borders(connection: duckdb.DuckDBPyConnection, selection: Selection) -> None:
    """Make the table `borders`: per stratum, up to where rows in the order of their hash are train, and val."""
    train = selection.fractions.train
    until_val = min(1.0, train + selection.fractions.val)
    if not selection.strata:
        most = 2**64 - 1
        border = [min(most, int(share * most)) for share in (train, until_val)]
        connection.execute(
            f"CREATE TABLE borders AS SELECT 0::UBIGINT AS stratum, {border}::UBIGINT[] AS border"
        )
        return
    connection.execute(
        "CREATE TABLE borders AS SELECT stratum, "
        f"quantile_disc(place, [{train}, {until_val}]) AS border FROM kept GROUP BY stratum"
    )


def _write(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[Path],
    schema: pa.Schema,
    output: Path,
) -> dict[str, int]:
    """Write the kept rows; returns how many each split got."""
    columns = ", ".join(f"files.{_name(name)}" for name in schema.names if name != SPLIT)
    connection.execute(
        "CREATE VIEW placed AS SELECT row, CASE WHEN place <= border[1] THEN 'train' "
        f"WHEN place <= border[2] THEN 'val' ELSE 'test' END AS {SPLIT} FROM kept JOIN borders USING (stratum)"
    )
    connection.execute(
        f"COPY (SELECT {columns}, placed.{SPLIT} FROM {_files(paths)} AS files "
        f"JOIN placed ON {_ROW} = placed.row) "
        f"TO {_text(output)} (FORMAT parquet, COMPRESSION zstd)"
    )
    counted = connection.execute(
        f"SELECT {SPLIT}, count(*) FROM read_parquet({_text(output)}) GROUP BY ALL"
    ).fetchall()
    return {name: dict(counted).get(name, 0) for name in ("train", "val", "test")}


def _files(paths: Sequence[Path]) -> str:
    return f"read_parquet([{', '.join(map(_text, paths))}], file_row_number = true)"


def _stratum(selection: Selection) -> str:
    """A number for each combination of the strata's columns; a null is a value as any other."""
    if not selection.strata:
        return "0::UBIGINT"
    return f"hash({', '.join(map(_name, selection.strata))})"


def _place(selection: Selection) -> str:
    """Where a row stands, 0 to 2^64: a hash of its key and the seed."""
    return f"md5_number_lower('{selection.seed} ' || coalesce({_name(selection.key)}::VARCHAR, ''))"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _text(value: Path) -> str:
    return "'" + str(value).replace("'", "''") + "'"
