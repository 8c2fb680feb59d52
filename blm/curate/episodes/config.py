"""What a Stage II build is told: inputs, images, splits, thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from blm.curate.engine import EngineName
from blm.curate.episodes.held_out import HeldOut
from blm.curate.episodes.mixture import MixtureConfig
from blm.curate.episodes.reasons import Reason
from blm.curate.episodes.resources import Resources
from blm.curate.episodes.thresholds import CheckSetting, Thresholds
from blm.curate.shards import DEFAULT_SHARD_BYTES
from blm.schemas.yaml_model import FrozenModel, read_yaml, validate

BrokenDatasets = Literal["refuse", "skip"]

_WITHOUT_EFFECT = {
    "output",
    "workers",
    "memory",
    "engine",
    "ray_address",
    "follow_links",
    "broken_datasets",
    "overwrite",
}


class FeatureNames(FrozenModel):
    """What is what in a dataset, where names alone do not tell or tell something else."""

    state: str | None = Field(default=None, description="feature with the measured axis values")
    action: str | None = Field(default=None, description="feature with the commanded axis values")
    cameras: dict[str, str] | None = Field(default=None, description="camera name → feature; others are left")
    axes: tuple[str, ...] | None = Field(
        default=None, description="names of the values of state and action, in their order"
    )


class DatasetSource(FrozenModel):
    """One LeRobot v3 dataset. What is not given is taken from the dataset itself."""

    path: Path
    name: str | None = Field(default=None, description="name in the build; default: the folder's name")
    embodiment: str | None = Field(default=None, description="known embodiment or the path of its YAML file")
    task: str | None = Field(default=None, description="task name of every episode")
    features: FeatureNames = FeatureNames()
    frame_stride: int | None = Field(
        default=None, ge=1, le=1000, description="keep every n-th frame; default: the build's"
    )


class Fractions(FrozenModel):
    """Expected share of episodes per split; the shares of a small build vary by chance."""

    train: float = Field(default=0.9, gt=0, le=1)
    val: float = Field(default=0.05, ge=0, lt=1)
    test: float = Field(default=0.05, ge=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError(f"train, val and test must add up to 1, not {self.train + self.val + self.test}")
        return self


class SplitsConfig(FrozenModel):
    """A Stage II build. In `splits.yaml`, a dataset may be given as just its path."""

    datasets: tuple[DatasetSource, ...] = Field(min_length=1)
    output: Path
    cameras: tuple[str, ...] | None = Field(default=None, description="default: all the dataset has")
    image_size: tuple[int, int] | None = Field(
        default=None, description="width and height in pixels (one number: square); default: as recorded"
    )
    jpeg_quality: int = Field(default=92, ge=1, le=100)
    lossless: bool = Field(
        default=False,
        description="store images as lossless WebP: 3 to 5 times the bytes, 4 times the decoding time",
    )
    frame_stride: int = Field(
        default=1, ge=1, le=1000, description="keep every n-th frame; the rate falls with it"
    )
    seed: int = 0
    fractions: Fractions = Fractions()
    held_out: tuple[HeldOut, ...] = Field(
        default=(), description="each makes a split test-<name>; where several fit, the first one counts"
    )
    mixture: MixtureConfig | None = Field(
        default=None, description="how often training windows are drawn; default: each once per epoch"
    )
    trim_idle: bool = True
    thresholds: Thresholds = Thresholds()
    checks: dict[Reason, CheckSetting] = Field(
        default={}, description="severity and threshold by reason; wins over `thresholds`"
    )
    shard_bytes: int = Field(default=DEFAULT_SHARD_BYTES, ge=10240)
    licence: str = Field(default="", description="for the data card, e.g. 'cc-by-4.0'")
    workers: int = Field(
        default=1, ge=1, description="threads that decode and encode; no effect on the result"
    )
    memory: float = Field(
        default=2, ge=0.25, description="GB that indexing may use; beyond, it spills to disk"
    )
    engine: EngineName = Field(default="local", description="where the work runs; no effect on the result")
    ray_address: str | None = Field(
        default=None, description="cluster for the engine 'ray'; default: RAY_ADDRESS, else one started here"
    )
    follow_links: bool = Field(
        default=False, description="links in datasets may lead out of them; no effect on the result"
    )
    broken_datasets: BrokenDatasets = Field(
        default="refuse",
        description="when a dataset cannot be used: refuse the build, or skip the dataset and say so",
    )
    overwrite: bool = Field(default=False, description="replace another build in the output folder")

    @field_validator("datasets", mode="before")
    @classmethod
    def _paths_are_sources(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"path": one} if isinstance(one, str | Path) else one for one in value]

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value

    @field_validator("image_size")
    @classmethod
    def _sensible(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not all(16 <= side <= 4096 for side in value):
            raise ValueError("both sides must lie within 16..4096 pixels")
        return value

    @field_validator("held_out")
    @classmethod
    def _told_apart(cls, value: tuple[HeldOut, ...]) -> tuple[HeldOut, ...]:
        names = [axis.name for axis in value]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two of them are called '{repeated[0]}'")
        return value

    @property
    def resources(self) -> Resources:
        """What reading frames may use; DuckDB spills beside the output."""
        spill = self.output.with_name(f".{self.output.name}.spill")
        return Resources(int(self.memory * 1e9), max(2, self.workers), spill)

    def build_settings(self) -> dict[str, Any]:
        """What decides the build's content, JSON-ready: nothing about where or how it runs."""
        return self.model_dump(mode="json", exclude=_WITHOUT_EFFECT)


def read_splits_config(path: Path, **changes: Any) -> SplitsConfig:
    """Read `splits.yaml`; `changes` (from the command line) replace its keys.

    Raises:
        ConfigError: the file or a value is wrong; names the file and the key.
    """
    return validate(SplitsConfig, {**read_yaml(path), **changes}, str(path))
