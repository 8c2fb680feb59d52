"""Dress our models in their makers' meshes, from MuJoCo Menagerie where the user has it.

Only the looks change. Kinematics, inertias, actuators, pads, sites and collision shapes stay our own, so that what was
recorded or planned with one dress holds in the other. Menagerie's link frames are the published ones, as are ours: a
mesh moves over from body to body as it is, except where `Dress.turned` says otherwise.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

import mujoco
import numpy as np

from blm.schemas.errors import SimulationError

ROOT_VARIABLE = "MENAGERIE_ROOT"
PACKAGE = "mujoco_menagerie"
COLLISION_GROUP = 3
VISUAL_GROUP = 2
IDENTITY = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Dress:
    """Where one robot's meshes are, and which of our bodies wear them.

    Attributes:
        folder, file: the model inside Menagerie.
        bodies: our body's name by Menagerie's. Bodies fixed to one of these come along with it.
        turned: orientation wxyz, in our body's frame, of a Menagerie frame that differs from it.
    """

    folder: str
    file: str
    bodies: Mapping[str, str]
    turned: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)


DRESSES: Mapping[str, Dress] = {
    "so100": Dress(
        folder="trs_so_arm100",
        file="so_arm100.xml",
        bodies={
            "Base": "base",
            "Rotation_Pitch": "shoulder",
            "Upper_Arm": "upper_arm",
            "Lower_Arm": "lower_arm",
            "Wrist_Pitch_Roll": "wrist",
            "Fixed_Jaw": "hand",
            "Moving_Jaw": "moving_jaw",
        },
        turned={"Base": (sqrt(0.5), 0.0, 0.0, sqrt(0.5))},
    ),
    "panda": Dress(
        folder="franka_emika_panda",
        file="panda.xml",
        bodies={"link0": "base"}
        | {
            name: name for name in (*(f"link{i}" for i in range(1, 8)), "hand", "left_finger", "right_finger")
        },
    ),
    "xarm7": Dress(
        folder="ufactory_xarm7",
        file="xarm7.xml",
        bodies={"link_base": "base", "xarm_gripper_base_link": "hand"}
        | {f"link{i}": f"link{i}" for i in range(1, 8)}
        | {
            f"{side}_{part}": f"{side}_{part}"
            for side in ("left", "right")
            for part in ("outer_knuckle", "finger")
        },
    ),
    "widowxai": Dress(
        folder="trossen_wxai",
        file="wxai_follower.xml",
        bodies={"base_link": "base", "link_6": "hand"}
        | {f"link_{i}": f"link_{i}" for i in range(1, 6)}
        | {f"carriage_{side}": f"{side}_finger" for side in ("left", "right")},
    ),
}


def load_menagerie_spec(name: str, own: Path) -> mujoco.MjSpec:
    """Our model `name`, the MJCF file `own`, with Menagerie's meshes for its looks.

    Raises:
        SimulationError: Menagerie has no such robot, is not installed, or its model does not load.
    """
    if name not in DRESSES:
        raise SimulationError(
            f"MuJoCo Menagerie has no '{name}'; it has: {', '.join(DRESSES)}.",
            "Use our own model: source 'own'.",
        )
    dress = DRESSES[name]
    path = _folder(dress) / dress.file
    try:
        vendor = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise SimulationError(
            f"{path} does not load: {error}", f"Check ${ROOT_VARIABLE}, or use source 'own'."
        ) from error
    spec = mujoco.MjSpec.from_file(str(own))
    _undress(spec)
    _put_on(spec, vendor, dress)
    return spec


def _folder(dress: Dress) -> Path:
    root = os.environ.get(ROOT_VARIABLE)
    if root:
        folder = Path(root) / dress.folder
        if not folder.is_dir():
            raise SimulationError(
                f"{folder} does not exist.", f"Set ${ROOT_VARIABLE} to a checkout of MuJoCo Menagerie."
            )
        return folder
    try:
        package = importlib.import_module(PACKAGE)
    except ModuleNotFoundError as error:
        raise SimulationError(
            f"the meshes of '{dress.folder}' come from MuJoCo Menagerie, which is not here.",
            f"Set ${ROOT_VARIABLE} to a checkout of it, or: pip install mujoco-menagerie",
        ) from error
    try:
        return Path(package.get(dress.folder).path())
    except package.MenagerieError as error:
        raise SimulationError(
            f"MuJoCo Menagerie could not provide '{dress.folder}': {error}",
            f"Go online once, or set ${ROOT_VARIABLE} to a checkout.",
        ) from error


def _undress(spec: mujoco.MjSpec) -> None:
    """Drop the shapes that are only looked at; keep those that collide, out of sight."""
    for geom in list(spec.geoms):
        if geom.contype == 0 and geom.conaffinity == 0:
            spec.delete(geom)
        else:
            geom.group = COLLISION_GROUP


def _put_on(spec: mujoco.MjSpec, vendor: mujoco.MjModel, dress: Dress) -> None:
    data = mujoco.MjData(vendor)
    mujoco.mj_kinematics(vendor, data)
    missing = [body for body in dress.bodies if mujoco.mj_name2id(vendor, mujoco.mjtObj.mjOBJ_BODY, body) < 0]
    if missing:
        raise SimulationError(
            f"{dress.folder}/{dress.file} has no body {missing}: another version than the one known here.",
            "Use another version of MuJoCo Menagerie, or source 'own'.",
        )
    meshes: set[int] = set()
    for geom in _visual_mesh_geoms(vendor):
        wearer = _wearer(vendor, int(vendor.geom_bodyid[geom]), dress)
        if wearer is None:
            continue
        mesh = int(vendor.geom_dataid[geom])
        if mesh not in meshes:
            _add_mesh(spec, vendor, mesh)
            meshes.add(mesh)
        position, quaternion = _pose_in_wearer(vendor, data, geom, wearer, dress)
        spec.body(dress.bodies[vendor.body(wearer).name]).add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=_mesh_name(mesh),
            pos=position.tolist(),
            quat=quaternion.tolist(),
            rgba=_colour(vendor, geom).tolist(),
            group=VISUAL_GROUP,
            contype=0,
            conaffinity=0,
        )


def _visual_mesh_geoms(vendor: mujoco.MjModel) -> list[int]:
    """Mesh geoms to look at: a body's non-colliding ones, or all of them where it has no others."""
    geoms = [geom for geom in range(vendor.ngeom) if vendor.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH]
    shown = [geom for geom in geoms if vendor.geom_contype[geom] == 0 and vendor.geom_conaffinity[geom] == 0]
    bodies_with_shown = {int(vendor.geom_bodyid[geom]) for geom in shown}
    return shown + [geom for geom in geoms if int(vendor.geom_bodyid[geom]) not in bodies_with_shown]


def _wearer(vendor: mujoco.MjModel, body: int, dress: Dress) -> int | None:
    """The body of ours (as Menagerie's index) that this one is fixed to; None if it moves on its own."""
    while vendor.body(body).name not in dress.bodies:
        if body == 0 or vendor.body_jntnum[body] > 0:
            return None
        body = int(vendor.body_parentid[body])
    return body


def _pose_in_wearer(
    vendor: mujoco.MjModel, data: mujoco.MjData, geom: int, wearer: int, dress: Dress
) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) in metres and quaternion wxyz (4,) of a Menagerie geom in our body's frame."""
    orientation = data.xmat[wearer].reshape(3, 3)
    position = orientation.T @ (data.geom_xpos[geom] - data.xpos[wearer])
    rotation = orientation.T @ data.geom_xmat[geom].reshape(3, 3)
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, np.array(dress.turned.get(vendor.body(wearer).name, IDENTITY)))
    turn = turn.reshape(3, 3)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, (turn @ rotation).ravel())
    return turn @ position, quaternion


def _mesh_name(mesh: int) -> str:
    return f"menagerie_{mesh}"


def _add_mesh(spec: mujoco.MjSpec, vendor: mujoco.MjModel, mesh: int) -> None:
    first_vertex, vertices = vendor.mesh_vertadr[mesh], vendor.mesh_vertnum[mesh]
    first_face, faces = vendor.mesh_faceadr[mesh], vendor.mesh_facenum[mesh]
    spec.add_mesh(
        name=_mesh_name(mesh),
        uservert=vendor.mesh_vert[first_vertex : first_vertex + vertices].ravel().tolist(),
        userface=vendor.mesh_face[first_face : first_face + faces].ravel().tolist(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )


def _colour(vendor: mujoco.MjModel, geom: int) -> np.ndarray:
    """RGBA (4,) in 0..1: the material's, times the mean of its texture where it has one."""
    material = int(vendor.geom_matid[geom])
    if material < 0:
        return vendor.geom_rgba[geom]
    colour = vendor.mat_rgba[material].copy()
    texture = int(vendor.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
    if texture >= 0:
        channels = int(vendor.tex_nchannel[texture])
        size = int(vendor.tex_height[texture]) * int(vendor.tex_width[texture]) * channels
        start = int(vendor.tex_adr[texture])
        pixels = vendor.tex_data[start : start + size].reshape(-1, channels)
        colour[:3] *= pixels[:, :3].mean(axis=0) / 255
    return colour
