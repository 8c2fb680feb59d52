"""LeRobot devices by type, as a user names them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from blm.collect.robots.arm import AxisLink, LeRobotArm
from blm.collect.robots.cameras import CameraRequest, requests
from blm.collect.robots.derived import derive_embodiment
from blm.collect.robots.devices import choose_robot, device_kinds, open_device, open_teleoperator
from blm.collect.robots.drivers import DRIVERS
from blm.schemas.embodiment import embodiment_names, load_embodiment
from blm.schemas.errors import HardwareError, UnknownNameError, UsageError
from tests.collect.robots.emulated_bus import EmulatedBus

TOP = CameraRequest("top", "emulated", 64, 48)


@pytest.fixture
def calibrated(tmp_path: Path, bus: EmulatedBus) -> dict[str, object]:
    """Driver options for the emulated arm, with one calibration file there."""
    bus.write_calibration(tmp_path / "kitchen.json")
    import tests.collect.robots.emulated_camera  # noqa: F401  registers the camera type

    return {"calibration_dir": tmp_path}


def test_cameras_are_named_in_several_ways() -> None:
    assert CameraRequest.parse("top=0") == CameraRequest("top", options={"index_or_path": "0"})
    wide = CameraRequest.parse("side=/dev/video2@1280x720@60")
    assert (wide.width, wide.height, wide.rate_hz) == (1280, 720, 60)
    depth = CameraRequest.parse("wrist=intelrealsense:serial_number_or_name=0123,use_depth=true@320x240")
    assert depth.config() == {
        "type": "intelrealsense",
        "width": 320,
        "height": 240,
        "fps": 30,
        "serial_number_or_name": "0123",
        "use_depth": "true",
    }


@pytest.mark.parametrize("text", ["0", "Top=0", "top=", "top=0@big", "top=0@0"])
def test_a_camera_that_is_not_understood_is_shown_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match="camera"):
        CameraRequest.parse(text)


def test_two_cameras_need_two_names() -> None:
    with pytest.raises(UsageError, match="two cameras"):
        requests(["top=0", "top=1"])


def test_a_robot_of_ours_is_opened_with_the_only_calibration_there_is(
    bus: EmulatedBus, calibrated: dict[str, object]
) -> None:
    chosen = choose_robot("so100", port=bus.port, cameras=[TOP], options=calibrated)
    assert chosen.robot.id == "kitchen"
    assert chosen.embodiment.axis_names == load_embodiment("so100").axis_names
    (camera,) = chosen.embodiment.cameras
    assert (camera.name, camera.width, camera.height) == ("top", 64, 48)
    assert camera.vertical_fov_deg == load_embodiment("so100").camera("top").vertical_fov_deg
    chosen.robot.connect(calibrate=False)
    assert chosen.robot.get_observation()["top"].shape == (48, 64, 3)
    chosen.robot.disconnect()


def test_any_lerobot_robot_gets_an_embodiment_from_its_calibration(
    bus: EmulatedBus, calibrated: dict[str, object]
) -> None:
    options = {**calibrated, "use_degrees": False}
    chosen = choose_robot("lerobot:so101_follower", port=bus.port, cameras=[TOP], options=options)
    axes = {axis.name: axis for axis in chosen.embodiment.axes}
    assert chosen.embodiment.name == "so101_follower"
    assert (axes["elbow_flex.pos"].unit, axes["elbow_flex.pos"].upper) == ("native", 100.0)
    assert axes["elbow_flex.pos"].scale * 200 == pytest.approx(2600 / 4095 * 2 * np.pi)
    assert (axes["gripper.pos"].role, axes["gripper.pos"].unit) == ("gripper", "percent")
    degrees = choose_robot("lerobot:so101_follower", port=bus.port, cameras=[TOP], options=calibrated)
    assert degrees.embodiment.axes[0].upper == pytest.approx(1300 * 360 / 4095)


def test_a_robot_without_calibration_says_how_to_calibrate(bus: EmulatedBus, tmp_path: Path) -> None:
    robot = open_device("robots", "so100_follower", {"port": bus.port, "calibration_dir": tmp_path})
    with pytest.raises(
        HardwareError, match=rf"lerobot-calibrate --robot\.type=so100_follower .*port={bus.port}"
    ):
        derive_embodiment(robot, "so100_follower")


def test_a_driver_that_is_not_installed_is_named_with_what_to_type() -> None:
    """Before anything else is asked for: cameras that are missing too are no news then."""
    for name in ("xarm6", "xarm7", "widowxai"):
        package = DRIVERS[name].package
        with pytest.raises(
            HardwareError, match=rf"part of '{package}'\.\s+Install it: pip install .*{package}"
        ):
            choose_robot(name, port="192.168.1.2")
    with pytest.raises(HardwareError, match=r"lerobot_robot_franka.*embodiments/panda\.yaml.*--robot FILE"):
        choose_robot("panda", port="192.168.1.2")


def test_links_name_axes_of_their_embodiments_and_keep_the_gripper_in_range() -> None:
    for name, driver in DRIVERS.items():
        embodiment = load_embodiment(name)
        assert name in embodiment_names()
        assert set(driver.links) in (set(), set(embodiment.axis_names))
    for name, opened, closed in (("xarm7", 0.0, 1.0), ("widowxai", 0.044, 0.0)):
        link = DRIVERS[name].links["gripper.pos"]
        assert link.offset + link.gain * opened == pytest.approx(1.0)
        assert link.offset + link.gain * closed == pytest.approx(0.0)


def test_what_is_not_known_is_listed(bus: EmulatedBus) -> None:
    with pytest.raises(UnknownNameError, match="so100_follower"):
        choose_robot("lerobot:so100_folower", port=bus.port, cameras=[TOP])
    with pytest.raises(UsageError, match="use_degrees"):
        choose_robot("so100", port=bus.port, cameras=[TOP], options={"degrees": True})
    with pytest.raises(UsageError, match="--camera"):
        choose_robot("so100", port=bus.port)
    assert {"so100_follower", "koch_follower"} <= set(device_kinds("robots"))


def test_a_leader_is_opened_and_one_that_is_not_calibrated_says_how_to(
    bus: EmulatedBus, calibrated: dict[str, object]
) -> None:
    leader = open_teleoperator("so100_leader", bus.port, calibrated)
    assert leader.get_action()["gripper.pos"] == pytest.approx(50.0, abs=0.1)
    leader.disconnect()
    bus.servos["gripper"].homing_offset += 3
    with pytest.raises(HardwareError, match=r"--teleop\.type=so100_leader"):
        open_teleoperator("so100_leader", bus.port, calibrated)


_PLUGIN = '''
from dataclasses import dataclass, field
from functools import cached_property
from lerobot.cameras import CameraConfig
from lerobot.robots import Robot, RobotConfig


@RobotConfig.register_subclass("drawer")
@dataclass
class DrawerConfig(RobotConfig):
    port: str = ""
    cameras: dict[str, CameraConfig] = field(default_factory=dict)


class Drawer(Robot):
    """Slides in metres; a latch whose driver says 1 for closed."""

    config_class = DrawerConfig
    name = "drawer"

    def __init__(self, config):
        super().__init__(config)
        self.config, self.values, self.open = config, {"Slide.pos": 0.1, "latch.pos": 1.0}, False

    observation_features = action_features = {"Slide.pos": float, "latch.pos": float}
    is_calibrated = True
    is_connected = cached_property(lambda self: self.open)

    def connect(self, calibrate=True):
        self.__dict__["is_connected"] = True

    def calibrate(self): ...
    def configure(self): ...

    def get_observation(self):
        return dict(self.values)

    def send_action(self, action):
        self.values = dict(action)
        return action

    def disconnect(self):
        self.__dict__["is_connected"] = False
'''


def test_a_third_party_plugin_is_found_even_under_a_name_with_hyphens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lerobot_robot_drawer.py").write_text(_PLUGIN)
    details = tmp_path / "lerobot_robot_drawer-1.0.dist-info"
    details.mkdir()
    (details / "METADATA").write_text("Metadata-Version: 2.1\nName: lerobot-robot-drawer\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "drawer" in device_kinds("robots")
    robot = sys.modules["lerobot_robot_drawer"].Drawer(
        sys.modules["lerobot_robot_drawer"].DrawerConfig(id="a", calibration_dir=tmp_path)
    )
    link = AxisLink("latch.pos", "latch.pos", gain=-1.0, offset=1.0)
    slide = AxisLink("Slide.pos", "Slide.pos")
    arm = LeRobotArm(robot, _drawer(), {"latch.pos": link, "slide.pos": slide}, notify=print)
    arm.connect()
    assert arm.line is None
    assert arm.read().state == pytest.approx([0.1, 0.0])
    assert arm.send(np.array([0.3, 1.0])) == pytest.approx([0.3, 1.0])
    assert robot.values == {"Slide.pos": 0.3, "latch.pos": 0.0}


def _drawer():
    from blm.schemas.embodiment import Embodiment

    axis = {"unit": "radian", "scale": 1.0, "lower": 0.0, "upper": 1.0, "home": 0.5}
    axis |= {"max_velocity": 1.0, "max_acceleration": 1.0, "max_jerk": 1.0}
    described = Embodiment.model_validate(
        {
            "name": "drawer",
            "title": "Drawer",
            "model": "none",
            "base_position": (0, 0, 0),
            "gripper": {"open": 1.0, "closed": 0.0, "max_opening_m": 0.1},
            "axes": [
                {"name": "slide.pos", "joint": "slide", **axis},
                {"name": "latch.pos", "joint": "latch", "role": "gripper", **axis},
            ],
            "cameras": [{"name": "top", "mount": "unknown"}],
        }
    )
    return described.model_copy(update={"cameras": ()})
