import json
from pathlib import Path

import numpy as np
import pytest

from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.features import Features, infer_features
from blm.curate.episodes.index import index_dataset
from blm.curate.episodes.lerobot_files import read_episode_metadata, read_info
from blm.curate.episodes.resources import DEFAULT_RESOURCES
from blm.schemas.episode import ACTION, STATE
from blm.schemas.errors import DatasetError
from blm.schemas.yaml_model import validate
from tests.curate.episodes.editing import as_stock, edit_info
from tests.large_dataset import joint_names, write_dataset


def features(root: Path, **source) -> Features:
    given = validate(DatasetSource, {"path": root, **source}, "test")
    with DEFAULT_RESOURCES.connect() as connection:
        info = read_info(root)
        meta = read_episode_metadata(root, info, connection)
    return infer_features(given, info, meta, None, DEFAULT_RESOURCES)


def found(features: Features) -> dict[str, tuple[str, str]]:
    return {one.what: (one.value, one.reason) for one in features.found}


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten episodes of a robot with seven axes that nobody described."""
    return write_dataset(tmp_path_factory.mktemp("unknown") / "bench", 3000, 7, file_per_episode=False)


def test_what_is_found_is_told_with_its_reason(recorded, copy):
    told = found(features(recorded))
    assert told["embodiment"] == ("so100", "as recorded")
    assert told["state"] == ("observation.state", "the usual name")
    assert told["camera wrist"] == ("observation.images.wrist (64 × 64)", "a video feature")
    assert found(features(as_stock(copy())))["embodiment"] == ("so100", "its axes")


def test_a_robot_that_nobody_described_is_described_from_its_dataset(unknown):
    result = features(unknown)
    robot = result.embodiment
    assert (robot.name, robot.control_rate_hz) == ("bench", 30)
    assert list(robot.axis_names) == joint_names(7)
    assert robot.gripper_index == 6
    assert {axis.unit for axis in robot.axes} == {"native"}
    assert "taken from the dataset" in found(result)["embodiment"][1]
    np.testing.assert_allclose(robot.column("lower"), -1, atol=0.05)
    np.testing.assert_allclose(robot.column("upper"), 1, atol=0.05)


def test_an_undescribed_robot_is_indexed_like_any_other(unknown):
    index = index_dataset(DatasetSource(path=unknown), "bench", 0.02)
    rows = index.episodes.to_pylist()
    assert len(rows) == 10
    assert all(row["rows"] == 300 and row["finite"] and row["top_speed"] > 0.1 for row in rows)
    assert max(row["velocity_ratio"] for row in rows) < 1e-3


def test_ranges_are_taken_from_the_datasets_statistics_where_they_are_whole(copy):
    root = as_stock(copy())
    rename_axes(root, [f"tentacle {place}" for place in range(6)])
    stats = json.loads((root / "meta/stats.json").read_text())
    robot = features(root).embodiment
    assert robot.axis_names[0] == "tentacle_0.pos"
    for end, pick, field in (("min", np.minimum, "lower"), ("max", np.maximum, "upper")):
        expected = pick(stats[STATE][end], stats[ACTION][end])
        np.testing.assert_allclose(robot.column(field), expected)
    (root / "meta/stats.json").write_text('{"action": {"min": "?"}}')
    np.testing.assert_allclose(features(root).embodiment.column("upper"), robot.column("upper"), rtol=1e-5)


def rename_axes(root: Path, names: list[str] | None, features: tuple[str, ...] = (STATE, ACTION)) -> None:
    def change(info):
        for feature in features:
            info["features"][feature]["names"] = names

    edit_info(root, change)


def test_a_robot_type_that_is_taken_gets_a_name_of_its_own(copy):
    root = as_stock(copy())
    rename_axes(root, [f"main_{place}" for place in range(6)])
    edit_info(root, lambda info: info.update(robot_type="so100"))
    assert features(root).embodiment.name == "so100_native"
    edit_info(root, lambda info: info.update(robot_type="unknown"))
    assert features(root).embodiment.name == "pushes"


def test_axes_given_in_the_configuration_name_the_values(copy, recorded):
    root = as_stock(copy())
    names = list(features(recorded).embodiment.axis_names)
    rename_axes(root, None)
    assert features(root).embodiment.axis_names[0] == "axis_0.pos"
    swapped = [*reversed(names)]
    result = features(root, features={"axes": swapped})
    assert result.embodiment.name == "so100"
    assert result.columns.state == result.columns.action == (5, 4, 3, 2, 1, 0)
    with pytest.raises(DatasetError, match=r"2 `axes` are given; 'observation\.state' has 6 values"):
        features(root, features={"axes": ["a", "b"]})


def test_a_recorded_embodiment_outranks_a_choice_of_axes(recorded):
    result = features(recorded, embodiment=None, features={"axes": ["shoulder_pan", "gripper"]})
    assert result.embodiment.name == "so100"
    assert result.columns.state == (0, 1, 2, 3, 4, 5)


def test_features_of_other_names_are_found_or_asked_for(copy):
    root = as_stock(copy())

    def rename(info):
        info["features"]["robot.qpos"] = info["features"].pop(STATE)
        info["features"]["target"] = info["features"].pop(ACTION)

    edit_info(root, rename)
    with pytest.raises(DatasetError, match=r"which feature is the action.*robot\.qpos \(6\).*target \(6\)"):
        features(root)
    result = features(root, features={"action": "target"})
    assert (result.columns.state_feature, result.columns.action_feature) == ("robot.qpos", "target")
    assert found(result)["state"][1] == "the only name like it"
    edit_info(root, lambda info: info["features"].update({"sim.qpos": info["features"]["target"]}))
    with pytest.raises(DatasetError, match=r"several may be the state \(robot\.qpos, sim\.qpos\)"):
        features(root, features={"action": "target"})
    with pytest.raises(DatasetError, match="state 'nothing' is not a vector"):
        features(root, features={"state": "nothing"})


def test_state_and_action_of_different_lengths_share_axes_by_name(copy):
    root = as_stock(copy())
    rename_axes(root, ["x", "y", "z", "roll", "pad", "gripper"], (STATE,))

    def shorten(info):
        info["features"][ACTION] |= {"names": ["x", "y", "z", "roll", "gripper"], "shape": [5]}

    edit_info(root, shorten)
    result = features(root)
    assert result.columns.state == (0, 1, 2, 3, 5)
    assert result.columns.action == (0, 1, 2, 3, 4)
    rename_axes(root, None, (STATE,))
    with pytest.raises(DatasetError, match=r"6 values \(no names\) and 'action' 5 .*which belong together"):
        features(root)


def test_cameras_may_be_named_in_the_configuration(copy):
    root = copy()
    given = {"cameras": {"front": "observation.images.top"}}
    assert [(one.name, one.feature) for one in features(root, features=given).cameras] == [
        ("front", "observation.images.top")
    ]
    with pytest.raises(
        DatasetError, match=r"'side' is not a camera; this dataset has: observation\.images\.top"
    ):
        features(root, features={"cameras": {"front": "side"}})
    edit_info(
        root, lambda info: info["features"].update({"wrist": info["features"]["observation.images.wrist"]})
    )
    with pytest.raises(DatasetError, match="would be called the same"):
        features(root)


@pytest.mark.parametrize("where", [("info", "is_depth_map"), ("video_info", "video.is_depth_map")])
def test_depth_maps_are_no_cameras(copy, where):
    root, (notes, mark) = copy(), where
    edit_info(root, lambda info: info["features"]["observation.images.wrist"].update({notes: {mark: True}}))
    told = features(root)
    assert [one.name for one in told.cameras] == ["top"]
    assert found(told)["left out"] == ("observation.images.wrist", "a depth map")
    with pytest.raises(DatasetError, match=r"'observation\.images\.wrist' is not a camera"):
        features(root, features={"cameras": {"wrist": "observation.images.wrist"}})
