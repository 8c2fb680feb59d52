"""Find a robot model by name, and load it under the names that the rest of `blm` relies on.

Every model has: a root body `base` (z up, x towards the workspace), one position actuator per controlled joint with
the joint's name (ctrl in rad or m), a body `hand`, a site `tool` between the fingertips (z out of the gripper, y the
direction in which the fingers open), a site `wrist_camera` and, in our own models, the pads `left_pad` and
`right_pad` and a keyframe `home`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blm.schemas.errors import UnknownNameError

if TYPE_CHECKING:
    import mujoco

MODEL_NAMES = ("so100", "panda", "xarm6", "xarm7", "widowxai")
SOURCES = ("own", "menagerie")


def model_path(name: str) -> Path:
    """Path of our own MJCF file for a robot.

    Raises:
        UnknownNameError: there is no such model.
    """
    if name not in MODEL_NAMES:
        raise UnknownNameError("robot model", name, MODEL_NAMES)
    return Path(__file__).with_name(f"{name}.xml")


def load_spec(name: str, source: str = "own") -> mujoco.MjSpec:
    """Load a robot as an editable specification, ready to be attached to a scene.

    Args:
        name: one of MODEL_NAMES.
        source: 'own' for our low-polygon model, 'menagerie' for the vendor's meshes where they are installed.

    Raises:
        UnknownNameError: there is no such model or source.
        SimulationError: 'menagerie' was asked for and is not there, or has no such robot.
    """
    path = model_path(name)
    if source not in SOURCES:
        raise UnknownNameError("model source", source, SOURCES)
    if source == "menagerie":
        from blm.collect.sim.models.menagerie import load_menagerie_spec

        return load_menagerie_spec(name, path)
    import mujoco

    return mujoco.MjSpec.from_file(str(path))
