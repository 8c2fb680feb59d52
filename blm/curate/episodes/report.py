"""Gather what the page of a Stage II build shows, and write it: `report.html`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blm.curate.episodes.checks import Checked
from blm.curate.episodes.frames import vectors
from blm.curate.episodes.index import DatasetIndex
from blm.curate.episodes.reasons import RULES
from blm.curate.episodes.segment import Segment, example_frame
from blm.curate.report.splits_page import EXAMPLES_PER_REASON, DroppedExample, Recorded, splits_page
from blm.curate.shards import FinishedShard
from blm.schemas.episode import EE_POSE
from blm.schemas.manifest import Manifest, write_atomically
from blm.schemas.shard import IndexRow, images_suffix, offsets_suffix

REPORT_FILE = "report.html"
PICTURES = 6
"""Tasks shown per embodiment."""
_LONGEST_NOTE = 90
_TOOL_POSITIONS = 20_000
_EPISODES_FOR_POSITIONS = 400


def write_splits_report(
    folder: Path,
    manifest: Manifest,
    datasets: Mapping[str, DatasetIndex],
    segments: Sequence[Segment],
    shards: Sequence[FinishedShard],
    lineage: pa.Table,
    checked: Checked,
    licence: str,
) -> None:
    """Write `report.html` into a build's folder; the same build gives the same bytes."""
    index = {(row.key, row.suffix): row for shard in shards for row in shard.index}
    recorded = []
    for name in sorted({segment.row["embodiment"] for segment in segments}):
        mine = [segment for segment in segments if segment.row["embodiment"] == name]
        positions, pictures = _tool_positions(mine), _pictures(folder, mine, index)
        recorded.append(Recorded(mine[0].dataset.embodiment, positions, pictures))
    examples = _examples(datasets, checked.dropped)
    page = splits_page(manifest, lineage, checked.findings, recorded, examples, licence)
    write_atomically(folder / REPORT_FILE, page.encode())


def _tool_positions(segments: Sequence[Segment]) -> np.ndarray:
    """Tool positions (N, 3), m, base frame, of evenly chosen training frames; (0, 3) where none are recorded."""
    training = [segment for segment in segments if segment.row["split"] == "train"]
    chosen = training[:: max(1, len(training) // _EPISODES_FOR_POSITIONS)]
    parts = [part for _, same in groupby(chosen, _data_file) for part in _recorded_positions([*same])]
    if not parts:
        return np.zeros((0, 3))
    positions = np.concatenate(parts)
    return positions[:: max(1, len(positions) // _TOOL_POSITIONS)]


def _data_file(segment: Segment) -> str:
    return segment.row["data_file"]


def _recorded_positions(segments: Sequence[Segment]) -> list[np.ndarray]:
    """Of segments of one data file, which is read once; those without usable positions are left out."""
    try:
        file = pq.ParquetFile(_data_file(segments[0]))
        if EE_POSE not in file.schema_arrow.names:
            return []
        table = file.read(columns=["episode_index", EE_POSE])
        episode = table["episode_index"].to_numpy()
        positions = vectors(table, EE_POSE, (0, 1, 2)).astype(float)
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError, IndexError):
        return []  # no check looks at these, and nothing else needs them
    found = [
        positions[episode == segment.row["episode"]][segment.row["start"] : segment.row["stop"]]
        for segment in segments
    ]
    return [part for part in found if np.isfinite(part).all()]


def _pictures(
    folder: Path, segments: Sequence[Segment], index: Mapping[tuple[str, str], IndexRow]
) -> list[tuple[bytes, str]]:
    """The middle frame of one sample per task, from its shard."""
    first: dict[str, Segment] = {}
    for segment in segments:
        first.setdefault(segment.row["task"], segment)
    pictures = []
    for task, segment in sorted(first.items())[:PICTURES]:
        camera = segment.dataset.cameras[0].name
        images = index.get((segment.key, images_suffix(camera, segment.image_format)))
        offsets = index.get((segment.key, offsets_suffix(camera)))
        if images is None or offsets is None:
            continue
        places = np.load(io.BytesIO(_member(folder, offsets)), allow_pickle=False)
        frame = segment.frames // 2
        picture = _member(folder, images)[int(places[frame]) : int(places[frame + 1])]
        pictures.append((picture, f"{task}, {camera}: “{segment.row['instruction']}”, frame {frame}."))
    return pictures


def _member(folder: Path, row: IndexRow) -> bytes:
    with (folder / row.shard).open("rb") as stream:
        stream.seek(row.offset)
        return stream.read(row.size)


def _examples(datasets: Mapping[str, DatasetIndex], dropped: pa.Table) -> list[DroppedExample]:
    examples: list[DroppedExample] = []
    shown: dict[str, int] = {}
    for row in dropped.to_pylist():
        if shown.get(row["reason"], 0) >= EXAMPLES_PER_REASON:
            continue
        jpeg = example_frame(datasets[row["dataset"]], row["episode"])
        if jpeg is None:
            continue
        shown[row["reason"]] = shown.get(row["reason"], 0) + 1
        examples.append(DroppedExample(row["reason"], jpeg, _caption(row, datasets[row["dataset"]].path)))
    return examples


def _caption(row: dict[str, Any], root: Path) -> str:
    """Which episode, what was measured against what is allowed, and a short note; files as they lie in the dataset.

    That there is one of what there should be none of, the reason says by itself.
    """
    value, threshold = row["value"], row["threshold"]
    told = f": {value:.4g} {RULES[row['reason']].unit}, allowed {threshold:.4g}"
    note = (row["note"] or "").replace(f"{root}/", "")
    note = f" ({note if len(note) <= _LONGEST_NOTE else note[:_LONGEST_NOTE] + '…'})" if note else ""
    measured = "" if (value, threshold) == (1, 0) else told
    return f"{row['reason']}, {row['dataset']} episode {row['episode']}{measured}{note}"
