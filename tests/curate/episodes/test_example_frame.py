"""The picture that stands for a dropped episode: from whatever camera still shows one."""

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.index import index_dataset
from blm.curate.episodes.segment import example_frame
from tests.curate.episodes.editing import edit_rows, video_file
from tests.factories import make_dataset


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("clean") / "pushes", episodes=2, frames=12, image_size=32)


@pytest.fixture
def root(clean, tmp_path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "pushes"))


def example(root: Path, episode: int = 1) -> bytes | None:
    return example_frame(index_dataset(DatasetSource(path=root), "pushes", 0.02), episode)


def test_it_is_a_jpeg_of_the_size_recorded(clean):
    with Image.open(io.BytesIO(example(clean) or b"")) as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 32))


def test_another_camera_stands_in_for_one_that_shows_nothing(clean, root):
    top, wrist = (video_file(root, 1, camera) for camera in ("top", "wrist"))
    top.write_bytes(b"no video")
    from_wrist = example(root)
    assert from_wrist not in (None, example(clean))
    wrist.unlink()
    assert example(root) is None
    assert example(root, 0) == example(clean, 0)


def test_an_unknown_episode_has_none(clean):
    assert example(clean, 7) is None


def test_an_episode_without_a_usable_length_still_has_one(clean, root):
    for path in root.glob("meta/episodes/*/*.parquet"):
        edit_rows(
            path,
            lambda table: table.set_column(
                table.column_names.index("length"), "length", [[None] * len(table)]
            ),
        )
    (root / "meta/info.json").write_text(
        (root / "meta/info.json").read_text().replace('"total_frames": 24', '"total_frames": 0')
    )
    assert example(root) == example(clean)
