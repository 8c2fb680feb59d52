"""Draw the pictures of the documentation: `make pictures`.

docs/pictures/robots.png   the five robots, each with a cube just picked up
docs/pictures/cameras.png  what each robot's two cameras see at home and while it grasps

The same models give the same pictures on any machine with the same renderer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from blm.collect.planning.planner import PlannerAgent
from blm.collect.rollout import run_episode
from blm.collect.sim.environment import SimulatedEnvironment, Snapshot
from blm.collect.sim.headless import prepare_rendering
from blm.collect.sim.render import CameraRenderer
from blm.schemas.embodiment import load_embodiment
from blm.schemas.rollout import EpisodeEnd, EpisodeStart, Step
from blm.schemas.task import load_task

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
ROBOTS = ("so100", "widowxai", "xarm6", "xarm7", "panda")
TASK = "pick-cube"
SEED = 6
PANEL = (420, 560)
FINER = 2
"""Pictures are rendered this much larger and shrunk, for smooth edges without multisampling."""
VIEW_SIZE = 224
AZIMUTH_DEG, ELEVATION_DEG = 220.0, -19.0
FILLED = 0.84
"""Share of the panel's width or height that the robot takes up."""
BACKGROUND, INK = (255, 255, 255), (40, 44, 52)
GAP = 8


@dataclass
class Moments:
    """A subscriber that remembers the physics at the start and at the end of every subtask."""

    world: SimulatedEnvironment

    def __post_init__(self) -> None:
        self.at: dict[str, Snapshot] = {}

    def on_start(self, start: EpisodeStart) -> None:
        self.at = {"home": self.world.snapshot()}

    def on_step(self, step: Step) -> None:
        self.at[step.subtask] = self.world.snapshot()

    def on_end(self, end: EpisodeEnd) -> None:
        if not end.success:
            raise RuntimeError(f"{self.world.embodiment.name}: {end.reason}")


def main() -> None:
    prepare_rendering()
    FOLDER.mkdir(parents=True, exist_ok=True)
    panels, views = [], []
    for name in ROBOTS:
        embodiment = load_embodiment(name).with_image_size(VIEW_SIZE * FINER, VIEW_SIZE * FINER)
        world = SimulatedEnvironment(embodiment, load_task(TASK, name), render=False)
        moments = Moments(world)
        run_episode(world, PlannerAgent(world), [moments], SEED)
        _finer_look(world.model)
        panels.append((embodiment.title, _portrait(world, moments.at["lift"])))
        views.append((embodiment.title, _views(world, moments, ("home", "grasp"))))
    _save(_row_of_panels(panels), "robots.png")
    _save(
        _table_of_views(views, ("top, at home", "wrist, at home", "top, grasping", "wrist, grasping")),
        "cameras.png",
    )


def _finer_look(model: mujoco.MjModel) -> None:
    """More light and rounder things than are affordable while recording."""
    model.vis.quality.shadowsize = 4096
    model.vis.map.shadowclip *= 1.4
    model.vis.quality.numslices = 48
    model.vis.quality.numstacks = 24


def _portrait(world: SimulatedEnvironment, moment: Snapshot) -> Image.Image:
    """The whole robot from the front left, filling the panel; the table fills what lies around it."""
    world.restore(moment)
    width, height = PANEL[0] * FINER, PANEL[1] * FINER
    model = world.model
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    ambient, diffuse = model.vis.headlight.ambient.copy(), model.vis.headlight.diffuse.copy()
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.38, 0.30
    renderer = mujoco.Renderer(model, height=height, width=width)
    option = mujoco.MjvOption()
    option.sitegroup[:] = 0
    option.geomgroup[:] = [1, 1, 1, 0, 0, 0]
    renderer.update_scene(world.data, _framing(world, width / height), option)
    picture = _shrunk(renderer.render())
    renderer.close()
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = ambient, diffuse
    return picture


def _framing(world: SimulatedEnvironment, aspect: float) -> mujoco.MjvCamera:
    """A free camera that looks at the middle of the robot from where it fits into the picture."""
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation = AZIMUTH_DEG, ELEVATION_DEG
    azimuth, elevation = np.radians([AZIMUTH_DEG, ELEVATION_DEG])
    forward = np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    axes = np.stack([right, np.cross(right, forward), forward])
    geoms = _robot_geoms(world)
    points, radii = world.data.geom_xpos[geoms] @ axes.T, 0.8 * world.model.geom_rbound[geoms][:, None]
    half_angle = np.tan(np.radians(world.model.vis.global_.fovy) / 2)
    aim, distance = points.mean(axis=0), 1.0
    for _ in range(10):
        seen, depth = points[:, :2] - aim[:2], points[:, 2:] - aim[2] + distance
        low, high = ((seen - radii) / depth).min(axis=0), ((seen + radii) / depth).max(axis=0)
        aim[:2] += (low + high) / 2 * distance
        half_width, half_height = (high - low) / 2
        distance *= max(half_width / aspect, half_height) / half_angle / FILLED
    camera.lookat[:], camera.distance = aim @ axes, distance
    return camera


def _robot_geoms(world: SimulatedEnvironment) -> list[int]:
    model = world.model
    bodies = {model.body("base").id}
    for body in range(1, model.nbody):
        if int(model.body_parentid[body]) in bodies:
            bodies.add(body)
    return [geom for geom in range(model.ngeom) if int(model.geom_bodyid[geom]) in bodies]


def _views(world: SimulatedEnvironment, moments: Moments, names: Sequence[str]) -> list[Image.Image]:
    """Each camera's picture, moment by moment."""
    renderer = CameraRenderer(world.model, world.embodiment.cameras)
    pictures = []
    for name in names:
        world.restore(moments.at[name])
        pictures += [_shrunk(image) for image in renderer.images(world.data).values()]
    renderer.close()
    return pictures


def _shrunk(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    size = (picture.width // FINER, picture.height // FINER)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _row_of_panels(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    width, height = PANEL
    label = 44
    sheet = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height + label), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (title, picture) in enumerate(panels):
        left = index * (width + GAP)
        sheet.paste(picture, (left, 0))
        draw.text((left + width / 2, height + label / 2), title, INK, ImageFont.load_default(24), anchor="mm")
    return sheet


def _table_of_views(rows: Sequence[tuple[str, list[Image.Image]]], columns: Sequence[str]) -> Image.Image:
    margin, header, cell = 132, 34, VIEW_SIZE + GAP
    sheet = Image.new("RGB", (margin + len(columns) * cell, header + len(rows) * cell), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    for column, text in enumerate(columns):
        draw.text((margin + (column + 0.5) * cell, header / 2), text, INK, font, anchor="mm")
    for row, (title, pictures) in enumerate(rows):
        middle = header + (row + 0.5) * cell
        draw.multiline_text(
            (margin / 2, middle), title.replace(" ", "\n", 1), INK, font, anchor="mm", align="center"
        )
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (margin + column * cell + GAP // 2, header + row * cell + GAP // 2))
    return sheet


def _save(picture: Image.Image, name: str) -> None:
    """A palette of 256 colours keeps the file small, and shows no difference on flat surfaces."""
    path = FOLDER / name
    picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    print(
        f"{path.relative_to(FOLDER.parents[1])}  {picture.width}×{picture.height}  {path.stat().st_size // 1000} kB"
    )


if __name__ == "__main__":
    main()
