"""Train, val or test: decided for each episode alone, by a hash of its content, so that nothing ever moves.

The hash is of the episode's recorded states and actions (before trimming) and the seed. It does not depend on the
dataset's name, place or order, on other episodes, or on thresholds: adding data later, or curating more strictly,
never carries an episode from one split into another.

Exact stratification would rank the episodes of a robot and task against each other, and a new episode would then
move old ones. Here every robot × task group has the configured shares in expectation instead: with n episodes, a
share p varies by sqrt(p (1 − p) / n), 1.3 points for 5 % of 300. The data card shows what each group got.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import pyarrow as pa

from blm.curate.episodes.config import Fractions

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def split_of(identity: str, seed: int, fractions: Fractions) -> Split:
    """The split of an episode with this content hash."""
    digest = hashlib.sha256(f"split {seed} {identity}".encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    if place < fractions.train:
        return "train"
    return "val" if place < fractions.train + fractions.val else "test"


def assign_splits(episodes: pa.Table, seed: int, fractions: Fractions) -> pa.Table:
    """The table with a column `split`, from its column `identity`."""
    splits = [split_of(identity, seed, fractions) for identity in episodes["identity"].to_pylist()]
    return episodes.append_column("split", pa.array(splits, pa.string()))
