"""An emulated SO-100 with a camera, ready to be driven."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.collect.robots.emulated_bus import EmulatedBus

pytest.importorskip("lerobot")


@pytest.fixture
def bus() -> Iterator[EmulatedBus]:
    with EmulatedBus() as emulated:
        yield emulated


@pytest.fixture
def open_environment(bus: EmulatedBus, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a HardwareEnvironment on `bus` with an emulated camera 'top'; closed when the test ends."""
    from blm.collect.robots.hardware import HardwareEnvironment
    from blm.collect.safety import SafetyConfig
    from tests.collect.robots.arms import so100_follower, with_one_camera
    from tests.collect.robots.config_emulated_camera import EmulatedCameraConfig
    from tests.collect.robots.emulated_camera import plug_in

    plug_in()
    with ExitStack() as stack:

        def opened(**options: Any) -> HardwareEnvironment:
            camera = EmulatedCameraConfig(width=64, height=48, fps=30)
            robot = so100_follower(bus, tmp_path, cameras={"top": camera})
            embodiment = with_one_camera(options.pop("control_rate_hz", 50.0))
            settings = {
                "start": "stay",
                "task": "pick-cube",
                "safety": SafetyConfig(ramp_share=0.9),
            } | options
            environment = HardwareEnvironment(embodiment, robot=robot, **settings)
            stack.callback(environment.close)
            return environment

        yield opened
