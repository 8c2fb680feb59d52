"""The dataset on disk: what stock LeRobot reads from it, and what is left of it when the process is killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from blm.collect.dataset_writer import DatasetWriter
from blm.collect.recorder import Recorder
from blm.collect.recording import Recording
from blm.collect.rollout import run_episode
from blm.collect.session import CollectConfig, collect
from blm.collect.video import VideoEncoder
from blm.schemas.episode import episode_features
from blm.schemas.errors import DatasetError, OutputExistsError
from blm.schemas.rollout import EpisodeEnd
from tests.collect.workcell import SteadyAgent, brightness, counting_environment, open_counting, small_robot
from tests.factories import make_dataset

REPOSITORY = Path(__file__).parents[2]


def decoded(path: Path) -> np.ndarray:
    """Every frame of a video, (T, height, width, 3) uint8."""
    container = av.open(str(path))
    try:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    finally:
        container.close()


def info_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "meta/info.json").read_text())


def check_consistent(root: Path) -> int:
    """Every committed episode is whole, and rows and pictures belong together; returns how many there are."""
    info = info_of(root)
    rows = (
        pq.read_table(sorted((root / "meta/episodes").rglob("*.parquet")))  # a killed writer may leave a .tmp
        .sort_by("episode_index")
        .to_pylist()
        if info["total_episodes"]
        else []
    )
    start = 0
    for index in range(info["total_episodes"]):
        row = rows[index]
        data = pq.read_table(root / f"data/chunk-000/file-{index:03d}.parquet").to_pydict()
        assert row["episode_index"] == index
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (start, start + row["length"])
        assert data["index"] == list(range(start, start + row["length"]))
        assert data["frame_index"] == list(range(row["length"]))
        for camera in ("top", "wrist"):
            frames = decoded(root / f"videos/observation.images.{camera}/chunk-000/file-{index:03d}.mp4")
            marks = [brightness(int(state[0])) for state in data["observation.environment_state"]]
            assert np.abs(frames.mean(axis=(1, 2, 3)) - marks).max() <= 1.0
        start += row["length"]
    assert info["total_frames"] == start
    return info["total_episodes"]


@pytest.mark.slow
def test_stock_lerobot_opens_and_iterates_it(tmp_path: Path):
    """Values equal, pictures close and in order, tasks and statistics in place: `LeRobotDataset` needs no help."""
    datasets = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    root = tmp_path / "data"
    robot, sent = small_robot(), []
    with Recorder(root, Recording(robot)) as recorder:
        environment = counting_environment()
        for seed in (0, 1, 2):
            run_episode(environment, SteadyAgent(), [recorder, _Keep(sent)], seed)
    dataset = datasets.LeRobotDataset("blm/test", root=root, video_backend="pyav")
    assert (len(dataset), dataset.num_episodes, dataset.fps) == (len(sent), 3, 20)
    assert dataset.meta.robot_type == "so100"
    for number, step in enumerate(sent):
        item = dataset[number]
        assert int(item["index"]) == number
        assert int(item["frame_index"]) == step.index
        assert item["task"] == step.observation.instruction
        assert float(item["timestamp"]) == np.float32(step.index / 20)
        assert float(item["timing.monotonic_s"]) == pytest.approx(step.observation.time_s)
        assert bool(item["next.success"]) == step.success
        np.testing.assert_array_equal(item["action"], step.action)
        np.testing.assert_array_equal(item["observation.state"], step.observation.state)
        for camera, image in step.observation.images.items():
            picture = item[f"observation.images.{camera}"].permute(1, 2, 0).numpy() * 255
            assert np.abs(picture - image).max() <= 2.0
    declared = {key: tuple(feature["shape"]) for key, feature in dataset.features.items()}
    for key, feature in episode_features(robot, True).items():
        assert declared[key] == feature["shape"]
    statistics = dataset.meta.stats
    assert set(statistics) == set(dataset.features)
    states = np.stack([step.observation.state for step in sent]).astype(np.float64)
    np.testing.assert_allclose(statistics["observation.state"]["mean"], states.mean(axis=0))
    np.testing.assert_allclose(statistics["observation.state"]["q99"], np.quantile(states, 0.99, axis=0))
    assert statistics["observation.images.top"]["mean"].shape == (3, 1, 1)


def test_columns_keys_and_shapes_are_stock_lerobots(tmp_path: Path):
    """Against a golden file made with LeRobot's own recorder; ours has its own columns besides."""
    golden = json.loads((Path(__file__).parent / "golden/lerobot_v30.json").read_text())
    root = make_dataset(tmp_path / "data", episodes=1)
    for name, file in (
        ("data", "data/chunk-000/file-000.parquet"),
        ("episodes", "meta/episodes/chunk-000/file-000.parquet"),
        ("tasks", "meta/tasks.parquet"),
    ):
        columns = {field.name: str(field.type) for field in pq.read_schema(root / file)}
        assert {key: kind for key, kind in columns.items() if not key.startswith("blm/")} == golden[name]
    info, statistics = info_of(root), json.loads((root / "meta/stats.json").read_text())
    assert {key: type(value).__name__ for key, value in info.items()} == golden["info"]
    assert {key: info[key] for key in golden["paths"]} == golden["paths"]
    for key, feature in info["features"].items():
        described = {"dtype": feature["dtype"], "names": feature["names"], "rank": len(feature["shape"])}
        assert described | {"info": sorted(feature.get("info", {}))} == golden["features"][key]
    shapes = {
        key: {name: list(np.shape(value)) for name, value in sorted(values.items())}
        for key, values in statistics.items()
    }
    assert shapes == golden["stats"]


class _Keep:
    def __init__(self, steps: list[Any]) -> None:
        self.steps = steps

    def on_start(self, start: Any) -> None: ...

    def on_step(self, step: Any) -> None:
        self.steps.append(step)

    def on_end(self, end: EpisodeEnd) -> None: ...


def test_metadata_of_a_synthetic_dataset(tmp_path: Path):
    root = make_dataset(
        tmp_path / "data", episodes=3, frames=(12, 20, 15), task=("push-cube", "pick-cube", "push-cube")
    )
    info = info_of(root)
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v3.0", 20, "so100")
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 47, 3)
    assert info["features"]["observation.images.top"]["info"]["video.codec"] == "h264"
    rows = pq.read_table(root / "meta/episodes").to_pylist()
    assert [row["blm/task"] for row in rows] == ["push-cube", "pick-cube", "push-cube"]
    assert [row["length"] for row in rows] == [12, 20, 15]
    assert [row["videos/observation.images.top/to_timestamp"] for row in rows] == [0.6, 1.0, 0.75]
    assert rows[1]["tasks"] == [rows[1]["blm/instruction"]]
    subtasks = pq.read_table(root / "meta/subtasks.parquet").to_pydict()
    assert subtasks == {"subtask_index": [0, 1, 2], "subtask": ["approach", "push", "retreat"]}
    recording = json.loads((root / "meta/blm.json").read_text())
    assert recording["embodiment"]["name"] == "so100"
    assert not list(root.rglob("*.tmp"))
    assert not (root / ".staging").exists()


def test_same_arguments_same_bytes(tmp_path: Path):
    roots = [make_dataset(tmp_path / name, episodes=2, seed=5) for name in ("one", "two")]
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in roots
    )
    assert first == second


WRITE_FOREVER = """
import sys, types
sys.modules["pandas"] = types.ModuleType("pandas")  # pyarrow imports it, which takes longer than all else here
sys.modules["pandas"].__version__ = "0"
from pathlib import Path
from blm.collect.session import CollectConfig, collect
from tests.collect.workcell import open_counting
config = CollectConfig(
    task="push-cube", image_size=32, episodes=1000, output=Path(sys.argv[1]), resume=True, workers=int(sys.argv[2])
)
collect(config, lambda label, done, total, note: print(done, flush=True), open_workcell=open_counting)
"""


@pytest.mark.parametrize(
    ("workers", "kills"),
    [(1, 2), pytest.param(1, 8, marks=pytest.mark.slow), pytest.param(2, 2, marks=pytest.mark.slow)],
)
def test_killed_at_any_moment_it_opens_with_all_finished_episodes(tmp_path: Path, workers: int, kills: int):
    """The reported number of episodes is there after SIGKILL, nothing is shifted, and the end result is the same."""
    root, moments = tmp_path / "data", random.Random(workers)
    reported = 0
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOREVER, str(root), str(workers)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        while reported >= (done := int(process.stdout.readline())):
            pass
        reported = done
        time.sleep(moments.uniform(0.0, 0.15))
        process.kill()
        reported = max([reported, *map(int, process.stdout.read().split())])
        process.wait()
        assert check_consistent(root) >= reported - 1, "info.json may be one episode behind"
        DatasetWriter.resume(root, Recording(small_robot())).close()
        reported, before = check_consistent(root), reported
        assert reported >= before
    config = CollectConfig(task="push-cube", image_size=32, episodes=reported + 2, output=root, resume=True)
    collect(config, open_workcell=open_counting)
    whole = config.model_copy(update={"output": tmp_path / "whole", "resume": False})
    collect(whole, open_workcell=open_counting)
    first, second = (
        {path.relative_to(base): path.read_bytes() for path in base.rglob("*") if path.is_file()}
        for base in (root, tmp_path / "whole")
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.parametrize("interrupted", ["videos", "data", "tasks", "attempts", "episodes", "stats", "info"])
def test_interrupted_at_every_stage_of_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
):
    """Every file of a commit in turn is the first that does not get written."""
    from blm.collect import dataset_files, dataset_writer
    from blm.schemas import manifest

    root = tmp_path / "data"
    config = CollectConfig(task="push-cube", image_size=32, episodes=2, output=root)
    collect(config, open_workcell=open_counting)

    class Killed(BaseException):
        pass

    committing = []

    def unless_interrupted(function: Any) -> Any:
        def wrapped(path: Path, content: Any) -> Any:
            target = content if function is original_move else path
            if committing and interrupted in str(target.relative_to(root)):
                raise Killed
            return function(path, content)

        return wrapped

    def commit(*arguments: Any) -> int:
        committing.append(True)
        return original_commit(*arguments)

    original_move, original_commit = dataset_writer._move, DatasetWriter.commit
    with monkeypatch.context() as patch:
        patch.setattr(dataset_writer, "_move", unless_interrupted(original_move))
        patch.setattr(dataset_files, "write_atomically", unless_interrupted(manifest.write_atomically))
        patch.setattr(DatasetWriter, "commit", commit)
        patch.setattr(DatasetWriter, "close", lambda self: self._lock.close())
        with pytest.raises(Killed):
            collect(config.model_copy(update={"episodes": 3, "resume": True}), open_workcell=open_counting)
    assert check_consistent(root) == 2
    collect(config.model_copy(update={"episodes": 5, "resume": True}), open_workcell=open_counting)
    assert check_consistent(root) == 5
    seeds = pq.read_table(root / "meta/attempts.parquet")["seed"].to_pylist()
    assert seeds == [0, 1, 2, 3, 4, 5]


def test_two_processes_cannot_write_the_same_dataset(tmp_path: Path):
    with DatasetWriter.create(tmp_path / "data", Recording(small_robot())):
        with pytest.raises(OutputExistsError):
            DatasetWriter.create(tmp_path / "data", Recording(small_robot()))
        with pytest.raises(OutputExistsError, match="by another process"):
            DatasetWriter.resume(tmp_path / "data", Recording(small_robot()))


def test_resume_without_a_dataset(tmp_path: Path):
    with pytest.raises(DatasetError, match="holds no dataset"):
        DatasetWriter.resume(tmp_path, Recording(small_robot()))


def test_resume_names_a_lost_file(tmp_path: Path):
    root = make_dataset(tmp_path / "data", image_size=32)
    lost = root / "videos/observation.images.wrist/chunk-000/file-001.mp4"
    lost.unlink()
    with pytest.raises(DatasetError, match=r"file-001.mp4 is missing, so episode 1 is incomplete"):
        DatasetWriter.resume(root, Recording(small_robot()))


def test_an_episode_whose_video_lost_a_frame_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A camera whose encoder loses one frame: nothing of that episode reaches the dataset."""
    lost = []

    class Losing(VideoEncoder):
        def add(self, image: np.ndarray) -> None:
            if self.frames == 3 and not lost:
                lost.append(image)
                self.frames += 1
            else:
                super().add(image)

    monkeypatch.setattr("blm.collect.episode_part.VideoEncoder", Losing)
    with Recorder(tmp_path / "data", Recording(small_robot())) as recorder:
        environment = counting_environment()
        run_episode(environment, SteadyAgent(), [recorder], seed=3)
        with pytest.raises(DatasetError, match=r"holds \d+ frames; \d+ were recorded"):
            run_episode(environment, SteadyAgent(), [recorder], seed=0)
        assert (recorder.writer.episodes, len(recorder.writer.attempts)) == (0, 1)
        run_episode(environment, SteadyAgent(), [recorder], seed=1)
    assert check_consistent(tmp_path / "data") == 1
