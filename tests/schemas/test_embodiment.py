import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from blm.schemas.embodiment import Embodiment, embodiment_names, load_embodiment
from blm.schemas.errors import ConfigError, UnknownNameError
from blm.schemas.registry import resolve_file
from blm.schemas.yaml_model import validate

BUILT_IN = ("panda", "so100", "widowxai", "xarm6", "xarm7")


def test_five_are_built_in():
    assert set(BUILT_IN) <= set(embodiment_names())


@pytest.mark.parametrize("name", BUILT_IN)
def test_home_lies_within_limits_and_the_file_is_named_after_it(name):
    embodiment = load_embodiment(name)
    assert embodiment.name == name
    home = embodiment.column("home")
    assert np.array_equal(embodiment.clip(home), home)
    assert len(embodiment.arm_indices) == len(embodiment.axes) - 1


@pytest.mark.parametrize("name", BUILT_IN)
@given(data=st.data())
def test_axis_values_and_model_coordinates_are_inverse(name, data):
    embodiment = load_embodiment(name)
    values = np.array([data.draw(st.floats(axis.lower, axis.upper)) for axis in embodiment.axes])
    assert np.allclose(embodiment.from_model(embodiment.to_model(values)), values, atol=1e-9)


def test_so100_speaks_the_units_of_the_stock_driver():
    embodiment = load_embodiment("so100")
    assert embodiment.axis_names == (
        "shoulder_pan.pos",
        "shoulder_lift.pos",
        "elbow_flex.pos",
        "wrist_flex.pos",
        "wrist_roll.pos",
        "gripper.pos",
    )
    assert [axis.unit for axis in embodiment.axes] == ["degree"] * 5 + ["percent"]
    assert embodiment.to_model(np.array([90.0, 0, 0, 0, 0, 0]))[0] == pytest.approx(np.pi / 2)


def test_an_unknown_name_lists_what_there_is_and_guesses():
    with pytest.raises(UnknownNameError, match=r"there are: .*panda.*so100") as caught:
        load_embodiment("so10")
    assert caught.value.remedy == "Did you mean 'so100'?"


@pytest.fixture
def so100_content():
    path = resolve_file("embodiment", "so100", "embodiments", "blm.embodiments")
    return yaml.safe_load(path.read_text())


def _load(content, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_embodiment(str(path))


def test_a_robot_of_ones_own_is_a_file(so100_content, tmp_path):
    assert _load(so100_content | {"name": "my_arm"}, tmp_path).name == "my_arm"


def test_an_unknown_key_names_the_file_the_key_and_what_is_allowed(so100_content, tmp_path):
    so100_content["axes"][2]["max_speed"] = 3
    with pytest.raises(ConfigError, match=r"mine\.yaml: unknown key 'axes\.2\.max_speed'.*max_velocity"):
        _load(so100_content, tmp_path)


def test_a_missing_key_is_named(so100_content, tmp_path):
    del so100_content["gripper"]["open"]
    with pytest.raises(ConfigError, match=r"key 'gripper\.open' is missing"):
        _load(so100_content, tmp_path)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ({"lower": 120.0}, "must be below upper"),
        ({"home": 500.0}, "home .* must lie within"),
        ({"scale": 0.0}, "scale must not be 0"),
        ({"unit": "degrees"}, "degree.*percent.*radian.*fraction"),
    ],
)
def test_senseless_axes_are_refused(so100_content, tmp_path, axis, message):
    so100_content["axes"][0] |= axis
    with pytest.raises(ConfigError, match=message):
        _load(so100_content, tmp_path)


def test_a_camera_is_fixed_or_mounted_never_both(so100_content, tmp_path):
    so100_content["cameras"][0]["mount"] = "wrist_camera"
    with pytest.raises(ConfigError, match="either position and look_at"):
        _load(so100_content, tmp_path)


def test_image_size_of_all_cameras_changes_in_a_copy():
    embodiment = load_embodiment("so100")
    small = embodiment.with_image_size(96, 64)
    assert {(camera.width, camera.height) for camera in small.cameras} == {(96, 64)}
    assert embodiment.cameras[0].width == 256


def test_a_torque_that_is_not_known_sets_no_limit(so100_content):
    del so100_content["axes"][2]["max_torque"]
    limits = validate(Embodiment, so100_content, "so100").torque_limits()
    assert np.array_equal(limits, [2.94, 2.94, np.inf, 2.94, 2.94, 0.735])
