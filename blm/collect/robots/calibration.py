"""How an arm that LeRobot has not calibrated yet comes to its calibration."""

from __future__ import annotations

from typing import Any, Literal


def calibration_remedy(device: Any, family: Literal["robot", "teleop"]) -> str:
    """What to type to calibrate a LeRobot device, as a sentence."""
    port = getattr(device.config, "port", None)
    options = {"type": device.config.type} | ({"port": port} if port else {}) | {"id": device.id}
    typed = " ".join(f"--{family}.{name}={value}" for name, value in options.items())
    return f"Calibrate it: lerobot-calibrate {typed}"
