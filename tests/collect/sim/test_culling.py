"""Leaving out what a camera cannot see changes no pixel, and leaves much out."""

from __future__ import annotations

import numpy as np
import pytest

from blm.collect.sim import render
from blm.collect.sim.environment import SimulatedEnvironment
from blm.collect.sim.render import CameraRenderer
from blm.schemas.embodiment import load_embodiment
from blm.schemas.task import load_task

POSES = 3


def poses(environment: SimulatedEnvironment, count: int):
    """Bring the scene into states all over the axes' range, and objects anywhere on the table, also below it."""
    embodiment = environment.embodiment
    generator = np.random.default_rng(7)
    for seed in range(count):
        environment.reset(seed)
        values = generator.uniform(embodiment.column("lower"), embodiment.column("upper"))
        joints = [environment.model.joint(name).qposadr[0] for name in embodiment.joints]
        environment.data.qpos[joints] = embodiment.to_model(values)
        last = environment.data.qpos[-7:]
        last[:3] = generator.uniform((-0.5, -0.4, -0.3), (0.3, 0.4, 0.4))
        render.mujoco.mj_forward(environment.model, environment.data)
        yield environment


def drawn(environment: SimulatedEnvironment, shadows: bool) -> dict[str, np.ndarray]:
    renderer = CameraRenderer(environment.model, environment.embodiment.cameras, shadows)
    try:
        return renderer.images(environment.data)
    finally:
        renderer.close()


@pytest.mark.parametrize(("robot", "shadows"), [("so100", True), ("panda", True), ("panda", False)])
def test_pictures_are_the_same_to_the_bit(robot: str, shadows: bool, monkeypatch: pytest.MonkeyPatch):
    embodiment = load_embodiment(robot).with_image_size(64, 64)
    environment = SimulatedEnvironment(embodiment, load_task("stack-cube", robot), render=False)
    left_out = []
    original = render.unseen_geoms

    def counted(*arguments):
        unseen = original(*arguments)
        left_out.append(unseen.sum() / arguments[4].sum())
        return unseen

    without_sky = []
    original_fills_view = render.fills_view

    def noted(*arguments):
        without_sky.append(original_fills_view(*arguments))
        return without_sky[-1]

    for posed in poses(environment, POSES):
        monkeypatch.setattr(render, "unseen_geoms", counted)
        monkeypatch.setattr(render, "fills_view", noted)
        groups = posed.model.geom_group.copy()
        fewer = drawn(posed, shadows)
        assert (posed.model.geom_group == groups).all()
        monkeypatch.setattr(render, "unseen_geoms", lambda model, *_: np.zeros(model.ngeom, dtype=bool))
        monkeypatch.setattr(render, "fills_view", lambda *_: False)
        everything = drawn(posed, shadows)
        for camera, picture in everything.items():
            assert np.array_equal(fewer[camera], picture), camera
    assert np.mean(left_out) > 0.3
    assert any(without_sky)
    assert not all(without_sky)


@pytest.mark.parametrize("light", ["spot", "from below"])
def test_nothing_is_left_out_under_a_light_it_does_not_understand(light: str):
    environment = SimulatedEnvironment(
        load_embodiment("so100"), load_task("push-cube", "so100"), render=False
    )
    environment.reset(0)
    model, data = environment.model, environment.data
    shown = model.geom_group < 3
    camera = model.camera("wrist").id
    assert render.unseen_geoms(model, data, camera, 1.0, shown, True).any()
    if light == "spot":
        model.light_type[0] = render.mujoco.mjtLightType.mjLIGHT_SPOT
    else:
        model.light_dir[0] = (0.0, 0.6, 0.8)
        render.mujoco.mj_forward(model, data)
    assert not render.unseen_geoms(model, data, camera, 1.0, shown, True).any()
    assert render.unseen_geoms(model, data, camera, 1.0, shown, False).any()
