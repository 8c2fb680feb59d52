"""Embodiments as data: axes with units and limits, cameras, rates, the simulator model and the hardware driver.

An axis has two coordinates. The *axis value* is what datasets and policies see, in `unit`, as the stock LeRobot
driver of that robot reports it. The *model coordinate* is what physics and planning use: radians, or metres for a
sliding finger. They are tied by `model = zero + scale * value`.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from blm.schemas.errors import ConfigError
from blm.schemas.registry import named_files, resolve_file
from blm.schemas.yaml_model import FrozenModel, read_yaml, validate

Vector3 = tuple[float, float, float]


class Axis(FrozenModel):
    """One controlled axis."""

    name: str = Field(pattern=r"^[a-z0-9_]+\.pos$", description="as in the dataset, e.g. 'shoulder_pan.pos'")
    role: Literal["arm", "gripper"] = "arm"
    unit: Literal["degree", "percent", "radian", "fraction", "native"]
    joint: str = Field(description="name of the joint and actuator in the simulator model")
    zero: float = Field(default=0.0, description="model coordinate at axis value 0, rad or m")
    scale: float = Field(description="model units (rad or m) per axis unit")
    lower: float = Field(description="lowest commanded value, in `unit`")
    upper: float = Field(description="highest commanded value, in `unit`")
    home: float = Field(description="value in the ready pose, in `unit`")
    max_velocity: float = Field(gt=0, description="model units per second")
    max_acceleration: float = Field(gt=0, description="model units per second squared")
    max_jerk: float = Field(gt=0, description="model units per second cubed")
    max_torque: float | None = Field(
        default=None, gt=0, description="at the joint, N·m (N where it slides), as published; None if unknown"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError(f"lower ({self.lower}) must be below upper ({self.upper})")
        if not self.lower <= self.home <= self.upper:
            raise ValueError(f"home ({self.home}) must lie within {self.lower}..{self.upper}")
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        return self


class Camera(FrozenModel):
    """A pinhole camera: fixed in the world, or riding on a body of the robot.

    A fixed camera stands at `position` (metres, world frame) and looks at `look_at`. A mounted one takes the pose of
    the model's site `mount` (it looks along the site's −z, image up along +y).
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    width: int = Field(default=256, ge=32, le=4096)
    height: int = Field(default=256, ge=32, le=4096)
    vertical_fov_deg: float = Field(default=45.0, gt=1, lt=170)
    position: Vector3 | None = None
    look_at: Vector3 | None = None
    mount: str | None = None

    @model_validator(mode="after")
    def _placed(self) -> Self:
        fixed = self.position is not None and self.look_at is not None
        if fixed == (self.mount is not None):
            raise ValueError("give either position and look_at (fixed), or mount (on the robot)")
        return self


class Gripper(FrozenModel):
    """The gripper axis' meaning: values in the axis' unit, opening in metres."""

    open: float
    closed: float
    max_opening_m: float = Field(gt=0)


class Embodiment(FrozenModel):
    """One robot, complete enough to simulate it, drive it, record it and train on it."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    model: str = Field(description="name of a built-in model, or an MJCF file beside this one")
    menagerie: str | None = Field(default=None, description="folder in MuJoCo Menagerie")
    driver: str | None = Field(default=None, description="LeRobot robot type, e.g. 'so100_follower'")
    driver_package: str | None = Field(default=None, description="what to install for `driver`")
    control_rate_hz: float = Field(default=20.0, gt=0, le=1000)
    base_position: Vector3 = Field(description="of the base, metres, in the workspace (world) frame")
    base_yaw_deg: float = 0.0
    payload_kg: float | None = Field(default=None, gt=0, description="as published; None if unknown")
    gripper: Gripper
    axes: tuple[Axis, ...] = Field(min_length=2)
    cameras: tuple[Camera, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [axis.name for axis in self.axes]
        if len(set(names)) != len(names):
            raise ValueError(f"axis names repeat: {names}")
        if [axis.role for axis in self.axes].count("gripper") != 1:
            raise ValueError("exactly one axis must have role 'gripper'")
        camera_names = [camera.name for camera in self.cameras]
        if len(set(camera_names)) != len(camera_names):
            raise ValueError(f"camera names repeat: {camera_names}")
        return self

    @cached_property
    def axis_names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    @cached_property
    def joints(self) -> tuple[str, ...]:
        """Model joint (and actuator) names in axis order."""
        return tuple(axis.joint for axis in self.axes)

    @cached_property
    def gripper_index(self) -> int:
        return next(i for i, axis in enumerate(self.axes) if axis.role == "gripper")

    @cached_property
    def arm_indices(self) -> tuple[int, ...]:
        return tuple(i for i, axis in enumerate(self.axes) if axis.role == "arm")

    def camera(self, name: str) -> Camera:
        """Return the named camera; raises UnknownNameError listing those there are."""
        from blm.schemas.errors import UnknownNameError

        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise UnknownNameError("camera", name, [camera.name for camera in self.cameras])

    def with_image_size(self, width: int, height: int) -> Embodiment:
        """A copy whose cameras all have this image size, pixels."""
        cameras = tuple(
            camera.model_copy(update={"width": width, "height": height}) for camera in self.cameras
        )
        return self.model_copy(update={"cameras": cameras})

    def column(self, field: str) -> np.ndarray:
        """One numeric field of every axis, shape (A,), float64: e.g. 'lower', 'home', 'max_velocity'.

        What an axis leaves out is not a number.
        """
        return np.array([getattr(axis, field) for axis in self.axes], dtype=np.float64)

    def torque_limits(self) -> np.ndarray:
        """Largest torque at every joint, shape (A,), N·m (N where it slides); infinite where none is known."""
        limits = self.column("max_torque")
        return np.where(np.isnan(limits), np.inf, limits)

    def to_model(self, values: np.ndarray) -> np.ndarray:
        """Axis values (..., A) in axis units → model coordinates (..., A) in rad or m."""
        return self.column("zero") + self.column("scale") * np.asarray(values, dtype=np.float64)

    def from_model(self, coordinates: np.ndarray) -> np.ndarray:
        """Model coordinates (..., A) in rad or m → axis values (..., A) in axis units."""
        return (np.asarray(coordinates, dtype=np.float64) - self.column("zero")) / self.column("scale")

    def clip(self, values: np.ndarray) -> np.ndarray:
        """Axis values (..., A) limited to each axis' range."""
        return np.clip(values, self.column("lower"), self.column("upper"))


ENTRY_POINTS = "blm.embodiments"


def embodiment_names() -> tuple[str, ...]:
    """Every embodiment known by name: built in, or from an installed package's `blm.embodiments` entry point."""
    return tuple(sorted(named_files("embodiments", ENTRY_POINTS)))


@lru_cache(maxsize=64)
def load_embodiment(name: str) -> Embodiment:
    """Return a known embodiment, or read the YAML file `name` ends in.

    Raises:
        UnknownNameError: no such name.
        ConfigError: the file is wrong; names the file and the key.
    """
    path: Path = resolve_file("embodiment", name, "embodiments", ENTRY_POINTS)
    content = read_yaml(path)
    model = content.get("model")
    if isinstance(model, str) and model.endswith(".xml"):
        content["model"] = str(_model_file(path, Path(model)))
    return validate(Embodiment, content, str(path))


def _model_file(embodiment: Path, model: Path) -> Path:
    """An MJCF file named in an embodiment's file: beside that file unless absolute."""
    file = embodiment.absolute().parent / model
    if not file.is_file():
        raise ConfigError(
            f"{embodiment}: key 'model': {file} does not exist.",
            "Name a file beside this one, or its full path.",
        )
    return file
