"""An episode's numbers in full, for other tools: every column under a path of names, unrounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from blm.pages.viewer.curves import bands, paired_names
from blm.pages.viewer.episode import INDEX_COLUMNS, axis_names, episode_columns, feature_names
from blm.schemas.episode import ACTION, EPISODE_METADATA_PREFIX, MONOTONIC_TIME, STATE, SUBTASK_INDEX

if TYPE_CHECKING:
    from blm.pages.viewer.dataset import ViewedDataset

_FACTS = (
    "embodiment",
    "task",
    "instruction",
    "seed",
    "operator",
    "success",
    "attempts",
    "late_ticks",
    "software",
)


@dataclass(frozen=True)
class Signal:
    """One dimension of a column.

    `path` is the column and, where it has several dimensions, the name of this one; `unit` is '' where nobody says.
    `values` is (frames,) float64.
    """

    path: tuple[str, ...]
    unit: str
    values: np.ndarray


@dataclass(frozen=True)
class EpisodeSignals:
    """What an episode holds beside its cameras.

    `axes` are the paths of each axis' signals by the axis' name and by 'state' or 'action'. `measured_s` is (frames,)
    seconds from the first frame as the robot's clock had it, or None. `bands` are stretches of sub-tasks, as
    `blm.pages.viewer.curves.bands` has them. `facts` say what is known about the episode, by name.
    """

    fps: float
    frames: int
    signals: Sequence[Signal]
    axes: dict[str, dict[str, tuple[str, ...]]]
    bands: Sequence[dict[str, Any]] = ()
    measured_s: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def dataset_signals(dataset: ViewedDataset, episode: int) -> EpisodeSignals:
    """Every numeric column of an episode of a recorded dataset; raises as `episode_columns`."""
    columns = episode_columns(dataset, episode)
    row = dataset.row(episode)
    signals: list[Signal] = []
    for key, values in columns.items():
        if key not in INDEX_COLUMNS | {SUBTASK_INDEX, MONOTONIC_TIME}:
            signals += column_signals(
                key, feature_names(dataset, key, values.shape[1]), values, dataset.units
            )
    track, times = columns.get(SUBTASK_INDEX), columns.get(MONOTONIC_TIME)
    named = {name: row.get(EPISODE_METADATA_PREFIX + name) for name in _FACTS}
    facts = {"dataset": dataset.name, "episode": episode} | {k: v for k, v in named.items() if v is not None}
    if "instruction" not in facts and row.get("tasks"):
        facts["instruction"] = str(row["tasks"][0])
    return EpisodeSignals(
        fps=dataset.fps,
        frames=len(next(iter(columns.values()))),
        signals=signals,
        axes=axis_paths({"state": STATE, "action": ACTION}, axis_names(dataset, columns)),
        bands=bands(track[:, 0].astype(int), dataset.subtasks) if track is not None else (),
        measured_s=times[:, 0] - times[0, 0] if times is not None else None,
        facts=facts,
    )


def column_signals(
    column: str, names: Sequence[str], values: np.ndarray, units: Mapping[str, str]
) -> list[Signal]:
    """The signals of a column (frames, dimensions); one of a single dimension goes by the column's name alone."""
    if values.shape[1] == 1:
        return [Signal((column,), units.get(names[0], ""), values[:, 0])]
    return [
        Signal((column, name), units.get(name, ""), values[:, number]) for number, name in enumerate(names)
    ]


def axis_paths(
    columns: Mapping[str, str], names: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Where each axis' state and action are; `columns` and `names` go by kind ('state', 'action')."""
    paths: dict[str, dict[str, tuple[str, ...]]] = {}
    for kind, axes in paired_names(names).items():
        for own, axis in zip(names[kind], axes, strict=True):
            path = (columns[kind], own) if len(axes) > 1 else (columns[kind],)
            paths.setdefault(axis, {})[kind] = path
    return paths
