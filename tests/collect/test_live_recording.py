"""Recording beside a paced loop: nothing waits, nothing shifts, what is saved stays."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from blm.collect import live_recorder
from blm.collect.dataset_writer import DatasetWriter
from blm.collect.live_recorder import LiveRecorder
from blm.collect.live_video import LiveVideoEncoder
from blm.collect.recording import Recording
from blm.collect.rollout import run_episode
from blm.collect.video import VideoConfig, VideoEncoder, count_frames
from blm.schemas.episode import episode_features
from blm.schemas.errors import DatasetError, HardwareError
from blm.schemas.manifest import write_atomically
from tests.collect.live_workcell import EndlessAgent, LiveWorkcell, Stopwatch, live
from tests.collect.test_dataset_writer import check_consistent, decoded, info_of
from tests.collect.workcell import brightness

REPOSITORY = Path(__file__).parents[2]


def episodes_of(root: Path) -> list[dict]:
    return pq.read_table(sorted((root / "meta/episodes").rglob("*.parquet"))).to_pylist()


def data_of(root: Path, episode: int = 0) -> dict[str, list]:
    return pq.read_table(root / f"data/chunk-000/file-{episode:03d}.parquet").to_pydict()


def marks(root: Path, camera: str = "top", episode: int = 0) -> np.ndarray:
    """Which tick each picture of a video belongs to."""
    frames = decoded(root / f"videos/observation.images.{camera}/chunk-000/file-{episode:03d}.mp4")
    return np.round((frames.mean(axis=(1, 2, 3)) - 40) / 3).astype(int)


def record(recorder: LiveRecorder, cell: LiveWorkcell, ticks: int = 20, seed: int = 7) -> None:
    run_episode(cell, EndlessAgent(ticks), [recorder], seed, max_steps=10_000)


def test_episodes_are_saved_with_measured_times(tmp_path: Path):
    cell = LiveWorkcell(rate_hz=100)
    cell.stalls_s = {12: 0.03}
    with LiveRecorder(tmp_path / "data", live(cell.embodiment)) as recorder:
        record(recorder, cell)
        record(recorder, cell)
    root = tmp_path / "data"
    assert [row["length"] for row in episodes_of(root)] == [20, 20]
    assert "observation.environment_state" not in info_of(root)["features"]
    first = data_of(root)
    times = np.array(first["timing.monotonic_s"])
    assert np.diff(times).max() > 0.03
    assert np.diff(times).min() > 0
    row = episodes_of(root)[0]
    assert row["blm/late_ticks"] >= 1
    assert row["blm/jitter_ms"] > 1
    assert row["blm/repeated_frames"] == 0
    ages = np.array(first["timing.top.age_ms"])
    expected = 1000 * (times - (np.arange(20) - 0.25) / 100)
    np.testing.assert_allclose(ages, expected, rtol=1e-5)
    assert row["stats/timing.top.age_ms/max"] == pytest.approx([ages.max()])
    assert marks(root).tolist() == list(range(20))


def test_a_stalled_encoder_repeats_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control loop does not wait; rows and pictures stay together; the lost pictures are repeats, counted."""
    stalled = []

    class Stalling(LiveVideoEncoder):
        def _waiting(self):
            for number, frame in enumerate(super()._waiting()):
                if number == 5 and "top" in self.path.name:
                    stalled.append(self.path)
                    time.sleep(0.15)
                yield frame

    monkeypatch.setattr("blm.collect.live_episode.LiveVideoEncoder", Stalling)
    cell = LiveWorkcell(rate_hz=100)
    video = VideoConfig(queue_frames=4)
    with LiveRecorder(tmp_path / "data", Recording(cell.embodiment, False, video)) as recorder:
        watch = Stopwatch(recorder)
        run_episode(cell, EndlessAgent(40), [watch], 7)
        record(recorder, cell)
    assert stalled
    assert max(watch.step_s) < 0.1
    pictures = {camera: marks(tmp_path / "data", camera) for camera in ("top", "wrist")}
    repeats = {camera: int((np.diff(shown) == 0).sum()) for camera, shown in pictures.items()}
    assert repeats["top"] >= 3
    assert episodes_of(tmp_path / "data")[0]["blm/repeated_frames"] == sum(repeats.values())
    for shown in pictures.values():
        assert len(shown) == 40
        fresh = np.diff(shown, prepend=-1) != 0
        assert (shown[fresh] == np.arange(40)[fresh]).all(), "every fresh picture is in its own row"
    assert marks(tmp_path / "data", "top", 1)[0] == 0, "the next episode has pictures of its own"


def test_where_a_recording_stands(tmp_path: Path):
    cell, seen = LiveWorkcell(), []

    class Look:
        def on_start(self, start: object) -> None: ...

        def on_step(self, step: object) -> None:
            seen.append(recorder.statistics())

        def on_end(self, end: object) -> None: ...

    with LiveRecorder(tmp_path / "data", live(cell.embodiment)) as recorder:
        assert (recorder.statistics().timing.frames, recorder.statistics().saving) == (0, 0)
        run_episode(cell, EndlessAgent(10), [recorder, Look()], 7)
    assert [(status.recording, status.timing.frames) for status in seen] == [(True, n) for n in range(1, 11)]
    after = recorder.statistics()
    assert (after.recording, after.episodes, after.saving) == (False, 1, 0)
    assert after.last is not None
    assert after.last.jitter_ms == after.timing.jitter_ms > 0


def test_a_camera_slower_than_the_loop(tmp_path: Path):
    """A picture that was there already is not encoded as a new one."""
    cell = LiveWorkcell()
    cell.stopped = {"wrist": 15}
    with LiveRecorder(tmp_path / "data", live(cell.embodiment)) as recorder:
        record(recorder, cell)
    assert episodes_of(tmp_path / "data")[0]["blm/repeated_frames"] == 4
    assert marks(tmp_path / "data", "wrist").tolist() == [*range(16), 15, 15, 15, 15]


def test_a_camera_that_stops_ends_the_episode_and_keeps_the_others(tmp_path: Path):
    cell = LiveWorkcell()
    with LiveRecorder(tmp_path / "data", live(cell.embodiment), patience_s=0.1) as recorder:
        record(recorder, cell)
        cell.stopped = {"wrist": 5}
        with pytest.raises(DatasetError, match=r"camera 'wrist' has given no fresh picture for 0\.1 s"):
            record(recorder, cell, ticks=1000)
        cell.stopped = {}
        record(recorder, cell)
    assert len(episodes_of(tmp_path / "data")) == 2
    assert marks(tmp_path / "data", "wrist", 1).tolist() == list(range(20))


def test_a_silent_bus_drops_the_running_episode_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cell = LiveWorkcell()

    def silent(values: np.ndarray):
        raise HardwareError("servo 'elbow_flex' does not answer.")

    def session() -> None:
        with LiveRecorder(tmp_path / "data", live(cell.embodiment)) as recorder:
            record(recorder, cell)
            with monkeypatch.context() as patch:
                patch.setattr(cell, "step", silent)
                record(recorder, cell)

    with pytest.raises(HardwareError, match="elbow_flex"):
        session()
    assert len(episodes_of(tmp_path / "data")) == 1
    with LiveRecorder(tmp_path / "data", live(cell.embodiment), resume=True) as recorder:
        record(recorder, cell)
    assert len(episodes_of(tmp_path / "data")) == 2


@pytest.mark.parametrize("where", ["video", "commit"])
def test_a_full_disk_is_said_and_keeps_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    root, cell = tmp_path / "data", LiveWorkcell()
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: object) -> None:
        raise full

    def session() -> None:
        with LiveRecorder(root, live(cell.embodiment)) as recorder:
            record(recorder, cell)
            if where == "video":
                monkeypatch.setattr(VideoEncoder, "_encode", _failing_encode(full))
            else:
                monkeypatch.setattr("blm.collect.dataset_files.write_atomically", refuse)
            for _ in range(3):
                record(recorder, cell)

    with pytest.raises(DatasetError, match="No space left on device"):
        session()
    monkeypatch.undo()
    assert check_live(root) == 1
    with LiveRecorder(root, live(cell.embodiment), resume=True) as recorder:
        record(recorder, cell)
    assert check_live(root) == 2


def test_a_disk_that_is_full_when_an_episode_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, cell = tmp_path / "data", LiveWorkcell()
    written: list[Path] = []

    def until_full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, content)

    def session() -> None:
        with LiveRecorder(root, live(cell.embodiment)) as recorder:
            record(recorder, cell)
            while recorder.statistics().saving:
                time.sleep(0.01)
            monkeypatch.setattr("blm.collect.dataset_files.write_atomically", until_full)
            recorder.mark(True)

    with pytest.raises(DatasetError, match="No space left on device"):
        session()
    monkeypatch.undo()
    assert [row["blm/success"] for row in episodes_of(root)] == [False]
    DatasetWriter.resume(root, live(cell.embodiment)).close()
    assert [row["blm/success"] for row in episodes_of(root)] == [True], "what was decided is done"
    assert data_of(root)["next.success"][-1]


def _failing_encode(error: OSError):
    def encode(self: VideoEncoder, *_: object) -> None:
        for number, _frame in enumerate(self._waiting()):
            if number == 3:
                self._error = error

    return encode


def test_no_room_no_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cell = LiveWorkcell()
    monkeypatch.setattr(live_recorder, "NEEDED_FREE_BYTES", 10**18)
    with (
        LiveRecorder(tmp_path / "data", live(cell.embodiment)) as recorder,
        pytest.raises(DatasetError, match=r"only \d+ MB are free"),
    ):
        record(recorder, cell)


def check_live(root: Path) -> int:
    """Every committed episode is whole, rows and pictures belong together; returns how many there are."""
    info = info_of(root)
    rows = episodes_of(root) if info["total_episodes"] else []
    start = 0
    for index in range(info["total_episodes"]):
        row, data = rows[index], data_of(root, index)
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (start, start + row["length"])
        assert data["index"] == list(range(start, start + row["length"]))
        for camera in ("top", "wrist"):
            shown = marks(root, camera, index)
            assert len(shown) == row["length"]
            assert (shown == np.minimum(np.arange(row["length"]), 70)).all() or row["blm/repeated_frames"]
        start += row["length"]
    assert info["total_frames"] == start
    return info["total_episodes"]


def test_stopped_without_a_word_leaves_nothing_kept_or_marked_does(tmp_path: Path):
    cell, root = LiveWorkcell(), tmp_path / "data"

    def stop_after(ticks: int, verdict: str) -> None:
        def stop() -> bool:
            if cell.tick < ticks:
                return False
            if verdict == "keep":
                recorder.keep()
            elif verdict:
                recorder.mark(verdict == "success")
            return True

        run_episode(cell, EndlessAgent(1000), [recorder], 7, stop=stop)

    with LiveRecorder(root, live(cell.embodiment)) as recorder:
        for verdict in ("", "keep", "success", "failure"):
            stop_after(6, verdict)
        recorder.mark(True)
        assert recorder.kept == {"push-cube": 3}
    assert [row["blm/success"] for row in episodes_of(root)] == [False, True, True]
    assert [sum(data_of(root, index)["next.success"]) for index in range(3)] == [0, 1, 1]
    attempts = pq.read_table(root / "meta/attempts.parquet").to_pylist()
    assert [(row["success"], row["kept"]) for row in attempts] == [(False, True), (True, True), (True, True)]
    statistics = json.loads((root / "meta/stats.json").read_text())
    assert statistics["next.success"]["mean"] == pytest.approx([2 / 18])


def test_review_holds_back_until_decided(tmp_path: Path):
    cell, root = LiveWorkcell(), tmp_path / "data"
    with LiveRecorder(root, live(cell.embodiment), review=True) as recorder:
        for kept, success in ((True, True), (False, True), (True, False)):
            record(recorder, cell)
            before = recorder.episodes
            recorder.decide(kept, success)
            assert sum(recorder.kept.values()) >= before
        record(recorder, cell)  # never decided
        assert recorder.kept == {"push-cube": 2}
    assert [row["blm/success"] for row in episodes_of(root)] == [True, False]
    assert check_live(root) == 2


@pytest.mark.parametrize("per_file", [50, 2])
def test_discard_after_save_is_as_if_it_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_file: int
):
    monkeypatch.setattr("blm.collect.dataset_files.EPISODES_PER_FILE", per_file)
    cell, root = LiveWorkcell(), tmp_path / "data"
    with LiveRecorder(root, live(cell.embodiment)) as recorder:
        assert not recorder.discard_last()
        for ticks in (10, 11, 12):
            record(recorder, cell, ticks)
        assert recorder.discard_last()
        assert not (root / "data/chunk-000/file-002.parquet").exists()
        assert check_live(root) == 2
        record(recorder, cell, 13)
        assert recorder.statistics().episodes == 3
    assert [row["length"] for row in episodes_of(root)] == [10, 11, 13]
    attempts = pq.read_table(root / "meta/attempts.parquet").to_pylist()
    assert [(row["kept"], row["episode_index"]) for row in attempts] == [
        (True, 0),
        (True, 1),
        (False, -1),
        (True, 2),
    ]
    statistics = json.loads((root / "meta/stats.json").read_text())
    assert statistics["action"]["count"] == [34]
    with LiveRecorder(root, live(cell.embodiment), resume=True) as recorder:
        assert not recorder.discard_last(), "episodes of earlier sessions are not at hand"


def test_features_of_hardware_and_of_simulation(tmp_path: Path):
    cell = LiveWorkcell()
    assert "timing.top.age_ms" in episode_features(cell.embodiment, simulated=False)
    assert "timing.top.age_ms" not in episode_features(cell.embodiment, simulated=True)
    with LiveRecorder(tmp_path / "data", Recording(cell.embodiment)) as recorder:
        record(recorder, cell)
    assert check_consistent(tmp_path / "data") == 1


def test_every_frame_given_to_a_live_encoder_is_in_the_file(tmp_path: Path):
    encoder = LiveVideoEncoder(tmp_path / "a.mp4", 64, 64, 30, VideoConfig(queue_frames=2))
    with pytest.raises(ValueError, match="first frame"):
        encoder.repeat()
    for index in range(300):
        encoder.add(np.full((64, 64, 3), brightness(index), dtype=np.uint8))
    assert encoder.repeated > 0
    assert count_frames(encoder.finish()) == 300
    assert encoder.image_statistics()["count"].item() == 75 * 64 * 64


RECORD_FOREVER = """
import sys, types
sys.modules["pandas"] = types.ModuleType("pandas")  # pyarrow imports it, which takes longer than all else here
sys.modules["pandas"].__version__ = "0"
from pathlib import Path
from blm.collect.live_recorder import LiveRecorder
from blm.schemas.episode import RECORDING_FILE
from tests.collect.live_workcell import EndlessAgent, LiveWorkcell, live
from blm.collect.rollout import run_episode
root, cell = Path(sys.argv[1]), LiveWorkcell(rate_hz=200)
with LiveRecorder(root, live(cell.embodiment), resume=(root / RECORDING_FILE).exists()) as recorder:
    while True:
        run_episode(cell, EndlessAgent(15), [recorder], 7)
        print(recorder.episodes, flush=True)
"""


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment(tmp_path: Path, kills: int):
    """After every SIGKILL: what was reported as saved is there, whole and in step, opens, and is continued."""
    root, moments = tmp_path / "data", random.Random(kills)
    saved = 0
    for kill in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RECORD_FOREVER, str(root)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        while int(process.stdout.readline()) <= saved:
            pass
        time.sleep(moments.uniform(0.0, 0.4))
        process.kill()
        reported = max([saved, *map(int, process.stdout.read().split())])
        process.wait()
        there = check_live(root)
        assert there >= max(saved, reported - 1), "info.json may be one episode behind"
        if kills >= 20:
            check_in_lerobot(root, there)
        DatasetWriter.resume(root, live(LiveWorkcell().embodiment)).close()
        saved = check_live(root)
        assert saved >= reported
        print(f"kill {kill + 1}: {reported} reported, {there} readable, {saved} after resuming")


def check_in_lerobot(root: Path, episodes: int) -> None:
    """Stock LeRobot opens the dataset as the killed process left it, and reads its last frame."""
    datasets = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    dataset = datasets.LeRobotDataset("blm/live", root=root, video_backend="pyav")
    assert dataset.num_episodes == episodes
    last = dataset[len(dataset) - 1]
    assert int(last["episode_index"]) == episodes - 1
    picture = float(last["observation.images.top"].mean()) * 255
    assert picture == pytest.approx(brightness(int(last["frame_index"])), abs=2)


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path: Path):
    """A limit on file size stands for the end of the disk: the error says so, the episodes before stay."""
    code = RECORD_FOREVER.replace("EndlessAgent(15)", "EndlessAgent(int(sys.argv[2]))").replace(
        "while True:", "for _ in range(2):"
    )
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + code.replace(
        "    for _", "    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), -1))\n    for _"
    )
    root = tmp_path / "data"
    subprocess.run([sys.executable, "-c", code, str(root), "15"], cwd=REPOSITORY, check=True)
    failed = subprocess.run(
        [sys.executable, "-c", limited, str(root), "60", "4000"],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert failed.returncode == 1
    assert "DatasetError" in failed.stderr
    assert "File too large" in failed.stderr
    DatasetWriter.resume(root, live(LiveWorkcell().embodiment)).close()
    assert check_live(root) == 2
