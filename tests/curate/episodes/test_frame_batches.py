import threading
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blm.curate.episodes import frame_batches
from blm.curate.episodes.footers import parquet_list
from blm.curate.episodes.frame_batches import read_batches
from blm.curate.episodes.frames import Columns, FramesError, concatenate, read_frames
from blm.curate.episodes.resources import Resources
from blm.schemas.episode import ACTION, STATE

COLUMNS = Columns(state=(0, 1, 2), action=(2, 0, 1), subtask=False, success=False, time="timestamp")
FEW_ROWS = Resources(memory_bytes=64 * 1024**2, threads=2)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr("blm.curate.episodes.resources._ROWS_AT_ONCE", (100, 100))


def write(folder: Path, files: list[list[tuple[int, int]]]) -> list[str]:
    """Files of (episode, frames) in the given order, in a folder whose name is hard on patterns."""
    generator = np.random.default_rng(0)
    folder = folder / "some[0]*=?"
    folder.mkdir()
    paths = []
    for number, content in enumerate(files):
        episode = np.concatenate([np.full(frames, episode) for episode, frames in content])
        frame = np.concatenate([np.arange(frames) for _, frames in content])
        vectors = {
            name: pa.FixedSizeListArray.from_arrays(
                pa.array(generator.normal(size=3 * len(frame)).astype(np.float32)), 3
            )
            for name in (STATE, ACTION)
        }
        scalars = {"episode_index": episode, "frame_index": frame, "timestamp": frame / 20}
        paths.append(str(folder / f"file-{number:03d}.parquet"))
        pq.write_table(pa.table(vectors | scalars), paths[-1])
    return paths


def batches(files: list[str]) -> tuple[list, dict[str, str]]:
    return read_batches(dict.fromkeys(files, 10_000), COLUMNS, FEW_ROWS, list)


@pytest.mark.parametrize(
    "files",
    [
        [[(episode, 30 + episode) for episode in range(20)]],
        [[(episode, 30)] for episode in range(20)],
        [[(0, 250), (1, 1)], [(2, 99), (3, 1), (4, 260)]],
        [[(3, 40)], [(1, 150)], [(2, 7), (0, 200)]],
    ],
)
def test_every_frame_comes_once_and_episodes_come_whole(tmp_path, files):
    paths = write(tmp_path, files)
    found, unreadable = batches(paths)
    expected = concatenate([read_frames(Path(path), COLUMNS) for path in paths])
    assert not unreadable
    assert len(found) > 1
    episodes = [episode for batch in found for episode in np.unique(batch.episode)]
    assert sorted(episodes) == sorted({episode for content in files for episode, _ in content})
    together = concatenate(found)
    for name in ("episode", "frame", "state", "action", "time"):
        np.testing.assert_array_equal(getattr(together, name), getattr(expected, name))


def test_an_episode_in_several_places_is_put_together(tmp_path):
    paths = write(tmp_path, [[(0, 150)], [(1, 120)], [(2, 130)]])
    parts = pa.concat_tables([pq.read_table(path) for path in paths])
    order = np.random.default_rng(1).permutation(len(parts))
    pq.write_table(parts.take(order), paths[0])
    found, unreadable = batches(paths[:1])
    assert [(np.unique(batch.episode), len(batch.frame)) for batch in found] == [(0, 150), (1, 120), (2, 130)]
    assert all((np.diff(batch.frame) == 1).all() for batch in found)
    assert not unreadable


def shared_episode(folder: Path) -> list[str]:
    """Three files; 80 frames of episode 1 lie in the second one, the other 20 in the third, before episode 2."""
    paths = write(folder, [[(0, 60)], [(1, 80)], [(1, 20), (2, 60)]])
    table = pq.read_table(paths[2])
    frame = np.where(np.arange(80) < 20, np.arange(80) + 80, np.arange(80) - 20)
    pq.write_table(
        table.set_column(table.column_names.index("frame_index"), "frame_index", [frame]), paths[2]
    )
    return paths


def lengths(found: list) -> dict[int, int]:
    numbers, rows = np.unique(np.concatenate([one.episode for one in found]), return_counts=True)
    return dict(zip(numbers.tolist(), rows.tolist(), strict=True))


@pytest.mark.parametrize("broken", [None, "cut", "lacks a column"])
def test_an_episode_that_two_files_share_comes_whole(tmp_path, broken):
    paths = shared_episode(tmp_path)
    last = Path(paths[0]).with_name("file-003.parquet")
    pq.write_table(pq.read_table(paths[0]), last)
    if broken == "cut":
        last.write_bytes(last.read_bytes()[:-100])
    elif broken:
        pq.write_table(pq.read_table(last).drop_columns([ACTION]), last)
    else:
        last.unlink()
    found, unreadable = batches(paths if broken is None else [*paths, str(last)])
    assert set(unreadable) == (set() if broken is None else {str(last)})
    assert lengths(found) == {0: 60, 1: 100, 2: 60}
    assert all((np.diff(one.frame[one.span(1)]) == 1).all() for one in found)
    assert sum(1 in one.episode for one in found) == 1


def break_for_good(path: str) -> None:
    """Flip the bit of a footer that makes DuckDB give up the whole database, not only the file."""
    intact = Path(path).read_bytes()
    footer = len(intact) - 8 - int.from_bytes(intact[-8:-4], "little")
    with duckdb.connect(config={"threads": 1}) as connection:
        for place in range(footer, len(intact) - 8):
            Path(path).write_bytes(intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :])
            try:
                connection.execute(
                    "select * from read_parquet($file)", {"file": parquet_list([path])}
                ).fetchall()
            except duckdb.InternalException:
                return
            except duckdb.Error:
                continue
    pytest.skip("no such bit: DuckDB has become more patient")


@pytest.mark.parametrize("broken", [0, 4])
def test_a_file_that_breaks_the_database_costs_its_own_episodes_only(tmp_path, broken):
    paths = write(tmp_path, [[(episode, 30)] for episode in range(6)])
    break_for_good(paths[broken])
    found, unreadable = batches(paths)
    assert set(unreadable) == {paths[broken]}
    assert lengths(found) == dict.fromkeys(set(range(6)) - {broken}, 30)


def test_where_files_can_only_be_read_one_by_one_an_episode_ends_with_its_file(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError

    monkeypatch.setattr("blm.curate.episodes.frame_batches._frames_of_files", fails)
    found, unreadable = batches(shared_episode(tmp_path))
    assert unreadable == {}
    assert lengths(found) == {0: 60, 1: 80, 2: 60}


def test_what_was_begun_is_closed_when_reading_or_its_use_fails(tmp_path, monkeypatch):
    begun, closed, streams = [], [], []
    both_begun = threading.Barrier(3)
    real = frame_batches._streamed

    def watched(connection, files, *more):
        begun.append(sorted(files))
        both_begun.wait(60)
        try:
            yield from real(connection, files, *more)
        finally:
            closed.append(sorted(files))

    def kept(*arguments):
        streams.append(watched(*arguments))  # else they would be closed by being forgotten
        return streams[-1]

    def fails(found):
        both_begun.wait(60)  # reading begins before the first batch is asked for
        next(found)
        raise KeyError

    monkeypatch.setattr(frame_batches, "_streamed", kept)
    paths = write(tmp_path, [[(episode, 150)] for episode in range(6)])
    with pytest.raises(KeyError):
        read_batches(dict.fromkeys(paths, 200), COLUMNS, FEW_ROWS, fails)
    assert sorted(begun) == sorted(closed) == [paths[:3], paths[3:]]


def test_errors_of_what_uses_the_frames_are_not_errors_of_the_files(tmp_path):
    calls = []

    def fails(found):
        calls.append(next(found))
        raise ValueError("not about files")

    paths = write(tmp_path, [[(episode, 90)] for episode in range(6)])
    with pytest.raises(ValueError, match="not about files"):
        read_batches(dict.fromkeys(paths, 100), COLUMNS, FEW_ROWS, fails)
    assert len(calls) == 1


@given(st.dictionaries(st.integers(0, 99).map("file-{:03d}".format), st.integers(0, 1000)))
def test_every_file_is_in_one_group_and_groups_are_of_about_a_size(most_rows):
    groups = frame_batches._groups(most_rows)
    assert [file for group in groups for file in group] == sorted(most_rows)
    assert all(group.items() <= most_rows.items() for group in groups)
    sizes = [sum(group.values()) for group in groups]
    assert len(groups) <= 2
    assert len(groups) == 2 or len([rows for rows in most_rows.values() if rows]) < 2
    if len(groups) == 2:
        assert abs(sizes[0] - sizes[1]) <= max(most_rows.values())


def test_a_broken_file_is_named_and_the_others_are_read(tmp_path):
    paths = write(tmp_path, [[(episode, 30)] for episode in range(6)])
    Path(paths[2]).write_bytes(Path(paths[2]).read_bytes()[:-100])
    pq.write_table(pq.read_table(paths[4]).drop_columns([STATE]), paths[4])
    found, unreadable = batches(paths)
    assert set(unreadable) == {paths[2], paths[4]}
    assert {int(episode) for batch in found for episode in batch.episode} == {0, 1, 3, 5}


def test_vectors_of_differing_lengths_are_not_mixed_up(tmp_path):
    (path,) = write(tmp_path, [[(0, 4)]])
    ragged = pa.array(
        [[1.0, 2.0], [3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], pa.list_(pa.float32())
    )
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(STATE), STATE, ragged), path)
    found, unreadable = batches([path])
    assert not found
    assert "vectors of differing lengths" in unreadable[path]


def test_a_column_in_other_letters_is_another_column(tmp_path):
    files = write(tmp_path, [[(0, 30)], [(1, 40)]])
    for file in files:
        table = pq.read_table(file)
        pq.write_table(
            table.rename_columns([name.upper() if name == ACTION else name for name in table.column_names]),
            file,
        )
    read, unreadable = batches(files)
    assert read == []
    assert sorted(unreadable) == sorted(files)
    assert ACTION in unreadable[files[0]]


def with_vectors(file: str, length: int, rows: int) -> None:
    """Put states of so many values into a file, whose rows stay what they were."""
    table = pq.read_table(file)
    values = pa.array(np.zeros(rows * length, np.float32))
    offsets = pa.array([0, *np.cumsum([length] * rows), *[rows * length] * (len(table) - rows)], pa.int32())
    place = table.column_names.index(STATE)
    pq.write_table(table.set_column(place, STATE, pa.ListArray.from_arrays(offsets, values)), file)


@pytest.mark.parametrize(("length", "rows"), [(5000, 30), (10_000_000, 1)])
def test_far_more_values_than_announced_are_not_read(tmp_path, length, rows):
    """The second one does not fit into the memory that DuckDB may use."""
    files = write(tmp_path, [[(0, 30)], [(1, 30)], [(2, 30)]])
    with_vectors(files[1], length, rows)
    columns = replace(COLUMNS, state_length=3, action_length=3)
    found, unreadable = read_batches(dict.fromkeys(files, 100), columns, FEW_ROWS, list)
    assert sorted(episode for frames in found for episode in set(frames.episode.tolist())) == [0, 2]
    assert list(unreadable) == [files[1]]
    assert "values in 30 rows of its column 'observation.state'" in unreadable[files[1]]


def test_more_rows_than_announced_are_not_read(tmp_path):
    files = write(tmp_path, [[(0, 30)], [(1, 31)]])
    found, unreadable = read_batches(dict.fromkeys(files, 30), COLUMNS, FEW_ROWS, list)
    assert [set(frames.episode.tolist()) for frames in found] == [{0}]
    assert unreadable == {files[1]: f"{files[1]} claims 31 rows; what is announced allows 30 at most"}


def test_rows_beyond_what_a_file_says_of_itself_are_noticed(tmp_path, monkeypatch):
    """A footer has the number of all rows, and that of each group of rows, which is what is read."""
    files = write(tmp_path, [[(0, 30)], [(1, 300)]])
    monkeypatch.setattr("blm.curate.episodes.frame_batches.row_problems", lambda *_: {})
    found, unreadable = read_batches(dict.fromkeys(files, 40), COLUMNS, FEW_ROWS, list)
    assert [set(frames.episode.tolist()) for frames in found] == [{0}]
    assert "claims 300 rows" in unreadable[files[1]]


def test_a_file_that_changes_is_read_again(tmp_path):
    (file,) = write(tmp_path, [[(0, 30)]])
    assert len(read_frames(Path(file), COLUMNS).frame) == 30
    pq.write_table(pq.read_table(file).slice(0, 20), file)
    assert len(read_frames(Path(file), COLUMNS).frame) == 20


def test_rows_without_a_vector_are_not_skipped(tmp_path):
    (file,) = write(tmp_path, [[(0, 30)]])
    table = pq.read_table(file)
    vectors = pa.array([[1.0, 2.0, 3.0], None] * 15, pa.list_(pa.float32(), 3))
    pq.write_table(table.set_column(table.column_names.index(STATE), STATE, vectors), file)
    found, unreadable = batches([file])
    assert (found, list(unreadable)) == ([], [file])


def test_a_field_of_another_column_is_not_taken_for_the_state(tmp_path):
    (file,) = write(tmp_path, [[(0, 30)]])
    table = pq.read_table(file)
    nested = pa.array([{"state": [0.0] * 3}] * 30)
    pq.write_table(table.append_column("observation", nested), file)
    with pytest.raises(FramesError, match="has a column 'observation' where names begin with it"):
        read_frames(Path(file), COLUMNS)
