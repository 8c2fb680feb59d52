import pytest
import yaml

from blm.schemas.errors import ConfigError, UnknownNameError
from blm.schemas.registry import resolve_file
from blm.schemas.task import load_task, task_names
from tests.schemas.test_embodiment import BUILT_IN

SIX = ("lift-peg-upright", "pick-cube", "place-sphere", "pull-cube", "push-cube", "stack-cube")


def test_six_are_built_in():
    assert set(SIX) <= set(task_names())


@pytest.mark.parametrize("robot", BUILT_IN)
@pytest.mark.parametrize("task", SIX)
def test_every_pair_is_complete(task, robot):
    loaded = load_task(task, robot)
    assert loaded.name == task
    assert len(set(loaded.instructions)) >= 3


def test_small_arms_get_their_own_sizes_and_keep_the_rest():
    full, small = load_task("pick-cube", "panda"), load_task("pick-cube", "so100")
    assert full.objects["cube"].half_size[0] == 0.02
    assert small.objects["cube"].half_size[0] == 0.0125
    assert small.objects["cube"].spawn.yaw_deg == full.objects["cube"].spawn.yaw_deg
    assert small.success["robot_static"] == full.success["robot_static"]


def test_success_thresholds_of_the_full_size_suite():
    assert load_task("pick-cube", "panda").success["at_goal"].at_most == 0.025
    assert load_task("push-cube", "panda").success["at_goal"].at_most == 0.1
    stack = load_task("stack-cube", "panda").success
    assert (stack["on_top_xy"].at_most, stack["on_top_z"].expected, stack["on_top_z"].at_most) == (
        0.0333,
        0.04,
        0.005,
    )
    place = load_task("place-sphere", "panda").success
    assert (place["in_bin_xy"].at_most, place["in_bin_z"].expected) == (0.005, 0.0225)
    assert load_task("lift-peg-upright", "panda").success["upright"].at_most == 0.08


def test_an_unknown_task_lists_what_there_is():
    with pytest.raises(UnknownNameError, match="there are: lift-peg-upright, pick-cube"):
        load_task("pick-cup", "so100")


def _load(tmp_path, change):
    content = yaml.safe_load(resolve_file("task", "push-cube", "tasks", "blm.tasks").read_text())
    change(content)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_task(str(path), "so100")


def test_a_task_of_ones_own_is_a_file(tmp_path):
    assert _load(tmp_path, lambda content: content.update(name="nudge-cube")).name == "nudge-cube"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["objects"]["cube"].update(weight=1),
            r"unknown key 'objects\.cube\.weight'.*density_kg_m3",
        ),
        (
            lambda c: c["success"]["at_goal"].update(object="cub"),
            "object 'cub' is not defined; there are: cube",
        ),
        (lambda c: c["success"]["at_goal"].update(measure="distance"), "object_to_goal_distance_m"),
        (lambda c: c.pop("goal") and c["per_embodiment"]["so100"].pop("goal"), "needs a goal"),
        (lambda c: c["objects"]["cube"]["spawn"].update(yaw_deg=[10, -10]), "yaw_deg: the lower end"),
        (lambda c: c["goal"].update(x=[0, 1], y=[0, 1], z=[0, 1]), "give either relative_to and offset"),
    ],
)
def test_wrong_files_name_the_key_and_what_is_allowed(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        _load(tmp_path, change)
    assert "mine.yaml" in caught.value.message
