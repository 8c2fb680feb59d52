"""One episode as the page draws it: curves, bands, marks and facts, as plain JSON-ready data."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blm.pages.viewer.curves import axis_curves, bands, curve_group, stretches
from blm.schemas.episode import (
    ACTION,
    ENVIRONMENT_STATE,
    EPISODE_METADATA_PREFIX,
    GRIPPER_CONTACT,
    MONOTONIC_TIME,
    STATE,
    SUBTASK_INDEX,
    SUCCESS,
    camera_age_key,
)
from blm.schemas.errors import DatasetError

if TYPE_CHECKING:
    from blm.pages.viewer.dataset import ViewedDataset

INDEX_COLUMNS = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
_INTERVENTION = ("intervention", "is_intervention")
"""Last parts of the names of columns that say whether a person has taken over."""

_CAMERA_AGE = re.compile(re.escape(camera_age_key("NAME")).replace("NAME", "(.+)"))
_OWN_PLACE = {STATE, ACTION, SUBTASK_INDEX, MONOTONIC_TIME, SUCCESS, GRIPPER_CONTACT, ENVIRONMENT_STATE}


def episode_content(dataset: ViewedDataset, episode: int) -> dict[str, Any]:
    """Everything about an episode but its videos' bytes.

    Curves are lists with one number per frame (null where a value is not finite), of five significant digits; frames
    are counted from 0 and `bands`, `interventions` are half-open ranges of them.

    Raises:
        UsageError: no such episode.
        DatasetError: its rows are missing or cannot be read.
    """
    row = dataset.row(episode)
    columns = episode_columns(dataset, episode)
    objects = _objects(row, columns.get(ENVIRONMENT_STATE))
    return {
        "index": episode,
        "fps": dataset.fps,
        "frames": len(next(iter(columns.values()))),
        "axes": _axes(dataset, columns),
        "groups": _groups(dataset, columns, objects),
        "bands": _bands(dataset, columns),
        "interventions": _interventions(columns),
        "success_from": _success_from(columns),
        "facts": _facts(row, columns, dataset.fps),
        "objects": objects,
    }


def episode_columns(dataset: ViewedDataset, episode: int) -> dict[str, np.ndarray]:
    """The episode's numeric columns, each (frames, dimensions) float64.

    Raises:
        UsageError: no such episode.
        DatasetError: its rows are missing or cannot be read.
    """
    table = _rows(dataset, episode)
    numbers = {name: _numbers(table[name]) for name in table.column_names}
    return {name: values for name, values in numbers.items() if values is not None}


def _rows(dataset: ViewedDataset, episode: int) -> pa.Table:
    """The episode's rows, without images and text."""
    path = dataset.data_file(episode)
    try:
        schema = pq.read_schema(path)
        wanted = [field.name for field in schema if _is_numeric(field.type)]
        table = pq.read_table(path, columns=wanted, filters=[("episode_index", "=", episode)])
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is not readable: {error}", "Restore it from a copy.") from error
    if table.num_rows == 0:
        raise DatasetError(f"{path} holds no rows of episode {episode}.", "Restore the file.")
    return table.sort_by("frame_index") if "frame_index" in table.column_names else table


def _is_numeric(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _numbers(column: pa.ChunkedArray) -> np.ndarray | None:
    """A column as (frames, dimensions) float64; None where frames differ in length or are matrices."""
    try:
        values = np.array(column.to_pylist(), dtype=np.float64)
    except (ValueError, TypeError):
        return None
    return values.reshape(-1, 1) if values.ndim == 1 else values if values.ndim == 2 else None


def feature_names(dataset: ViewedDataset, key: str, width: int) -> list[str]:
    """Names of a feature's dimensions, which datasets state as a list or as a dictionary of lists."""
    names = dataset.features.get(key, {}).get("names")
    if isinstance(names, dict):
        names = [name for part in names.values() for name in (part if isinstance(part, list) else [part])]
    if isinstance(names, list) and len(names) == width:
        return [str(name) for name in names]
    return [str(number) for number in range(width)]


def _axes(dataset: ViewedDataset, columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    values = {kind: columns[key] for kind, key in (("state", STATE), ("action", ACTION)) if key in columns}
    return axis_curves(axis_names(dataset, columns), values, dataset.units)


def axis_names(dataset: ViewedDataset, columns: dict[str, np.ndarray]) -> dict[str, list[str]]:
    """Names of the columns of state and action, as far as there are such."""
    return {
        kind: feature_names(dataset, key, columns[key].shape[1])
        for kind, key in (("state", STATE), ("action", ACTION))
        if key in columns
    }


def _groups(
    dataset: ViewedDataset, columns: dict[str, np.ndarray], objects: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Curves that share a plot: contacts, the control period, and each further numeric feature."""
    groups = []
    contact = columns.get(GRIPPER_CONTACT)
    if contact is not None:
        names = _contact_names(feature_names(dataset, GRIPPER_CONTACT, contact.shape[1]), objects)
        groups.append(curve_group("gripper contact", "N", names, contact))
    times = columns.get(MONOTONIC_TIME)
    if times is not None and len(times) > 1:
        periods = np.diff(times, axis=0, prepend=np.nan) * 1000
        groups.append(curve_group("control period", "ms", ["period"], periods, keep_constant=True))
    ages = {found[1]: columns[key] for key in columns if (found := _CAMERA_AGE.fullmatch(key))}
    if ages:
        together = np.concatenate(list(ages.values()), axis=1)
        groups.append(
            curve_group("age of the cameras' pictures", "ms", list(ages), together, keep_constant=True)
        )
    for key, values in columns.items():
        if (
            key not in INDEX_COLUMNS | _OWN_PLACE
            and not _is_intervention(key)
            and not _CAMERA_AGE.fullmatch(key)
        ):
            groups.append(curve_group(key, "", feature_names(dataset, key, values.shape[1]), values))
    return [group for group in groups if group["series"]]


def _contact_names(names: Sequence[str], objects: Sequence[dict[str, Any]]) -> list[str]:
    """`object_0.force_n` under the name of the object in that slot."""
    known = {f"object_{slot}": str(item.get("name", slot)) for slot, item in enumerate(objects)}
    plain = [name.removesuffix(".force_n") for name in names]
    return [known.get(name, name) for name in plain]


def _bands(dataset: ViewedDataset, columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Stretches of one sub-task."""
    numbers = columns.get(SUBTASK_INDEX)
    if numbers is None or not dataset.subtasks:
        return []
    return bands(numbers[:, 0].astype(int), dataset.subtasks)


def _is_intervention(key: str) -> bool:
    return key.split(".")[-1] in _INTERVENTION


def _interventions(columns: dict[str, np.ndarray]) -> list[list[int]]:
    """Stretches in which a person had taken over."""
    for key, values in columns.items():
        if _is_intervention(key):
            return stretches(values[:, 0])
    return []


def _success_from(columns: dict[str, np.ndarray]) -> int | None:
    """The first frame that counts as success."""
    values = columns.get(SUCCESS)
    reached = np.flatnonzero(values[:, 0] > 0) if values is not None else []
    return int(reached[0]) if len(reached) else None


def _facts(row: dict[str, Any], columns: dict[str, np.ndarray], fps: float) -> list[list[str]]:
    """Lines of a small table: what, and its value; what the dataset does not state is left out."""
    ours = EPISODE_METADATA_PREFIX
    facts = [
        ["length", f"{row['length']} frames, {int(row['length']) / fps:.2f} s"],
        ["attempts until kept", row.get(f"{ours}attempts")],
        ["late ticks", row.get(f"{ours}late_ticks")],
        ["repeated frames", row.get(f"{ours}repeated_frames")],
        ["jitter of the period", _unit(row.get(f"{ours}jitter_ms"), "ms")],
        ["mean rate, measured", _unit(_measured_rate(columns.get(MONOTONIC_TIME)), "Hz")],
        ["goal", _goal(row.get(f"{ours}goal"))],
        ["recorded by", _unit(row.get(f"{ours}software"), "", "blm ")],
    ]
    return [[name, str(value)] for name, value in facts if value not in (None, "")]


def _unit(value: Any, unit: str, before: str = "") -> str | None:
    return None if value is None else f"{before}{value} {unit}".strip()


def _measured_rate(times: np.ndarray | None) -> str | None:
    if times is None or len(times) < 2:
        return None
    seconds = float(times[-1, 0] - times[0, 0])
    return f"{(len(times) - 1) / seconds:.2f}" if seconds > 0 else None


def _goal(text: Any) -> str | None:
    goal = _parsed(text)
    if not isinstance(goal, dict):
        return None
    place = goal.get("position")
    where = f" at ({', '.join(f'{value:.3f}' for value in place)}) m" if isinstance(place, list) else ""
    return f"{goal.get('shape', 'goal')}{where}"


def _objects(row: dict[str, Any], state: np.ndarray | None) -> list[dict[str, Any]]:
    """The scene's objects in slot order, with where each stood first and last, metres in the base frame."""
    listed = _parsed(row.get(f"{EPISODE_METADATA_PREFIX}objects"))
    objects = []
    for slot, item in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(item, dict):
            continue
        shown: dict[str, Any] = {key: str(item.get(key, "")) for key in ("name", "shape", "colour_name")}
        shown["role"] = str(item.get("role", "task"))
        begin = 7 * slot
        if state is not None and state.shape[1] >= begin + 3:
            shown["first"], shown["last"] = (
                [round(float(value), 4) for value in state[frame, begin : begin + 3]] for frame in (0, -1)
            )
        objects.append(shown)
    return objects


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
