"""Which LeRobot driver moves which of our robots, and how the driver's values become axis values.

Drivers differ from our embodiments in names and units; what a dataset holds must not depend on the driver. Sources:
LeRobot's `so100_follower`; UFACTORY's `lerobot_robot_ufactory` (joints in radians; gripper 0 open, 1 closed);
Trossen's `lerobot_robot_trossen` (radians; finger carriage in metres, 44 mm when open).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blm.collect.robots.arm import AxisLink


@dataclass(frozen=True)
class Driver:
    """A LeRobot robot type, the package it comes from, and what must be told to it.

    `leader` is LeRobot's teleoperator type of a leader arm whose joints are those of the robot, '' if there is none.
    `install` is what to type to get the package.
    """

    kind: str
    package: str
    options: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, AxisLink] = field(default_factory=dict)
    leader: str = ""
    install: str = ""


def _ufactory(joints: int) -> Driver:
    """The vendor's driver would lead the arm to its own start pose when it connects; ours does that, slowly."""
    links = {f"joint{i}.pos": AxisLink(f"J{i}.pos", f"J{i}.pos") for i in range(1, joints + 1)}
    links["gripper.pos"] = AxisLink("gripper.pos", "gripper.pos", gain=-1.0, offset=1.0)
    options = {"robot_dof": joints, "control_space": "joint", "start_joints": []}
    # Without dependencies: the vendor pins a LeRobot that is older than ours.
    install = (
        "pip install xarm-python-sdk && "
        "pip install --no-deps git+https://github.com/xArm-Developer/lerobot_robot_ufactory"
    )
    return Driver("uf::robot", "lerobot_robot_ufactory", options, links, install=install)


def _trossen() -> Driver:
    links = {f"joint{i}.pos": AxisLink(f"joint_{i}.pos", f"joint_{i}.pos") for i in range(6)}
    carriage = "left_carriage_joint.pos"
    links["gripper.pos"] = AxisLink(carriage, carriage, gain=1 / 0.044)
    repository = "git+https://github.com/TrossenRobotics/lerobot_trossen#subdirectory=packages"
    install = " ".join(
        f"'{repository}/{package}'" for package in ("lerobot_robot_trossen", "lerobot_teleoperator_trossen")
    )
    return Driver(
        "widowxai_follower_robot",
        "lerobot_robot_trossen",
        links=links,
        leader="widowxai_leader_teleop",
        install=f"pip install {install}",
    )


DRIVERS: Mapping[str, Driver] = {
    "so100": Driver(
        "so100_follower",
        "blm[hardware]",
        {"use_degrees": True},
        leader="so100_leader",
        install="pip install 'blm[hardware]'",
    ),
    "xarm6": _ufactory(6),
    "xarm7": _ufactory(7),
    "widowxai": _trossen(),
}
"""By embodiment name. The Panda is missing: several plugins drive it, each with units of its own."""
