from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blm.curate.episodes.footers import footer_bytes, table_problem, table_problems

VALUES = {"state": 3, "time": 1}


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "some[0]*=?" / "file.parquet", 100)


def write(path: Path, rows: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    table = pa.table({"state": [[1.0, 2.0, 3.0]] * rows, "time": [0.0] * rows})
    pq.write_table(table, path, row_group_size=40)
    return path


def test_a_file_that_holds_what_is_announced_is_read(file):
    assert table_problem(duckdb.connect(), file, 100, VALUES) is None


def test_footers_are_measured_without_being_read(file, tmp_path):
    empty, none = tmp_path / "empty", tmp_path / "none"
    empty.touch()
    size = pq.read_metadata(file).serialized_size
    assert footer_bytes([str(file), str(file), str(empty), str(none)]) == 2 * size


def test_rows_are_counted_over_all_groups(file):
    assert "claims 100 rows; what is announced allows 99 at most" in (
        table_problem(duckdb.connect(), file, 99, VALUES) or ""
    )


def test_a_list_may_not_be_much_longer_than_announced(tmp_path):
    path = tmp_path / "long.parquet"
    pq.write_table(pa.table({"state": [[0.0] * 5000]}), path)
    assert "claims 5000 values in 1 rows of its column 'state'" in (
        table_problem(duckdb.connect(), path, 10, VALUES) or ""
    )
    assert table_problem(duckdb.connect(), path, 10, {"time": 1}) is None


def test_a_column_whose_name_is_no_text_is_told_from_the_footer(file):
    content = file.read_bytes()
    assert b"time" in content
    file.write_bytes(content.replace(b"time", b"t\xef\xefe"))
    assert "is not readable" in (table_problem(duckdb.connect(), file, 100, VALUES) or "")


def test_broken_files_are_named_among_whole_ones(file):
    broken = file.with_name("broken.parquet")
    broken.write_bytes(file.read_bytes()[:-20])
    more = {str(write(file.with_name(f"{n}.parquet"), n + 1)): 100 for n in range(5)}
    problems = table_problems(duckdb.connect(), {str(file): 99, str(broken): 100, **more}, VALUES)
    assert set(problems) == {str(file), str(broken)}
    assert problems[str(broken)].startswith(f"{broken} is not readable: ")


def test_a_folder_is_not_taken_for_the_files_in_it(file):
    """DuckDB reads all Parquet files below a folder that it is given."""
    assert table_problems(duckdb.connect(), {str(file.parent): 100, str(file): 100}, VALUES) == {
        str(file.parent): f"{file.parent} is no file"
    }


def test_a_name_longer_than_a_file_system_takes_is_no_file(file):
    long = str(file.parent / ("é" * 300))
    assert table_problems(duckdb.connect(), {long: 100, str(file): 100}, VALUES) == {
        long: f"{long} is no file"
    }
