"""What is plugged in: serial ports that may lead to an arm, and cameras."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from blm.schemas.errors import HardwareError, MissingExtraError

_SERVO_IDS = range(1, 7)
_USB_SERIAL = ("ttyACM", "ttyUSB", "usbmodem", "usbserial", "COM")


@dataclass(frozen=True)
class Port:
    """A serial port. `likely`: it is of the kind that servo controllers appear as."""

    path: str
    description: str
    serial_number: str
    likely: bool


@dataclass(frozen=True)
class FoundCamera:
    """A camera that delivers pictures: `index` is what `--camera name=index` takes."""

    index: int | str
    kind: str
    width: int
    height: int
    rate_hz: float


@dataclass(frozen=True)
class Found:
    """Everything found, likely ports first."""

    ports: tuple[Port, ...]
    cameras: tuple[FoundCamera, ...]


def found() -> Found:
    """Look for serial ports and cameras. Opens each camera briefly; sends nothing to the ports.

    Raises:
        MissingExtraError: LeRobot is not installed.
    """
    try:
        from lerobot.cameras.opencv import OpenCVCamera
        from serial.tools.list_ports import comports
    except ImportError:
        raise MissingExtraError("lerobot", "hardware") from None
    return Found(_ports(comports()), _cameras(OpenCVCamera.find_cameras))


def _ports(listed: Iterable[Any]) -> tuple[Port, ...]:
    """pyserial's list as ports; those without any hardware behind them (`n/a`) are left out."""
    ports = [
        Port(
            path=port.device,
            description=port.description if port.description != "n/a" else "",
            serial_number=port.serial_number or "",
            likely=any(kind in port.device for kind in _USB_SERIAL) and port.hwid != "n/a",
        )
        for port in listed
        if port.hwid != "n/a"
    ]
    return tuple(sorted(ports, key=lambda port: (not port.likely, port.path)))


def _cameras(find: Callable[[], list[dict[str, Any]]]) -> tuple[FoundCamera, ...]:
    with _quiet_opencv(), contextlib.redirect_stderr(io.StringIO()):
        listed = find()
    return tuple(_camera(entry) for entry in listed)


def _camera(entry: Mapping[str, Any]) -> FoundCamera:
    profile = entry.get("default_stream_profile", {})
    return FoundCamera(
        index=_short_index(entry["id"]),
        kind=str(entry.get("type", "")),
        width=int(profile.get("width", 0)),
        height=int(profile.get("height", 0)),
        rate_hz=float(profile.get("fps", 0.0)),
    )


def _short_index(identifier: int | str) -> int | str:
    """'/dev/video2' → 2, as LeRobot and OpenCV take it too."""
    tail = str(identifier).removeprefix("/dev/video")
    return int(tail) if tail.isdigit() else identifier


@contextlib.contextmanager
def _quiet_opencv() -> Any:
    """OpenCV warns about every device that is no camera."""
    try:
        import cv2

        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    except (ImportError, AttributeError):
        yield
        return
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def servos_on(port: str, numbers: Iterable[int] = _SERVO_IDS) -> dict[int, int]:
    """Servo number → model number of the Feetech servos (protocol 0) that answer on `port`; moves nothing.

    Raises:
        HardwareError: the port cannot be opened.
        MissingExtraError: LeRobot is not installed.
    """
    try:
        from lerobot.motors.feetech import FeetechMotorsBus
    except ImportError:
        raise MissingExtraError("lerobot", "hardware") from None
    bus = FeetechMotorsBus(port, {})
    try:
        bus.connect(handshake=False)
    except ConnectionError as error:
        raise HardwareError(
            f"port {port} cannot be opened.", "Is it plugged in, and may you use it?"
        ) from error
    try:
        answers = {number: bus.ping(number, num_retry=1) for number in numbers}
    finally:
        bus.disconnect(disable_torque=False)
    logging.getLogger(__name__).debug("servos on %s: %s", port, answers)
    return {number: model for number, model in answers.items() if model is not None}
