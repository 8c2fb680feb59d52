import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blm.curate.episodes import index as index_module
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.facts import motion_window
from blm.curate.episodes.index import DatasetIndex, dataset_names, index_dataset
from blm.curate.episodes.instructions import task_of_instruction
from blm.schemas.embodiment import load_embodiment
from blm.schemas.episode import ACTION, STATE
from blm.schemas.errors import ConfigError, DatasetError
from tests.curate.episodes.editing import as_stock, data_file, edit_info, edit_rows, set_motion, video_file

IDLE_SPEED = 0.02


def index(root: Path, **source) -> DatasetIndex:
    return index_dataset(DatasetSource(path=root, **source), root.name, IDLE_SPEED)


def test_our_own_columns_are_taken_over(recorded):
    found = index(recorded)
    rows = found.episodes.to_pylist()
    assert (found.embodiment.name, found.rate_hz) == ("so100", 20.0)
    assert [(c.name, c.width, c.height) for c in found.cameras] == [("top", 64, 64), ("wrist", 64, 64)]
    assert [row["episode"] for row in rows] == list(range(8))
    assert [row["seed"] for row in rows] == list(range(8))
    assert {row["task"] for row in rows} == {"push-cube"}
    assert {row["success"] for row in rows} == {"yes"}
    assert all(row["rows"] == row["length"] == row["video_frames"] == 24 for row in rows)
    assert found.subtasks == ("approach", "push", "retreat")


def test_facts_agree_with_numpy(recorded):
    robot, window = load_embodiment("so100"), motion_window(20.0)
    assert window == 4
    spans = robot.column("upper") - robot.column("lower")
    for row in index(recorded).episodes.to_pylist():
        table = pq.read_table(data_file(recorded, row["episode"]))
        moved = []
        for name in (STATE, ACTION):
            values = np.stack(table[name].to_numpy()).astype(np.float64)
            moved.append(np.abs(values[window:] - values[:-window]) / spans / (window / 20))
        speed = np.concatenate(moved, axis=1).max(axis=1)
        fast = np.flatnonzero(speed > IDLE_SPEED)
        assert row["top_speed"] == pytest.approx(speed.max(), rel=1e-5)
        assert (row["moves_from"], row["moves_to"]) == (fast[0], fast[-1])
        assert row["finite"]
        assert row["contiguous"]


def test_a_stock_dataset_is_understood_from_axes_and_wording(copy):
    found = index(as_stock(copy()))
    rows = found.episodes.to_pylist()
    assert found.embodiment.name == "so100"
    assert {row["task"] for row in rows} == {"push-cube"}
    assert {row["success"] for row in rows} == {"unknown"}
    assert found.subtasks == ("",)


def test_success_falls_back_to_the_frames(copy):
    root = copy()
    for path in root.glob("meta/episodes/*/*.parquet"):
        edit_rows(path, lambda t: t.drop_columns(["blm/success"]))
    set_success(root, 3, False)
    assert index(root).episodes["success"].to_pylist() == ["yes"] * 3 + ["no"] + ["yes"] * 4


def set_success(root: Path, episode: int, value: bool) -> None:
    def change(table: pa.Table) -> pa.Table:
        place = table.column_names.index("next.success")
        return table.set_column(place, "next.success", pa.array([value] * len(table)))

    edit_rows(data_file(root, episode), change)


def test_axes_are_brought_into_the_embodiments_order(copy, recorded):
    root = copy()

    def reverse_names(info):
        for feature in (STATE, ACTION):
            names = info["features"][feature]["names"]
            info["features"][feature]["names"] = {
                "motors": [name.removesuffix(".pos") for name in reversed(names)]
            }

    edit_info(root, reverse_names)

    def reverse_values(table: pa.Table) -> pa.Table:
        for feature in (STATE, ACTION):
            values = np.stack(table[feature].to_numpy())[:, ::-1]
            flat = pa.array(np.ascontiguousarray(values).ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
            table = table.set_column(table.column_names.index(feature), feature, column)
        return table

    for path in root.glob("data/*/*.parquet"):
        edit_rows(path, reverse_values)
    assert index(root).episodes["identity"].equals(index(recorded).episodes["identity"])


def test_fingerprints_follow_the_content_and_not_the_place(copy, recorded):
    elsewhere = copy("elsewhere")
    assert index(elsewhere).fingerprint == index(recorded).fingerprint
    assert index(elsewhere).episodes["identity"].equals(index(recorded).episodes["identity"])
    video = video_file(elsewhere, 0)
    video.write_bytes(video.read_bytes()[:-1] + b"\0")
    assert index(elsewhere).fingerprint != index(recorded).fingerprint


def test_a_truncated_data_file_costs_only_its_own_episodes(copy):
    root = copy()
    path = data_file(root, 2)
    path.write_bytes(path.read_bytes()[:-200])
    rows = index(root).episodes.to_pylist()
    assert [row["episode"] for row in rows if row["unreadable"]] == [2]
    assert str(path) in rows[2]["unreadable"]


def test_metadata_are_looked_at_once_however_often_frames_are_read_anew(copy, monkeypatch):
    root, calls = copy(), []
    data_file(root, 3).write_bytes(b"PAR1 but no more")
    for function in ("recorded_episodes", "episode_facts"):
        real = getattr(index_module, function)

        def counted(*arguments, real=real, name=function):
            calls.append(name)
            return real(*arguments)

        monkeypatch.setattr(index_module, function, counted)
    rows = index(root).episodes.to_pylist()
    assert calls[0] == "recorded_episodes"
    assert calls.count("recorded_episodes") == 1
    assert [row["episode"] for row in rows if row["unreadable"]] == [3]


def test_missing_videos_rows_and_values_are_noted(copy):
    root = copy()
    video_file(root, 1, "wrist").unlink()
    edit_rows(data_file(root, 3), lambda t: t.slice(0, 20))
    values = np.zeros((24, 6))
    values[7, 2] = np.nan
    set_motion(root, 5, values)
    rows = index(root).episodes.to_pylist()
    assert [row["missing_videos"] for row in rows] == [[], ["wrist"], *[[]] * 6]
    assert rows[3]["rows"] == 20
    assert [row["finite"] for row in rows] == [True] * 5 + [False] + [True] * 2


def remove_info(root):
    (root / "meta/info.json").unlink()


def break_info(root):
    (root / "meta/info.json").write_text("{")


def old_version(root):
    edit_info(root, lambda info: info.update(codebase_version="v2.1"))


def no_state(root):
    edit_info(root, lambda info: info["features"].pop(STATE))


def lose_episodes(root):
    shutil.rmtree(root / "meta/episodes")


def cut_episodes(root):
    for path in root.glob("meta/episodes/*/*.parquet"):
        path.write_bytes(path.read_bytes()[:-40])


def misspell_a_column(root):
    """In the schema; where the columns lie, the footer names them rightly."""
    for path in root.glob("meta/episodes/*/*.parquet"):
        path.write_bytes(path.read_bytes().replace(b"dataset_from_index", b"dataset\xfffrom_index", 1))


def strange_shape(root):
    edit_info(root, lambda info: info["features"][ACTION].update(shape=["six"]))


def lead_outside(root):
    edit_info(root, lambda info: info.update(data_path="../../{chunk_index}/{file_index}.parquet"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_info, r"info\.json does not exist"),
        (break_info, r"info\.json is not readable"),
        (old_version, r"version v2\.1"),
        (
            no_state,
            r"which feature is the state: none is called 'observation\.state'; its vectors are: action \(6\)",
        ),
        (lose_episodes, "meta/episodes holds no Parquet"),
        (cut_episodes, "meta/episodes is not readable"),
        (misspell_a_column, "meta/episodes is not readable: a column's name is no text"),
        (strange_shape, "feature 'action' has no type and shape that make sense"),
        (lead_outside, "leads out of the dataset"),
    ],
)
def test_an_unusable_dataset_is_refused_with_a_remedy(copy, damage, message):
    root = copy()
    damage(root)
    with pytest.raises(DatasetError, match=message) as caught:
        index(root)
    assert caught.value.remedy


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_links_that_lead_out_of_the_dataset_are_refused(copy, tmp_path, linked):
    root = copy()
    file = data_file(root, 0)
    inside = file if linked == "file" else file.parent
    outside = tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(DatasetError, match="is a link that leads out of the dataset"):
        index(root)


def test_cameras_are_chosen_by_name(recorded):
    source = DatasetSource(path=recorded)
    assert [c.name for c in index_dataset(source, "d", IDLE_SPEED, ["wrist"]).cameras] == ["wrist"]
    with pytest.raises(DatasetError, match="'side' not found; this dataset has: top, wrist"):
        index_dataset(source, "d", IDLE_SPEED, ["side"])


def test_axes_that_fit_two_robots_are_told_apart_by_type_or_asked_for(copy):
    root = as_stock(copy())
    names = list(load_embodiment("panda").axis_names)

    def seven_joints(info):
        info["robot_type"] = "unheard_of"
        for feature in (STATE, ACTION):
            info["features"][feature].update(names=names, shape=[8])

    edit_info(root, seven_joints)
    with pytest.raises(DatasetError, match="fit several embodiments"):
        index(root)
    edit_info(root, lambda info: info.update(robot_type="xarm7"))
    assert index(root).embodiment.name == "xarm7"
    assert index(root, embodiment="panda").embodiment.name == "panda"


def test_tasks_are_known_by_wording_and_otherwise_named_after_it():
    assert (
        task_of_instruction("Push the blue cube away from the robot onto the target.", "so100") == "push-cube"
    )
    assert task_of_instruction("Fold the towel!", "so100") == "fold-the-towel"
    assert task_of_instruction("", "so100") == "unnamed"


def test_names_are_told_apart_by_the_folders_above(tmp_path):
    def names(*paths, **more):
        return dataset_names([DatasetSource(path=tmp_path / path, **more) for path in paths])

    assert names("a/so100", "b/so100", "c/panda") == ["a-so100", "b-so100", "panda"]
    assert names("my data.v2") == ["my_data_v2"]
    with pytest.raises(ConfigError, match="listed twice"):
        names("a", "x/../a")
    with pytest.raises(ConfigError, match="called 'n'"):
        names("a", "b", name="n")
