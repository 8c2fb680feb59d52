"""Each backend draws a red box in a process of its own; the choice among them is made by what works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from blm.collect.sim import headless
from blm.schemas.errors import SimulationError, UnknownNameError

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems render through their window system"
)

RENDERER_VARIABLES = ("BLM_RENDERER", "MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")

DRAW_A_RED_BOX = """
import json, os, sys, time
if "mujoco-first" in sys.argv:
    import mujoco
from blm.collect.sim.headless import prepare_rendering
backend = prepare_rendering()
started = time.perf_counter()
again = prepare_rendering()
second_call_s = time.perf_counter() - started
import mujoco
model = mujoco.MjModel.from_xml_string('''
<mujoco>
  <visual><headlight ambient=".8 .8 .8" diffuse="0 0 0" specular="0 0 0"/></visual>
  <worldbody>
    <camera name="above" pos="0 0 1" xyaxes="1 0 0 0 1 0"/>
    <geom type="plane" size="1 1 .1" rgba="0 0 1 1"/>
    <geom type="box" size=".1 .1 .1" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>''')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 64, 64)
renderer.update_scene(data, "above")
image = renderer.render()
renderer.close()
print(json.dumps({"backend": backend, "again": again, "second_call_s": second_call_s, "image": image.tolist(),
                  "mujoco_gl": os.environ.get("MUJOCO_GL")}))
"""


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in RENDERER_VARIABLES} | variables


def draw(*arguments: str, **variables: str) -> dict:
    finished = subprocess.run(
        [sys.executable, "-c", DRAW_A_RED_BOX, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def assert_red_box_on_blue(image: list) -> None:
    assert image[32][32] == [204, 0, 0]
    assert image[2][2] == [0, 0, 204]


def available(backend: str) -> bool:
    return headless._WORKS[backend]()


@pytest.mark.parametrize("backend", headless.BACKENDS)
def test_each_forced_backend_draws(backend: str) -> None:
    if not available(backend):
        pytest.skip(f"{backend} is not installed on this machine")
    drawn = draw(BLM_RENDERER=backend)
    assert drawn["backend"] == drawn["again"] == backend
    assert drawn["mujoco_gl"] == ("egl" if backend == "egl" else "osmesa")
    assert drawn["second_call_s"] < 0.05
    assert_red_box_on_blue(drawn["image"])


def test_some_backend_is_available_after_plain_setup() -> None:
    assert any(available(backend) for backend in headless.BACKENDS)


def test_the_choice_can_be_made_after_mujoco_was_imported() -> None:
    assert_red_box_on_blue(draw("mujoco-first")["image"])


def test_mujoco_gl_of_the_user_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLM_RENDERER", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    headless._prepare.cache_clear()
    assert headless.prepare_rendering() == "glfw"
    assert os.environ["MUJOCO_GL"] == "glfw"
    headless._prepare.cache_clear()


def test_mujoco_gl_osmesa_falls_back_to_the_wheel() -> None:
    if available("osmesa") or not available("wheel"):
        pytest.skip("needs a machine with the wheel's OSMesa and none of the system's")
    drawn = draw(MUJOCO_GL="osmesa")
    assert drawn["backend"] == "wheel"
    assert_red_box_on_blue(drawn["image"])


def test_order_is_by_what_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headless, "_WORKS", {"egl": bool, "osmesa": bool, "wheel": lambda: True})
    assert headless._first_working(headless.BACKENDS, "something") == "wheel"
    monkeypatch.setattr(
        headless, "_WORKS", {"egl": lambda: True, "osmesa": lambda: True, "wheel": lambda: True}
    )
    assert headless._first_working(headless.BACKENDS, "something") == "egl"


def test_no_backend_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headless, "_WORKS", dict.fromkeys(headless.BACKENDS, bool))
    with pytest.raises(SimulationError, match="lavavu-osmesa"):
        headless._first_working(headless.BACKENDS, "A renderer")


def test_unknown_backend_names_those_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLM_RENDERER", "elg")
    with pytest.raises(UnknownNameError, match=r"egl, osmesa, wheel.*'egl'"):
        headless.prepare_rendering()


def test_a_broken_driver_is_not_mistaken_for_a_working_one() -> None:
    """Mesa finds no driver in an empty folder, so a probe that only looks for libEGL would be wrong."""
    code = "from blm.collect.sim.headless import egl_renderer; print(egl_renderer())"
    started = time.perf_counter()
    probed = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(__EGL_VENDOR_LIBRARY_DIRS="/nonexistent"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert probed.stdout.strip() == "None"
    assert time.perf_counter() - started < headless.PROBE_TIMEOUT_S
