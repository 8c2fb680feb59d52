"""Forces on the gripper, as recorded: what is known from mechanics must be found."""

import mujoco
import numpy as np
import pytest

from blm.collect.planning.planner import PlannerAgent
from blm.collect.sim.contacts import GripperContacts
from blm.schemas.episode import OBJECT_SLOTS, gripper_contact_names
from tests.collect.sim.scenes import environment

PRESS = """
<mujoco>
  <option gravity="0 0 -10" timestep="0.001"/>
  <worldbody>
    <geom name="table" type="plane" size="1 1 .1"/>
    <body name="cube" pos="0 0 .1">
      <freejoint/>
      <geom name="cube" type="box" size=".1 .1 .1" mass="1"/>
    </body>
    <body name="hand" pos="0 0 .25">
      <freejoint/>
      <geom name="hand" type="box" size=".05 .05 .05" mass="2"/>
    </body>
  </worldbody>
</mujoco>
"""


def test_the_force_on_a_resting_hand_is_its_weight():
    """2 kg on a cube: 20 N there, nothing on the table, whose contact with the cube is not the gripper's."""
    model = mujoco.MjModel.from_xml_string(PRESS)
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, nstep=1000)
    mujoco.mj_forward(model, data)
    contacts = GripperContacts(model, {model.geom("hand").id})
    contacts.assign([[], [model.geom("cube").id], [model.geom("table").id]])
    np.testing.assert_allclose(contacts.forces_n(data, 3), [0.0, 20.0, 0.0], rtol=0.01)
    contacts.assign([[model.geom("cube").id], [], []])
    np.testing.assert_allclose(contacts.forces_n(data, 3), [20.0, 0.0, 0.0], rtol=0.01)


def test_a_grasp_is_felt_and_a_release_too():
    """Stacking with the Panda: no force before the grasp, force while the cube is carried, none at the end."""
    env = environment("panda", "stack-cube")
    observation = env.reset(0)
    agent = PlannerAgent(env)
    agent.reset(env.describe(), observation)
    names = gripper_contact_names()
    forces: dict[str, list[np.ndarray]] = {}
    for _ in range(300):
        command = agent.act(observation)
        assert observation.gripper_contact is not None
        forces.setdefault(command.subtask, []).append(observation.gripper_contact)
        observation = env.step(command.values).observation
        if command.done:
            break
    cube = names.index("object_1.force_n")
    first, *_, last = forces
    assert observation.gripper_contact is not None
    assert observation.gripper_contact.shape == (OBJECT_SLOTS + 1,)
    assert np.all(np.array(forces[first]) == 0.0)
    assert np.min(np.array(forces["lift"])[:, cube]) > 1.0
    assert observation.gripper_contact == pytest.approx(0.0)
    assert all(np.all(np.array(rows) >= 0.0) for rows in forces.values())
    assert last != first
