"""The datasets of a Stage II build: indexed, by name, and found to fit together."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from pathlib import Path
from typing import Any

import pyarrow as pa

from blm.curate.engine import Engine
from blm.curate.episodes.broken_datasets import refused_or_skipped
from blm.curate.episodes.config import DatasetSource, SplitsConfig
from blm.curate.episodes.index import DatasetIndex, dataset_names, index_dataset
from blm.curate.episodes.locate import Located
from blm.schemas.errors import DatasetError
from blm.schemas.manifest import SkippedInput
from blm.schemas.progress import Progress

_LEAST_RATE_HZ = 5
"""To a lower one, nobody is advised to bring datasets."""


def named_sources(config: SplitsConfig) -> dict[str, DatasetSource]:
    """Every input by its name in the build, in the order of the names."""
    named = zip(dataset_names(config.datasets), config.datasets, strict=True)
    return dict(sorted(named, key=lambda pair: pair[0]))


@dataclass(frozen=True)
class Inputs:
    """What goes into a build, by name, in the order of the names; and what was given but cannot be used."""

    datasets: dict[str, DatasetIndex]
    skipped: tuple[SkippedInput, ...] = ()


def index_all(located: Located, engine: Engine, progress: Progress) -> Inputs:
    """Index every input.

    Raises:
        DatasetError: an input is unusable as a whole and `broken_datasets` does not say to skip it, or inputs do not
            fit together.
    """
    config, sources = located.config, named_sources(located.config)
    errors = {name: located.broken[one.path] for name, one in sources.items() if one.path in located.broken}
    tables = [
        pa.table({"name": [name], "source": [_absolute(source).model_dump_json()]})
        for name, source in sources.items()
        if name not in errors
    ]
    found: dict[str, DatasetIndex] = {}
    for result in engine.map(_IndexDatasets(config), tables):
        for row in result.to_pylist():
            outcome = pickle.loads(row["outcome"])  # from our own process, or one that we started
            (errors if isinstance(outcome, DatasetError) else found)[row["name"]] = outcome
            progress("indexing datasets", len(found) + len(errors), len(sources), row["name"])
    paths = {name: source.path for name, source in sources.items()}
    skipped = refused_or_skipped(errors, paths, config.broken_datasets)
    datasets = {name: found[name] for name in sources if name in found}
    for problem in contradictions(datasets.values()):
        raise problem
    return Inputs(datasets, skipped)


@dataclass(frozen=True)
class _IndexDatasets:
    """From rows {name, source} to rows {name, outcome}: a pickled index, or the error that stands in its way."""

    config: SplitsConfig

    def __call__(self, rows: pa.Table) -> pa.Table:
        outcomes = [pickle.dumps(self._indexed(row)) for row in rows.to_pylist()]
        return pa.table({"name": rows["name"], "outcome": pa.array(outcomes, pa.large_binary())})

    def _indexed(self, row: dict[str, Any]) -> DatasetIndex | DatasetError:
        try:
            dataset = index_source(
                DatasetSource.model_validate_json(row["source"]),
                row["name"],
                self.config,
                with_object_starts=any(axis.region for axis in self.config.held_out),
            )
        except DatasetError as error:
            return error
        if self.config.image_size is None and len({(c.width, c.height) for c in dataset.cameras}) > 1:
            return DatasetError(
                f"{dataset.path}: its cameras differ in image size.", "Set `image_size`, or choose `cameras`."
            )
        return dataset


def index_source(
    source: DatasetSource, name: str, config: SplitsConfig, *, with_object_starts: bool = False
) -> DatasetIndex:
    """Index one input as a build does.

    Raises:
        DatasetError: it is unusable as a whole, or has no camera.
    """
    dataset = index_dataset(
        source.model_copy(update={"frame_stride": source.frame_stride or config.frame_stride}),
        name,
        config.thresholds.idle_speed,
        config.cameras,
        with_object_starts=with_object_starts,
        resources=config.resources,
        follow_links=config.follow_links,
    )
    if not dataset.cameras:
        raise no_camera(dataset.path)
    return dataset


def no_camera(path: Path) -> DatasetError:
    return DatasetError(f"{path} has no camera.", "A build needs images.")


def _absolute(source: DatasetSource) -> DatasetSource:
    """Another process may stand in another folder."""
    return source.model_copy(update={"path": source.path.absolute()})


def contradictions(datasets: Collection[DatasetIndex]) -> list[DatasetError]:
    """Datasets of one embodiment share its axes and, as they are packed, a rate, without which statistics would mix
    what differs; which cameras they have is their own affair."""
    found: list[DatasetError] = []
    first_of: dict[str, DatasetIndex] = {}
    for dataset in datasets:
        first = first_of.setdefault(dataset.embodiment.name, dataset)
        names = f"datasets '{first.name}' and '{dataset.name}' of {dataset.embodiment.name} differ in"
        if first.embodiment.axis_names != dataset.embodiment.axis_names:
            one, other = (", ".join(each.embodiment.axis_names) for each in (first, dataset))
            found.append(
                DatasetError(
                    f"{names} axes: {one} and {other}.",
                    "Choose `features: {axes: …}` that both have, name the right `embodiment` of each, or build them "
                    "apart.",
                )
            )
        elif first.packed_rate_hz != dataset.packed_rate_hz:
            of_embodiment = [one for one in datasets if one.embodiment.name == dataset.embodiment.name]
            rates = f"{first.packed_rate_hz:g} and {dataset.packed_rate_hz:g} Hz"
            found.append(DatasetError(f"{names} rate: {rates}.", _common_rate(of_embodiment)))
    return found


def _common_rate(datasets: Sequence[DatasetIndex]) -> str:
    """How all datasets of an embodiment come to one rate, as a remedy."""
    rates = [Fraction(str(one.rate_hz)) for one in datasets]  # 29.97 is 2997/100
    common = Fraction(gcd(*(rate.numerator for rate in rates)), lcm(*(rate.denominator for rate in rates)))
    if common < _LEAST_RATE_HZ:
        return "Build them apart."
    strides = [
        f"`frame_stride: {rate / common}` for '{one.name}'" for one, rate in zip(datasets, rates, strict=True)
    ]
    return f"Set {', '.join(strides)} in splits.yaml, for {float(common):g} Hz, or build them apart."
