"""Emulated arms as LeRobot devices, ready to be opened in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blm.schemas.embodiment import Embodiment, load_embodiment
from tests.collect.robots.emulated_bus import EmulatedBus


def so100_follower(bus: EmulatedBus, folder: Path, **options: Any) -> Any:
    """LeRobot's follower on an emulated bus, calibrated and not connected."""
    from lerobot.robots.so_follower import SO100Follower, SO100FollowerConfig

    bus.write_calibration(folder / "follower.json")
    config = SO100FollowerConfig(port=bus.port, id="follower", calibration_dir=folder, **options)
    return SO100Follower(config)


def so100_leader(bus: EmulatedBus, folder: Path) -> Any:
    """LeRobot's leader on an emulated bus, calibrated and not connected."""
    from lerobot.teleoperators.so_leader import SO100Leader, SO100LeaderConfig

    bus.write_calibration(folder / "leader.json")
    return SO100Leader(SO100LeaderConfig(port=bus.port, id="leader", calibration_dir=folder))


def with_one_camera(control_rate_hz: float = 50.0, width: int = 64, height: int = 48) -> Embodiment:
    """The SO-100 with its camera 'top' alone, in the size of the emulated one."""
    so100 = load_embodiment("so100").with_image_size(width, height)
    return so100.model_copy(update={"cameras": (so100.camera("top"),), "control_rate_hz": control_rate_hz})
