"""Look at a dataset, a folder of datasets or a finished build, and say what is wrong with it and what to do.

Datasets are judged by the same functions that a build uses, over the same frames, so that what is found here to be
dropped is what a build with the same settings drops.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from blm.curate.build_check import check_build
from blm.curate.episodes.checks import FINDINGS_SCHEMA, Checked, check_episodes, with_unpacked
from blm.curate.episodes.config import DatasetSource, SplitsConfig
from blm.curate.episodes.dataset_folders import dataset_folders
from blm.curate.episodes.index import DatasetIndex, dataset_names
from blm.curate.episodes.inputs import contradictions, index_source
from blm.curate.episodes.lerobot_files import INFO_FILE
from blm.curate.episodes.pictures import picture_note
from blm.curate.episodes.reasons import REASONS, Reason
from blm.curate.episodes.segment import make_segment, picture_findings
from blm.curate.episodes.thresholds import resolve_rules
from blm.curate.episodes.video import VideoError
from blm.schemas.errors import DatasetError, UsageError
from blm.schemas.manifest import MANIFEST_FILE
from blm.schemas.progress import Progress, silent
from blm.schemas.yaml_model import read_yaml, validate

_WORST = 3


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        path: what was looked at.
        kind: 'datasets', or the kind of a build.
        examined: episodes, or samples of a build.
        problems: what is wrong with a dataset or a build as a whole, each with its remedy.
        findings: what is wrong with single episodes, as `FINDINGS_SCHEMA`.
        remedies: what to do, and what each reason means, by reason found.
    """

    path: Path
    kind: str
    examined: int
    problems: tuple[str, ...] = ()
    findings: pa.Table = field(default_factory=FINDINGS_SCHEMA.empty_table)
    remedies: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def count(self, severity: str) -> int:
        """How many findings are of this severity."""
        return self.findings["severity"].to_pylist().count(severity)

    def exit_code(self, strict: bool = False) -> int:
        """0: clean; 1: something would be dropped or is broken or, if `strict`, is warned about."""
        return int(bool(self.problems or self.count("drop") or (strict and self.count("warn"))))

    def by_reason(self) -> list[dict[str, Any]]:
        """A row per reason: severity, number of episodes, meaning, remedy and the worst examples."""
        rows = []
        for reason in REASONS:
            found = self.findings.filter(pc.field("reason") == reason)
            if not len(found):
                continue
            meaning, remedy = self.remedies[reason]
            worst = sorted(found.to_pylist(), key=lambda row: -abs(row["value"] - row["threshold"]))
            episodes = {(row["dataset"], row["episode"]) for row in worst}
            rows.append(
                {
                    "reason": reason,
                    "severity": worst[0]["severity"],
                    "episodes": len(episodes),
                    "meaning": meaning,
                    "remedy": remedy,
                    "unit": worst[0]["unit"],
                    "threshold": worst[0]["threshold"],
                    "worst": [
                        {name: row[name] for name in ("dataset", "episode", "value", "note")}
                        for row in worst[:_WORST]
                    ],
                }
            )
        return rows

    def as_json(self) -> dict[str, Any]:
        """Plain data for machines: the summary and every finding."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "examined": self.examined,
            "problems": list(self.problems),
            "counts": dict(sorted(Counter(self.findings["severity"].to_pylist()).items())),
            "reasons": self.by_reason(),
            "findings": self.findings.to_pylist(),
        }


def diagnose(
    path: Path, config: Path | None = None, fast: bool = False, progress: Progress | None = None
) -> Diagnosis:
    """Examine what lies at `path`.

    Args:
        path: a LeRobot dataset, a folder of them, or the folder of a finished build.
        config: a splits.yaml, whose thresholds, checks, cameras and facts about datasets count.
        fast: leave videos and shards unread.

    Raises:
        UsageError: there is nothing of the kind at `path`.
        ConfigError: the configuration is wrong.
    """
    progress = progress or silent
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder.", "Give a LeRobot dataset, a folder of them, or a build.")
    if (path / MANIFEST_FILE).is_file():
        kind, samples, problems = check_build(path, fast, progress)
        return Diagnosis(path, kind, samples, problems)
    given = read_yaml(config) if config else {}
    folders = dataset_folders(path, follow_links=bool(given.get("follow_links")))
    if not folders:
        raise UsageError(
            f"{path} holds neither {INFO_FILE} nor {MANIFEST_FILE}.",
            "Give a LeRobot dataset, a folder of them, or the folder of a finished build.",
        )
    problems = [str(one.problem) for one in folders if one.problem is not None]
    roots = [one.path for one in folders if one.problem is None]
    if not roots:
        return Diagnosis(path, "datasets", 0, tuple(problems))
    settings = _settings(roots, given, str(config or "command line"))
    return _diagnose_datasets(path, settings, fast, progress, problems)


def _settings(roots: list[Path], given: dict[str, Any], source: str) -> SplitsConfig:
    """The settings of a build of these datasets; what a configuration says of their paths or folders above counts."""
    said = validate(SplitsConfig, {"datasets": roots, "output": "splits", **given}, source)
    known = {one.path.resolve(): one for one in said.datasets}
    datasets = tuple(_told(root, known) for root in roots)
    return said.model_copy(update={"datasets": datasets})


def _told(root: Path, known: Mapping[Path, DatasetSource]) -> DatasetSource:
    """What is said of a dataset, or of the nearest folder above it."""
    place = root.resolve()
    if place in known:
        return known[place]
    above = next((known[folder] for folder in place.parents if folder in known), None)
    return above.model_copy(update={"path": root, "name": None}) if above else DatasetSource(path=root)


def _diagnose_datasets(
    path: Path, config: SplitsConfig, fast: bool, progress: Progress, problems: list[str]
) -> Diagnosis:
    """`problems` are those known already; what is found comes after them."""
    datasets: dict[str, DatasetIndex] = {}
    names = dataset_names(config.datasets)
    for number, (name, source) in enumerate(zip(names, config.datasets, strict=True)):
        progress("indexing datasets", number, len(names), name)
        try:
            datasets[name] = index_source(source, name, config)
        except DatasetError as error:
            problems.append(str(error))
    progress("indexing datasets", len(names), len(names))
    problems += map(str, contradictions(datasets.values()))
    if not datasets:
        return Diagnosis(path, "datasets", 0, tuple(problems))
    episodes = pa.concat_tables([one.episodes for one in datasets.values()], promote_options="default")
    checked = check_episodes(episodes, config.thresholds, config.trim_idle, config.checks)
    if not fast:
        checked = _with_pictures(checked, datasets, config, progress)
    rules = resolve_rules(config.thresholds, config.checks)
    told = cast(set[Reason], set(checked.findings["reason"].to_pylist()))
    remedies: dict[str, tuple[str, str]] = {one: (rules[one].meaning, rules[one].remedy) for one in told}
    return Diagnosis(path, "datasets", len(episodes), tuple(problems), checked.findings, remedies)


def _with_pictures(
    checked: Checked, datasets: Mapping[str, DatasetIndex], config: SplitsConfig, progress: Progress
) -> Checked:
    notes: dict[tuple[str, int], str] = {}
    rows = checked.kept.to_pylist()
    for number, row in enumerate(rows):
        progress("watching videos", number, len(rows), f"{row['dataset']} {row['episode']}")
        try:
            found = picture_findings(make_segment(datasets[row["dataset"]], row, config))
        except VideoError as error:
            notes[row["dataset"], row["episode"]] = str(error)
            continue
        if found:
            notes[row["dataset"], row["episode"]] = picture_note(found)
    progress("watching videos", len(rows), len(rows))
    return with_unpacked(checked, notes, config.thresholds, config.checks)
