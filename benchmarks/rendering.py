"""Frames per second of each headless renderer on a small table scene, with and without shadows.

Shadows, not pixels, are what a software renderer spends its time on. Run: make bench ARGS=benchmarks/rendering.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

SECONDS_PER_FIGURE = 2.0
SIZES = (128, 256)
SCENE = """
<mujoco>
  <visual><quality offsamples="0" shadowsize="1024"/></visual>
  <worldbody>
    <light pos="1 0 3" dir="-.3 0 -1"/>
    <camera name="front" pos="0 -1.2 .8" xyaxes="1 0 0 0 .55 .83"/>
    <geom type="plane" size="2 2 .1" rgba=".3 .3 .3 1"/>
    <geom type="box" pos="0 0 .2" size=".2 .2 .2" rgba="1 0 0 1"/>
    <geom type="sphere" pos=".5 .2 .1" size=".1" rgba="0 1 0 1"/>
    <geom type="capsule" pos="-.5 .2 .2" size=".05 .2" rgba="0 0 1 1"/>
  </worldbody>
</mujoco>
"""


def measure_here() -> dict:
    """Frames per second of the backend that this process chooses, keyed by size and shadows."""
    from blm.collect.sim.headless import egl_renderer, prepare_rendering

    started = time.perf_counter()
    backend = prepare_rendering()
    choice_ms = 1000 * (time.perf_counter() - started)
    import mujoco

    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    speeds = {}
    for size in SIZES:
        renderer = mujoco.Renderer(model, size, size)
        for shadows in (True, False):
            frames, started = 0, time.perf_counter()
            while time.perf_counter() - started < SECONDS_PER_FIGURE:
                renderer.update_scene(data, "front")
                renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
                renderer.render()
                frames += 1
            speeds[f"{size} {'shadows' if shadows else 'plain'}"] = frames / (time.perf_counter() - started)
        renderer.close()
    device = egl_renderer() if backend == "egl" else "software"
    return {"backend": backend, "device": device, "choice_ms": choice_ms, "speeds": speeds}


def main() -> None:
    """Measure every backend in a process of its own and print a table."""
    from blm.collect.sim.headless import BACKENDS

    print(f"{'backend':8} {'choice':>8}  {'frames/s':24} device")
    for backend in BACKENDS:
        environment = os.environ | {"BLM_RENDERER": backend}
        command = [sys.executable, __file__, "--here"]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if finished.returncode:
            print(f"{backend:8} not available here")
            continue
        result = json.loads(finished.stdout)
        speeds = ", ".join(f"{name} {speed:.0f}" for name, speed in result["speeds"].items())
        print(f"{backend:8} {result['choice_ms']:5.0f} ms  {speeds}  {result['device']}")


if __name__ == "__main__":
    if "--here" in sys.argv:
        print(json.dumps(measure_here()))
    else:
        main()
