"""What a camera can do without: things out of its sight whose shadows fall out of its sight as well.

Without a GPU a picture costs what its vertices cost, three times over where there are shadows. A wrist camera sees
little of the arm it rides on, so leaving out what cannot change a single pixel is worth a third of a picture.
"""

from __future__ import annotations

import mujoco
import numpy as np

SHADOW_MARGIN_TEXELS = 4.0
"""A shadow's edge is blurred over neighbouring pixels of the shadow map."""


def unseen_geoms(
    model: mujoco.MjModel, data: mujoco.MjData, camera: int, aspect: float, shown: np.ndarray, shadows: bool
) -> np.ndarray:
    """Which of the geoms `shown` (a mask) change no pixel of a camera's picture; a mask of all geoms, (ngeom,).

    A geom's oriented bounding box, drawn out along each shadow-casting light down to the lowest thing there is, must
    lie wholly beyond one of the planes that bound the view. Only directional lights are understood: where another
    one casts shadows, or something mirrors, nothing is left out.

    Args:
        aspect: width of the picture over its height.
    """
    directions = _shadow_directions(model, data) if shadows else []
    if directions is None or (model.mat_reflectance > 0).any():
        return np.zeros(model.ngeom, dtype=bool)
    rotation = data.geom_xmat.reshape(-1, 3, 3)
    centre = data.geom_xpos + np.einsum("gij,gj->gi", rotation, model.geom_aabb[:, :3])
    half = model.geom_aabb[:, 3:]
    normals = _view_planes(data.cam_xmat[camera].reshape(3, 3), model.cam_fovy[camera], aspect)
    reach = np.einsum("gpi,gi->gp", np.abs(normals @ rotation), half)
    beyond = (centre - data.cam_xpos[camera]) @ normals.T - reach
    height = np.einsum("gi,gi->g", np.abs(rotation[:, 2]), half)
    lowest = (centre[:, 2] - height)[shown].min(initial=0.0)
    fall = np.maximum(0.0, centre[:, 2] + height - lowest)
    nearest = beyond.copy()
    for direction in directions:
        drawn_out = fall[:, None] / -direction[2] * (normals @ direction)
        np.minimum(nearest, beyond + drawn_out, out=nearest)
    quality, shadow_map = model.vis.quality, model.vis.map
    margin = SHADOW_MARGIN_TEXELS * 2 * shadow_map.shadowclip * model.stat.extent / max(1, quality.shadowsize)
    finite = model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE
    return shown & finite & (nearest > margin).any(axis=1)


def fills_view(model: mujoco.MjModel, data: mujoco.MjData, camera: int, aspect: float, table: int) -> bool:
    """Whether the upper face of `table`, a level box, fills a camera's whole picture, so that no sky is seen.

    A picture's corners look along four rays; where all of them end on a convex face, so do those in between.
    """
    up = np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    corners = np.array([[x * aspect * up, y * up, -1.0] for x in (-1, 1) for y in (-1, 1)])
    rays = corners @ data.cam_xmat[camera].reshape(3, 3).T
    place, size = data.geom_xpos[table], model.geom_size[table]
    height = data.cam_xpos[camera][2] - place[2] - size[2]
    if height <= 0 or (rays[:, 2] >= -1e-3).any():
        return False
    met = data.cam_xpos[camera][:2] + rays[:, :2] * (height / -rays[:, 2:])
    return bool((np.abs(met - place[:2]) < size[:2]).all())


def _shadow_directions(model: mujoco.MjModel, data: mujoco.MjData) -> list[np.ndarray] | None:
    """Unit directions of the lights that cast shadows; None if one is no directional light from above."""
    casting = np.flatnonzero(model.light_castshadow.astype(bool) & model.light_active.astype(bool))
    directions = []
    for light in casting:
        direction = data.light_xdir[light]
        if model.light_type[light] != mujoco.mjtLightType.mjLIGHT_DIRECTIONAL or direction[2] > -0.1:
            return None
        directions.append(direction.copy())
    return directions


def _view_planes(axes: np.ndarray, vertical_fov_deg: float, aspect: float) -> np.ndarray:
    """Outward unit normals (5, 3) of the planes through the camera that bound its view: sides and back."""
    right, up, backward = axes.T
    tangent = np.tan(np.deg2rad(vertical_fov_deg) / 2)
    sides = [side * right + aspect * tangent * backward for side in (-1, 1)]
    sides += [side * up + tangent * backward for side in (-1, 1)]
    normals = np.array([*sides, backward])
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)
