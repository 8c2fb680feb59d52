"""Recordings for Rerun, read back with its own reader: the numbers, times, pictures and videos of the dataset."""

import io
import subprocess
import sys

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from blm.pages.viewer.dataset import ViewedDataset
from blm.pages.viewer.rerun_export import export_rerun
from blm.schemas.errors import MissingExtraError, OutputExistsError, UsageError
from tests.factories import SUBTASKS, make_dataset
from tests.pages.viewer import image_dataset, shared_video

pytest.importorskip("rerun")
pytestmark = pytest.mark.filterwarnings("error::rerun.error_utils.RerunWarning")


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    root = tmp_path_factory.mktemp("ours") / "data"
    return ViewedDataset(make_dataset(root, episodes=2, frames=[12, 9], image_size=32))


def read_back(path):
    """Columns of a recording: (entity, name) → (rows as lists, their times by timeline); static ones have no times."""
    from rerun.chunk import RrdReader

    found = {}
    for chunk in RrdReader(path).stream():
        batch = chunk.to_record_batch()
        kinds = {
            field.name: (field.metadata or {}).get(b"rerun:kind", b"").decode() for field in batch.schema
        }
        times = {name: batch[name].to_pylist() for name, kind in kinds.items() if kind == "index"}
        for name, kind in kinds.items():
            if kind == "data":
                rows, all_times = found.setdefault((chunk.entity_path, name.split(":")[-1]), ([], {}))
                rows.extend(batch[name].to_pylist())
                for timeline, values in times.items():
                    all_times.setdefault(timeline, []).extend(values)
    return found


def scalars(found, entity):
    return np.array([row[0] for row in found[entity, "scalars"][0]])


def seconds(values):
    return np.array([value.total_seconds() for value in values])


def test_numbers_and_times_are_the_datasets(ours, tmp_path):
    (path,) = export_rerun(ours, tmp_path / "one.rrd", [1])
    assert path == tmp_path / "one.rrd"
    found = read_back(path)
    rows = pq.read_table(ours.data_file(1))
    names = ours.features["action"]["names"]
    for column in ("observation.state", "action"):
        written = np.stack([scalars(found, f"/{column}/{name}") for name in names], axis=1)
        np.testing.assert_array_equal(written, np.array(rows[column].to_pylist()))
    np.testing.assert_array_equal(scalars(found, "/next.success"), rows["next.success"].to_pylist())
    poses = np.stack([scalars(found, f"/observation.ee_pose/{name}") for name in "xyz"], axis=1)
    np.testing.assert_array_equal(poses, np.array(rows["observation.ee_pose"].to_pylist())[:, :3])

    times = found["/next.success", "scalars"][1]
    assert times["frame"] == list(range(9))
    np.testing.assert_allclose(seconds(times["time"]), np.arange(9) / 20, atol=1e-9)
    measured = np.array(rows["timing.monotonic_s"].to_pylist())
    np.testing.assert_allclose(seconds(times["measured_time"]), measured - measured[0], atol=1e-6)
    gripper = found["/action/gripper.pos", "names"][0]
    assert gripper == [["action (percent)"]]


def test_subtasks_begin_where_they_do(ours, tmp_path):
    found = read_back(*export_rerun(ours, tmp_path / "one.rrd", [0]))
    texts, times = found["/subtask", "text"]
    assert texts == [[label] for label in SUBTASKS]
    assert times["frame"] == [band["from"] for band in ours.content(0)["bands"]]
    assert found["/subtask", "state"][0] == texts
    assert found["/subtask", "values"][0] == [list(SUBTASKS)]
    assert found["/subtask", "colors"][0] == [[0x4878A8FF, 0xC7744AFF, 0x4F9A72FF]]


def test_what_is_known_about_the_episode_is_there(ours, tmp_path):
    found = read_back(*export_rerun(ours, tmp_path / "one.rrd", [0]))
    told = {
        name: rows[0][0] for (entity, name), (rows, _) in found.items() if entity == "/__properties/episode"
    }
    assert told["task"] == "push-cube"
    assert told["success"] is True
    assert (told["episode"], told["dataset"]) == (0, "data")


@pytest.mark.parametrize("episode", [0, 1, 2])
def test_each_frame_refers_to_its_own_picture_of_a_shared_video(tmp_path, episode):
    dataset = ViewedDataset(shared_video.write_dataset(tmp_path / "wheels"))
    found = read_back(*export_rerun(dataset, tmp_path / "one.rrd", [episode]))
    ((video,),) = found["/camera/front", "blob"][0]
    moments = [row[0] / 1e9 for row in found["/camera/front", "timestamp"][0]]
    pictures, shown = [], []
    with av.open(io.BytesIO(bytes(video)), "r") as container:
        for frame in container.decode(video=0):
            pictures.append((frame.time, frame.to_ndarray(format="rgb24")))
    for moment in moments:
        time, picture = min(pictures, key=lambda one: abs(one[0] - moment))
        assert abs(time - moment) < 0.25 / shared_video.FPS
        shown.append(shared_video.number_of(picture))
    first = sum(shared_video.FRAMES[:episode])
    assert shown == list(range(first, first + shared_video.FRAMES[episode]))


@pytest.mark.parametrize(("form", "media_type"), [("png", "image/png"), ("jpeg", "image/jpeg")])
def test_single_pictures_are_taken_as_they_are(tmp_path, form, media_type):
    dataset = ViewedDataset(image_dataset.write_dataset(tmp_path / "watched", form))
    found = read_back(*export_rerun(dataset, tmp_path / "one.rrd", [1]))
    pictures, times = found["/camera/front", "blob"]
    first = image_dataset.FRAMES[0]
    expected = [image_dataset.picture(first + frame, form) for frame in range(5)]
    assert [bytes(row[0]) for row in pictures] == expected
    assert found["/camera/front", "media_type"][0] == [[media_type]] * 5
    assert times["frame"] == list(range(5))
    assert "measured_time" not in times


def test_a_folder_gets_a_recording_per_episode_and_nothing_is_overwritten(ours, tmp_path):
    files = export_rerun(ours, tmp_path / "out")
    assert files == [tmp_path / f"out/episode_{number:06d}.rrd" for number in (0, 1)]
    assert sorted((tmp_path / "out").iterdir()) == files
    with pytest.raises(OutputExistsError, match="exists already"):
        export_rerun(ours, tmp_path / "out", [1])
    with pytest.raises(UsageError, match="one recording, but there are 2 episodes"):
        export_rerun(ours, tmp_path / "all.rrd")
    with pytest.raises(UsageError, match="episode 7 not found"):
        export_rerun(ours, tmp_path / "new", [7])
    assert not (tmp_path / "new").exists()


def test_an_export_that_fails_leaves_no_file(ours, tmp_path, monkeypatch):
    monkeypatch.setattr(type(ours), "signals", lambda self, episode: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_rerun(ours, tmp_path / "one.rrd", [0])
    assert list(tmp_path.iterdir()) == []


def test_without_the_library_the_extra_is_named(ours, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'blm\[rerun\]'"):
        export_rerun(ours, tmp_path / "one.rrd", [0])


def test_the_viewer_itself_loads_without_rerun():
    code = "import sys, blm.pages.viewer.rerun_export; assert 'rerun' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
