"""Build Stage II splits: index, check, split, pack, describe; `manifest.json` comes last and means done.

    datasets ─▶ index ─▶ checks ─▶ splits ─▶ shards (per split and embodiment) ─▶ statistics ─▶ tables ─▶ manifest.json
                           └─────────────────────┴─▶ dropped.parquet

Everything is ordered by dataset name and episode, so the same inputs and settings give the same bytes whatever the
order of the inputs and the number of workers, also after an interruption.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from blm import __version__
from blm.curate.episodes.checks import DROPPED_SCHEMA, check_episodes
from blm.curate.episodes.config import SplitsConfig
from blm.curate.episodes.index import DatasetIndex, dataset_names, index_dataset
from blm.curate.episodes.mixture import group_label, mixture_of
from blm.curate.episodes.segment import Segment, make_segment, pack_segment, segment_arrays
from blm.curate.episodes.splits import SPLITS, assign_splits, split_names
from blm.curate.episodes.statistics import embodiment_statistics
from blm.curate.episodes.video import VideoError
from blm.curate.output_folder import is_complete, prepare
from blm.curate.report.card import write_splits_card
from blm.curate.shards import (
    FinishedShard,
    Sample,
    ShardWriter,
    forget_progress,
    write_parquet,
    write_shard_tables,
)
from blm.curate.summary import BuildSummary, summarise
from blm.schemas.errors import DatasetError
from blm.schemas.manifest import (
    DROPPED_FILE,
    INDEX_FILE,
    SHARD_TABLE_FILE,
    Counts,
    EmbodimentStatistics,
    InputFingerprint,
    Manifest,
    Mixture,
)
from blm.schemas.progress import Progress, silent

KIND = "stage2-splits"
CARD_FILE = "README.md"
_OWN_FILES = (*(f"{split}-*.tar*" for split in SPLITS), SHARD_TABLE_FILE, INDEX_FILE, DROPPED_FILE, CARD_FILE)
"""What a build writes besides its manifest, and so all that replacing one removes."""


@dataclass
class _Packed:
    """What packing led to: the shards, how many were there already, and episodes found unreadable on the way."""

    shards: list[FinishedShard] = field(default_factory=list)
    reused: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


def build_splits(config: SplitsConfig, progress: Progress | None = None) -> BuildSummary:
    """Build the splits that `config` describes into `config.output`, or finish the build begun there.

    Raises:
        DatasetError: an input is unusable as a whole, inputs do not fit together, or no episode is left.
        ConfigError: inputs repeat.
        OutputExistsError: the output folder holds something else and `overwrite` is not set.
    """
    started = time.monotonic()
    progress = progress or silent
    datasets = _index_all(config, progress)
    fingerprint = _fingerprint(config, datasets)
    if is_complete(config.output, KIND, fingerprint, (INDEX_FILE, DROPPED_FILE, CARD_FILE)):
        return summarise(config.output, KIND, started, reused=None)
    prepare(config.output, fingerprint, _OWN_FILES, config.overwrite)

    kept, dropped = _checked(datasets, config)
    segments = [make_segment(datasets[row["dataset"]], row, config) for row in kept.to_pylist()]
    packed = _pack_all(segments, config, fingerprint, progress)
    dropped = _with_unreadable(dropped, segments, packed.unreadable)
    segments = [segment for segment in segments if segment.key not in packed.unreadable]
    manifest = _manifest(config, datasets, segments, dropped, packed, fingerprint)

    write_parquet(config.output / DROPPED_FILE, dropped)
    write_shard_tables(config.output, packed.shards)
    write_splits_card(
        config.output / CARD_FILE, manifest, [shard.row for shard in packed.shards], config.licence
    )
    manifest.write(config.output)
    forget_progress(config.output)
    return summarise(config.output, KIND, started, packed.reused)


def _index_all(config: SplitsConfig, progress: Progress) -> dict[str, DatasetIndex]:
    """Every input, by name, in the order of the names."""
    named = sorted(
        zip(dataset_names(config.datasets), config.datasets, strict=True), key=lambda pair: pair[0]
    )
    regions = any(axis.region for axis in config.held_out)
    datasets = {}
    for number, (name, source) in enumerate(named):
        progress("indexing datasets", number, len(named), name)
        datasets[name] = index_dataset(
            source, name, config.thresholds.idle_speed, config.cameras, with_object_starts=regions
        )
    progress("indexing datasets", len(named), len(named))
    _check_consistent(datasets, config)
    return datasets


def _check_consistent(datasets: dict[str, DatasetIndex], config: SplitsConfig) -> None:
    """Datasets of one embodiment share cameras, rate and image size; all cameras of a sample have one size."""
    first_of: dict[str, DatasetIndex] = {}
    for dataset in datasets.values():
        if not dataset.cameras:
            raise DatasetError(f"{dataset.path} has no camera.", "Stage II needs images.")
        if config.image_size is None and len({(c.width, c.height) for c in dataset.cameras}) > 1:
            raise DatasetError(
                f"{dataset.path}: its cameras differ in image size.", "Set `image_size`, or choose `cameras`."
            )
        first = first_of.setdefault(dataset.embodiment.name, dataset)
        for what, remedy in (("cameras", "Choose `cameras` that all have"), ("rate_hz", "Build them apart")):
            one, other = (_shared_fact(entry, what) for entry in (first, dataset))
            if one != other:
                raise DatasetError(
                    f"datasets '{first.name}' and '{dataset.name}' of {dataset.embodiment.name} differ in "
                    f"{what}: {one} and {other}.",
                    f"{remedy}.",
                )


def _shared_fact(dataset: DatasetIndex, what: str) -> Any:
    if what == "cameras":
        return [camera.name for camera in dataset.cameras]
    return dataset.rate_hz


def _fingerprint(config: SplitsConfig, datasets: dict[str, DatasetIndex]) -> str:
    """Of everything the build's bytes depend on; not of where inputs and output lie, nor of the inputs' order."""
    settings = config.build_settings() | {"datasets": None}
    inputs = [
        (
            dataset.name,
            dataset.fingerprint,
            dataset.embodiment.model_dump(mode="json"),
            _named_task(config, dataset),
        )
        for dataset in datasets.values()
    ]
    content = json.dumps([KIND, __version__, settings, inputs], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _named_task(config: SplitsConfig, dataset: DatasetIndex) -> str | None:
    return next(source.task for source in config.datasets if source.path == dataset.path)


def _checked(datasets: dict[str, DatasetIndex], config: SplitsConfig) -> tuple[pa.Table, pa.Table]:
    """Kept episodes with their splits, and dropped ones; raises DatasetError where none is kept."""
    episodes = pa.concat_tables([one.episodes for one in datasets.values()], promote_options="default")
    checked = check_episodes(episodes, config.thresholds, config.trim_idle)
    if not len(checked.kept):
        reasons = Counter(checked.dropped["reason"].to_pylist())
        listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        raise DatasetError(
            f"no episode is left of {len(episodes)} (dropped: {listed or 'none'}).",
            "Record more, or loosen `thresholds` in splits.yaml.",
        )
    return assign_splits(checked.kept, config), checked.dropped


def _pack_all(
    segments: Sequence[Segment], config: SplitsConfig, fingerprint: str, progress: Progress
) -> _Packed:
    """Write the shards of every split and embodiment; a shard's samples then all have the same members."""
    packed = _Packed()
    total = sum(segment.frames for segment in segments)
    done = 0
    for split in split_names(config):
        for embodiment in sorted({segment.row["embodiment"] for segment in segments}):
            group = [s for s in segments if (s.row["split"], s.row["embodiment"]) == (split, embodiment)]
            writer = ShardWriter(
                config.output, f"{split}-{embodiment}", split, fingerprint, config.shard_bytes
            )
            packed.reused += len(writer.finished)
            pending = [segment for segment in group if not writer.done(segment.key)]
            done += sum(segment.frames for segment in group) - sum(segment.frames for segment in pending)
            with writer:
                for segment, result in _packed_in_order(pending, config.workers):
                    if isinstance(result, VideoError):
                        writer.skip(segment.key, str(result))
                    else:
                        writer.write(result)
                    done += segment.frames
                    progress("encoding frames", done, total, f"{split} {embodiment}")
            packed.shards += writer.finished
            packed.unreadable |= writer.skipped
    return packed


def _packed_in_order(
    segments: Sequence[Segment], workers: int
) -> Iterator[tuple[Segment, Sample | VideoError]]:
    """Pack segments, a few ahead of what is consumed, and yield them in order.

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
                if len(waiting) > 2 * workers:
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


def _with_unreadable(dropped: pa.Table, segments: Sequence[Segment], unreadable: dict[str, str]) -> pa.Table:
    rows = [
        {
            "dataset": segment.dataset.name,
            "episode": segment.row["episode"],
            "reason": "unreadable_video",
            "value": 1.0,
            "threshold": 0.0,
            "note": unreadable[segment.key],
        }
        for segment in segments
        if segment.key in unreadable
    ]
    table = pa.concat_tables([dropped, pa.Table.from_pylist(rows, schema=DROPPED_SCHEMA)])
    return table.sort_by([("dataset", "ascending"), ("episode", "ascending")])


def _manifest(
    config: SplitsConfig,
    datasets: dict[str, DatasetIndex],
    segments: Sequence[Segment],
    dropped: pa.Table,
    packed: _Packed,
    fingerprint: str,
) -> Manifest:
    inputs = tuple(
        InputFingerprint(name=one.name, kind="lerobot-v3", path=str(one.path), sha256=one.fingerprint)
        for one in datasets.values()
    )
    reasons = Counter(dropped["reason"].to_pylist())
    found = sum(len(one.episodes) for one in datasets.values())
    written = sum(shard.row.samples for shard in packed.shards)
    splits = Counter(segment.row["split"] for segment in segments)
    settings = config.build_settings()
    settings["datasets"] = sorted(settings["datasets"], key=lambda source: source["path"])
    return Manifest(
        kind=KIND,
        software=__version__,
        config=settings,
        inputs=inputs,
        counts=Counts(inputs=found, kept=written, dropped=dict(sorted(reasons.items()))),
        splits={split: splits[split] for split in split_names(config)},
        breakdown=dict(sorted(Counter(segment.label for segment in segments).items())),
        statistics=_statistics(segments),
        mixture=_mixture(config, segments),
        fingerprint=fingerprint,
    )


def _mixture(config: SplitsConfig, segments: Sequence[Segment]) -> Mixture | None:
    """Shares over training windows: every kept frame of a training sample starts one."""
    windows: Counter[str] = Counter()
    for segment in segments:
        if segment.row["split"] == "train":
            label = group_label(segment.dataset.name, segment.row["embodiment"], segment.row["task"])
            windows[label] += segment.frames
    return mixture_of(windows, config.mixture) if config.mixture is not None and windows else None


def _statistics(segments: Sequence[Segment]) -> dict[str, EmbodimentStatistics]:
    """Per embodiment that has training samples."""
    training: dict[str, list[Segment]] = {}
    for segment in segments:
        if segment.row["split"] == "train":
            training.setdefault(segment.row["embodiment"], []).append(segment)
    return {
        name: embodiment_statistics(
            members[0].dataset.embodiment,
            members[0].dataset.rate_hz / members[0].stride,
            [camera.name for camera in members[0].dataset.cameras],
            (segment_arrays(segment)[:2] for segment in members),
        )
        for name, members in sorted(training.items())
    }
