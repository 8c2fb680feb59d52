from pathlib import Path

import pyarrow as pa
import pytest

from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.lerobot_files import CameraStream
from blm.curate.episodes.recorded_episodes import located_episodes, recorded_episodes
from blm.schemas.embodiment import load_embodiment

INFO = {
    "fps": 10,
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
TOP = CameraStream("top", "observation.images.top", 64, 64)
VIDEO = "videos/observation.images.top"


def row(**changed) -> dict:
    places = {f"{prefix}/{part}_index": 0 for prefix in ("data", VIDEO) for part in ("chunk", "file")}
    spans = {f"{VIDEO}/from_timestamp": 2.0, f"{VIDEO}/to_timestamp": 7.0}
    return {"episode_index": 3, "length": 50, "tasks": ["Fold it!"]} | places | spans | changed


def recorded(root: Path, *rows: dict) -> list[dict]:
    located = located_episodes(root, INFO, pa.Table.from_pylist([*rows]))
    source, robot = DatasetSource(path=root), load_embodiment("so100")
    return recorded_episodes(located, root, INFO, [TOP], source, robot).to_pylist()


@pytest.fixture
def root(tmp_path):
    video = tmp_path / "videos/observation.images.top/chunk-000/file-000.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"")
    return tmp_path


def test_an_episode_of_a_stock_dataset(root):
    (found,) = recorded(root, row())
    assert found["data_file"] == f"{root}/data/chunk-000/file-000.parquet"
    assert found["video/top"] == {"file": f"{root}/{VIDEO}/chunk-000/file-000.mp4", "from_s": 2.0}
    expected = {"episode": 3, "length": 50, "video_frames": 50, "task": "fold-it", "unreadable": None}
    expected |= {"success": "unknown", "seed": -1, "operator": "unknown", "missing_videos": []}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("length", [None, -5, 10**12])
def test_a_length_that_no_episode_has_is_minus_one(root, length):
    (located,) = located_episodes(root, INFO, pa.table({"length": pa.array([length], pa.int64())}))
    assert located["length"] == -1


def test_an_episode_that_lies_nowhere_says_so_and_the_others_stay(root):
    lost, found = recorded(root, row(**{"data/file_index": None}), row(episode_index=4))
    assert lost["data_file"] == ""
    assert "episode 3 does not say in which file it lies" in lost["unreadable"]
    assert found["unreadable"] is None


@pytest.mark.parametrize(
    "changed",
    [
        {f"{VIDEO}/file_index": 1},
        {f"{VIDEO}/chunk_index": None},
        {f"{VIDEO}/from_timestamp": None},
        {f"{VIDEO}/to_timestamp": float("nan")},
    ],
)
def test_a_video_that_is_not_there_or_not_placed_is_missing(root, changed):
    (found,) = recorded(root, row(**changed))
    assert found["missing_videos"] == ["top"]
    assert found["video/top"] is None
    assert found["video_frames"] == found["length"]


def test_a_video_of_another_length_is_counted_in_frames(root):
    (found,) = recorded(root, row(**{f"{VIDEO}/to_timestamp": 4.0}))
    assert found["video_frames"] == 20
