"""Episode features: what one recorded frame holds, as LeRobot v3 feature descriptions.

One dataset holds one embodiment; its features are the same in every episode while tasks may vary. Objects therefore
sit in numbered slots of `observation.environment_state`; which object is in which slot is episode metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blm.schemas.embodiment import Embodiment

STATE = "observation.state"
ACTION = "action"
EE_POSE = "observation.ee_pose"
ENVIRONMENT_STATE = "observation.environment_state"
GRIPPER_CONTACT = "observation.gripper_contact"
IMAGE_PREFIX = "observation.images."
SUBTASK_INDEX = "subtask_index"
MONOTONIC_TIME = "timing.monotonic_s"
SUCCESS = "next.success"
INTERVENTION = "intervention"
"""Whether a person drove in this frame; only in recordings of a policy that a person can take over from."""

POSE_NAMES = ("x", "y", "z", "qw", "qx", "qy", "qz")
"""A pose: position in metres, unit quaternion with w first."""

OBJECT_SLOTS = 5
"""Of new recordings. Older ones have 2: readers go by the width that a dataset's own features state."""

SUBTASKS_FILE = "meta/subtasks.parquet"
"""Columns `subtask_index` (int64) and `subtask` (string): the table behind `subtask_index`."""

ATTEMPTS_FILE = "meta/attempts.parquet"
"""One row per attempt, successful or not: planner metrics and the failure cause."""

RECORDING_FILE = "meta/blm.json"
"""Dataset-wide recording facts: embodiment, cameras, software version."""

EPISODE_METADATA_PREFIX = "blm/"
"""Our columns in `meta/episodes`: see `EpisodeMetadata`."""


@dataclass(frozen=True)
class EpisodeMetadata:
    """Facts about one episode, stored in `meta/episodes` under `blm/<field>`.

    Attributes:
        embodiment: embodiment name.
        task: task name.
        instruction: the wording used (also LeRobot's task string).
        seed: seed of the scene; -1 on hardware.
        operator: 'planner', 'leader', 'gamepad', 'browser' or 'policy:<run>'.
        success: whether the task's criteria held at the end.
        attempts: how many attempts it took to get this episode, at least 1.
        late_ticks: control ticks that came more than one and a half periods after the one before.
        repeated_frames: pictures that are the one before once more, of all cameras together: no fresh one was there
            in time, or the encoder could not keep it.
        jitter_ms: standard deviation of the control period, milliseconds.
        objects: JSON list of {name, shape, colour_name, half_size, role} in slot order. `role` is 'task', or
            'distractor' for what only lies there; where it is not given, it is 'task'.
        cameras: JSON list of {name, width, height, vertical_fov_deg, position, quaternion, mount}; poses in the
            base frame (or the mount's frame), metres and wxyz, camera looking along its −z.
        goal: JSON {shape, position, radius_m} in the base frame, or 'null'.
        software: version of blm that recorded it.
    """

    embodiment: str
    task: str
    instruction: str
    seed: int
    operator: str
    success: bool
    attempts: int
    late_ticks: int
    repeated_frames: int
    jitter_ms: float
    objects: str
    cameras: str
    goal: str
    software: str


def image_key(camera: str) -> str:
    return IMAGE_PREFIX + camera


def camera_age_key(camera: str) -> str:
    """Feature that says how old a camera's picture was at the moment of observation, milliseconds."""
    return f"timing.{camera}.age_ms"


def environment_state_names(slots: int = OBJECT_SLOTS) -> list[str]:
    """Axis names of `observation.environment_state`: a pose per slot in the base frame, then the goal position.

    Empty slots and an absent goal are zeros.
    """
    poses = [f"object_{slot}.{name}" for slot in range(slots) for name in POSE_NAMES]
    return [*poses, "goal.x", "goal.y", "goal.z"]


def gripper_contact_names(slots: int = OBJECT_SLOTS) -> list[str]:
    """Axis names of `observation.gripper_contact`: newtons between the gripper and each slot's object, then the table.

    Each is the sum of the normal forces of all contacts of the gripper's parts with it, 0 without contact.
    """
    return [*(f"object_{slot}.force_n" for slot in range(slots)), "table.force_n"]


def episode_features(
    embodiment: Embodiment, simulated: bool, *, interventions: bool = False
) -> dict[str, dict[str, Any]]:
    """LeRobot feature descriptions of every key blm records (LeRobot's own index columns are added by it).

    Images are (height, width, 3) video. `observation.environment_state` and `observation.gripper_contact` exist in
    simulation only and are never an input of a policy; `timing.<camera>.age_ms` exists on hardware only, where a
    picture is older than the observation it belongs to; `intervention` only where `interventions` says that a person
    can take over from whoever drives.
    """
    axes = list(embodiment.axis_names)
    features: dict[str, dict[str, Any]] = {
        STATE: _vector("float32", axes),
        ACTION: _vector("float32", axes),
        EE_POSE: _vector("float32", list(POSE_NAMES)),
    }
    if simulated:
        features[ENVIRONMENT_STATE] = _vector("float32", environment_state_names())
        features[GRIPPER_CONTACT] = _vector("float32", gripper_contact_names())
    for camera in embodiment.cameras:
        features[image_key(camera.name)] = {
            "dtype": "video",
            "shape": (camera.height, camera.width, 3),
            "names": ["height", "width", "channels"],
        }
    features[SUBTASK_INDEX] = {"dtype": "int64", "shape": (1,), "names": None}
    features[MONOTONIC_TIME] = {"dtype": "float64", "shape": (1,), "names": None}
    if not simulated:
        for camera in embodiment.cameras:
            features[camera_age_key(camera.name)] = {"dtype": "float32", "shape": (1,), "names": None}
    features[SUCCESS] = {"dtype": "bool", "shape": (1,), "names": None}
    if interventions:
        features[INTERVENTION] = {"dtype": "bool", "shape": (1,), "names": None}
    return features


def _vector(dtype: str, names: list[str]) -> dict[str, Any]:
    return {"dtype": dtype, "shape": (len(names),), "names": names}
