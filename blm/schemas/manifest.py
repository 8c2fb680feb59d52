"""The manifest of a build: `manifest.json`, written last; its presence means the build is complete."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from blm.schemas.errors import DatasetError
from blm.schemas.yaml_model import FrozenModel, validate

MANIFEST_FILE = "manifest.json"
SHARD_TABLE_FILE = "manifest.parquet"
INDEX_FILE = "index.parquet"
DROPPED_FILE = "dropped.parquet"
FINDINGS_FILE = "findings.parquet"

MANIFEST_VERSION = 2
"""Version 1 told episodes apart by the SHA-256 of their content, version 2 by its XXH3-128; splits follow it."""

_READ_VERSIONS = (1, 2)


class Counts(FrozenModel):
    """Conservation: every input is kept or dropped, and each drop has one reason."""

    inputs: int
    kept: int
    dropped: dict[str, int] = {}

    @model_validator(mode="after")
    def _conserved(self) -> Self:
        if self.inputs != self.kept + sum(self.dropped.values()):
            raise ValueError(
                f"{self.inputs} in, but {self.kept} kept and {sum(self.dropped.values())} dropped"
            )
        return self


class InputFingerprint(FrozenModel):
    """One input of a build: where it was, what it was, and a digest of its content."""

    name: str
    kind: str
    path: str
    sha256: str


class SkippedInput(FrozenModel):
    """An input that could not be used at all, and that the build was told to do without.

    `episodes` is how many it announces; None where that is unknown. They are in none of the build's counts.
    """

    name: str
    path: str
    episodes: int | None
    problem: str
    remedy: str


class AxisStatistics(FrozenModel):
    """Per-axis statistics of one quantity of one embodiment, over the training split, axis units."""

    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]


class EmbodimentStatistics(FrozenModel):
    """What normalisation needs to know about one embodiment in a Stage II build."""

    axis_names: tuple[str, ...]
    gripper_index: int
    rate_hz: float
    cameras: tuple[str, ...]
    state: AxisStatistics
    action: AxisStatistics


class Mixture(FrozenModel):
    """How often the training windows of each group of samples are drawn.

    `weights` maps `<dataset>/<embodiment>/<task>` to the group's share of the windows in an epoch; the shares of all
    groups that have training samples add up to 1. `strategy` is how they were found: 'natural' (by frames), 'balanced',
    'temperature' or 'explicit'.
    """

    strategy: str
    weights: dict[str, float]


class Manifest(FrozenModel):
    """What a build made, from what, and with which settings.

    `splits` counts samples per split; `breakdown` counts them per embodiment/task (Stage II) or source/task family
    (Stage I). `statistics` and `mixture` are filled for Stage II only; without a mixture every window is drawn once
    per epoch. `skipped` names inputs that are not in the build though they were given; it stands in the file only where
    there are any.
    """

    manifest_version: int = MANIFEST_VERSION
    kind: Literal["stage1-corpus", "stage2-splits"]
    software: str
    config: dict[str, Any]
    inputs: tuple[InputFingerprint, ...]
    skipped: tuple[SkippedInput, ...] = ()
    counts: Counts
    splits: dict[str, int]
    breakdown: dict[str, int]
    statistics: dict[str, EmbodimentStatistics] = {}
    mixture: Mixture | None = None
    fingerprint: str

    def write(self, folder: Path) -> Path:
        """Write `manifest.json` into `folder` beside, flushed, and renamed into place."""
        path = folder / MANIFEST_FILE
        content = self.model_dump(mode="json", exclude=None if self.skipped else {"skipped"})
        write_atomically(path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")
        return path


def read_manifest(folder: Path, kind: str | None = None) -> Manifest:
    """Read and check the manifest of a build.

    Raises:
        DatasetError: no manifest (build missing or unfinished), another kind, or a newer version.
        ConfigError: the manifest has a wrong key.
    """
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder.", "Give the folder of a finished build.")
    if not path.is_file() and (folder / "meta" / "info.json").is_file():
        raise DatasetError(
            f"{folder} is a LeRobot dataset, not a build.",
            "Build from it first: blm curate build-splits, or build-corpus.",
        )
    if not path.is_file():
        raise DatasetError(
            f"{folder} holds no {MANIFEST_FILE}.", "Is the build finished? Run it again to complete it."
        )
    return parse_manifest(path.read_bytes(), str(folder), kind)


def parse_manifest(text: bytes, folder: str, kind: str | None = None) -> Manifest:
    """Check the content of a `manifest.json`; `folder` is where it came from. Raises as `read_manifest` does."""
    path = f"{folder}/{MANIFEST_FILE}"
    try:
        content = json.loads(text.decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path} is not readable as JSON: {error}", "Build it again.") from error
    version = content.get("manifest_version") if isinstance(content, dict) else None
    if version not in _READ_VERSIONS:
        known = " and ".join(map(str, _READ_VERSIONS))
        raise DatasetError(
            f"{path} has manifest_version {version}; this version of blm reads {known}.",
            "Build it again, or use the version of blm that made it.",
        )
    manifest = validate(Manifest, content, path)
    if kind is not None and manifest.kind != kind:
        raise DatasetError(f"{folder} is a {manifest.kind} build, not {kind}.", "Give the other folder.")
    return manifest


def write_atomically(path: Path, content: bytes) -> None:
    """Write bytes beside `path`, flush to disk, and rename: readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(beside, path)
