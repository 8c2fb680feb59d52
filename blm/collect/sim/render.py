"""Render an embodiment's cameras from a simulated scene."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from blm.collect.sim.culling import fills_view, unseen_geoms
from blm.collect.sim.flat_shadows import FlatShadows
from blm.collect.sim.headless import prepare_rendering
from blm.collect.sim.scene import HIDDEN_GROUP
from blm.schemas.embodiment import Camera
from blm.schemas.errors import SimulationError


class CameraRenderer:
    """Renders named cameras of a model; one graphics context per image size, made at the first picture.

    Shadows are flat copies on the table where every geom allows it, else (vendor meshes) they come from a shadow map,
    which triples a picture's cost.
    """

    def __init__(self, model: mujoco.MjModel, cameras: Sequence[Camera], shadows: bool = True) -> None:
        self._model = model
        self._shadows = shadows
        self._cameras = tuple(cameras)
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0
        self._option.geomgroup[:] = [1, 1, 1, 0, 0, 0]
        self._table = model.geom("table").id
        self._shown = self._option.geomgroup[model.geom_group].astype(bool)
        flat = shadows and FlatShadows.possible(model, self._shown)
        self._flat_shadows = FlatShadows(model, self._table) if flat else None
        self._shadow_map = shadows and not flat
        self._outdated: set[tuple[int, int]] = set()

    def images(self, data: mujoco.MjData) -> dict[str, np.ndarray]:
        """Camera name → (height, width, 3) uint8 RGB of the scene as it is in `data`.

        Raises:
            SimulationError: this machine offers no way to render.
        """
        pictures = {}
        for camera in self._cameras:
            renderer = self._renderer(camera.height, camera.width)
            self._update_scene(renderer, data, camera)
            if self._shadow_map:
                self._keep_table_out_of_shadow_map(renderer.scene)
            pictures[camera.name] = renderer.render()
        return pictures

    def textures_changed(self) -> None:
        """Take over the model's textures anew before the next picture."""
        self._outdated = set(self._renderers)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _update_scene(self, renderer: mujoco.Renderer, data: mujoco.MjData, camera: Camera) -> None:
        """Fill the renderer's scene with what `camera` needs; what it does not is hidden by its group meanwhile."""
        model, groups = self._model, self._model.geom_group
        index, aspect = model.camera(camera.name).id, camera.width / camera.height
        unseen = unseen_geoms(model, data, index, aspect, self._shown, self._shadows)
        before = groups[unseen]
        groups[unseen] = HIDDEN_GROUP
        try:
            renderer.update_scene(data, camera=camera.name, scene_option=self._option)
        finally:
            groups[unseen] = before
        no_sky = fills_view(model, data, index, aspect, self._table)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = not no_sky
        if self._flat_shadows is not None:
            self._flat_shadows.add(renderer.scene, data, self._shown & ~unseen, index, self._option)

    def _keep_table_out_of_shadow_map(self, scene: mujoco.MjvScene) -> None:
        """The table has nothing below it to shade, yet would fill the shadow map: a third of a picture's cost.

        Decoration casts no shadow and still receives it.
        """
        for geom in scene.geoms[: scene.ngeom]:
            if geom.objid == self._table and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                geom.category = mujoco.mjtCatBit.mjCAT_DECOR
                return

    def _renderer(self, height: int, width: int) -> mujoco.Renderer:
        size = (height, width)
        if size not in self._renderers:
            prepare_rendering()
            buffer = self._model.vis.global_
            buffer.offheight, buffer.offwidth = max(height, buffer.offheight), max(width, buffer.offwidth)
            try:
                renderer = mujoco.Renderer(self._model, height=height, width=width)
            except Exception as error:
                raise SimulationError(
                    f"no picture can be rendered here: {error}",
                    "Install EGL or OSMesa (Debian: libegl1 libgl1-mesa-dri), or `pip install 'blm[sim]'`.",
                ) from error
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._shadow_map
            self._renderers[size] = renderer
        if size in self._outdated:
            self._outdated.discard(size)
            _upload_textures(self._renderers[size])
        return self._renderers[size]


def _upload_textures(renderer: mujoco.Renderer) -> None:
    """3 ms; a new renderer, the only way that does not reach into this one, takes 110 ms."""
    if renderer._gl_context:
        renderer._gl_context.make_current()
    for texture in range(renderer.model.ntex):
        mujoco.mjr_uploadTexture(renderer.model, renderer._mjr_context, texture)
