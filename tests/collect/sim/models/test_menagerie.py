"""Menagerie's meshes go onto our models, body by body, and change nothing but the looks."""

from __future__ import annotations

import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from blm.collect.sim.models import load_spec
from blm.collect.sim.models.menagerie import ROOT_VARIABLE
from blm.schemas.errors import SimulationError

# A stand-in with Menagerie's names: one tetrahedron as every link's mesh, a nested camera, and a link that is not ours.
FAKE_WIDOWX = """
<mujoco>
  <asset>
    <material name="blue" rgba="0.1 0.2 0.9 1"/>
    <mesh name="part" vertex="0 0 0  0.03 0 0  0 0.02 0  0 0 0.01"/>
  </asset>
  <default>
    <geom type="mesh" mesh="part" contype="0" conaffinity="0" material="blue"/>
  </default>
  <worldbody>
    <body name="base_link"><geom/>
      <body name="link_1"><joint/><geom/><body name="link_2"><joint/><geom/><body name="link_3"><joint/><geom/>
      <body name="link_4"><joint/><geom/><body name="link_5"><joint/><geom/><body name="link_6"><joint/><geom/>
        <body name="camera" pos="0.1 0 0.2" quat="0 0 1 0"><geom/></body>
        <body name="fan"><joint/><geom/></body>
        <body name="carriage_left"><joint type="slide"/><geom pos="0 0.5 0"/></body>
        <body name="carriage_right"><joint type="slide"/><geom/><geom contype="1"/></body>
      </body></body></body></body></body></body>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "trossen_wxai"
    folder.mkdir()
    (folder / "wxai_follower.xml").write_text(FAKE_WIDOWX)
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    return tmp_path


def mesh_geoms(model: mujoco.MjModel) -> list[int]:
    return [geom for geom in range(model.ngeom) if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH]


def test_meshes_replace_what_is_only_looked_at(root: Path) -> None:
    own, dressed = load_spec("widowxai").compile(), load_spec("widowxai", "menagerie").compile()
    meshes = mesh_geoms(dressed)
    worn = sorted(dressed.body(dressed.geom_bodyid[geom]).name for geom in meshes)
    assert worn == sorted(
        ["base", *(f"link_{i}" for i in range(1, 6)), "hand", "hand", "left_finger", "right_finger"]
    )
    assert all(dressed.geom_group[geom] == 2 and dressed.geom_contype[geom] == 0 for geom in meshes)
    assert dressed.geom_rgba[meshes[0]] == pytest.approx([0.1, 0.2, 0.9, 1])
    solid = [geom for geom in range(dressed.ngeom) if dressed.geom_contype[geom]]
    assert {int(dressed.geom_group[geom]) for geom in solid} == {3}
    assert len(solid) == np.count_nonzero(own.geom_contype)


def test_physics_stays_our_own(root: Path) -> None:
    own, dressed = load_spec("widowxai").compile(), load_spec("widowxai", "menagerie").compile()
    assert np.array_equal(own.body_mass, dressed.body_mass)
    assert np.array_equal(own.body_inertia, dressed.body_inertia)
    assert np.array_equal(own.actuator_gainprm, dressed.actuator_gainprm)
    assert (own.nkey, own.nsite) == (dressed.nkey, dressed.nsite)


def corners(model: mujoco.MjModel, data: mujoco.MjData, geom: int, body: int) -> np.ndarray:
    """A mesh geom's vertices in a body's frame, shape (V, 3), sorted."""
    mesh = int(model.geom_dataid[geom])
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    world = (
        model.mesh_vert[first : first + count] @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
    )
    local = (world - data.xpos[body]) @ data.xmat[body].reshape(3, 3)
    return local[np.lexsort(local.round(6).T)]


def test_a_part_fixed_to_a_link_comes_along_in_place(root: Path) -> None:
    vendor = mujoco.MjModel.from_xml_string(FAKE_WIDOWX)
    dressed = load_spec("widowxai", "menagerie").compile()
    vendor_data, data = mujoco.MjData(vendor), mujoco.MjData(dressed)
    mujoco.mj_kinematics(vendor, vendor_data)
    mujoco.mj_kinematics(dressed, data)
    hand, link = dressed.body("hand").id, vendor.body("link_6").id
    worn = [
        corners(dressed, data, geom, hand)
        for geom in mesh_geoms(dressed)
        if dressed.geom_bodyid[geom] == hand
    ]
    for body in (link, vendor.body("camera").id):
        expected = corners(vendor, vendor_data, int(vendor.body(body).geomadr[0]), link)
        assert min(np.abs(part - expected).max() for part in worn) < 1e-6


def test_errors_name_the_remedy(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SimulationError, match=r"no 'xarm6'.*source 'own'"):
        load_spec("xarm6", "menagerie")
    with pytest.raises(SimulationError, match=r"franka_emika_panda does not exist.*MENAGERIE_ROOT"):
        load_spec("panda", "menagerie")
    (root / "trossen_wxai" / "wxai_follower.xml").write_text("<mujoco><nonsense/></mujoco>")
    with pytest.raises(SimulationError, match="does not load"):
        load_spec("widowxai", "menagerie")
    (root / "trossen_wxai" / "wxai_follower.xml").write_text("<mujoco/>")
    with pytest.raises(SimulationError, match=r"no body.*another version"):
        load_spec("widowxai", "menagerie")
    monkeypatch.delenv(ROOT_VARIABLE)
    monkeypatch.setitem(sys.modules, "mujoco_menagerie", None)
    with pytest.raises(SimulationError, match=r"MENAGERIE_ROOT.*pip install mujoco-menagerie"):
        load_spec("panda", "menagerie")
