import io
import tarfile

import av
import numpy as np
import pytest
from PIL import Image

from blm.curate.episodes.build import build_splits
from blm.curate.shards import read_shard_table
from blm.train.shard_build import ImageAddress, ShardBuild
from tests.curate.episodes.editing import video_file
from tests.curate.episodes.test_build import config


@pytest.fixture(scope="module")
def lossless(recorded, tmp_path_factory):
    output = tmp_path_factory.mktemp("lossless") / "splits"
    build_splits(config(output, recorded, lossless=True))
    return output


def test_every_pixel_is_that_of_the_video(lossless, recorded):
    frames: list[np.ndarray] = []
    with ShardBuild(lossless) as build:
        segment = next(one for one in build.segments() if one.meta.episode == 2)
        assert segment.meta.image_format == "webp"
        stored = build.images(segment, "wrist", range(24))
    with av.open(str(video_file(recorded, 2, "wrist"))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]
    np.testing.assert_array_equal(stored, np.stack(frames))


def test_members_say_what_they_hold(lossless):
    row = read_shard_table(lossless)[0]
    with tarfile.open(lossless / row.name) as tar:
        names = {info.name.split(".", 1)[1]: info for info in tar}
        content = tar.extractfile(names["top.mwebp"]).read()  # type: ignore[union-attr]
    assert "top.mjpeg" not in names
    assert Image.open(io.BytesIO(content), formats=["webp"]).size == (64, 64)


def test_smaller_images_are_made_when_asked_for(lossless):
    with ShardBuild(lossless) as build:
        segment = build.segments()[0]
        small = np.empty((1, 32, 32, 3), np.uint8)
        full = build.images(segment, "top", [5])
        build.decode([ImageAddress(segment, "top", 5)], small)
    means = full.reshape(1, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(small - means).mean() < 4


@pytest.mark.slow
@pytest.mark.parametrize("without_loss", [False, True])
def test_plain_webdataset_and_datasets_read_a_build(recorded, tmp_path, without_loss):
    import datasets
    from webdataset import WebDataset  # pyright: ignore[reportAttributeAccessIssue]

    output = tmp_path / "splits"
    build_splits(config(output, recorded, lossless=without_loss))
    images, kind = ("top.mwebp", "WEBP") if without_loss else ("top.mjpeg", "JPEG")
    paths = sorted(str(path) for path in output.glob("*.tar"))
    samples = list(WebDataset(paths, shardshuffle=False))
    assert len(samples) == 8
    for sample in samples:
        offsets = np.load(io.BytesIO(sample["top.npy"]))
        last = sample[images][offsets[-2] : offsets[-1]]
        assert Image.open(io.BytesIO(last)).format == kind

    loaded = datasets.load_dataset(str(output), "so100", cache_dir=str(tmp_path / "cache"))
    rows: list[dict] = [dict(row) for split in loaded.values() for row in split]
    assert sorted(row["__key__"] for row in rows) == sorted(sample["__key__"] for sample in samples)
    assert all(len(row["state.npy"]) == 24 for row in rows)
    plain = datasets.load_dataset(
        "webdataset", data_files={"train": paths}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(plain) == 8
