"""Finding ports, servos and cameras."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from blm.collect.robots import discovery
from blm.schemas.errors import HardwareError
from tests.collect.robots.emulated_bus import MODEL_STS3215, EmulatedBus

pytest.importorskip("lerobot")


def _listed(device: str, hwid: str = "USB VID:PID=1A86:55D3", serial: str | None = "5A7C") -> SimpleNamespace:
    return SimpleNamespace(device=device, description="USB Single Serial", hwid=hwid, serial_number=serial)


def test_likely_ports_come_first_and_empty_ones_not_at_all() -> None:
    listed = [_listed("/dev/ttyS0", "PNP0501", None), _listed("/dev/ttyS4", "n/a"), _listed("/dev/ttyACM0")]
    ports = discovery._ports(listed)
    assert [(port.path, port.likely) for port in ports] == [("/dev/ttyACM0", True), ("/dev/ttyS0", False)]
    assert ports[1].serial_number == ""


def test_cameras_are_listed_by_what_the_command_line_takes() -> None:
    profile = {"width": 640, "height": 480, "fps": 30.0}
    listed = [{"id": "/dev/video2", "type": "OpenCV", "default_stream_profile": profile}]
    (camera,) = discovery._cameras(lambda: listed)
    assert (camera.index, camera.width, camera.height, camera.rate_hz) == (2, 640, 480, 30.0)


def test_found_works_with_nothing_attached() -> None:
    found = discovery.found()
    assert all(port.path for port in found.ports)


def test_servos_that_answer_are_found() -> None:
    with EmulatedBus() as bus:
        bus.silence("elbow_flex")
        assert discovery.servos_on(bus.port) == dict.fromkeys((1, 2, 4, 5, 6), MODEL_STS3215)


def test_a_port_that_is_not_there_is_named() -> None:
    with pytest.raises(HardwareError, match="/dev/nothing_here"):
        discovery.servos_on("/dev/nothing_here")
