"""Grippers hold what they grasp, and arms follow their targets."""

from __future__ import annotations

import warnings

import mujoco
import numpy as np
import pytest

from blm.collect.sim.models import MODEL_NAMES, load_spec
from tests.collect.sim.models.published import PUBLISHED, at_home

CUBE_HALF_M = {"so100": 0.0125}
LIFTING_JOINT = {"so100": "shoulder_lift", "panda": "joint2", "widowxai": "joint_1"}
DENSITY_KG_M3 = 1000.0


def workspace(name: str, cube: bool) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The robot at home under gravity, if asked with a cube floating at its tool."""
    robot, robot_data = at_home(name)
    spec = mujoco.MjSpec()
    spec.option.timestep = 0.002
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    robot_spec = load_spec(name)
    for key in list(robot_spec.keys):
        robot_spec.delete(key)
    spec.attach(robot_spec, prefix="", frame=spec.worldbody.add_frame())
    if cube:
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, robot_data.site("tool").xmat)
        body = spec.worldbody.add_body(
            name="cube", pos=robot_data.site("tool").xpos.tolist(), quat=quaternion.tolist(), gravcomp=1
        )
        body.add_freejoint()
        half = CUBE_HALF_M.get(name, 0.02)
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[half] * 3, density=DENSITY_KG_M3, condim=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Attaching a spec with an empty prefix")
        model = spec.compile()
    data = mujoco.MjData(model)
    for joint in range(robot.njnt):
        data.joint(robot.joint(joint).name).qpos = robot_data.qpos[robot.jnt_qposadr[joint]]
    data.ctrl[:] = robot_data.ctrl
    mujoco.mj_forward(model, data)
    return model, data


def cube_in_tool(data: mujoco.MjData) -> np.ndarray:
    tool = data.site("tool")
    return tool.xmat.reshape(3, 3).T @ (data.body("cube").xpos - tool.xpos)


def eased(step: int, steps: int) -> float:
    """From 0 to 1 over `steps`, starting and ending at rest."""
    return 0.5 * (1 - np.cos(np.pi * min(step / steps, 1.0)))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_held_cube_does_not_slip_while_it_is_lifted(name: str) -> None:
    published = PUBLISHED[name]
    model, data = workspace(name, cube=True)
    gripper, arm = model.actuator(published.gripper).id, model.actuator(LIFTING_JOINT.get(name, "joint2")).id
    opened, shoulder = data.ctrl[gripper], data.ctrl[arm]
    for step in range(400):
        data.ctrl[gripper] = opened + (published.closed - opened) * min(1.0, step / 150)
        mujoco.mj_step(model, data)
    model.body_gravcomp[model.body("cube").id] = 0
    for _ in range(50):
        mujoco.mj_step(model, data)
    grasped, height, slip = cube_in_tool(data), data.body("cube").xpos[2], 0.0
    for step in range(1000):
        data.ctrl[arm] = shoulder - 0.3 * eased(step, 700)
        mujoco.mj_step(model, data)
        slip = max(slip, float(np.linalg.norm(cube_in_tool(data) - grasped)))
    assert slip < 0.003
    assert data.body("cube").xpos[2] > height + 0.02


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_joints_reach_their_targets_without_overshoot_or_sag(name: str) -> None:
    model, data = workspace(name, cube=False)
    home = data.ctrl.copy()
    joints = list(PUBLISHED[name].limits)
    travel = np.array([0.2 if np.ptp(model.joint(joint).range) > 0.5 else -0.01 for joint in joints])
    for column, joint in enumerate(joints):
        lower, upper = model.joint(joint).range
        if not lower <= home[column] + travel[column] <= upper:
            travel[column] *= -1

    def share_of_travel() -> np.ndarray:
        return (np.array([data.joint(joint).qpos[0] for joint in joints]) - home) / travel

    overshoot = np.zeros(len(joints))
    for step in range(750):
        data.ctrl[:] = home + travel * eased(step, 250)
        mujoco.mj_step(model, data)
        overshoot = np.maximum(overshoot, share_of_travel() - 1)
    assert np.abs(share_of_travel() - 1).max() < 0.02
    assert overshoot.max() < 0.03
