"""The gripper's outline from its collision geometry, so that skills know how far fingertips reach."""

from __future__ import annotations

from itertools import product

import mujoco
import numpy as np

from blm.collect.planning.kinematics import JointMap
from blm.collect.planning.pose import Pose
from blm.collect.planning.scene import GripperShape
from blm.schemas.embodiment import Embodiment

_OPENINGS = 25
_CORNERS = np.array(list(product((-1.0, 1.0), repeat=3)))


def gripper_shape(model: mujoco.MjModel, embodiment: Embodiment) -> GripperShape:
    """The outline of all solid geoms at and below body `hand`, and of the geoms `left_pad` and `right_pad`."""
    gripper = embodiment.gripper
    pads = [model.geom("left_pad").id, model.geom("right_pad").id]
    faces = []
    for share in np.linspace(0.0, 1.0, _OPENINGS):
        value = gripper.closed + share * (gripper.open - gripper.closed)
        left, right = (_box_in_tool(model, embodiment, value, [pad])[:, 1] for pad in pads)
        upper, lower = (left, right) if left.mean() > right.mean() else (right, left)
        faces.append((_inner_face(upper, toward_low=True), _inner_face(lower, toward_low=False)))
    above, below = np.array(faces).T
    order = np.argsort(above - below)
    return GripperShape(
        corners_open=_box_in_tool(model, embodiment, gripper.open, _solid_geoms(model)),
        corners_closed=_box_in_tool(model, embodiment, gripper.closed, _solid_geoms(model)),
        gaps=(above - below)[order],
        middles=((above + below) / 2)[order],
    )


def _inner_face(corners: np.ndarray, toward_low: bool) -> float:
    """Where a pad's inner face is on average: the four of its eight corners (8,) on the side of the other pad."""
    return float(np.mean(np.sort(corners)[:4] if toward_low else np.sort(corners)[4:]))


def _box_in_tool(
    model: mujoco.MjModel, embodiment: Embodiment, gripper: float, geoms: list[int]
) -> np.ndarray:
    """Corners (8 · geoms, 3) of the boxes around `geoms` in the tool frame, with the gripper axis at `gripper`."""
    data = mujoco.MjData(model)
    values = embodiment.column("home")
    values[embodiment.gripper_index] = gripper
    JointMap.of(model, embodiment).write(data.qpos, embodiment.to_model(values))
    mujoco.mj_kinematics(model, data)
    site = model.site("tool").id
    to_tool = Pose(data.site_xpos[site], data.site_xmat[site].reshape(3, 3)).inverse()
    corners = []
    for geom in geoms:
        centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
        frame = to_tool @ Pose(data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3))
        corners.append(frame.position + (centre + half * _CORNERS) @ frame.rotation.T)
    return np.concatenate(corners)


def _solid_geoms(model: mujoco.MjModel) -> list[int]:
    """Geoms that collide, of the hand and of what moves with it."""
    hand = model.body("hand").id
    found = []
    for geom in range(model.ngeom):
        body = int(model.geom_bodyid[geom])
        while body > hand:
            body = int(model.body_parentid[body])
        if body == hand and (model.geom_contype[geom] or model.geom_conaffinity[geom]):
            found.append(geom)
    return found
