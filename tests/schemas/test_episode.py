import pytest

from blm.schemas.embodiment import load_embodiment
from blm.schemas.episode import (
    ENVIRONMENT_STATE,
    GRIPPER_CONTACT,
    OBJECT_SLOTS,
    environment_state_names,
    episode_features,
)


@pytest.mark.parametrize(("name", "axes"), [("so100", 6), ("panda", 8)])
def test_features_follow_the_embodiment(name, axes):
    features = episode_features(load_embodiment(name), simulated=True)
    assert features["observation.state"]["shape"] == (axes,)
    assert features["action"]["names"] == features["observation.state"]["names"]
    assert features["observation.images.top"] == {
        "dtype": "video",
        "shape": (256, 256, 3),
        "names": ["height", "width", "channels"],
    }
    assert features[ENVIRONMENT_STATE]["shape"] == (len(environment_state_names()),)


def test_hardware_knows_no_object_poses():
    assert ENVIRONMENT_STATE not in episode_features(load_embodiment("so100"), simulated=False)


def test_every_slot_has_a_contact_force_and_the_table_too():
    features = episode_features(load_embodiment("so100"), simulated=True)
    names = features[GRIPPER_CONTACT]["names"]
    assert names == [*(f"object_{slot}.force_n" for slot in range(OBJECT_SLOTS)), "table.force_n"]
    assert GRIPPER_CONTACT not in episode_features(load_embodiment("so100"), simulated=False)
