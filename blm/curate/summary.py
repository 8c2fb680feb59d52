"""What a finished build comes to, read back from its manifest and shard table: the same for both stages."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from blm.curate.shards import read_shard_table
from blm.schemas.manifest import Counts, SkippedInput, read_manifest
from blm.schemas.yaml_model import FrozenModel


class EmptySource(FrozenModel):
    """A source of which a corpus holds nothing: what was dropped, by reason, and what was found in one of these."""

    name: str
    dropped: dict[str, int]
    example: str


@dataclass(frozen=True)
class BuildSummary:
    """What a build made. `reused` counts shards found complete (all of them, where the build was there already);
    `skipped` names inputs that are not in it because they are broken; `unchanged` sources that were not read again;
    `empty` those of which nothing is left."""

    output: Path
    counts: Counts
    samples: dict[str, int]
    frames: dict[str, int]
    shards: int
    reused: int
    bytes: int
    seconds: float
    skipped: tuple[SkippedInput, ...] = ()
    unchanged: tuple[str, ...] = ()
    empty: tuple[EmptySource, ...] = ()


def summarise(output: Path, kind: str, started: float, reused: int | None) -> BuildSummary:
    """The summary of the build in `output`, begun at monotonic time `started`; `reused` None = all shards."""
    manifest, rows = read_manifest(output, kind), read_shard_table(output)
    return BuildSummary(
        output=output,
        counts=manifest.counts,
        samples=dict(manifest.splits),
        frames={split: sum(row.frames for row in rows if row.split == split) for split in manifest.splits},
        shards=len(rows),
        reused=len(rows) if reused is None else reused,
        bytes=sum(row.bytes for row in rows),
        seconds=time.monotonic() - started,
        skipped=manifest.skipped,
    )
