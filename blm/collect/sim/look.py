"""Lighting, colours and cameras of a compiled scene, drawn anew for every episode.

Only what pictures depend on is changed, never what physics depends on. Every episode begins from the scene as it was
compiled, so that its look follows from its seed alone, whatever was shown before.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

import mujoco
import numpy as np

from blm.collect.sim.colour import jittered
from blm.collect.sim.scene import LIGHT_DISTANCE_M, Scene, camera_quaternion
from blm.collect.sim.variety import Variety, stream
from blm.schemas.embodiment import Camera, Embodiment
from blm.schemas.task import TaskObject

ON_ITS_MOUNT = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])

LIGHT_TILT_DEG = (8.0, 42.0)
KEY_BRIGHTNESS = (0.36, 0.60)
AMBIENT_BRIGHTNESS = (0.28, 0.42)
FRONT_BRIGHTNESS = (0.16, 0.28)
BRIGHTEST = 1.18
"""Sum of the three above: white paper facing the light is then about to burn out, coloured things are not."""
WARMEST = (1.10, 1.0, 0.80)
COLDEST = (0.90, 0.98, 1.08)

TABLE_SATURATION = (0.0, 0.22)
TABLE_VALUE = (0.42, 0.80)
SKY_GAIN = (0.55, 1.10)
ROBOT_GAIN = (0.85, 1.12)
ROBOT_TINT = 0.04

FIXED_POSITION_M = 0.015
FIXED_AIM_M = 0.010
FIXED_FOV_DEG = 2.0
MOUNTED_POSITION_M = 0.003
MOUNTED_ANGLE_DEG = 1.5


class SceneLook:
    """Varies the look of one scene, by its seed; keeps the compiled look to come back to."""

    def __init__(self, scene: Scene, embodiment: Embodiment, variety: Variety) -> None:
        self._scene = scene
        self._model = scene.model
        self._cameras = embodiment.cameras
        self._variety = variety
        model = scene.model
        self._sky = int(np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)[0])
        varied = (
            model.geom_rgba,
            model.mat_rgba,
            model.tex_data,
            model.light_pos,
            model.light_dir,
            model.light_diffuse,
            model.vis.headlight.ambient,
            model.vis.headlight.diffuse,
            model.cam_pos,
            model.cam_quat,
            model.cam_fovy,
        )
        self._compiled = [(values, values.copy()) for values in varied]
        self._mounted: dict[str, np.ndarray] = {}

    @property
    def changes_textures(self) -> bool:
        return self._variety.colours

    def apply(self, seed: int, things: Mapping[str, TaskObject]) -> None:
        """Give the scene the look of an episode in which `things` (task objects and distractors) are seen."""
        for values, compiled in self._compiled:
            values[:] = compiled
        self._mounted = {}
        for name in self._scene.distractors.keys() & things.keys():
            self._paint(name, np.array(things[name].colour))
        if self._variety.lighting:
            self._vary_lighting(stream(seed, "lighting"))
        if self._variety.colours:
            self._vary_colours(stream(seed, "colours"), things)
        if self._variety.cameras:
            generator = stream(seed, "cameras")
            for camera in self._cameras:
                self._vary_camera(camera, generator)

    def mounted_pose(self, camera: str) -> np.ndarray:
        """A mounted camera's pose (7,) in its mount's frame: metres, quaternion wxyz."""
        return self._mounted.get(camera, ON_ITS_MOUNT)

    def _vary_lighting(self, generator: np.random.Generator) -> None:
        """Turn the key light about the same aim; change brightness and warmth, and the light from all around."""
        model = self._model
        light = model.light("key").id
        tilt = np.deg2rad(generator.uniform(*LIGHT_TILT_DEG))
        azimuth = generator.uniform(-np.pi, np.pi)
        direction = np.array([np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), -np.cos(tilt)])
        model.light_pos[light] += LIGHT_DISTANCE_M * (model.light_dir[light] - direction)
        model.light_dir[light] = direction
        brightness = np.array(
            [generator.uniform(*span) for span in (KEY_BRIGHTNESS, AMBIENT_BRIGHTNESS, FRONT_BRIGHTNESS)]
        )
        brightness *= min(1.0, BRIGHTEST / brightness.sum())
        share = generator.uniform()
        warmth = share * np.array(WARMEST) + (1 - share) * np.array(COLDEST)
        model.light_diffuse[light] = brightness[0] * warmth
        model.vis.headlight.ambient[:] = brightness[1]
        model.vis.headlight.diffuse[:] = brightness[2]

    def _vary_colours(self, generator: np.random.Generator, things: Mapping[str, TaskObject]) -> None:
        """A table and a sky of any muted colour; the robot lighter or darker; objects within their colour's name."""
        model, scene = self._model, self._scene
        table = colorsys.hsv_to_rgb(
            generator.uniform(), generator.uniform(*TABLE_SATURATION), generator.uniform(*TABLE_VALUE)
        )
        model.geom_rgba[list(scene.table_geoms), :3] = table
        start = int(model.tex_adr[self._sky])
        size = int(model.tex_height[self._sky] * model.tex_width[self._sky] * 3)
        sky = model.tex_data[start : start + size].reshape(-1, 3)
        sky[:] = np.clip(sky * generator.uniform(*SKY_GAIN, size=3), 0, 255).astype(np.uint8)
        tint = generator.uniform(*ROBOT_GAIN) * generator.uniform(1 - ROBOT_TINT, 1 + ROBOT_TINT, size=3)
        robot = sorted(scene.robot_geoms)
        model.geom_rgba[robot, :3] = np.clip(model.geom_rgba[robot, :3] * tint, 0.0, 1.0)
        materials = sorted({int(model.geom_matid[geom]) for geom in robot} - {-1})
        model.mat_rgba[materials, :3] = np.clip(model.mat_rgba[materials, :3] * tint, 0.0, 1.0)
        for name, thing in things.items():
            self._paint(name, jittered(thing.colour, generator))

    def _paint(self, name: str, colour: np.ndarray) -> None:
        """Give a thing a colour (4,), keeping the shades of its parts."""
        geoms = sorted(self._scene.thing(name).geoms)
        rgba = self._model.geom_rgba
        brightest = rgba[geoms, :3].max()
        shades = rgba[geoms, :3].max(axis=1) / brightest
        rgba[geoms] = np.column_stack([np.outer(shades, colour[:3]), np.full(len(geoms), colour[3])])

    def _vary_camera(self, camera: Camera, generator: np.random.Generator) -> None:
        """Move a fixed camera, its aim and its lens a little; a mounted one as if screwed on a little askew."""
        model = self._model
        index = model.camera(camera.name).id
        if camera.mount is None:
            position = np.array(camera.position) + generator.uniform(-FIXED_POSITION_M, FIXED_POSITION_M, 3)
            aim = np.array(camera.look_at) + generator.uniform(-FIXED_AIM_M, FIXED_AIM_M, 3)
            model.cam_pos[index], model.cam_quat[index] = position, camera_quaternion(position, aim)
            model.cam_fovy[index] += generator.uniform(-FIXED_FOV_DEG, FIXED_FOV_DEG)
            return
        shift = generator.uniform(-MOUNTED_POSITION_M, MOUNTED_POSITION_M, 3)
        limit = np.deg2rad(MOUNTED_ANGLE_DEG) / np.sqrt(3)
        turn = generator.uniform(-limit, limit, 3)
        askew, position, quaternion = np.array([1.0, 0.0, 0.0, 0.0]), np.empty(3), np.empty(4)
        mujoco.mju_quatIntegrate(askew, turn, 1.0)
        mount = model.site(camera.mount)
        mujoco.mju_mulPose(position, quaternion, mount.pos, mount.quat, shift, askew)
        model.cam_pos[index], model.cam_quat[index] = position, quaternion
        self._mounted[camera.name] = np.concatenate([shift, askew])
