"""Train, val, test and the named held-out splits: decided so that nothing ever moves from test to training.

An episode's own split comes from a hash of its recorded states and actions (before trimming) and the seed, or from
the first held-out axis that it falls under. It does not depend on the dataset's name, place or order, on other
episodes, or on thresholds.

Near-duplicates share a `group` and stay together, in the most held-out of their own splits. An episode that joins a
group can therefore only pull the others away from training, never into it. Members that are dropped count too, so
that neither a stricter check nor a median that new data move gives their relatives back to training.

What does: taking episodes out of the inputs; a smaller `near_duplicate` threshold, or `off`, which dissolves groups,
so that those whom only the group held back return to their own split, which may be training (an update of a build
refuses changed thresholds unless told to overwrite); overwriting a build of manifest version 1, where another hash
told episodes apart; and, rarely, a pair that is looked for by its excursion alone and is not found any more once other
recordings move the place where paths usually begin (see `near_duplicates.py`).

Exact stratification would rank the episodes of a robot and task against each other, and a new episode would then
move old ones. Here every robot × task group has the configured shares in expectation instead: with n episodes, a
share p varies by sqrt(p (1 − p) / n), 1.3 points for 5 % of 300. The data card shows what each group got.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa

from blm.curate.episodes.config import Fractions, SplitsConfig
from blm.curate.episodes.held_out import held_out_by
from blm.schemas.errors import DatasetError

SPLITS = ("train", "val", "test")
"""Those of every build; held-out axes add `test-<name>`."""

_CONSIDERED = (
    "dataset",
    "episode",
    "embodiment",
    "task",
    "instruction",
    "identity",
    "group",
    "object_starts",
    "split",
)


def split_names(config: SplitsConfig) -> tuple[str, ...]:
    """Every split that a build with this configuration may have, in the order in which they are written."""
    return (*SPLITS, *(axis.split for axis in config.held_out))


def split_of(identity: str, seed: int, fractions: Fractions) -> str:
    """The split of an episode with this content hash, held-out axes aside."""
    digest = hashlib.sha256(f"split {seed} {identity}".encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    if place < fractions.train:
        return "train"
    return "val" if place < fractions.train + fractions.val else "test"


def assign_splits(kept: pa.Table, config: SplitsConfig, relatives: pa.Table | None = None) -> pa.Table:
    """The table with a column `split`, checked by `check_splits`.

    Args:
        kept: a row per episode, with `dataset`, `episode`, `embodiment`, `task`, `instruction`, `identity`; optionally
            `group` (the same value for near-duplicates; null: no others) and `object_starts` (for held-out regions).
        relatives: dropped episodes of the same groups, with the same columns.

    Raises:
        ConfigError: a held-out axis matches nothing.
        DatasetError: a held-out region is not recorded.
    """
    rows = _considered(kept)
    held_out = held_out_by(rows, config.held_out)
    order = _least_to_most_held_out(config)
    judged = [*zip(rows, held_out, strict=True)]
    if relatives is not None:
        judged += [(row, _held_out(row, config)) for row in _considered(relatives)]
    of_group: dict[Any, str] = {}
    for row, splits in judged:
        own = splits[0] if splits else split_of(row["identity"], config.seed, config.fractions)
        group = _group(row)
        of_group[group] = max(of_group.get(group, own), own, key=order.index)
    splits = [of_group[_group(row)] for row in rows]
    assigned = kept.append_column("split", pa.array(splits, pa.string()))
    check_splits(assigned, config)
    return assigned


def check_splits(assigned: pa.Table, config: SplitsConfig) -> None:
    """Hold the finished assignment against what was promised, from the table alone.

    Raises:
        DatasetError: near-duplicates straddle splits, something held out is in train or val, or a split is not among
            those configured; names the first such episode.
    """
    rows = _considered(assigned)
    known = split_names(config)
    if strange := sorted({row["split"] for row in rows} - set(known)):
        raise _leak(f"split '{strange[0]}' is not one of {', '.join(known)}")
    for key in ("identity", "group"):
        seen: dict[Any, dict[str, Any]] = {}
        for row in rows:
            if row.get(key) is None:
                continue
            first = seen.setdefault(row[key], row)
            if first["split"] != row["split"]:
                raise _leak(
                    f"{_label(first)} ({first['split']}) and {_label(row)} ({row['split']}) hold the same motion"
                )
    for row, splits in zip(rows, held_out_by(rows, config.held_out), strict=True):
        if splits and row["split"] in SPLITS:
            raise _leak(f"{_label(row)} belongs to {splits[0]} but is in {row['split']}")


def _leak(what: str) -> DatasetError:
    return DatasetError(f"the splits leak: {what}.", "This is a fault of blm: please report it.")


def _held_out(row: dict[str, Any], config: SplitsConfig) -> tuple[str, ...]:
    """Of a dropped episode: an axis that it does not say enough about does not hold it out."""
    found = []
    for axis in config.held_out:
        with suppress(DatasetError):
            if axis.holds(row):
                found.append(axis.split)
    return tuple(found)


def _least_to_most_held_out(config: SplitsConfig) -> Sequence[str]:
    return (*SPLITS, *(axis.split for axis in reversed(config.held_out)))


def _considered(table: pa.Table) -> list[dict[str, Any]]:
    return table.select([name for name in _CONSIDERED if name in table.column_names]).to_pylist()


def _group(row: dict[str, Any]) -> Any:
    """Near-duplicates' common value; an episode without others is a group of its own, by its content."""
    group = row.get("group")
    return ("content", row["identity"]) if group is None else ("group", group)


def _label(row: dict[str, Any]) -> str:
    return f"episode {row['episode']} of '{row['dataset']}'"
