"""Every robot model keeps the conventions and the published figures."""

from __future__ import annotations

from itertools import pairwise

import mujoco
import numpy as np
import pytest

from blm.collect.sim.models import MODEL_NAMES, load_spec, model_path
from blm.schemas.embodiment import load_embodiment
from blm.schemas.errors import UnknownNameError
from tests.collect.sim.models.published import PUBLISHED, at_home, random_joints, set_joints

TOUCHING_M = 1e-4


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_joints_and_limits_are_the_published_ones(name: str) -> None:
    model = load_spec(name).compile()
    published = PUBLISHED[name].limits
    for joint, limits in published.items():
        assert model.joint(joint).range == pytest.approx(limits, abs=1e-4), joint
    bodies = [int(model.joint(joint).bodyid[0]) for joint in published]
    assert all(body < child for body, child in pairwise(bodies)), "joints follow the chain"


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_one_position_actuator_per_controlled_joint_in_joint_units(name: str) -> None:
    model = load_spec(name).compile()
    names = [model.actuator(index).name for index in range(model.nu)]
    assert names == list(PUBLISHED[name].limits)
    for index, joint in enumerate(names):
        actuator = model.actuator(index)
        assert (actuator.trntype, actuator.trnid[0]) == (mujoco.mjtTrn.mjTRN_JOINT, model.joint(joint).id)
        assert actuator.ctrlrange == pytest.approx(model.joint(joint).range)
        assert actuator.gainprm[0] == pytest.approx(-actuator.biasprm[1]), "a position servo"
        assert actuator.forcelimited
        assert actuator.forcerange[0] == -actuator.forcerange[1]


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_no_motor_is_stronger_than_published(name: str) -> None:
    """Servo and gravity compensation together stay within the maker's torque, as do the embodiment's limits."""
    model, embodiment, published = load_spec(name).compile(), load_embodiment(name), PUBLISHED[name]
    assert embodiment.torque_limits() == pytest.approx(published.torques)
    assert embodiment.payload_kg == published.payload_kg
    for joint, torque in zip(embodiment.joints, published.torques, strict=True):
        assert model.actuator(joint).forcerange == pytest.approx([-torque, torque]), joint
        index = model.joint(joint).id
        assert model.jnt_actfrclimited[index], joint
        assert model.jnt_actfrcrange[index] == pytest.approx([-torque, torque]), joint
        gripper = joint == published.gripper
        assert model.jnt_actgravcomp[index] == (not gripper or name == "so100"), joint


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_motors_that_are_told_too_much_give_their_limit(name: str) -> None:
    model, data = at_home(name)
    data.ctrl[:] = model.actuator_ctrlrange[:, 1]
    for _ in range(20):
        mujoco.mj_step(model, data)
        for joint, torque in zip(load_embodiment(name).joints, PUBLISHED[name].torques, strict=True):
            assert abs(data.joint(joint).qfrc_actuator[0]) <= torque * (1 + 1e-9), joint


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_model_brings_no_scene_and_no_mesh(name: str) -> None:
    spec = load_spec(name)
    assert not [*spec.cameras, *spec.lights, *spec.meshes]
    assert spec.option.timestep == mujoco.MjSpec().option.timestep
    model = spec.compile()
    assert [model.body(body).name for body in range(1, model.nbody) if model.body_parentid[body] == 0] == [
        "base"
    ]
    assert not model.body("base").pos.any()
    assert model.body("base").quat[0] == 1
    assert np.all(model.body_gravcomp[1:] == 1)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_pads_grip_and_looks_do_not_collide(name: str) -> None:
    model = load_spec(name).compile()
    for pad in ("left_pad", "right_pad"):
        geom = model.geom(pad)
        assert geom.condim[0] in (4, 6)
        assert geom.friction[0] >= 1
        assert geom.contype[0] == 1
    assert set(model.geom_group) <= {2, 3}
    assert np.array_equal(model.geom_contype, model.geom_conaffinity)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_total_mass(name: str) -> None:
    assert load_spec(name).compile().body_mass.sum() == pytest.approx(PUBLISHED[name].mass_kg, rel=0.02)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_gripper_stroke(name: str) -> None:
    published = PUBLISHED[name]
    model, data = at_home(name)
    for value, expected in zip((published.open, published.closed), published.opening_m, strict=True):
        set_joints(model, data, {published.gripper: value})
        distance = mujoco.mj_geomDistance(
            model, data, model.geom("left_pad").id, model.geom("right_pad").id, 1.0, None
        )
        assert distance == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_tool_lies_between_the_pads_and_its_axes_mean_what_they_say(name: str) -> None:
    published = PUBLISHED[name]
    model, data = at_home(name)
    set_joints(model, data, {published.gripper: published.open})
    tool, axes = data.site("tool").xpos, data.site("tool").xmat.reshape(3, 3)
    left = axes.T @ (data.geom("left_pad").xpos - tool)
    right = axes.T @ (data.geom("right_pad").xpos - tool)
    assert right[1] < -0.01 < 0.01 < left[1], "fingers open along y, the left one on its positive side"
    hand = axes.T @ (data.body("hand").xpos - tool)
    assert hand[2] < -0.05, "z points out of the gripper"
    assert hand[0] == pytest.approx(0, abs=1e-6)
    assert model.site("tool").bodyid[0] == model.body("hand").id


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_home_points_down_in_front_with_open_gripper_and_touches_nothing(name: str) -> None:
    published = PUBLISHED[name]
    model, data = at_home(name)
    tool, axes = data.site("tool").xpos, data.site("tool").xmat.reshape(3, 3)
    assert axes[:, 2] == pytest.approx([0, 0, -1], abs=2e-3)
    assert 0.2 < tool[0] < 0.7
    assert abs(tool[1]) < 0.01
    assert 0.05 < tool[2] < 0.3
    assert data.joint(published.gripper).qpos[0] == pytest.approx(published.open)
    assert [model.key("home").ctrl[i] for i in range(model.nu)] == pytest.approx(
        [data.joint(joint).qpos[0] for joint in published.limits]
    )
    assert data.ncon == 0


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_wrist_camera_sees_the_tool_and_the_table_ahead_of_it(name: str) -> None:
    """The tool lies in the lower part of the picture, in its middle column; the upper half looks past it."""
    model, data = at_home(name)
    camera, site = load_embodiment(name).camera("wrist"), data.site("wrist_camera")
    axes = site.xmat.reshape(3, 3)
    to_tool = axes.T @ (data.site("tool").xpos - site.xpos)
    half_height = np.tan(np.radians(camera.vertical_fov_deg) / 2)
    column, row = to_tool[:2] / -to_tool[2] / half_height
    assert abs(column) < 0.02
    assert -0.95 < row < -0.3
    assert axes[0, 1] > 0.7, "image up is away from the base while the tool points down"
    assert model.site("wrist_camera").bodyid[0] == model.body("hand").id
    first_hit, direction = np.zeros(1, dtype=np.int32), data.site("tool").xpos - site.xpos
    distance = mujoco.mj_ray(model, data, site.xpos, direction, None, 1, -1, first_hit)
    assert distance < 0 or distance > 1, "nothing of the robot stands between camera and tool"


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_neighbours_never_collide_and_folding_into_the_base_does(name: str) -> None:
    """Self-collision means something: links two joints apart stay clear over all but few poses, far ones do meet."""
    model, data = at_home(name)
    random = np.random.default_rng(0)
    poses, clear, met = 300, 0, set()
    for _ in range(poses):
        set_joints(model, data, random_joints(name, random))
        mujoco.mj_forward(model, data)
        touching = [contact for contact in data.contact[: data.ncon] if contact.dist < -TOUCHING_M]
        clear += not touching
        for contact in touching:
            pair = sorted(int(model.geom_bodyid[geom]) for geom in (contact.geom1, contact.geom2))
            assert model.body_parentid[pair[1]] != pair[0], "parent and child are filtered"
            met.add((model.body(pair[0]).name, model.body(pair[1]).name))
    assert clear > 0.8 * poses
    assert any(pair[0] == "base" for pair in met)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_tool_jacobian_is_the_derivative_of_its_pose(name: str) -> None:
    model, data = at_home(name)
    set_joints(model, data, random_joints(name, np.random.default_rng(3)))
    mujoco.mj_comPos(model, data)
    site = model.site("tool").id
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, jacobian, None, site)
    start, step = data.qpos.copy(), 1e-6
    for dof in range(model.nv):
        ends = []
        for sign in (-1, 1):
            data.qpos[:] = start
            data.qpos[dof] += sign * step
            mujoco.mj_kinematics(model, data)
            ends.append(data.site_xpos[site].copy())
        assert jacobian[:, dof] == pytest.approx((ends[1] - ends[0]) / (2 * step), abs=1e-6)


def test_unknown_names_are_told_what_there_is() -> None:
    with pytest.raises(UnknownNameError, match=r"panda.*so100"):
        model_path("pandas")
    with pytest.raises(UnknownNameError, match="menagerie"):
        load_spec("panda", "vendor")


@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if PUBLISHED[name].payload_kg])
def test_the_arm_can_hold_its_payload_at_home(name: str) -> None:
    """Gravity on the links and on the payload at the tool, by the virtual work of its Jacobian, within every torque.

    Franka and UFACTORY count a gripper as part of the load; the WidowX AI's belongs to the arm.
    """
    model, data = at_home(name)
    gripper = 0.0 if name == "widowxai" else float(model.body_subtreemass[model.body("hand").id])
    load = (PUBLISHED[name].payload_kg or 0.0) - gripper
    model.body_gravcomp[:] = 0
    data.qvel[:] = 0
    mujoco.mj_forward(model, data)
    jacobian = np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, jacobian, None, model.site("tool").id)
    needed = data.qfrc_bias + jacobian.T @ [0, 0, 9.81 * load]
    embodiment = load_embodiment(name)
    for index in embodiment.arm_indices:
        joint, torque = embodiment.joints[index], PUBLISHED[name].torques[index]
        assert abs(needed[model.joint(joint).dofadr[0]]) < torque, joint
