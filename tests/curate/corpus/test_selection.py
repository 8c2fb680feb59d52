from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blm.curate.corpus.selection import Selection, select_records
from blm.curate.episodes.config import Fractions
from blm.schemas.errors import ConfigError, DatasetError, UnknownNameError

ROWS = 400


def rows(first, count):
    return [
        {
            "id": f"record {number}",
            "source": f"source {number % 3}",
            "family": "general" if number % 5 else None,
            "content": None if number % 40 == 7 else f"content {number % 150}",
            "words": number % 50,
            "messages": [{"role": "user", "content": f"{number}?"}],
        }
        for number in range(first, first + count)
    ]


@pytest.fixture
def files(tmp_path):
    paths = []
    for name, first, count in (("b", 0, 150), ("a", 150, ROWS - 150)):
        path = tmp_path / f"it's {name}.parquet"
        pq.write_table(pa.Table.from_pylist(rows(first, count)), path, row_group_size=37)
        paths.append(path)
    return paths


def selected(files, **settings):
    output = files[0].parent / "selected.parquet"
    counts = select_records(files, output, Selection(**settings), threads=1)
    table = pq.read_table(output).to_pylist()
    assert counts.inputs == ROWS == counts.filtered + counts.duplicates + counts.kept
    assert counts.kept == len(table)
    assert counts.splits == {name: sum(row["split"] == name for row in table) for name in counts.splits}
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "it's a.parquet",
        "it's b.parquet",
        "selected.parquet",
    ]
    return table, counts


def test_what_stays_is_what_a_loop_would_keep_in_the_same_order(files):
    seen, expected, filtered = set(), [], 0
    for row in rows(0, ROWS):
        if row["words"] < 10:
            filtered += 1
        elif row["content"] is None or (row["source"], row["content"]) not in seen:
            seen.add((row["source"], row["content"]))
            expected.append(row)
    table, counts = selected(files, where="words >= 10 -- long", distinct=("source", "content"))
    assert [{name: value for name, value in row.items() if name != "split"} for row in table] == expected
    assert counts.filtered == filtered
    one, _ = selected(files, distinct=("content",))
    assert Counter(row["content"] for row in one) == {f"content {i}": 1 for i in range(150)} | {None: 10}


def test_every_stratum_is_split_into_the_same_shares(files):
    fractions = {"train": 0.7, "val": 0.2, "test": 0.1}
    table, _ = selected(files, strata=("source", "family"), fractions=fractions)
    sizes = Counter((row["source"], row["family"]) for row in table)
    found = Counter((row["source"], row["family"], row["split"]) for row in table)
    assert len(sizes) == 6
    for stratum, size in sizes.items():
        for name, share in fractions.items():
            assert abs(found[*stratum, name] - share * size) <= 1


@pytest.mark.parametrize("strata", [(), ("source",)])
def test_a_split_is_drawn_by_key_and_seed(files, strata):
    def splits(**settings):
        table, _ = selected(files, strata=strata, **settings)
        return {row["id"]: row["split"] for row in table}

    whole, few = splits(), splits(where="words < 25")
    assert splits() == whole
    assert splits(seed=1) != whole
    assert few.keys() < whole.keys()
    moved = [name for name, split in few.items() if whole[name] != split]
    assert len(moved) < 0.1 * len(few) if strata else not moved


def test_a_split_that_has_no_share_gets_nothing_and_an_older_split_is_replaced(files):
    table, counts = selected(files, strata=("source",), fractions={"train": 0.5, "val": 0.5, "test": 0})
    assert counts.splits["test"] == 0
    pq.write_table(pa.Table.from_pylist(table[:10]), files[0].parent / "again.parquet")
    output = files[0].parent / "second.parquet"
    wanted = Selection(fractions=Fractions(train=1, val=0, test=0))
    select_records([files[0].parent / "again.parquet"], output, wanted)
    assert set(pq.read_table(output)["split"].to_pylist()) == {"train"}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"where": "wordz > 3"}, ConfigError, "wordz.*Columns: id, source"),
        ({"where": "'x"}, ConfigError, "where"),
        ({"strata": ("sauce",)}, UnknownNameError, "column 'sauce' not found; there are: .*source"),
        ({"key": "name"}, UnknownNameError, "column 'name'"),
    ],
)
def test_what_cannot_be_selected_is_said(files, settings, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        selected(files, **settings)


def test_a_file_that_is_no_parquet_is_refused(files, tmp_path):
    with pytest.raises(ConfigError, match="no files"):
        select_records([], tmp_path / "out", Selection())
    for order in ([tmp_path / "text.parquet"], [*files, tmp_path / "text.parquet"]):
        (tmp_path / "text.parquet").write_text("no")
        with pytest.raises(DatasetError, match=r"text\.parquet"):
            select_records(order, tmp_path / "out", Selection())
    assert not (tmp_path / "out").exists()
