"""Hand and tool poses at random configurations, kept in golden_poses.json.

Write the file anew (`python -m tests.collect.sim.models.golden_poses`) only after a deliberate change of
kinematics that `make test-vendor-models` has passed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from blm.collect.sim.models import MODEL_NAMES
from tests.collect.sim.models.published import (
    at_home,
    body_pose,
    random_joints,
    relative_pose,
    set_joints,
    site_pose,
)

PATH = Path(__file__).with_suffix(".json")
CONFIGURATIONS = 24


def measured(name: str, joints: dict[str, float]) -> dict[str, list[float]]:
    """Position in metres and quaternion wxyz (w ≥ 0) of `hand` and `tool` in the base frame."""
    model, data = at_home(name)
    set_joints(model, data, joints)
    base = body_pose(data, "base")
    frames = {"hand": body_pose(data, "hand"), "tool": site_pose(data, "tool")}
    record = {}
    for frame, pose in frames.items():
        position, rotation = relative_pose(base, pose)
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, rotation.ravel())
        record[f"{frame}_position"] = position.tolist()
        record[f"{frame}_quaternion"] = (quaternion * np.copysign(1, quaternion[0])).tolist()
    return record


def records() -> dict[str, list[dict[str, Any]]]:
    golden = {}
    for name in MODEL_NAMES:
        random = np.random.default_rng(2026)
        golden[name] = []
        for _ in range(CONFIGURATIONS):
            joints = {joint: round(value, 4) for joint, value in random_joints(name, random).items()}
            poses = {key: [round(x, 9) for x in value] for key, value in measured(name, joints).items()}
            golden[name].append({"joints": joints, **poses})
    return golden


if __name__ == "__main__":
    PATH.write_text(json.dumps(records(), indent=1) + "\n")
