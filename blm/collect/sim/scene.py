"""Compose table, robot, task objects, cameras and light into one MuJoCo model per (embodiment, task).

The world frame is the workspace frame: x away from the robot, y to its left, z up, the table's surface at z = 0.
Episodes differ only in state (joint positions and mocap poses), so a model is compiled once.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import mujoco
import numpy as np

from blm.collect.sim.objects import (
    GOAL_BODY,
    Placement,
    add_goal,
    add_object,
    is_movable,
    object_element,
    pose_of,
)
from blm.schemas.embodiment import Camera, Embodiment
from blm.schemas.errors import ConfigError, SimulationError, UnknownNameError
from blm.schemas.task import Task, TaskObject

LONGEST_TIMESTEP_S = 0.002
TABLE_HALF_SIZE_M = (0.85, 0.8, 0.03)
TABLE_CENTRE_X_M = -0.15
TABLE_HEIGHT_M = 0.7
TABLE_COLOUR = (0.74, 0.71, 0.66, 1.0)
HIDDEN_GROUP = 3
LIGHT_DIRECTION = (-0.25, -0.4, -1.0)
LIGHT_DISTANCE_M = 1.5 * float(np.linalg.norm(LIGHT_DIRECTION))
PARKED_M = 100.0
"""Where distractors wait that an episode does not use: beyond what any camera draws, weightless, touching nothing."""

# Left alone, MuJoCo writes its warnings to a file MUJOCO_LOG.TXT in the working directory.
mujoco.set_mju_user_warning(logging.getLogger(__name__).info)


@dataclass(frozen=True)
class Joint:
    """Where a model joint lives: its first index in qpos and in qvel."""

    qpos: int
    dof: int


@dataclass(frozen=True)
class SceneObject:
    """Handles of a task object in the compiled model; `joint` is None for one that only a reset moves."""

    body: int
    geoms: frozenset[int]
    joint: Joint | None
    mocap: int | None


@dataclass(frozen=True)
class Scene:
    """A compiled model with handles into it.

    Attributes:
        substeps: physics steps in one control period.
        base_pose: of the robot's base in the world, 4×4.
        axis_qpos, axis_dof, axis_actuator: indices per axis, shape (A,).
        home_qpos: the robot at home (objects at their default pose), shape (nq,).
        objects: handles by task object name, in task order.
        distractors: handles of things that the task is not about; parked unless a reset places them.
        goal_mocap: index of the goal marker's mocap pose, None without a goal.
        gripper_geoms: geoms of body `hand` and everything below it.
        robot_geoms: geoms of body `base` and everything below it.
        table_geoms: the table.
        tool_site: the tool centre point.
    """

    model: mujoco.MjModel
    substeps: int
    base_pose: np.ndarray
    axis_qpos: np.ndarray
    axis_dof: np.ndarray
    axis_actuator: np.ndarray
    home_qpos: np.ndarray
    objects: Mapping[str, SceneObject]
    distractors: Mapping[str, SceneObject]
    goal_mocap: int | None
    gripper_geoms: frozenset[int]
    robot_geoms: frozenset[int]
    table_geoms: frozenset[int]
    tool_site: int

    def thing(self, name: str) -> SceneObject:
        """Handle of a task object or a distractor; raises UnknownNameError."""
        known = {**self.objects, **self.distractors}
        if name not in known:
            raise UnknownNameError("object", name, known)
        return known[name]


def build_scene(
    embodiment: Embodiment,
    task: Task,
    models: str = "own",
    distractors: Mapping[str, TaskObject] | None = None,
) -> Scene:
    """Compile the workspace of one embodiment and task, with `distractors` parked out of sight.

    Raises:
        SimulationError: the robot model does not compile, or lacks a joint, actuator, site or body of the embodiment.
    """
    robot = _robot_spec(embodiment, models)
    robot_model = _compile(robot, f"robot model '{embodiment.model}'")
    spec = _table_spec(embodiment)
    _add_robot(spec, embodiment, robot)
    for camera in embodiment.cameras:
        _add_camera(spec, camera, robot_model)
    for name, thing in task.objects.items():
        add_object(spec, name, thing)
    for number, (name, thing) in enumerate((distractors or {}).items(), start=1):
        _add_parked(spec, name, thing, number)
    if task.goal is not None:
        add_goal(spec, task.goal)
    model = _compile(spec, f"scene of '{embodiment.name}' with '{task.name}'")
    return _handles(model, robot_model, embodiment, task, distractors or {})


def compile_robot(embodiment: Embodiment) -> mujoco.MjModel:
    """The robot's own model alone, for kinematics without a scene.

    Raises:
        UnknownNameError, ConfigError, SimulationError: there is no such model, or it does not compile.
    """
    return _compile(_robot_spec(embodiment, "own"), f"robot model '{embodiment.model}'")


def put(data: mujoco.MjData, handle: SceneObject, thing: TaskObject, placement: Placement) -> None:
    """Lay a thing on the table."""
    position, quaternion = pose_of(thing, placement)
    if handle.joint is not None:
        data.qpos[handle.joint.qpos : handle.joint.qpos + 7] = [*position, *quaternion]
    else:
        data.mocap_pos[handle.mocap], data.mocap_quat[handle.mocap] = position, quaternion


def substeps_per_tick(control_rate_hz: float) -> int:
    """Physics steps in a control period: as few as keep each at most 2 ms."""
    return ceil(1.0 / (control_rate_hz * LONGEST_TIMESTEP_S) - 1e-9)


def camera_quaternion(position: np.ndarray, look_at: np.ndarray) -> np.ndarray:
    """Orientation wxyz of a camera at `position` looking at `look_at`, image up as near to world up as can be.

    A camera looks along its −z with image up along +y. Looking straight down or up, image up is world +x.
    """
    backward = np.asarray(position, dtype=np.float64) - np.asarray(look_at, dtype=np.float64)
    backward /= np.linalg.norm(backward)
    up = np.array([1.0, 0.0, 0.0]) if abs(backward[2]) > 1 - 1e-9 else np.array([0.0, 0.0, 1.0])
    right = np.cross(up, backward)
    right /= np.linalg.norm(right)
    rotation = np.column_stack([right, np.cross(backward, right), backward])
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion


def _robot_spec(embodiment: Embodiment, models: str) -> mujoco.MjSpec:
    if embodiment.model.endswith(".xml"):
        path = Path(embodiment.model)
        if not path.is_file():
            raise ConfigError(
                f"embodiment '{embodiment.name}': model {path} does not exist.", "Check its path."
            )
        return mujoco.MjSpec.from_file(str(path))
    from blm.collect.sim.models import load_spec

    return load_spec(embodiment.model, models)


def _compile(spec: mujoco.MjSpec, what: str) -> mujoco.MjModel:
    try:
        with warnings.catch_warnings():
            # The robot keeps its own names, so that planners find them; saving the composed model is not wanted.
            warnings.filterwarnings("ignore", message="Attaching a spec with an empty prefix")
            return spec.compile()
    except ValueError as error:
        raise SimulationError(f"{what} does not compile: {error}", "Mend the model.") from error


def _table_spec(embodiment: Embodiment) -> mujoco.MjSpec:
    spec = mujoco.MjSpec()
    spec.modelname = "workspace"
    option = spec.option
    option.timestep = 1.0 / (embodiment.control_rate_hz * substeps_per_tick(embodiment.control_rate_hz))
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 10
    option.jacobian = mujoco.mjtJacobian.mjJAC_DENSE
    option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    _set_look(spec, embodiment)
    half_x, half_y, half_z = TABLE_HALF_SIZE_M
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[half_x, half_y, half_z],
        pos=[TABLE_CENTRE_X_M, 0, -half_z],
        rgba=list(TABLE_COLOUR),
        friction=[0.4, 0.005, 0.0001],
    )
    spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[4, 4, 0.1],
        pos=[0, 0, -TABLE_HEIGHT_M],
        group=HIDDEN_GROUP,
    )
    return spec


def _set_look(spec: mujoco.MjSpec, embodiment: Embodiment) -> None:
    """One light with shadows, a soft sky, and near and far planes that suit a wrist camera.

    Without a GPU a picture's cost is vertices and shadows: a 128² picture of the SO-100 took 17 ms with MuJoCo's
    defaults and takes 3 ms with one quad to a box's face and a 384² shadow map. The map spans just the robot and its
    workspace, which leaves 2–3 mm to a shadow's pixel.
    """
    reach = abs(embodiment.base_position[0])
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 384
    spec.visual.quality.numquads = 1
    spec.visual.quality.numslices = 16
    spec.visual.quality.numstacks = 4
    spec.visual.headlight.ambient = [0.36, 0.36, 0.36]
    spec.visual.headlight.diffuse = [0.24, 0.24, 0.24]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    spec.visual.map.znear = 0.005
    spec.visual.map.zfar = 10.0
    spec.visual.map.shadowclip = reach / 2 + 0.3
    spec.stat.extent = 1.0
    spec.stat.center = [0.0, 0.0, 0.1]
    aim, direction = np.array([-reach / 2, 0.0, 0.1]), np.array(LIGHT_DIRECTION)
    spec.worldbody.add_light(
        name="key",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=(aim - 1.5 * direction).tolist(),
        dir=direction.tolist(),
        diffuse=[0.5, 0.5, 0.48],
        specular=[0.1, 0.1, 0.1],
        ambient=[0, 0, 0],
        castshadow=True,
    )
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.80, 0.85, 0.90],
        rgb2=[0.55, 0.62, 0.70],
        width=128,
        height=128 * 6,
    )


def _add_robot(spec: mujoco.MjSpec, embodiment: Embodiment, robot: mujoco.MjSpec) -> None:
    """Attach the robot without its keyframes (their length no longer fits), cameras and lights."""
    for element in [*robot.keys, *robot.cameras, *robot.lights]:
        robot.delete(element)
    half_yaw = np.deg2rad(embodiment.base_yaw_deg) / 2
    frame = spec.worldbody.add_frame(
        pos=list(embodiment.base_position), quat=[np.cos(half_yaw), 0, 0, np.sin(half_yaw)]
    )
    spec.attach(robot, prefix="", frame=frame)


def _add_camera(spec: mujoco.MjSpec, camera: Camera, robot_model: mujoco.MjModel) -> None:
    if camera.mount is None:
        position, look_at = np.array(camera.position), np.array(camera.look_at)
        body, quaternion = spec.worldbody, camera_quaternion(position, look_at)
    else:
        site = _index(robot_model, mujoco.mjtObj.mjOBJ_SITE, camera.mount)
        position, quaternion = robot_model.site_pos[site], robot_model.site_quat[site]
        body = spec.body(robot_model.body(robot_model.site_bodyid[site]).name)
    body.add_camera(
        name=camera.name, pos=position.tolist(), quat=quaternion.tolist(), fovy=camera.vertical_fov_deg
    )


def _add_parked(spec: mujoco.MjSpec, name: str, thing: TaskObject, number: int) -> None:
    add_object(spec, name, thing)
    body = spec.body(object_element(name))
    body.pos, body.gravcomp = [0, number, PARKED_M], 1.0


def _handles(
    model: mujoco.MjModel,
    robot_model: mujoco.MjModel,
    embodiment: Embodiment,
    task: Task,
    distractors: Mapping[str, TaskObject],
) -> Scene:
    joints = [_joint(model, name) for name in embodiment.joints]
    actuators = [_index(model, mujoco.mjtObj.mjOBJ_ACTUATOR, name) for name in embodiment.joints]
    home = _home_qpos(model, robot_model)
    axis_qpos = np.array([joint.qpos for joint in joints])
    home[axis_qpos] = embodiment.to_model(embodiment.column("home"))
    data = mujoco.MjData(model)
    data.qpos[:] = home
    mujoco.mj_kinematics(model, data)
    base = _index(model, mujoco.mjtObj.mjOBJ_BODY, "base")
    base_pose = np.eye(4)
    base_pose[:3, :3], base_pose[:3, 3] = data.xmat[base].reshape(3, 3), data.xpos[base]
    goal = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, GOAL_BODY)
    return Scene(
        model=model,
        substeps=substeps_per_tick(embodiment.control_rate_hz),
        base_pose=base_pose,
        axis_qpos=axis_qpos,
        axis_dof=np.array([joint.dof for joint in joints]),
        axis_actuator=np.array(actuators),
        home_qpos=home,
        objects={name: _scene_object(model, name, is_movable(task.objects[name])) for name in task.objects},
        distractors={name: _scene_object(model, name, True) for name in distractors},
        goal_mocap=None if goal < 0 else int(model.body_mocapid[goal]),
        gripper_geoms=_geoms_below(model, _index(model, mujoco.mjtObj.mjOBJ_BODY, "hand")),
        robot_geoms=_geoms_below(model, base),
        table_geoms=frozenset({_index(model, mujoco.mjtObj.mjOBJ_GEOM, "table")}),
        tool_site=_index(model, mujoco.mjtObj.mjOBJ_SITE, "tool"),
    )


def _home_qpos(model: mujoco.MjModel, robot_model: mujoco.MjModel) -> np.ndarray:
    """qpos with the robot in its model's keyframe `home`: joints that no axis drives (a linkage) start there."""
    qpos = model.qpos0.copy()
    key = mujoco.mj_name2id(robot_model, mujoco.mjtObj.mjOBJ_KEY, "home")
    if key < 0:
        return qpos
    for joint in range(robot_model.njnt):
        name = robot_model.joint(joint).name
        qpos[_joint(model, name).qpos] = robot_model.key_qpos[key, robot_model.jnt_qposadr[joint]]
    return qpos


def _scene_object(model: mujoco.MjModel, name: str, movable: bool) -> SceneObject:
    body = _index(model, mujoco.mjtObj.mjOBJ_BODY, object_element(name))
    return SceneObject(
        body=body,
        geoms=_geoms_below(model, body),
        joint=_joint(model, object_element(name)) if movable else None,
        mocap=None if movable else int(model.body_mocapid[body]),
    )


def _joint(model: mujoco.MjModel, name: str) -> Joint:
    index = _index(model, mujoco.mjtObj.mjOBJ_JOINT, name)
    return Joint(qpos=int(model.jnt_qposadr[index]), dof=int(model.jnt_dofadr[index]))


def _geoms_below(model: mujoco.MjModel, root: int) -> frozenset[int]:
    bodies = {root}
    for body in range(root + 1, model.nbody):
        if int(model.body_parentid[body]) in bodies:
            bodies.add(body)
    return frozenset(geom for geom in range(model.ngeom) if int(model.geom_bodyid[geom]) in bodies)


def _index(model: mujoco.MjModel, kind: mujoco.mjtObj, name: str) -> int:
    index = mujoco.mj_name2id(model, kind, name)
    if index < 0:
        thing = kind.name.removeprefix("mjOBJ_").lower()
        raise SimulationError(
            f"the robot model has no {thing} named '{name}'.",
            "Name it so in the model, or correct the embodiment's `joint` or `mount`.",
        )
    return index
