"""What becomes of a build when one of its datasets cannot be used: nothing, or the rest of it.

By default a build is refused, and every dataset that is broken is named at once: a training set that silently lost a
thirtieth of its data is worse than a minute's delay. Told to skip them, the build goes on without, and says so in its
manifest, in `dropped.parquet`, on its card and page and in the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from blm.curate.episodes.boundaries import MAX_EPISODES, check_places, read_json
from blm.curate.episodes.checks import DROPPED_SCHEMA
from blm.curate.episodes.config import BrokenDatasets
from blm.curate.episodes.lerobot_files import INFO_FILE, read_episode_metadata
from blm.curate.episodes.resources import DEFAULT_RESOURCES
from blm.schemas.errors import DatasetError
from blm.schemas.manifest import SkippedInput
from blm.schemas.printable import printable

BROKEN_DATASET = "broken_dataset"
"""The reason in `dropped.parquet` of a dataset that was skipped; its row has no episode."""

_SKIP = "Or build the others without: --broken-datasets skip."
_LISTED = 20


def refused_or_skipped(
    errors: Mapping[str, DatasetError], paths: Mapping[str, Path], broken_datasets: BrokenDatasets
) -> tuple[SkippedInput, ...]:
    """What is skipped, in the order of names.

    Args:
        errors: why a dataset cannot be used, by its name in the build.
        paths: of all the datasets of the build, by name.

    Raises:
        DatasetError: some cannot be used and that is not to be borne, or none can.
    """
    if not errors:
        return ()
    if broken_datasets == "refuse" or len(errors) == len(paths):
        raise _refusal(errors, len(paths))
    return tuple(
        SkippedInput(
            name=name,
            path=printable(str(paths[name])),
            episodes=announced_episodes(paths[name]),
            problem=printable(error.message),
            remedy=printable(error.remedy),
        )
        for name, error in sorted(errors.items())
    )


def _refusal(errors: Mapping[str, DatasetError], datasets: int) -> DatasetError:
    if len(errors) == 1:
        (error,) = errors.values()
        return DatasetError(error.message, error.remedy if datasets == 1 else f"{error.remedy} {_SKIP}")
    lines = [f"\n  {name}: {error}" for name, error in sorted(errors.items())]
    if len(lines) > _LISTED:
        lines[_LISTED:] = [f"\n  and {len(lines) - _LISTED} more"]
    remedy = "Mend them, or take them out." if len(errors) == datasets else f"Mend them. {_SKIP}"
    return DatasetError(f"{len(errors)} of {datasets} datasets cannot be used:{''.join(lines)}", remedy)


def announced_episodes(root: Path) -> int | None:
    """How many episodes a broken dataset says it has; None where it does not, or what it says makes no sense."""
    try:
        check_places(root)
        told = read_json(root / INFO_FILE).get("total_episodes") if (root / INFO_FILE).is_file() else None
        if type(told) is int and 0 <= told <= MAX_EPISODES:
            return told
        with DEFAULT_RESOURCES.connect() as connection:
            return len(read_episode_metadata(root, {}, connection))
    except (DatasetError, OSError):
        return None


def with_skipped(dropped: pa.Table, skipped: tuple[SkippedInput, ...]) -> pa.Table:
    """Rows of `dropped.parquet`: those of episodes and, without an episode, one for each dataset that was skipped."""
    rows = [
        {
            "dataset": one.name,
            "episode": None,
            "reason": BROKEN_DATASET,
            "note": f"{one.problem} {one.remedy}",
        }
        for one in skipped
    ]
    added = pa.Table.from_pylist(rows, schema=DROPPED_SCHEMA)
    return pa.concat_tables([dropped, added]).sort_by([("dataset", "ascending"), ("episode", "ascending")])
