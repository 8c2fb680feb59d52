from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.schemas.errors import ConfigError, DatasetError, UnknownNameError
from blm.schemas.manifest import Mixture, read_manifest
from blm.train.image_processes import WorkerError
from blm.train.shard_reader import EpochOrder, MixtureOrder, ShardBuild, ShardReader
from tests.train.batch_digests import brighter, digest
from tests.train.stage2_builds import SIZE, make_build, merge, without_training_samples

# Other libraries' threads are idle when the reader forks, and what it forks uses none of them.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reader") / "splits"
    return make_build(path, embodiments=("so100", "xarm7"), cameras=("top", "wrist"))


@pytest.fixture(scope="module")
def build(folder: Path) -> ShardBuild:
    return ShardBuild(folder)


def test_a_batch_is_what_the_windows_say(build: ShardBuild) -> None:
    reader = ShardReader(build, "train", horizon=5, batch_size=6, future=3)
    batch = next(reader)
    windows = reader.windows.batch(batch["window"])
    assert batch["images"].shape == batch["future_images"].shape == (6, 2, SIZE, SIZE, 3)
    assert np.array_equal(batch["images"], reader.windows.images(windows, ("top", "wrist")))
    assert np.array_equal(
        batch["future_images"], reader.windows.images(windows, ("top", "wrist"), future=True)
    )
    for name in ("state", "action", "step_mask", "axis_mask", "embodiment", "segment", "frame"):
        assert np.array_equal(batch[name], getattr(windows, name))
    assert batch["camera_mask"].all()
    assert batch["instruction"] == [reader.windows.instructions[segment] for segment in windows.segment]
    assert {reader.windows.embodiments[index] for index in batch["embodiment"]} == {"so100", "xarm7"}


def test_channels_first_is_the_same_picture(build: ShardBuild) -> None:
    last, first = (ShardReader(build, batch_size=4, layout=layout) for layout in ("HWC", "CHW"))
    assert np.array_equal(next(last)["images"].transpose(0, 1, 4, 2, 3), next(first)["images"])


def test_images_come_in_the_size_asked_for(build: ShardBuild) -> None:
    stored = next(ShardReader(build, batch_size=4))["images"].astype(float)
    small = next(ShardReader(build, batch_size=4, image_size=SIZE // 2))["images"]
    wide = next(ShardReader(build, batch_size=4, image_size=(24, 20)))["images"]
    assert wide.shape == (4, 2, 20, 24, 3)
    averaged = stored.reshape(4, 2, SIZE // 2, 2, SIZE // 2, 2, 3).mean((3, 5))
    assert np.abs(small - averaged).mean() < 4
    assert np.abs(wide.mean((2, 3)) - stored.mean((2, 3))).max() < 4


def test_a_camera_that_a_robot_lacks_is_black_and_masked(tmp_path: Path) -> None:
    make_build(tmp_path, embodiments=("so100",), cameras=("top",))
    other = make_build(tmp_path / "other", embodiments=("xarm7",), cameras=("front", "top"))
    merge(tmp_path, other)
    assert ShardReader(tmp_path).cameras == ("top",)
    reader = ShardReader(tmp_path, batch_size=16, cameras=("front", "top"), epochs=1)
    for batch in reader:
        has_front = batch["embodiment"] == reader.windows.embodiments.index("xarm7")
        assert np.array_equal(batch["camera_mask"], np.stack([has_front, np.ones_like(has_front)], axis=1))
        assert not batch["images"][~has_front, 0].any()
        assert batch["images"][has_front].any(axis=(2, 3, 4)).all()
    with pytest.raises(UnknownNameError, match="front, top"):
        ShardReader(tmp_path, cameras=("side",))


def test_a_robot_without_training_samples_can_be_read(tmp_path: Path) -> None:
    whole = make_build(tmp_path / "whole", embodiments=("so100", "xarm7"))
    folder = without_training_samples(make_build(tmp_path / "held", embodiments=("so100", "xarm7")), "xarm7")
    assert ShardReader(folder).windows.embodiments == ("so100",)
    for actions in ("absolute", "relative"):
        found, expected = (
            ShardReader(one, "val", batch_size=200, epochs=1, actions=actions) for one in (folder, whole)
        )
        assert found.windows.embodiments == ("so100", "xarm7")
        batch, same = next(found), next(expected)
        assert set(batch["embodiment"].tolist()) == {0, 1}
        for name in ("images", "state", "action", "axis_mask", "embodiment"):
            assert np.array_equal(batch[name], same[name])
    with pytest.raises(UnknownNameError, match="xarm7"):
        ShardReader(folder, "val", embodiments=("so100",))


def test_which_axis_is_the_gripper_has_to_be_known_for_relative_actions(tmp_path: Path, monkeypatch) -> None:
    folder = without_training_samples(make_build(tmp_path, embodiments=("so100", "xarm7")), "xarm7")
    monkeypatch.setattr("blm.train.shard_reader.load_embodiment", _nobody)
    assert ShardReader(folder, "val").windows.axes == 8
    assert ShardReader(folder, "train", actions="relative")
    with pytest.raises(ConfigError, match="'xarm7' has no training samples"):
        ShardReader(folder, "val", actions="relative")


def _nobody(name: str):
    raise UnknownNameError("embodiment", name, ())


def test_an_epoch_ends_with_every_window_read_once(build: ShardBuild) -> None:
    reader = ShardReader(build, batch_size=7, epochs=1)
    batches = [batch["window"] for batch in reader]
    assert sorted(np.concatenate(batches)) == list(range(len(reader.windows)))
    assert len(batches) == len(reader)
    assert len(batches[-1]) == len(reader.windows) % 7 or 7


@settings(max_examples=6)
@given(st.integers(1, 8), st.integers(0, 4), st.integers(1, 20))
def test_ranks_and_workers_neither_lose_nor_repeat(
    build: ShardBuild, world_size: int, workers: int, batch_size: int
) -> None:
    check_ranks_and_workers(build, world_size, workers, batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", range(1, 9))
@pytest.mark.parametrize("workers", range(5))
def test_all_ranks_and_workers_neither_lose_nor_repeat(
    build: ShardBuild, world_size: int, workers: int
) -> None:
    check_ranks_and_workers(build, world_size, workers, batch_size=5)


def check_ranks_and_workers(build: ShardBuild, world_size: int, workers: int, batch_size: int) -> None:
    drawn: dict[tuple[int, int], np.ndarray] = {}
    for rank in range(world_size):
        reader = ShardReader(
            build, batch_size=batch_size, rank=rank, world_size=world_size, epochs=2, cameras=("top",)
        )
        with reader.loader(workers, tensors=False) as loader:
            batches = list(loader)
            assert len(batches) == len(loader)
            for number, batch in enumerate(batches):
                images = reader.windows.images(reader.windows.batch(batch["window"]), ("top",))
                assert np.array_equal(images, batch["images"])
                drawn[number, rank] = batch["window"]
    stream = np.concatenate([drawn[key] for key in sorted(drawn)])
    count = len(stream) // 2
    assert sorted(stream[:count]) == sorted(stream[count:]) == list(range(count))
    assert np.array_equal(stream, EpochOrder(count, 1, 0).at(np.arange(2 * count)))


def test_the_stream_is_the_same_with_any_number_of_workers(build: ShardBuild) -> None:
    streams = []
    for workers in (0, 1, 3):
        reader = ShardReader(build, batch_size=5, augment=brighter, actions="relative", future=4, seed=3)
        with reader.loader(workers, tensors=False) as loader:
            streams.append([digest(next(loader)) for _ in range(6)])
    assert streams[0] == streams[1] == streams[2]


def test_tensors_lie_over_the_same_memory(build: ShardBuild) -> None:
    with ShardReader(build, batch_size=5).loader(1) as loader:
        batch = next(loader)
        expected = next(ShardReader(build, batch_size=5))
    assert batch["images"].dtype == torch.uint8
    assert torch.equal(batch["images"], torch.from_numpy(expected["images"]))
    assert torch.equal(batch["action"], torch.from_numpy(expected["action"]))


def test_batches_that_are_kept_stay_as_they_were(build: ShardBuild) -> None:
    kept, digests = [], []
    with ShardReader(build, batch_size=3).loader(2, tensors=False) as loader:
        for _ in range(15):
            kept.append(next(loader))
            digests.append(digest(kept[-1]))
    assert [digest(batch) for batch in kept] == digests
    assert len(set(digests)) == 15


RESUMED = """
import json, sys
from tests.train.batch_digests import brighter, digest
from blm.train.shard_reader import ShardReader
folder, workers, state = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
reader = ShardReader(folder, batch_size=5, augment=brighter, mixture={"*/so100/*": 1, "*": 3}, rank=1, world_size=2)
with reader.loader(workers, tensors=False) as loader:
    loader.load_state_dict(state)
    print(json.dumps([digest(next(loader)) for _ in range(4)]))
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_new_process_goes_on_with_the_same_bits(folder: Path, workers: int) -> None:
    mixture = {"*/so100/*": 1.0, "*": 3.0}
    reader = ShardReader(folder, batch_size=5, augment=brighter, mixture=mixture, rank=1, world_size=2)
    with reader.loader(2, tensors=False) as loader:
        for _ in range(9):
            next(loader)
        state = json.dumps(loader.state_dict())
        straight = [digest(next(loader)) for _ in range(4)]
    command = [sys.executable, "-c", RESUMED, str(folder), str(workers), state]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-800:]
    assert json.loads(finished.stdout) == straight


def test_a_loader_jumps_to_a_place_in_the_middle_of_reading_ahead(build: ShardBuild) -> None:
    reader = ShardReader(build, batch_size=5)
    straight = [digest(reader.batch_at(number)) for number in range(8)]
    with reader.loader(2, tensors=False) as loader:
        start = loader.state_dict()
        assert [digest(next(loader)) for _ in range(5)] == straight[:5]
        loader.load_state_dict(start)
        assert [digest(next(loader)) for _ in range(8)] == straight


def test_a_place_carries_over_to_another_world_size(build: ShardBuild) -> None:
    before = [ShardReader(build, batch_size=6, rank=rank, world_size=2) for rank in range(2)]
    for reader in before:
        for _ in range(3):
            next(reader)
    after = ShardReader(build, batch_size=4)
    after.load_state_dict(before[0].state_dict())
    assert np.array_equal(next(after)["window"], after.order.at(np.arange(36, 40)))
    with pytest.raises(ConfigError, match=r"36 windows.*1 × 7"):
        ShardReader(build, batch_size=7).load_state_dict(before[0].state_dict())
    with pytest.raises(ConfigError, match="seed"):
        ShardReader(build, batch_size=6, seed=1).load_state_dict(before[0].state_dict())


def test_the_manifest_decides_the_mixture(tmp_path: Path) -> None:
    make_build(tmp_path, embodiments=("so100", "xarm7"))
    weights = {"so100_train/so100/push-cube": 0.9, "xarm7_train/xarm7/push-cube": 0.1}
    manifest = read_manifest(tmp_path)
    manifest.model_copy(update={"mixture": Mixture(strategy="explicit", weights=weights)}).write(tmp_path)
    reader = ShardReader(tmp_path, batch_size=50)
    seen = np.concatenate([next(reader)["embodiment"] for _ in range(20)])
    assert abs((seen == 0).mean() - 0.9) < 0.005
    assert isinstance(ShardReader(tmp_path, mixture=None).order, EpochOrder)
    assert isinstance(ShardReader(tmp_path, "val").order, EpochOrder)
    weighted = ShardReader(tmp_path, "val", mixture={"*/so100/*": 3, "*": 1})
    assert isinstance(weighted.order, MixtureOrder)
    natural = Mixture(strategy="natural", weights=weights)
    manifest.model_copy(update={"mixture": natural}).write(tmp_path)
    assert isinstance(ShardReader(tmp_path).order, EpochOrder)


def test_relative_actions_go_there_and_back(build: ShardBuild) -> None:
    absolute, relative = (
        next(ShardReader(build, batch_size=30, horizon=4, actions=actions))
        for actions in ("absolute", "relative")
    )
    reader = ShardReader(build, batch_size=30, horizon=4, actions="relative")
    statistics = build.manifest.statistics
    for row, embodiment in enumerate(absolute["embodiment"]):
        gripper = statistics[reader.windows.embodiments[embodiment]].gripper_index
        offset = absolute["action"][row] - absolute["state"][row]
        offset[:, gripper] = absolute["action"][row, :, gripper]
        assert np.allclose(relative["action"][row], offset, atol=1e-5)
        assert not relative["action"][row][:, ~relative["axis_mask"][row]].any()
    back = reader.absolute_actions(relative["action"], relative["state"], relative["embodiment"])
    scale = np.abs(absolute["action"]).max()
    assert np.abs(back - absolute["action"]).max() <= 2 * np.finfo(np.float32).eps * scale


def test_augmentation_may_work_in_place_and_must_keep_the_shape(build: ShardBuild) -> None:
    def invert(images: np.ndarray, generator: np.random.Generator) -> None:
        images[:] = 255 - images

    plain, inverted = (
        next(ShardReader(build, batch_size=4)),
        next(ShardReader(build, batch_size=4, augment=invert)),
    )
    assert np.array_equal(255 - plain["images"], inverted["images"])
    with pytest.raises(ConfigError, match="augment returned"):
        next(ShardReader(build, batch_size=4, augment=lambda images, generator: images[:, ::2]))


def test_what_fails_in_a_worker_is_told_here(tmp_path: Path) -> None:
    make_build(tmp_path)
    reader = ShardReader(tmp_path, batch_size=4)
    (tmp_path / "train-so100-00000.tar").unlink()
    reader.build.close()
    with reader.loader(2) as loader, pytest.raises(DatasetError, match=r"train-so100-00000\.tar"):
        next(loader)


def test_an_error_of_the_caller_s_own_keeps_its_traceback(build: ShardBuild) -> None:
    def broken(images: np.ndarray, generator: np.random.Generator) -> None:
        raise ZeroDivisionError("in my augmentation")

    with (
        ShardReader(build, batch_size=4, augment=broken).loader(1) as loader,
        pytest.raises(WorkerError, match="in my augmentation"),
    ):
        next(loader)


def test_a_worker_that_is_killed_is_noticed(build: ShardBuild) -> None:
    def suicidal(images: np.ndarray, generator: np.random.Generator) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with (
        ShardReader(build, batch_size=4, augment=suicidal).loader(1) as loader,
        pytest.raises(WorkerError, match="-9"),
    ):
        next(loader)


def test_the_reader_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from blm.train.shard_reader import ShardReader;"
        f"loader = ShardReader({str(folder)!r}, batch_size=4).loader(1, tensors=False);"
        "print(next(loader)['state'].shape)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.stdout.startswith("(4, "), finished.stderr[-500:]


def test_neighbours_of_an_episode_meet_no_more_often_than_by_chance() -> None:
    episodes, length, batch_size = 200, 100, 50
    order = EpochOrder(episodes * length, batch_size, seed=7)
    drawn = order.at(np.arange(episodes * length))
    episode, place = drawn // length, drawn % length
    chance = (length - 1) / (episodes * length - 1)
    spread = np.sqrt(chance / len(drawn))
    assert abs((episode[1:] == episode[:-1]).mean() - chance) < 4 * spread
    for values in (drawn, place):
        correlation = np.corrcoef(values[1:], values[:-1])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(len(values))
    pairs = [len(row) - len(np.unique(row)) for row in episode.reshape(-1, batch_size)]
    expected = batch_size - episodes * (1 - (1 - 1 / episodes) ** batch_size)
    assert abs(np.mean(pairs) - expected) < 0.1 * expected
    next_epoch = order.at(np.arange(len(drawn), 2 * len(drawn)))
    assert abs(np.corrcoef(drawn, next_epoch)[0, 1]) < 4 / np.sqrt(len(drawn))
