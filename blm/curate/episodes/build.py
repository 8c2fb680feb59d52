"""Build Stage II splits: index, check, split, pack, describe; `manifest.json` comes last and means done.

    datasets ─▶ index ─▶ checks ─▶ splits ─▶ shards (per split and dataset) ─▶ statistics ─▶ tables ─▶ manifest.json
                           └─────────────────────┴─▶ dropped.parquet, findings.parquet    report.html ◀─┘

Everything is ordered by dataset name and episode, so the same inputs and settings give the same bytes whatever the
order of the inputs, the number of workers and the engine, also after an interruption. A build into the folder of an
earlier one writes only the shards that differ.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from blm import __version__
from blm.curate.engine import Engine, open_engine
from blm.curate.episodes.broken_datasets import with_skipped
from blm.curate.episodes.checks import Checked, check_episodes, with_unpacked
from blm.curate.episodes.config import DatasetSource, SplitsConfig
from blm.curate.episodes.content import older_splits
from blm.curate.episodes.index import DatasetIndex
from blm.curate.episodes.inputs import Inputs, index_all, named_sources
from blm.curate.episodes.lineage import LINEAGE_FILE, lineage_table, picture_notes
from blm.curate.episodes.locate import Located, locate_datasets
from blm.curate.episodes.mixture import group_label, mixture_of
from blm.curate.episodes.packing import Packed, pack_all, plan_shards
from blm.curate.episodes.report import REPORT_FILE, write_splits_report
from blm.curate.episodes.segment import Segment
from blm.curate.episodes.splits import assign_splits, split_names
from blm.curate.episodes.statistics import embodiment_statistics
from blm.curate.episodes.training_frames import frame_sources
from blm.curate.output_folder import OutputFolder
from blm.curate.report.card import write_splits_card
from blm.curate.shards import write_parquet, write_shard_tables
from blm.curate.summary import BuildSummary, summarise
from blm.schemas.errors import DatasetError
from blm.schemas.manifest import (
    DROPPED_FILE,
    FINDINGS_FILE,
    INDEX_FILE,
    MANIFEST_VERSION,
    Counts,
    EmbodimentStatistics,
    InputFingerprint,
    Manifest,
    Mixture,
)
from blm.schemas.progress import Progress, silent

KIND = "stage2-splits"
CARD_FILE = "README.md"
_MAY_CHANGE = ("datasets", "licence")
"""Settings that an update of a build may change."""


def build_splits(config: SplitsConfig, progress: Progress | None = None) -> BuildSummary:
    """Build the splits that `config` describes into `config.output`, finish the build begun there, or bring the one
    there up to date: with the same settings and more datasets, or changed ones, no more is written than has changed.

    Raises:
        DatasetError: an input is unusable as a whole and not to be skipped, inputs do not fit together, or no episode
            is left.
        ConfigError: inputs repeat.
        OutputExistsError: the output folder holds something else and `overwrite` is not set.
        EngineError: the Ray cluster does not answer or gave up.
    """
    progress = progress or silent
    located = locate_datasets(config, progress)
    with open_engine(config.engine, config.ray_address) as engine:
        return _build(located, engine, progress)


def _build(located: Located, engine: Engine, progress: Progress) -> BuildSummary:
    started = time.monotonic()
    config, inputs = located.config, index_all(located, engine, progress)
    folder = OutputFolder(config.output, KIND, _fingerprint(config, inputs))
    with folder.claimed():
        if folder.is_complete(
            (INDEX_FILE, DROPPED_FILE, FINDINGS_FILE, LINEAGE_FILE, CARD_FILE, REPORT_FILE)
        ):
            return summarise(config.output, KIND, started, reused=None)
        reused = _fill(folder, config, inputs, engine, progress)
        return summarise(config.output, KIND, started, reused)


def _fill(
    folder: OutputFolder, config: SplitsConfig, inputs: Inputs, engine: Engine, progress: Progress
) -> int:
    """Make the build and put it in place; returns how many of its shards were there."""
    datasets = inputs.datasets
    kept, checked = _checked(datasets, config)
    folder.prepare(config.overwrite, lambda manifest: _objection(manifest, config, datasets))

    planned = plan_shards(kept, datasets, config)
    packed = pack_all(planned, kept, config, folder, engine, progress)
    segments = [segment for shard in planned for segment in shard.segments]
    notes = picture_notes(folder.staging, packed.shards) | _unpacked(segments, packed.unreadable)
    checked = with_unpacked(checked, notes, config.thresholds, config.checks)
    segments = [segment for segment in segments if segment.key not in packed.unreadable]
    if not segments:
        raise _nothing_left(len(checked.dropped), checked.dropped)
    manifest = _manifest(config, inputs, segments, checked.dropped, packed, folder.fingerprint)

    rows = [shard.row for shard in packed.shards]
    write_parquet(folder.staging / DROPPED_FILE, with_skipped(checked.dropped, inputs.skipped))
    write_parquet(folder.staging / FINDINGS_FILE, checked.findings)
    write_shard_tables(folder.staging, packed.shards)
    cameras = {name: [camera.name for camera in one.cameras] for name, one in datasets.items()}
    write_splits_card(folder.staging / CARD_FILE, manifest, rows, config.licence, cameras)
    lineage = lineage_table(segments, packed.shards)
    write_parquet(folder.staging / LINEAGE_FILE, lineage)
    write_splits_report(
        folder.staging, manifest, datasets, segments, packed.shards, lineage, checked, config.licence
    )
    folder.publish(manifest, rows)
    return packed.reused


def _objection(manifest: Manifest, config: SplitsConfig, datasets: Mapping[str, DatasetIndex]) -> str | None:
    """Why the build with this manifest is not to be replaced by the one that `config` describes, unless told."""
    if why := older_splits(manifest):
        return why
    try:
        earlier = SplitsConfig.model_validate(manifest.config | {"output": config.output})
    except ValidationError:
        return "a build with settings that this version of blm does not know"
    before, now = earlier.build_settings(), config.build_settings()
    if differing := sorted(key for key in now if key not in _MAY_CHANGE and now[key] != before[key]):
        return f"a build with another {', '.join(differing)}"
    if told_otherwise := _told_otherwise(earlier, config):
        return f"a build with another {told_otherwise}"
    if absent := sorted({one.name for one in manifest.inputs} - set(datasets)):
        return f"a build that also has {', '.join(absent)}"
    return None


def _told_otherwise(before: SplitsConfig, now: SplitsConfig) -> str | None:
    """What is said otherwise of a dataset that both builds have."""
    known = named_sources(before)
    for name, source in named_sources(now).items():
        if name in known:
            said, said_now = _said(known[name], before), _said(source, now)
            if None in (said["embodiment"], said_now["embodiment"]):
                del said["embodiment"]  # as a rule, the one that is given is the one that was found
            if differing := [key for key in said if said[key] != said_now[key]]:
                return f"{differing[0]} of '{name}'"
    return None


def _said(source: DatasetSource, config: SplitsConfig) -> dict[str, Any]:
    stride = source.frame_stride or config.frame_stride
    return {"frame_stride": stride, **source.model_dump(include={"task", "features", "embodiment"})}


def _fingerprint(config: SplitsConfig, given: Inputs) -> str:
    """Of everything the build's bytes depend on; not of where inputs and output lie, nor of the inputs' order."""
    settings = config.build_settings() | {"datasets": None}
    sources = named_sources(config)
    inputs = [
        (
            dataset.name,
            dataset.fingerprint,
            dataset.embodiment.model_dump(mode="json"),
            sources[dataset.name].task,
            sources[dataset.name].features.model_dump(mode="json"),
            dataset.frame_stride,
        )
        for dataset in given.datasets.values()
    ]
    skipped = [[[one.name, one.problem.replace(one.path, one.name)] for one in given.skipped]]
    content = json.dumps(
        [KIND, __version__, MANIFEST_VERSION, settings, inputs, *(skipped if given.skipped else ())],
        sort_keys=True,
    )
    return hashlib.sha256(content.encode()).hexdigest()


def _checked(datasets: Mapping[str, DatasetIndex], config: SplitsConfig) -> tuple[pa.Table, Checked]:
    """Kept episodes with their splits, and all that was found; raises DatasetError where none is kept."""
    episodes = pa.concat_tables([one.episodes for one in datasets.values()], promote_options="default")
    checked = check_episodes(episodes, config.thresholds, config.trim_idle, config.checks)
    if not len(checked.kept):
        raise _nothing_left(len(episodes), checked.dropped)
    return assign_splits(checked.kept, config, checked.relatives), checked


def _nothing_left(episodes: int, dropped: pa.Table) -> DatasetError:
    reasons = Counter(dropped["reason"].to_pylist())
    listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    return DatasetError(
        f"no episode is left of {episodes} (dropped: {listed or 'none'}).",
        "Record more, or loosen `thresholds` in splits.yaml.",
    )


def _unpacked(segments: Sequence[Segment], notes: Mapping[str, str]) -> dict[tuple[str, int], str]:
    """What packing said about episodes that it left out."""
    return {
        (segment.dataset.name, segment.row["episode"]): notes[segment.key]
        for segment in segments
        if segment.key in notes
    }


def _manifest(
    config: SplitsConfig,
    given: Inputs,
    segments: Sequence[Segment],
    dropped: pa.Table,
    packed: Packed,
    fingerprint: str,
) -> Manifest:
    datasets = given.datasets
    inputs = tuple(
        InputFingerprint(
            name=name, kind="lerobot-v3", path=str(source.path), sha256=datasets[name].fingerprint
        )
        for name, source in named_sources(config).items()
        if name in datasets
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
        skipped=given.skipped,
        counts=Counts(inputs=found, kept=written, dropped=dict(sorted(reasons.items()))),
        splits={split: splits[split] for split in split_names(config)},
        breakdown=dict(sorted(Counter(segment.label for segment in segments).items())),
        statistics=_statistics(config, segments),
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


def _statistics(config: SplitsConfig, segments: Sequence[Segment]) -> dict[str, EmbodimentStatistics]:
    """Per embodiment that has training samples."""
    training: dict[str, list[Segment]] = {}
    for segment in segments:
        if segment.row["split"] == "train":
            training.setdefault(segment.row["embodiment"], []).append(segment)
    return {
        name: embodiment_statistics(
            members[0].dataset.embodiment,
            members[0].dataset.packed_rate_hz,
            list(dict.fromkeys(camera.name for one in members for camera in one.dataset.cameras)),
            frame_sources(members, config.resources),
        )
        for name, members in sorted(training.items())
    }
