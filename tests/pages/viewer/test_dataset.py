"""What the viewer reads from a dataset's metadata, ours and others', whole and broken."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blm.pages.viewer.dataset import ViewedDataset
from blm.schemas.errors import DatasetError, UsageError
from tests.factories import make_dataset
from tests.pages.viewer import shared_video


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    root = tmp_path_factory.mktemp("ours") / "data"
    return make_dataset(root, episodes=3, frames=[8, 10, 12], success=[True, False, True], image_size=32)


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return shared_video.write_dataset(tmp_path_factory.mktemp("stock") / "wheels")


def test_the_overview_of_a_recording_of_ours(ours):
    dataset = ViewedDataset(ours)
    overview = dataset.overview()
    episodes = overview.pop("episodes")
    assert overview == {"name": "data", "about": "so100, 20 Hz, cameras top, wrist, 30 frames"}
    assert episodes["index"] == [0, 1, 2]
    assert episodes["seconds"] == [0.4, 0.5, 0.6]
    assert episodes["success"] == [True, False, True]
    assert episodes["task"] == ["push-cube"] * 3
    assert episodes["operator"] == ["planner"] * 3
    assert episodes["seed"] == [0, 1, 2]
    assert dataset.units["gripper.pos"] == "percent"


def test_the_overview_of_a_dataset_without_our_columns(stock):
    overview = ViewedDataset(stock).overview()
    assert overview["about"] == "two_wheels, 10 Hz, cameras front, 35 frames"
    assert overview["episodes"]["instruction"][0] == "drive 0 <b>metres</b>"
    assert overview["episodes"]["success"] == [False, True, False], "from the statistics of next.success"
    assert overview["episodes"]["operator"] == [None] * 3
    camera = ViewedDataset(stock).cameras[0]
    assert (camera.width, camera.height) == (64, 64)
    assert ViewedDataset(stock).video_span(1, camera) == pytest.approx((1.2, 2.1))


def test_an_episode_that_is_not_there(ours):
    with pytest.raises(UsageError, match=r"episode 7 not found; .* has: 0 to 2"):
        ViewedDataset(ours).row(7)


def test_a_folder_of_datasets_names_them(tmp_path, ours):
    shutil.copytree(ours, tmp_path / "suite" / "so100")
    with pytest.raises(DatasetError, match=r"folders that do: .*so100"):
        ViewedDataset(tmp_path / "suite")
    with pytest.raises(DatasetError, match="holds no LeRobot dataset"):
        ViewedDataset(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("meta/info.json", b"{", "not readable"),
        ("meta/info.json", b"[]", "lacks"),
        ("meta/info.json", b'{"fps": 0, "features": {}, "codebase_version": "v3.0"}', "lacks usable fps"),
        ("meta/info.json", b'{"fps": 9, "features": {}, "codebase_version": "v2.1"}', "version v2.1"),
        ("meta/episodes/chunk-000/file-000.parquet", b"PAR1", "not readable"),
    ],
)
def test_broken_metadata_are_named(tmp_path, ours, name, content, message):
    root = tmp_path / "broken"
    shutil.copytree(ours, root)
    (root / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        ViewedDataset(root)


@pytest.mark.parametrize(
    "template", ["../secret.mp4", "{video_key}/../../../secret.mp4", "/etc/hostname", "{x.y}"]
)
def test_a_template_that_leads_out_of_the_dataset_is_refused(tmp_path, ours, template):
    root = tmp_path / "hostile"
    shutil.copytree(ours, root)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"video_path": template, "data_path": template}))
    dataset = ViewedDataset(root)
    with pytest.raises(DatasetError):
        dataset.video_file(0, dataset.cameras[0])
    with pytest.raises(DatasetError):
        dataset.data_file(0)


def test_a_link_that_leads_out_of_the_dataset_is_refused_but_the_hubs_cache_is_read(tmp_path, ours):
    root = tmp_path / "linked"
    shutil.copytree(ours, root)
    dataset = ViewedDataset(root)
    video = dataset.video_file(0, dataset.cameras[0])
    secret = tmp_path / "secret.mp4"
    shutil.move(video, secret)
    video.symlink_to(secret)
    with pytest.raises(DatasetError, match="points outside"):
        dataset.video_file(0, dataset.cameras[0])

    snapshot = tmp_path / "hub/datasets--a--b/snapshots/0123"
    shutil.copytree(root, snapshot, symlinks=True)
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir()
    shutil.move(secret, blobs / "abcd")
    linked = snapshot / video.relative_to(root)
    linked.unlink()
    linked.symlink_to(blobs / "abcd")
    cached = ViewedDataset(snapshot)
    assert cached.video_file(0, cached.cameras[0]) == linked


def test_thousands_of_episodes_open_quickly(tmp_path, stock):
    root = tmp_path / "many"
    shutil.copytree(stock, root)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    row = pq.read_table(path).slice(0, 1).to_pylist()[0]
    pq.write_table(pa.Table.from_pylist([row | {"episode_index": index} for index in range(5000)]), path)
    overview = ViewedDataset(root).overview()
    assert len(overview["episodes"]["index"]) == 5000
    assert len(json.dumps(overview)) < 1_000_000
