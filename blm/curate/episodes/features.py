"""What a dataset's features are: its state, its action, its cameras, its robot and that robot's axes.

Everything is inferred from names and the registry of embodiments, can be shown (`blm curate inspect`), and can be
overridden for a dataset in `splits.yaml`. A robot that nobody has described becomes an embodiment of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from blm.curate.episodes.boundaries import MAX_VECTOR_LENGTH
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.frames import Columns, time_column
from blm.curate.episodes.lerobot_files import CameraStream, camera_streams, depth_features, feature_names
from blm.curate.episodes.resources import Resources
from blm.curate.episodes.unknown_robot import describe_robot
from blm.schemas.embodiment import Embodiment, embodiment_names, load_embodiment
from blm.schemas.episode import (
    ACTION,
    EE_POSE,
    ENVIRONMENT_STATE,
    EPISODE_METADATA_PREFIX,
    STATE,
    SUBTASK_INDEX,
    SUCCESS,
)
from blm.schemas.errors import DatasetError

_STATE_ENDINGS = {"state", "states", "qpos", "joint_position", "joint_positions", "proprio", "robot_state"}
_ACTION_ENDINGS = {"action", "actions"}
_STORED = {False: "a video feature", True: "pictures in the table"}
_NEVER = {EE_POSE, ENVIRONMENT_STATE}


@dataclass(frozen=True)
class Inferred:
    """One thing that was found out: what, its value, and where that comes from."""

    what: str
    value: str
    reason: str


@dataclass(frozen=True)
class Features:
    """How to read a dataset; `found` is the same for people to look at.

    `described` is False where the embodiment was made up from the dataset.
    """

    embodiment: Embodiment
    columns: Columns
    cameras: tuple[CameraStream, ...]
    found: tuple[Inferred, ...]
    described: bool = True


@dataclass(frozen=True)
class _Vector:
    """A feature and the names of its values, as axes of an embodiment are spelt; () where it has none."""

    feature: str
    length: int
    axes: tuple[str, ...]
    reason: str


def infer_features(
    source: DatasetSource,
    info: dict[str, Any],
    meta: pa.Table,
    cameras: Sequence[str] | None,
    resources: Resources,
) -> Features:
    """Find out what is what in a dataset, from its `meta/info.json` and `meta/episodes`.

    Raises:
        DatasetError: something is not there, or more than one thing may be meant; lists what there is.
        UnknownNameError: the source names an embodiment that does not exist.
    """
    given, root = source.features, source.path
    state = _named(root, _vector(root, info, "state", given.state, STATE, _STATE_ENDINGS), given.axes)
    action = _named(root, _vector(root, info, "action", given.action, ACTION, _ACTION_ENDINGS), given.axes)
    streams = camera_streams(root, info, cameras, given.cameras)
    known, reason = _known_embodiment(source, info, meta, state, action)
    if known is None:
        axes, places = _shared_axes(root, state, action)
        columns = _columns(info, state, action, *places)
        embodiment = describe_robot(source, info, meta, axes, columns, streams, resources)
    else:
        embodiment = known
        columns = _columns(
            info, state, action, _places(root, state, embodiment), _places(root, action, embodiment)
        )
    listed = ", ".join(embodiment.axis_names)
    found = [
        Inferred("embodiment", embodiment.name, reason),
        Inferred("axes", listed, _reason_of_axes(given.axes, known)),
        Inferred("state", state.feature, state.reason),
        Inferred("action", action.feature, action.reason),
        Inferred("rate", f"{info['fps']} Hz", "meta/info.json"),
    ]
    found += [
        Inferred(
            f"camera {one.name}",
            f"{one.feature} ({one.width} × {one.height})",
            "given" if given.cameras and one.name in given.cameras else _STORED[one.in_table],
        )
        for one in streams
    ]
    found += [Inferred("left out", name, "a depth map") for name in depth_features(info)]
    return Features(embodiment, columns, streams, tuple(found), known is not None)


def _reason_of_axes(given: Sequence[str] | None, known: Embodiment | None) -> str:
    if known is not None:
        return "the embodiment's"
    return "names in meta/info.json" if given is None else "given"


def axis_name(name: str) -> str:
    """A value's name as an axis: 'main_shoulder_pan' and 'main shoulder pan.pos' → 'main_shoulder_pan.pos'."""
    return re.sub(r"[^a-z0-9_]+", "_", name.lower().removesuffix(".pos")).strip("_") + ".pos"


def _vector(
    root: Path, info: dict[str, Any], what: str, given: str | None, usual: str, endings: set[str]
) -> _Vector:
    lengths = _vectors(info, {usual, given or usual})
    ending = [name for name in lengths if re.split(r"[./]", name)[-1] in endings and name not in _NEVER]
    if given is not None:
        if given not in lengths:
            _ask(root, f"{what} '{given}' is not a vector of this dataset", what, lengths)
        feature, reason = given, "given"
    elif usual in lengths:
        feature, reason = usual, "the usual name"
    elif len(ending) == 1:
        feature, reason = ending[0], "the only name like it"
    else:
        which = f"several may be the {what} ({', '.join(ending)})" if ending else f"none is called '{usual}'"
        _ask(root, f"it does not say which feature is the {what}: {which}", what, lengths)
    if lengths[feature] > MAX_VECTOR_LENGTH:
        raise DatasetError(
            f"{root}: '{feature}' has {lengths[feature]} values a frame; at most {MAX_VECTOR_LENGTH} are read.",
            f"Choose another {what} in splits.yaml under this dataset: `features: {{{what}: …}}`.",
        )
    return _Vector(feature, lengths[feature], _spelt(info, feature, lengths[feature]), reason)


def _vectors(info: dict[str, Any], always: set[str]) -> dict[str, int]:
    """Features that are vectors of more than one number, or may be of one, with their lengths."""
    lengths: dict[str, int] = {}
    for name, feature in info["features"].items():
        if feature["dtype"].startswith(("float", "int")) and len(feature["shape"]) == 1:
            length = feature["shape"][0]
            if length > 1 or name in always:
                lengths[name] = length
    return lengths


def _ask(root: Path, problem: str, what: str, vectors: dict[str, int]) -> NoReturn:
    listed = ", ".join(f"{name} ({length})" for name, length in vectors.items())
    raise DatasetError(
        f"{root}: {problem}; its vectors are: {listed or 'none'}.",
        f"Name it in splits.yaml under this dataset: `features: {{{what}: …}}`.",
    )


def _spelt(info: dict[str, Any], feature: str, length: int) -> tuple[str, ...]:
    names = tuple(map(axis_name, feature_names(info, feature)))
    return names if len(names) == len(set(names)) == length and ".pos" not in names else ()


def _named(root: Path, vector: _Vector, axes: Sequence[str] | None) -> _Vector:
    """With the axes that were given: names for all of its values, or a choice among its names."""
    if axes is None:
        return vector
    wanted = tuple(map(axis_name, axes))
    if set(wanted) <= set(vector.axes):
        return vector
    if len(wanted) != vector.length:
        raise DatasetError(
            f"{root}: {len(wanted)} `axes` are given; '{vector.feature}' has {vector.length} values, "
            f"named {', '.join(vector.axes) or 'nothing'}.",
            "Give a name for each value, or choose among the names.",
        )
    return _Vector(vector.feature, vector.length, wanted, vector.reason)


def _known_embodiment(
    source: DatasetSource, info: dict[str, Any], meta: pa.Table, state: _Vector, action: _Vector
) -> tuple[Embodiment | None, str]:
    """The embodiment that is given, recorded, or has these axes; None where no described robot has."""
    if source.embodiment is not None:
        return load_embodiment(source.embodiment), "given"
    column = EPISODE_METADATA_PREFIX + "embodiment"
    if column in meta.column_names:
        recorded = sorted({name for name in meta[column].to_pylist() if name})
        if len(recorded) > 1:
            raise DatasetError(
                f"{source.path} mixes embodiments: {', '.join(recorded)}.", "Keep one dataset per embodiment."
            )
        if recorded and recorded[0] in embodiment_names():
            return load_embodiment(recorded[0]), "as recorded"
    if source.features.axes is None:
        fits = [
            one for one in map(load_embodiment, embodiment_names()) if set(one.axis_names) == set(action.axes)
        ]
    else:
        wanted = set(map(axis_name, source.features.axes))
        fits = [one for one in map(load_embodiment, embodiment_names()) if set(one.axis_names) == wanted]
    fits = [one for one in fits if set(one.axis_names) <= set(state.axes)]
    robot_type = info.get("robot_type")
    named = [one for one in fits if robot_type in (one.name, one.driver)]
    if len(fits) > 1 and not named:
        raise DatasetError(
            f"{source.path}: the action's axes ({', '.join(action.axes)}) fit several embodiments.",
            f"Name the dataset's `embodiment` in splits.yaml: one of {', '.join(one.name for one in fits)}, "
            "or a YAML file.",
        )
    if not fits:
        return None, "no known robot has these axes; taken from the dataset"
    return (named or fits)[0], "its axes" + (" and robot type" if len(fits) > 1 else "")


def _places(root: Path, vector: _Vector, embodiment: Embodiment) -> tuple[int, ...]:
    """Which value of a vector is which axis of the embodiment."""
    if missing := [axis for axis in embodiment.axis_names if axis not in vector.axes]:
        raise DatasetError(
            f"{root}: '{vector.feature}' has no axis {', '.join(missing)} of embodiment '{embodiment.name}'; "
            f"it has: {', '.join(vector.axes) or f'{vector.length} values without names'}.",
            "Name the right `embodiment` for this dataset in splits.yaml, or its values: `features: {axes: […]}`.",
        )
    return tuple(vector.axes.index(axis) for axis in embodiment.axis_names)


def _shared_axes(
    root: Path, state: _Vector, action: _Vector
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    """Axes that state and action both have, by name, or by place where lengths agree; and their places in both."""
    shared = tuple(axis for axis in action.axes if axis in state.axes)
    if len(shared) == action.length or (len(shared) > 1 and state.length != action.length):
        return shared, (
            tuple(state.axes.index(axis) for axis in shared),
            tuple(action.axes.index(axis) for axis in shared),
        )
    if state.length != action.length:
        raise DatasetError(
            f"{root}: '{state.feature}' has {state.length} values ({', '.join(state.axes) or 'no names'}) and "
            f"'{action.feature}' {action.length} ({', '.join(action.axes) or 'no names'}); which belong together?",
            "Choose others in splits.yaml under this dataset: `features: {state: …, action: …}`, or give the "
            "`embodiment` as a YAML file.",
        )
    axes = action.axes or state.axes or tuple(f"axis_{place}.pos" for place in range(action.length))
    every = tuple(range(action.length))
    return axes, (every, every)


def _columns(
    info: dict[str, Any],
    state: _Vector,
    action: _Vector,
    state_places: tuple[int, ...],
    action_places: tuple[int, ...],
) -> Columns:
    return Columns(
        state=state_places,
        action=action_places,
        subtask=SUBTASK_INDEX in info["features"],
        success=SUCCESS in info["features"],
        time=time_column(info["features"]),
        state_feature=state.feature,
        action_feature=action.feature,
        state_length=state.length,
        action_length=action.length,
    )
