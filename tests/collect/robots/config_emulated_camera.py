"""Configuration of the emulated camera; LeRobot finds the device by the names of class and module."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.cameras import CameraConfig


@CameraConfig.register_subclass("emulated")
@dataclass(kw_only=True)
class EmulatedCameraConfig(CameraConfig):
    source: str = "moving"
