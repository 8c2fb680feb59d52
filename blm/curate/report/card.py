"""The `README.md` of a build: a data card in the form that dataset hubs and `datasets.load_dataset` read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blm.pages.markdown import render_markdown
from blm.schemas.manifest import EmbodimentStatistics, Manifest, write_atomically
from blm.schemas.shard import ShardRow

_TEMPLATE = Path(__file__).parent / "templates" / "splits.md.j2"
_FILTERS = {
    "megabytes": lambda size: f"{size / 1e6:,.1f}",
    "short": lambda number: f"{number:.4g}",
    "in_a_cell": lambda text: " ".join(text.split()).replace("|", "\\|"),
}


def write_splits_card(
    path: Path,
    manifest: Manifest,
    shards: Sequence[ShardRow],
    licence: str,
    cameras: Mapping[str, Sequence[str]],
) -> None:
    """Write the data card of a Stage II build, whose datasets have these `cameras`; the same build, the same card."""
    content = render_markdown(
        _TEMPLATE,
        _FILTERS,
        manifest=manifest,
        licence=licence,
        configs=_configs(shards, cameras),
        splits=_split_rows(shards, list(manifest.splits)),
        groups=_group_rows(shards, list(manifest.splits)),
        statistics={name: _axis_rows(one) for name, one in manifest.statistics.items()},
        bytes=sum(row.bytes for row in shards),
    )
    write_atomically(path, content.encode())


def _configs(shards: Sequence[ShardRow], cameras: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """Embodiment → split → file pattern, as `load_dataset(folder, embodiment)` wants it; `-` in a split becomes `_`.

    All samples of a configuration must hold the same members, or `load_dataset` leaves out those that the first lacks:
    where an embodiment's datasets differ in cameras, each is a configuration, `<embodiment>-<dataset>`.
    """
    parts = [_parts(row) for row in shards]
    views: dict[str, set[tuple[str, ...]]] = {}
    for _, embodiment, dataset in parts:
        views.setdefault(embodiment, set()).add(tuple(sorted(cameras[dataset])))
    configs: dict[str, dict[str, str]] = {}
    for split, embodiment, dataset in parts:
        if len(views[embodiment]) == 1:
            name, files = embodiment, f"{embodiment}-*.tar"
        else:
            name = f"{embodiment}-{dataset}"
            files = f"{name}-{'[0-9]' * 5}.tar"
        configs.setdefault(name, {})[split] = f"{split}-{files}"
    return dict(sorted(configs.items()))


def _parts(row: ShardRow) -> tuple[str, str, str]:
    """Split, embodiment and dataset of a shard named `<split>-<embodiment>-<dataset>-<number>.tar`."""
    split = row.split.replace("-", "_")
    embodiment, rest = row.name.removeprefix(f"{split}-").split("-", 1)
    return split, embodiment, rest.rsplit("-", 1)[0]


def _split_rows(shards: Sequence[ShardRow], splits: list[str]) -> list[dict[str, Any]]:
    rows = []
    for split in splits:
        mine = [row for row in shards if row.split == split]
        counts = {name: sum(getattr(row, name) for row in mine) for name in ("samples", "frames", "bytes")}
        rows.append({"split": split, "shards": len(mine), **counts})
    return rows


def _group_rows(shards: Sequence[ShardRow], splits: list[str]) -> list[tuple[str, list[int]]]:
    """Episodes per robot and task, one number per split."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in shards:
        for group, number in row.counts.items():
            counts[group, row.split] += number
    groups = sorted({group for group, _ in counts})
    return [(group, [counts[group, split] for split in splits]) for group in groups]


def _axis_rows(statistics: EmbodimentStatistics) -> list[dict[str, Any]]:
    rows = []
    for kind in ("state", "action"):
        of_kind = getattr(statistics, kind)
        for number, axis in enumerate(statistics.axis_names):
            names = ("mean", "std", "min", "q01", "q99", "max")
            values = [getattr(of_kind, name)[number] for name in names]
            rows.append({"kind": kind, "axis": axis, "values": values})
    return rows
