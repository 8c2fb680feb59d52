"""What the makers publish about their robots, and small helpers to pose a model: ground for the tests beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi

import mujoco
import numpy as np

from blm.collect.sim.models import load_spec


@dataclass(frozen=True)
class Published:
    """Limits in rad or m by joint, in chain order; mass with gripper in kg; pad distance open and closed in m.

    Torques in N·m (the gripper's last, in N where it slides) and payload are the makers'; `grip_n` is the largest force
    with which the gripper clamps.
    """

    limits: Mapping[str, tuple[float, float]]
    torques: tuple[float, ...]
    payload_kg: float | None
    grip_n: float
    gripper: str
    open: float
    closed: float
    opening_m: tuple[float, float]
    mass_kg: float


PUBLISHED: Mapping[str, Published] = {
    # Limits and masses: MuJoCo Menagerie, trs_so_arm100 (from the maker's CAD). No stroke is published for the swinging
    # jaw: the distances are those of our pads, nearest point to nearest point.
    "so100": Published(
        limits={
            "shoulder_pan": (-2.2, 2.2),
            "shoulder_lift": (-3.14158, 0.2),
            "elbow_flex": (0.0, 3.14158),
            "wrist_flex": (-2.0, 1.8),
            "wrist_roll": (-3.14158, 3.14158),
            "gripper": (-0.2, 2.0),
        },
        # Feetech STS3215 at 12 V: 30 kg·cm at stall. LeRobot's so_follower lets the jaw's servo sink to 25 % of it when
        # it stalls. No clamping force is published: that torque over the 62 mm to the jaw's pad.
        torques=(2.94,) * 5 + (0.735,),
        payload_kg=None,
        grip_n=0.735 / 0.062,
        gripper="gripper",
        open=1.0,
        closed=-0.2,
        opening_m=(0.063, 0.002),
        mass_kg=1.171,
    ),
    # Franka Control Interface documentation, "Robot and interface specifications"; masses: C. Gaz et al., "Dynamic
    # identification of the Franka Emika Panda", RA-L 2019, and Franka Hand manual (0.73 kg; stroke 80 mm).
    "panda": Published(
        limits={
            "joint1": (-2.8973, 2.8973),
            "joint2": (-1.7628, 1.7628),
            "joint3": (-2.8973, 2.8973),
            "joint4": (-3.0718, -0.0698),
            "joint5": (-2.8973, 2.8973),
            "joint6": (-0.0175, 3.7525),
            "joint7": (-2.8973, 2.8973),
            "finger_joint1": (0.0, 0.04),
        },
        torques=(87.0,) * 4 + (12.0,) * 3 + (70.0,),
        payload_kg=3.0,
        grip_n=70.0,
        gripper="finger_joint1",
        open=0.04,
        closed=0.0,
        opening_m=(0.08, 0.0),
        mass_kg=17.45,
    ),
    # UFACTORY xArm user manual and xarm_description: six axes; gripper stroke 84 mm, URDF linkage 87 mm.
    "xarm6": Published(
        limits={
            "joint1": (-2 * pi, 2 * pi),
            "joint2": (-2.059, 2.0944),
            "joint3": (-3.927, 0.19198),
            "joint4": (-2 * pi, 2 * pi),
            "joint5": (-1.69297, pi),
            "joint6": (-2 * pi, 2 * pi),
            "drive_joint": (0.0, 0.85),
        },
        # xarm_description; xArm gripper manual: 30 N, which 2.5 N·m make at the open fingers' lever of 42 mm.
        torques=(50.0, 50.0, 32.0, 32.0, 32.0, 20.0, 2.5),
        payload_kg=5.0,
        grip_n=30.0,
        gripper="drive_joint",
        open=0.0,
        closed=0.85,
        opening_m=(0.085, 0.0),
        mass_kg=11.205,
    ),
    "xarm7": Published(
        limits={
            "joint1": (-2 * pi, 2 * pi),
            "joint2": (-2.059, 2.0944),
            "joint3": (-2 * pi, 2 * pi),
            "joint4": (-0.19198, 3.927),
            "joint5": (-2 * pi, 2 * pi),
            "joint6": (-1.69297, pi),
            "joint7": (-2 * pi, 2 * pi),
            "drive_joint": (0.0, 0.85),
        },
        torques=(50.0, 50.0, 30.0, 30.0, 30.0, 20.0, 20.0, 2.5),
        payload_kg=3.5,
        grip_n=30.0,
        gripper="drive_joint",
        open=0.0,
        closed=0.85,
        opening_m=(0.085, 0.0),
        mass_kg=12.068,
    ),
    # Trossen Robotics, wxai_follower description (V0).
    "widowxai": Published(
        limits={
            "joint_0": (-3.05433, 3.05433),
            "joint_1": (0.0, 3.14159),
            "joint_2": (0.0, 2.35619),
            "joint_3": (-1.5708, 1.5708),
            "joint_4": (-1.5708, 1.5708),
            "joint_5": (-3.14159, 3.14159),
            "left_carriage_joint": (0.0, 0.044),
        },
        # Trossen Arm documentation, "Specifications".
        torques=(27.0,) * 3 + (7.0,) * 3 + (100.0,),
        payload_kg=1.5,
        grip_n=100.0,
        gripper="left_carriage_joint",
        open=0.044,
        closed=0.0,
        opening_m=(0.088, 0.0),
        mass_kg=4.111,
    ),
}


def at_home(name: str) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The bare robot in its keyframe `home`, kinematics and contacts computed."""
    model = load_spec(name).compile()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
    mujoco.mj_forward(model, data)
    return model, data


def set_joints(model: mujoco.MjModel, data: mujoco.MjData, values: Mapping[str, float]) -> None:
    """Put joints at values in rad or m, have the coupled ones follow, and compute kinematics."""
    for joint, value in values.items():
        data.joint(joint).qpos[0] = value
    for equality in range(model.neq):
        follower, leader = model.eq_obj1id[equality], model.eq_obj2id[equality]
        if model.eq_type[equality] != mujoco.mjtEq.mjEQ_JOINT or model.joint(follower).name in values:
            continue
        data.qpos[model.jnt_qposadr[follower]] = data.qpos[model.jnt_qposadr[leader]]
    mujoco.mj_kinematics(model, data)


def random_joints(name: str, random: np.random.Generator) -> dict[str, float]:
    """One configuration within the published limits."""
    return {joint: float(random.uniform(*limits)) for joint, limits in PUBLISHED[name].limits.items()}


def relative_pose(
    base: tuple[np.ndarray, np.ndarray], child: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) and rotation (3, 3) of `child` seen from `base`, both (position, rotation) in the world."""
    return base[1].T @ (child[0] - base[0]), base[1].T @ child[1]


def body_pose(data: mujoco.MjData, body: str) -> tuple[np.ndarray, np.ndarray]:
    return data.body(body).xpos.copy(), data.body(body).xmat.reshape(3, 3).copy()


def site_pose(data: mujoco.MjData, site: str) -> tuple[np.ndarray, np.ndarray]:
    return data.site(site).xpos.copy(), data.site(site).xmat.reshape(3, 3).copy()
