from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.schemas.errors import ConfigError, DatasetError, UnknownNameError
from blm.train.shard_reader import EpochOrder, ShardBuild, Windows, permuted
from tests.train.stage2_builds import make_build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("splits")
    return make_build(path, embodiments=("so100", "xarm7"), cameras=("top", "wrist"))


def member(folder: Path, shard: str, name: str) -> bytes:
    with tarfile.open(folder / shard) as tar:
        stream = tar.extractfile(name)
        assert stream is not None
        return stream.read()


def test_reads_what_tarfile_reads(folder: Path) -> None:
    with ShardBuild(folder) as build:
        segment = next(s for s in build.segments("train") if s.meta.embodiment == "xarm7")
        shard = segment.members["json"].shard
        state = np.load(io.BytesIO(member(folder, shard, f"{segment.key}.state.npy")))
        assert np.array_equal(build.state(segment), state)
        offsets = np.load(io.BytesIO(member(folder, shard, f"{segment.key}.wrist.npy")))
        images = member(folder, shard, f"{segment.key}.wrist.mjpeg")
        expected = simplejpeg.decode_jpeg(images[offsets[5] : offsets[6]])
        assert np.array_equal(build.images(segment, "wrist", [5])[0], expected)


def test_splits_and_cameras_that_are_not_there_are_named(folder: Path) -> None:
    with ShardBuild(folder) as build:
        with pytest.raises(UnknownNameError, match="train, val"):
            build.segments("tset")
        with pytest.raises(UnknownNameError, match="top, wrist"):
            build.images(build.segments("train")[0], "side", [0])


def test_a_truncated_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    make_build(tmp_path, episodes=2)
    shard = tmp_path / "val-so100-00000.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(DatasetError, match=r"val-so100-00000\.tar"):
        Windows(ShardBuild(tmp_path), "val", 4)


def test_every_frame_starts_one_window_and_chunks_hold_at_the_end(folder: Path) -> None:
    build = ShardBuild(folder)
    windows = Windows(build, "train", horizon=5)
    batch = windows.batch(np.arange(len(windows)))
    assert len(windows) == sum(len(build.state(s)) for s in build.segments("train")) == windows.frames
    for i in range(len(windows)):
        segment = windows.segments[batch.segment[i]]
        action, state = build.action(segment), build.state(segment)
        frame, axes = batch.frame[i], action.shape[1]
        rows = np.minimum(np.arange(frame, frame + 5), len(action) - 1)
        assert np.array_equal(batch.action[i, :, :axes], action[rows])
        assert np.array_equal(batch.state[i, :axes], state[frame])
        assert batch.step_mask[i].sum() == min(5, len(action) - frame)
        assert batch.axis_mask[i].sum() == axes
        assert not batch.action[i, :, axes:].any()
        assert batch.future[i] == min(frame + 5, len(action) - 1)


def test_a_stride_looks_at_no_other_frames(folder: Path) -> None:
    windows = Windows(ShardBuild(folder), "train", horizon=5, frame_stride=3)
    batch = windows.batch(np.arange(len(windows)))
    assert not (batch.frame % 3).any()
    assert not (batch.future % 3).any()
    assert (batch.future >= batch.frame).all()


def test_images_of_a_batch(folder: Path) -> None:
    build = ShardBuild(folder)
    windows = Windows(build, "val", horizon=3)
    batch = windows.batch(np.array([4, 0]))
    images = windows.images(batch, ("wrist", "top"))
    assert images.shape == (2, 2, 32, 32, 3)
    segment = windows.segments[batch.segment[0]]
    assert np.array_equal(images[0, 1], build.images(segment, "top", [batch.frame[0]])[0])


@given(st.integers(1, 3000), st.integers(0, 2**31), st.integers(0, 50))
def test_an_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    assert sorted(permuted(np.arange(count), count, (seed, epoch))) == list(range(count))


def test_epochs_and_seeds_differ() -> None:
    orders = [tuple(permuted(np.arange(100), 100, key)) for key in ((0, 0), (0, 1), (1, 0))]
    assert len(set(orders)) == 3
    assert not any(order == tuple(range(100)) for order in orders)


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.integers(1, 40))
def test_parts_neither_lose_nor_repeat(count: int, batch_size: int, parts: int, batches: int) -> None:
    orders = [EpochOrder(count, batch_size, seed=3, part=part, parts=parts) for part in range(parts)]
    drawn = np.concatenate([next(order) for _ in range(batches) for order in orders])
    whole = np.concatenate(
        [permuted(np.arange(count), count, (3, epoch)) for epoch in range(len(drawn) // count + 1)]
    )
    assert np.array_equal(drawn, whole[: len(drawn)])


@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 20))
def test_resuming_goes_on_exactly(count: int, batch_size: int, before: int) -> None:
    straight = EpochOrder(count, batch_size, seed=1)
    for _ in range(before):
        next(straight)
    resumed = EpochOrder(count, batch_size, seed=1)
    resumed.load_state_dict(straight.state_dict())
    for _ in range(5):
        assert np.array_equal(next(straight), next(resumed))


def test_a_position_of_other_data_is_refused() -> None:
    saved = EpochOrder(10, 2, seed=1).state_dict()
    with pytest.raises(ConfigError, match="count 10, not 11"):
        EpochOrder(11, 2, seed=1).load_state_dict(saved)
