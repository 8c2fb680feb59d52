"""One LeRobot robot as an arm: axis values in axis order, from several threads, with errors that name the part."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from blm.collect.robots.calibration import calibration_remedy
from blm.collect.robots.servo_health import HealthConfig, ServoHealth
from blm.collect.robots.servo_line import ServoLine
from blm.schemas.embodiment import Embodiment
from blm.schemas.errors import HardwareError


@dataclass(frozen=True)
class AxisLink:
    """How a driver's values become an axis value: `axis = offset + gain × driver`, under the driver's own keys."""

    action: str
    observation: str
    gain: float = 1.0
    offset: float = 0.0

    @classmethod
    def same(cls, name: str) -> AxisLink:
        """The driver has the axis under its own name and unit."""
        return cls(name, name)


@dataclass(frozen=True)
class Reading:
    """What the robot measured: axis values (A,), camera → (height, width, 3) uint8.

    `time_s` is the time.monotonic() of the state, `image_times_s` that of each picture.
    """

    state: np.ndarray
    images: Mapping[str, np.ndarray]
    time_s: float
    image_times_s: Mapping[str, float]


class LeRobotArm:
    """Drives any LeRobot `Robot` whose float features are the axes of `embodiment`.

    Calls may come from any thread; one talks to the robot at a time. Robots on a Feetech bus are guarded by a
    `ServoLine`, and their status bits and temperatures are watched.

    Attributes:
        line: the guard, None for other robots.
        held_itself: the arm was holding itself up (torque on) when it was connected.
        on_trouble: called as soon as something fails, before it is found out what; asking around takes a while.
        repeated_frames: camera name → pictures that were the same as at the tick before.
    """

    def __init__(
        self,
        robot: Any,
        embodiment: Embodiment,
        links: Mapping[str, AxisLink] | None = None,
        *,
        notify: Callable[[str], None],
        health: HealthConfig | None = None,
    ) -> None:
        """Connects nothing yet. `links` are by axis name; axes without one have the driver's own name and unit.

        Raises:
            HardwareError: the robot lacks an axis or a camera of the embodiment.
        """
        self.robot = robot
        self.line = line_of(robot)
        self.held_itself = False
        self.on_trouble: Callable[[], None] | None = None
        self.repeated_frames: dict[str, int] = {}
        self._embodiment = embodiment
        self._links = [(links or {}).get(name) or AxisLink.same(name) for name in embodiment.axis_names]
        self._lock = threading.RLock()
        self._health = ServoHealth(notify, health)
        self._next_temperature_s = 0.0
        self._in_trouble = False
        self._last_images: dict[str, np.ndarray] = {}
        self._last_times: dict[str, float] = {}
        self._check_features()

    def connect(self) -> None:
        """Open the robot's port and cameras; asks for a calibration where a person can answer.

        Raises:
            HardwareError: a port, servo, camera or calibration is missing; names it.
        """
        if self.robot.is_connected:
            return
        try:
            self._keep_torque()
            self.robot.connect(calibrate=sys.stdin.isatty())
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            problem = self._explain(error, "connect")
            self._hang_up()
            raise problem from error
        if not self.robot.is_calibrated:
            self._hang_up()
            raise self._uncalibrated()

    def read(self) -> Reading:
        """Measure the axes and take the newest picture of each camera.

        Raises:
            HardwareError: a servo or camera does not answer, reports a lasting fault, or is too hot; names it.
        """
        with self._lock:
            now = time.monotonic()
            stamps = self._stamps()
            try:
                observed = self.robot.get_observation()
                self._watch_temperatures(now)
            except (OSError, RuntimeError, TimeoutError) as error:
                raise self._explain(error, "observe") from error
            if self.line is not None:
                self._health.check_status(self.line.status, now)
        raw = np.array([observed[link.observation] for link in self._links], dtype=np.float64)
        state = np.array(
            [link.offset + link.gain * value for link, value in zip(self._links, raw, strict=True)]
        )
        images = self._pictures(observed)
        return Reading(state, images, now, self._times_of(images, stamps, now))

    def send(self, values: np.ndarray) -> np.ndarray:
        """Send axis targets (A,); returns what the driver says it sent (A,), axis units.

        Raises:
            HardwareError: the robot cannot be reached.
        """
        action = {
            link.action: float((value - link.offset) / link.gain)
            for link, value in zip(self._links, values, strict=True)
        }
        with self._lock:
            try:
                sent = self.robot.send_action(action) or action
            except (OSError, RuntimeError) as error:
                raise self._explain(error, "act") from error
        return np.array(
            [link.offset + link.gain * sent.get(link.action, action[link.action]) for link in self._links]
        )

    def exclusively(self) -> threading.RLock:
        """The lock to hold while reading and sending belong together."""
        return self._lock

    def let_go(self) -> bool:
        """Torque off at once, where the driver knows how; whether it did."""
        bus = getattr(self.robot, "bus", None)
        if bus is None or not hasattr(bus, "disable_torque"):
            return False
        with self._lock:
            for motor in bus.motors:
                with contextlib.suppress(OSError, RuntimeError):
                    bus.disable_torque(motor)
        return True

    def disconnect(self, *, torque_off: bool) -> None:
        """Close port and cameras; a driver that has the choice keeps the torque on unless it is asked off."""
        with self._lock:
            if hasattr(self.robot.config, "disable_torque_on_disconnect"):
                self.robot.config.disable_torque_on_disconnect = False
            if torque_off:
                self.let_go()
            self._hang_up()

    def _check_features(self) -> None:
        observed, acted = self.robot.observation_features, self.robot.action_features
        missing = [link.action for link in self._links if link.action not in acted]
        missing += [link.observation for link in self._links if link.observation not in observed]
        if missing:
            raise HardwareError(
                f"'{self._embodiment.name}' needs {', '.join(dict.fromkeys(missing))} of the robot "
                f"'{self.robot.name}', which has: {', '.join(acted)}.",
                "Choose the robot's own embodiment, or describe it in a YAML file.",
            )
        cameras = [name for name, kind in observed.items() if isinstance(kind, tuple)]
        absent = [camera.name for camera in self._embodiment.cameras if camera.name not in cameras]
        if absent:
            raise HardwareError(
                f"camera {', '.join(absent)} is not attached; there are: {', '.join(cameras) or 'none'}.",
                "Name each camera and its index: --camera top=0",
            )

    def _keep_torque(self) -> None:
        """An arm that holds itself up must not fall while it is configured."""
        if self.line is None:
            return
        self.held_itself = self.line.holds_itself()
        if self.held_itself:
            self.line.keep_torque_while_configuring()

    def _watch_temperatures(self, now: float) -> None:
        if self.line is None or now < self._next_temperature_s:
            return
        self._next_temperature_s = now + self._health.config.temperature_period_s
        self._health.check_temperatures(self.line.temperatures_c())

    def _pictures(self, observed: Mapping[str, Any]) -> dict[str, np.ndarray]:
        images: dict[str, np.ndarray] = {}
        for camera in self._embodiment.cameras:
            image = observed[camera.name]
            if image is self._last_images.get(camera.name):
                self.repeated_frames[camera.name] = self.repeated_frames.get(camera.name, 0) + 1
            if image.shape != (camera.height, camera.width, 3):
                raise HardwareError(
                    f"camera '{camera.name}' delivers {image.shape}, not {(camera.height, camera.width, 3)}.",
                    "Give its size: --camera NAME=INDEX@WIDTHxHEIGHT",
                )
            images[camera.name] = image
        return images

    def _stamps(self) -> dict[str, float]:
        """When each camera's newest picture was taken, time.perf_counter(), where its driver says so."""
        cameras = getattr(self.robot, "cameras", {})
        stamps = {name: getattr(camera, "latest_timestamp", None) for name, camera in cameras.items()}
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}

    def _times_of(
        self, images: Mapping[str, np.ndarray], before: Mapping[str, float], now: float
    ) -> dict[str, float]:
        """When the pictures were taken, time.monotonic(); `before` are the stamps from before they were fetched.

        A driver that keeps no time is taken to deliver a picture at the moment it is new.
        """
        cameras, shift = getattr(self.robot, "cameras", {}), time.monotonic() - time.perf_counter()
        after = self._stamps()
        times: dict[str, float] = {}
        for name, image in images.items():
            newest = getattr(cameras.get(name), "latest_frame", None) is image
            stamp = (after if newest else before).get(name)
            if image is self._last_images.get(name):
                times[name] = self._last_times[name]
            else:
                times[name] = now if stamp is None else stamp + shift
        self._last_images, self._last_times = dict(images), times
        return times

    def _explain(self, error: BaseException, doing: str) -> HardwareError:
        """What is broken, by asking around: which camera, which servo, or the port itself."""
        if isinstance(error, HardwareError):
            return error
        if self.on_trouble is not None and not self._in_trouble:
            self._in_trouble = True
            try:
                self.on_trouble()
            finally:
                self._in_trouble = False
        for name, camera in getattr(self.robot, "cameras", {}).items():
            if (broken := _camera_fault(camera, connecting=doing == "connect")) and self._line_is_fine():
                return HardwareError(f"camera '{name}' {broken}.", "Check its cable and its index.")
        if self.line is not None:
            return _line_fault(self.line, error)
        return HardwareError(f"the robot '{self.robot.name}' failed to {doing}: {_first_line(error)}", "")

    def _line_is_fine(self) -> bool:
        with contextlib.suppress(OSError, RuntimeError):
            return self.line is None or (self.line.bus.is_connected and not self.line.silent())
        return False

    def _uncalibrated(self) -> HardwareError:
        file = self.robot.calibration_fpath
        return HardwareError(
            f"the arm and its calibration file {file} do not match, or there is no such file.",
            calibration_remedy(self.robot, "robot"),
        )

    def _hang_up(self) -> None:
        """Close whatever is open, of a robot that may be connected in part."""
        if self.robot.is_connected:
            with contextlib.suppress(OSError, RuntimeError):
                self.robot.disconnect()
        bus = getattr(self.robot, "bus", None)
        with contextlib.suppress(OSError, RuntimeError):
            if bus is not None and bus.is_connected:
                bus.disconnect(disable_torque=False)
        for camera in getattr(self.robot, "cameras", {}).values():
            with contextlib.suppress(OSError, RuntimeError):
                if camera.is_connected:
                    camera.disconnect()


def line_of(device: Any) -> ServoLine | None:
    """Guard the Feetech bus of a LeRobot device; None if it has none. Its own retries go off: they would multiply."""
    try:
        from lerobot.motors.feetech import FeetechMotorsBus
    except ImportError:
        return None
    if not isinstance(getattr(device, "bus", None), FeetechMotorsBus):
        return None
    if hasattr(device.config, "num_read_retries"):
        device.config.num_read_retries = 0
    return ServoLine(device.bus)


def _camera_fault(camera: Any, *, connecting: bool) -> str:
    """What is wrong with a camera, '' where nothing is. While connecting, those not opened yet may be fine."""
    if not camera.is_connected:
        return "cannot be opened" if connecting else "is unplugged"
    try:
        camera.read_latest()
    except (OSError, RuntimeError, TimeoutError):
        return "delivers no pictures"
    return ""


def _line_fault(line: ServoLine, error: BaseException) -> HardwareError:
    if not line.bus.is_connected:
        return HardwareError(
            f"port {line.port} cannot be opened.",
            "See what is there with --list; on Linux, your user must be in the group 'dialout'.",
        )
    try:
        silent = line.silent()
    except OSError:
        return HardwareError(f"port {line.port} is gone.", "Check the USB cable and the arm's power supply.")
    if len(silent) == len(line.bus.motors):
        return HardwareError(
            f"no servo answers on {line.port}.", "Is the arm powered, and is this its port? See --list."
        )
    if silent:
        named = ", ".join(f"'{name}' (number {line.bus.motors[name].id})" for name in silent)
        return HardwareError(
            f"servo {named} on {line.port} does not answer.",
            "Check the cable that leads to it and the one after it.",
        )
    return HardwareError(
        f"the servos on {line.port} answer unreliably: {_first_line(error)}", "Check the cables."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
