"""Which episode goes into which shard, and writing one shard.

The plan comes first: a shard holds episodes of one dataset and split, in their order, up to the target size by
estimate. So shards do not depend on each other, can be written anywhere in any order, and stay as they are when
another dataset joins the build or episodes are added at a dataset's end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from blm import __version__
from blm.curate.engine import Engine
from blm.curate.episodes.config import SplitsConfig
from blm.curate.episodes.index import DatasetIndex
from blm.curate.episodes.segment import Segment, estimated_frame_bytes, make_segment, pack_segment
from blm.curate.episodes.splits import split_names
from blm.curate.episodes.video import VideoError
from blm.curate.output_folder import OutputFolder
from blm.curate.shards import FinishedShard, OpenShard, Sample, shard_name
from blm.schemas.progress import Progress

_WITHOUT_EFFECT_ON_SHARDS = (
    "datasets",
    "frame_stride",
    "licence",
    "seed",
    "fractions",
    "held_out",
    "mixture",
    "shard_bytes",
)
"""Settings that decide which episodes a shard holds or nothing about it, but not how an episode is packed; the stride
stands with the dataset."""

_FACTS = (
    "episode",
    "start",
    "stop",
    "embodiment",
    "task",
    "instruction",
    "recorded_instruction",
    "success",
    "seed",
    "split",
)


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be: `source` is a digest of all that its bytes depend on, `rows` are those of the kept table."""

    name: str
    source: str
    segments: tuple[Segment, ...]
    rows: tuple[int, ...]

    @property
    def frames(self) -> int:
        return sum(segment.frames for segment in self.segments)


@dataclass
class Packed:
    """What packing led to: the shards, how many were there already, and episodes found unreadable on the way."""

    shards: list[FinishedShard] = field(default_factory=list)
    reused: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def plan_shards(
    kept: pa.Table, datasets: Mapping[str, DatasetIndex], config: SplitsConfig
) -> list[PlannedShard]:
    """Shards per split, embodiment and dataset, in this order; named `<split>-<embodiment>-<dataset>-<number>.tar`.

    A dash within a split's name becomes `_`, so that the parts can be told apart.
    """
    order = split_names(config)
    rows = [
        (number, make_segment(datasets[row["dataset"]], row, config))
        for number, row in enumerate(kept.to_pylist())
    ]
    rows.sort(key=lambda item: (order.index(item[1].row["split"]), item[1].row["embodiment"]))
    planned = []
    frame_bytes: dict[str, float] = {}
    for (split, embodiment, dataset), group in groupby(rows, key=lambda item: _group(item[1])):
        members = list(group)
        if dataset not in frame_bytes:
            frame_bytes[dataset] = estimated_frame_bytes(_first_kept(rows, dataset))
        prefix = f"{split.replace('-', '_')}-{embodiment}-{dataset}"
        for number, part in enumerate(_parts(members, config.shard_bytes / frame_bytes[dataset])):
            numbers, segments = zip(*part, strict=True)
            name = shard_name(prefix, number)
            planned.append(PlannedShard(name, _source(name, segments, config), segments, numbers))
    return planned


def _group(segment: Segment) -> tuple[str, str, str]:
    return segment.row["split"], segment.row["embodiment"], segment.dataset.name


def _first_kept(rows: Sequence[tuple[int, Segment]], dataset: str) -> Segment:
    mine = (segment for _, segment in rows if segment.dataset.name == dataset)
    return min(mine, key=lambda segment: segment.row["episode"])


def _parts(members: Sequence[tuple[int, Segment]], most_frames: float) -> Iterator[list[tuple[int, Segment]]]:
    """Runs of members with at most so many frames, of one member where it alone has more."""
    part: list[tuple[int, Segment]] = []
    frames = 0
    for member in members:
        if part and frames + member[1].frames > most_frames:
            yield part
            part, frames = [], 0
        part.append(member)
        frames += member[1].frames
    yield part


def _source(name: str, segments: Sequence[Segment], config: SplitsConfig) -> str:
    dataset = segments[0].dataset
    settings = config.build_settings()
    for setting in _WITHOUT_EFFECT_ON_SHARDS:
        settings.pop(setting)
    content = {
        "software": __version__,
        "name": name,
        "settings": settings,
        "dataset": [dataset.name, dataset.rate_hz, dataset.frame_stride, dataset.subtasks],
        "embodiment": dataset.embodiment.model_dump(mode="json"),
        "columns": asdict(dataset.columns),
        "cameras": [camera.name for camera in dataset.cameras],
        "segments": [_segment_source(segment) for segment in segments],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _segment_source(segment: Segment) -> list:
    videos = [segment.row[f"video/{camera.name}"] for camera in segment.dataset.cameras]
    return [
        *(segment.row[name] for name in _FACTS),
        segment.image_size,
        segment.dataset.digest(segment.row["data_file"]),
        *((video["from_s"], segment.dataset.digest(video["file"])) for video in videos),
    ]


def pack_all(
    planned: Sequence[PlannedShard],
    kept: pa.Table,
    config: SplitsConfig,
    folder: OutputFolder,
    engine: Engine,
    progress: Progress,
) -> Packed:
    """Write into `folder.staging` the shards that are not there or in a finished build already."""
    found = {one.name: shard for one in planned if (shard := folder.reuse(one.name, one.source))}
    pending = [one for one in planned if one.name not in found]
    packed = Packed(reused=len(found))
    tell = _Told(progress, sum(one.frames for one in planned))
    tell(sum(one.frames for one in planned if one.name in found), "reused")
    frames = {one.name: one.frames for one in pending}
    for result in engine.map(
        _pack_function(pending, config, folder, tell if engine.in_process else None),
        [_as_table(one, kept) for one in pending],
    ):
        for row in result.to_pylist():
            if not engine.in_process:
                tell(frames[row["shard"]], row["shard"])
            packed.unreadable |= json.loads(row["skipped"])
            if row["finished"] is not None:
                found[row["shard"]] = FinishedShard.from_json(row["finished"])
    packed.shards = [found[one.name] for one in planned if one.name in found]
    for shard in packed.shards:
        packed.unreadable |= shard.row.skipped
    return packed


def _as_table(shard: PlannedShard, kept: pa.Table) -> pa.Table:
    table = kept.take(pa.array(shard.rows, pa.int64()))
    for name in ("name", "source"):
        table = table.append_column(
            f"shard_{name}", pa.array([getattr(shard, name)] * len(table), pa.string())
        )
    return table


@dataclass
class _Told:
    """Progress in frames."""

    progress: Progress
    total: int
    done: int = 0

    def __call__(self, frames: int, note: str) -> None:
        self.done += frames
        if self.total:
            self.progress("encoding frames", self.done, self.total, note)


def _pack_function(
    pending: Sequence[PlannedShard],
    config: SplitsConfig,
    folder: OutputFolder,
    on_frames: Callable[[int, str], None] | None,
) -> PackShards:
    """What is sent to other processes leaves the tables of all episodes behind."""
    datasets = {one.segments[0].dataset.name: one.segments[0].dataset for one in pending}
    light = {
        name: replace(one, episodes=one.episodes.slice(0, 0), digests={}) for name, one in datasets.items()
    }
    return PackShards(light, config, folder.staging.absolute(), on_frames)


@dataclass(frozen=True)
class PackShards:
    """Writes shards: from rows of kept episodes with `shard_name` and `shard_source` to a row per shard.

    A result's `finished` is the shard as JSON, null where nothing in it could be read; `skipped` maps the keys of
    unreadable episodes to what was wrong, as JSON.
    """

    datasets: Mapping[str, DatasetIndex]
    config: SplitsConfig
    folder: Path
    on_frames: Callable[[int, str], None] | None = None

    def __call__(self, rows: pa.Table) -> pa.Table:
        results = [
            self._pack(
                name, source, [make_segment(self.datasets[r["dataset"]], r, self.config) for r in group]
            )
            for (name, source), group in groupby(
                rows.to_pylist(), key=lambda row: (row["shard_name"], row["shard_source"])
            )
        ]
        schema = pa.schema([(name, pa.large_string()) for name in ("shard", "finished", "skipped")])
        return pa.Table.from_pylist(results, schema=schema)

    def _pack(self, name: str, source: str, segments: Sequence[Segment]) -> dict[str, str | None]:
        skipped: dict[str, str] = {}
        shard = OpenShard(self.folder, name, segments[0].row["split"], source)
        try:
            for segment, result in _packed_in_order(segments, self._threads):
                if isinstance(result, VideoError):
                    skipped[segment.key] = str(result)
                else:
                    shard.add(result)
                if self.on_frames:
                    self.on_frames(segment.frames, name)
            finished = shard.finish(skipped) if shard.samples else None
        finally:
            shard.abandon()
        return {
            "shard": name,
            "finished": finished.to_json() if finished else None,
            "skipped": json.dumps(skipped, sort_keys=True),
        }

    @property
    def _threads(self) -> int:
        return self.config.workers if self.config.engine == "local" else 1


def _packed_in_order(
    segments: Sequence[Segment], workers: int
) -> Iterator[tuple[Segment, Sample | VideoError]]:
    """Pack segments, as many ahead of what is consumed as there are workers, and yield them in order.

    Threads do: decoding, resizing and encoding run outside the interpreter lock.
    """
    if workers == 1:
        yield from ((segment, _try_pack(segment)) for segment in segments)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[tuple[Segment, Future[Sample | VideoError]]] = []
        try:
            for segment in segments:
                waiting.append((segment, pool.submit(_try_pack, segment)))
                if len(waiting) > workers:
                    first, future = waiting.pop(0)
                    yield first, future.result()
            while waiting:
                first, future = waiting.pop(0)
                yield first, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _try_pack(segment: Segment) -> Sample | VideoError:
    try:
        return pack_segment(segment)
    except VideoError as error:
        return error
