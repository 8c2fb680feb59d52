"""An embodiment for a robot that only LeRobot knows, from its features and its calibration.

Axis ranges come from the calibrated travel of its motors, units from how the driver normalises them. Of other robots
no limits are known, and nothing is moved without limits: they need an embodiment in a YAML file.
"""

from __future__ import annotations

import math
import re
from typing import Any

from blm.collect.robots.calibration import calibration_remedy
from blm.collect.robots.tool_pose import NO_MODEL
from blm.schemas.embodiment import Axis, Camera, Embodiment, Gripper
from blm.schemas.errors import HardwareError

MAX_SPEED_RAD_S = 1.5
"""Of every axis: slow, since nothing is known of the arm."""

_GRIPPER = re.compile(r"gripper|jaw|finger|claw")
_REMEDY = "Describe the robot in a YAML file with 'driver: {kind}' (see docs/hardware.md): --robot FILE"


def derive_embodiment(robot: Any, kind: str, control_rate_hz: float = 30.0) -> Embodiment:
    """The embodiment that a LeRobot `Robot` implies; it need not be connected.

    Raises:
        HardwareError: it is not moved by joint positions alone, or has no calibration to take limits from.
    """
    others = [name for name in robot.action_features if not name.endswith(".pos")]
    if others:
        raise HardwareError(
            f"'{kind}' also takes {', '.join(others)}; only joint positions ('….pos') can be recorded.",
            _REMEDY.format(kind=kind),
        )
    names = [name for name in robot.action_features if name in robot.observation_features]
    gripper = next((name for name in names if _GRIPPER.search(name)), names[-1])
    axes = tuple(_axis(robot, kind, name, gripper=name == gripper) for name in names)
    chosen = axes[names.index(gripper)]
    return Embodiment(
        name=re.sub(r"[^a-z0-9]+", "_", kind.lower()).strip("_"),
        title=kind,
        model=NO_MODEL,
        driver=kind,
        control_rate_hz=control_rate_hz,
        base_position=(0.0, 0.0, 0.0),
        gripper=Gripper(open=chosen.upper, closed=chosen.lower, max_opening_m=1.0),
        axes=axes,
        cameras=(Camera(name="none", mount="unknown"),),
    )


def _axis(robot: Any, kind: str, name: str, *, gripper: bool) -> Axis:
    motor_name = name.removesuffix(".pos")
    bus = getattr(robot, "bus", None)
    motor, calibration = (getattr(bus, "motors", {}) or {}).get(motor_name), robot.calibration.get(motor_name)
    if motor is None or bus is None:
        raise HardwareError(
            f"the limits of '{name}' of '{kind}' are not known, and nothing is moved without.",
            _REMEDY.format(kind=kind),
        )
    if calibration is None:
        raise HardwareError(
            f"'{kind}' is not calibrated: {robot.calibration_fpath} does not say how far '{name}' goes.",
            calibration_remedy(robot, "robot"),
        )
    turn = bus.model_resolution_table[motor.model] - 1
    travel_rad = (calibration.range_max - calibration.range_min) / turn * 2 * math.pi
    unit, lower, upper = _range(motor.norm_mode.value, travel_rad)
    return Axis(
        name=name,
        role="gripper" if gripper else "arm",
        unit=unit,
        joint=motor_name,
        scale=travel_rad / (upper - lower),
        lower=lower,
        upper=upper,
        home=(lower + upper) / 2,
        max_velocity=MAX_SPEED_RAD_S,
        max_acceleration=10 * MAX_SPEED_RAD_S,
        max_jerk=100 * MAX_SPEED_RAD_S,
    )


def _range(mode: str, travel_rad: float) -> tuple[Any, float, float]:
    """Unit and range of an axis by LeRobot's normalisation of its motor."""
    if mode == "degrees":
        half = math.degrees(travel_rad) / 2
        return "degree", -half, half
    if mode == "range_0_100":
        return "percent", 0.0, 100.0
    return "native", -100.0, 100.0
