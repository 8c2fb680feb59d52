"""Changes to the episode saved last: marked anew, or taken out. Whole or not at all.

    note ─▶ summary, meta/episodes ─▶ data ─▶ attempts ─▶ what follows from them ─▶ forget
    = decided

The note (`meta/unfinished.json`) is one file, written beside and renamed: before it, nothing has changed. A process
killed after it leaves the note behind, and whoever resumes the dataset carries it out, once more from its beginning;
every step comes out the same when it is done twice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blm.collect import dataset_files as files
from blm.collect.attempts_table import Attempt, read_attempts, write_attempts
from blm.collect.episode_part import judged
from blm.collect.statistics import column_statistics
from blm.schemas.episode import ATTEMPTS_FILE, EPISODE_METADATA_PREFIX, SUCCESS
from blm.schemas.errors import DatasetError

UNFINISHED_FILE = "meta/unfinished.json"


@dataclass(frozen=True)
class Change:
    """What is to become of the last episode: it counts as a success, it does not, or (None) it goes."""

    episode: int
    success: bool | None


def note_change(root: Path, change: Change) -> None:
    """Decide on a change; from here on it is either made or waits to be made."""
    files.write_json(root / UNFINISHED_FILE, dataclasses.asdict(change))


def make_noted_change(root: Path) -> bool:
    """Make the change that is noted in `root`, if there is one, but for what follows from it: `meta/stats.json`,
    and for an episode that goes its own files. Returns whether there was one.

    Raises:
        DatasetError: the note cannot be read.
    """
    path = root / UNFINISHED_FILE
    if not path.is_file():
        return False
    try:
        change = Change(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DatasetError(
            f"{path} cannot be read: {error}.", "Remove it to leave the episode as it is."
        ) from None
    if change.success is None:
        _take_out(root, change.episode)
    else:
        _mark(root, change.episode, change.success)
    return True


def forget_change(root: Path) -> None:
    """The change noted in `root` is made."""
    (root / UNFINISHED_FILE).unlink(missing_ok=True)


def check_no_change_waits(root: Path) -> None:
    """Raises DatasetError where a change was noted and not made, as after an error in the middle of it."""
    if (root / UNFINISHED_FILE).exists():
        raise DatasetError(
            f"a change to the last episode of {root} was begun and not finished.",
            "Continue the dataset with --resume, which finishes it.",
        )


def _mark(root: Path, episode: int, success: bool) -> None:
    """The row of the episode first: curation and viewer go by it."""
    path = files.data_file(root, episode)
    columns = judged(files.read_columns(path), success)
    statistics = files.statistics_columns({SUCCESS: column_statistics({SUCCESS: columns[SUCCESS]})[SUCCESS]})
    table, place = _episode_rows(root, episode)
    changes = {EPISODE_METADATA_PREFIX + "success": pa.array([success])} | statistics
    table = pa.concat_tables([table.slice(0, place), _with_columns(table.slice(place), changes)])
    _write_episode_rows(root, episode, table)
    files.write_parquet(path, files.data_table(columns))
    _change_attempt(root, episode, lambda attempt: dataclasses.replace(attempt, success=success))


def _take_out(root: Path, episode: int) -> None:
    """The summary forgets the episode first: readers ask it how many there are."""
    table, place = _episode_rows(root, episode)
    if place < table.num_rows:
        first = table["dataset_from_index"][place].as_py()
        path = root / files.INFO_FILE
        info = json.loads(path.read_text(encoding="utf-8"))
        info |= {"total_episodes": episode, "total_frames": first, "splits": {"train": f"0:{episode}"}}
        files.write_json(path, info)
        _write_episode_rows(root, episode, table.slice(0, place))
    _change_attempt(root, episode, lambda attempt: dataclasses.replace(attempt, kept=False, episode_index=-1))


def _episode_rows(root: Path, episode: int) -> tuple[pa.Table, int]:
    """The file of `meta/episodes` in which the episode stands, empty if it is gone, and the episode's row in it."""
    group, place = divmod(episode, files.EPISODES_PER_FILE)
    path = files.episodes_file(root, group)
    return (pq.read_table(path) if path.is_file() else pa.table({})), place


def _write_episode_rows(root: Path, episode: int, table: pa.Table) -> None:
    path = files.episodes_file(root, episode // files.EPISODES_PER_FILE)
    if table.num_rows:
        files.write_parquet(path, table.combine_chunks())
    else:
        path.unlink()


def _change_attempt(root: Path, episode: int, changed: Callable[[Attempt], Attempt]) -> None:
    path = root / ATTEMPTS_FILE
    if path.is_file():
        attempts = read_attempts(path)
        write_attempts(path, [changed(one) if one.episode_index == episode else one for one in attempts])


def _with_columns(table: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    """The table with some of its columns replaced."""
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table
