"""Shadows on the table as flattened, darker copies of what casts them: exact edges at a tenth of a shadow map's price.

Without a GPU a shadow map triples the cost of a picture: everything is drawn once from the light and once more with the
light. A directional light's shadow on a plane is an affine image of the thing itself (Blinn 1988), so a copy of each
geom, squashed along the light onto the table, is drawn in the table's colour less the key light. What lies on the table
or shades itself stays as bright as it is; that is all that is lost.
"""

from __future__ import annotations

import mujoco
import numpy as np

HEIGHT_M = 0.0005
"""The copies lie this high above the table: below what is painted on it, above what depth buffers confuse."""
_THICKNESS = 2e-3
_SHAPES = (
    mujoco.mjtGeom.mjGEOM_SPHERE,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
    mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    mujoco.mjtGeom.mjGEOM_CYLINDER,
    mujoco.mjtGeom.mjGEOM_BOX,
)
_OPAQUE = 0.99
_GLOW = 60.0
"""A copy glows so much that its own shading, which means nothing once it is flat, disappears."""


class FlatShadows:
    """Adds the shadows of a model's geoms to a scene about to be drawn."""

    def __init__(self, model: mujoco.MjModel, table: int) -> None:
        """`table` is the geom whose upper face, at z = 0, the shadows fall on."""
        self._model = model
        self._table = table
        self._casting = np.isin(model.geom_type, [int(shape) for shape in _SHAPES])
        self._casting[table] = False
        self._light = model.light("key").id
        self._copies = _copies_of(model)
        self._data = mujoco.MjData(self._copies)
        mujoco.mj_kinematics(self._copies, self._data)
        self._perturbation = mujoco.MjvPerturb()

    @staticmethod
    def possible(model: mujoco.MjModel, shown: np.ndarray) -> bool:
        """Whether all that is `shown` (a mask of geoms) can be flattened, and the key light is a directional one."""
        key = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_LIGHT, "key")
        if key < 0 or model.light_type[key] != mujoco.mjtLightType.mjLIGHT_DIRECTIONAL:
            return False
        return bool(np.isin(model.geom_type[shown], [int(shape) for shape in _SHAPES]).all())

    def add(
        self,
        scene: mujoco.MjvScene,
        data: mujoco.MjData,
        seen: np.ndarray,
        camera: int,
        option: mujoco.MjvOption,
    ) -> None:
        """Add the shadows of the geoms `seen` (a mask) as they stand in `data`, as `camera` sees them."""
        model = self._model
        casting = seen & self._casting & (model.geom_rgba[:, 3] >= _OPAQUE)
        direction = data.light_xdir[self._light]
        flatten = np.array(
            [
                [1.0, 0.0, -direction[0] / direction[2]],
                [0.0, 1.0, -direction[1] / direction[2]],
                [0.0, 0.0, _THICKNESS],
            ]
        )
        self._data.geom_xmat[:] = (flatten @ data.geom_xmat.reshape(-1, 3, 3)).reshape(-1, 9)
        self._data.geom_xpos[:] = data.geom_xpos @ flatten.T
        self._data.geom_xpos[:, 2] += HEIGHT_M
        self._copies.geom_group[:] = np.where(
            casting & (data.geom_xpos[:, 2] > HEIGHT_M), 0, mujoco.mjNGROUP - 1
        )
        self._copies.geom_size[:] = model.geom_size
        self._copies.geom_rgba[:, :3] = self._shade(data.cam_xmat[camera, 8]) / _GLOW
        mujoco.mjv_addGeoms(
            self._copies, self._data, option, self._perturbation, mujoco.mjtCatBit.mjCAT_ALL.value, scene
        )

    def _shade(self, downwards: float) -> np.ndarray:
        """The table's colour (RGB, 0 to 1) without the key light, seen by a camera that looks `downwards` (cosine)."""
        headlight = self._model.vis.headlight
        light = headlight.ambient + headlight.diffuse * max(0.0, downwards)
        return self._model.geom_rgba[self._table, :3] * light


def _copies_of(model: mujoco.MjModel) -> mujoco.MjModel:
    """A model of as many geoms, all fixed to the world, to be moved about by hand."""
    spec = mujoco.MjSpec()
    spec.add_material(name="glowing", emission=_GLOW, specular=0.0, shininess=0.0)
    for geom in range(model.ngeom):
        shape = mujoco.mjtGeom(int(model.geom_type[geom]))
        flat = shape in _SHAPES
        spec.worldbody.add_geom(
            type=shape if flat else mujoco.mjtGeom.mjGEOM_SPHERE,
            size=model.geom_size[geom] if flat else [0.01, 0, 0],
            material="glowing",
            rgba=[0.0, 0.0, 0.0, 1.0],
            contype=0,
            conaffinity=0,
        )
    return spec.compile()
