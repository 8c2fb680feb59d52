"""Cameras stored as single pictures: each frame gets its own, whatever shares the file; other content is refused."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from blm.pages.viewer.dataset import ViewedDataset
from blm.pages.viewer.source import BrokenStream, PictureStream, picture_ending
from blm.pages.viewer.static_page import write_static_page
from blm.schemas.errors import DatasetError
from tests.pages.viewer import image_dataset
from tests.pages.viewer.test_static_page import script


@pytest.fixture
def root(tmp_path):
    return image_dataset.write_dataset(tmp_path / "watched")


@pytest.mark.parametrize(("form", "ending"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_each_frame_has_its_own_picture(tmp_path, form, ending):
    dataset = ViewedDataset(image_dataset.write_dataset(tmp_path / "watched", form))
    (stream,) = dataset.streams(1)
    assert isinstance(stream, PictureStream)
    assert (stream.camera, stream.frames, stream.ending) == ("front", 5, ending)
    first = image_dataset.FRAMES[0]
    for frame in range(stream.frames):
        assert stream.picture(frame) == image_dataset.picture(first + frame, form)
    with pytest.raises(DatasetError, match="no picture of"):
        stream.picture(5)


def test_rows_in_another_order_are_put_in_that_of_the_frames(root):
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).sort_by([("frame_index", "descending")]), path)
    (stream,) = ViewedDataset(root).streams(0)
    assert isinstance(stream, PictureStream)
    assert [stream.picture(frame) for frame in range(6)] == [image_dataset.picture(row) for row in range(6)]


@pytest.mark.parametrize("content", [None, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"II*\0 a TIFF"])
def test_what_is_no_picture_for_a_browser_is_said_and_the_curves_are_shown(root, content):
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    column = pa.array([{"bytes": content, "path": "frame.png"}] * len(table))
    place = table.schema.get_field_index(image_dataset.KEY)
    pq.write_table(table.set_column(place, image_dataset.KEY, column), path)
    dataset = ViewedDataset(root)
    (stream,) = dataset.streams(0)
    assert isinstance(stream, BrokenStream)
    assert "picture" in stream.problem
    assert [axis["name"] for axis in dataset.content(0)["axes"]] == ["pan", "tilt"]


def test_a_page_in_a_folder_holds_the_pictures(root, tmp_path):
    write_static_page(ViewedDataset(root), tmp_path / "page", [1])
    (entry,) = script(tmp_path / "page/episodes/1.js", "showEpisode")["streams"]
    assert entry == {"camera": "front", "folder": "pictures/0/1/", "ending": "png", "count": 5}
    written = sorted((tmp_path / "page" / entry["folder"]).iterdir())
    assert [path.name for path in written] == [f"{frame}.png" for frame in range(5)]
    assert written[2].read_bytes() == image_dataset.picture(image_dataset.FRAMES[0] + 2)


def test_kinds_of_pictures_are_known_by_their_content():
    for form, ending in (("png", "png"), ("jpeg", "jpg"), ("webp", "webp")):
        assert picture_ending(image_dataset.picture(0, form), "x") == ending
    with pytest.raises(DatasetError, match="camera 3 is not a picture"):
        picture_ending(json.dumps({}).encode(), "camera 3")


@pytest.mark.slow
def test_pictures_that_stock_lerobot_stored(tmp_path):
    datasets = pytest.importorskip("lerobot.datasets")
    features = {
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["pan", "tilt"]},
        "observation.images.front": {
            "dtype": "image",
            "shape": (24, 32, 3),
            "names": ["height", "width", "channels"],
        },
    }
    written = datasets.LeRobotDataset.create(
        "lab/watched", fps=10, features=features, root=tmp_path / "watched", use_videos=False
    )
    for episode in range(2):
        for frame in range(4):
            picture = np.full((24, 32, 3), 30 * episode + 5 * frame, np.uint8)
            written.add_frame(
                {
                    "observation.state": np.zeros(2, np.float32),
                    "observation.images.front": picture,
                    "task": "watch",
                }
            )
        written.save_episode()
    written.finalize()
    for episode in range(2):
        (stream,) = ViewedDataset(tmp_path / "watched").streams(episode)
        assert isinstance(stream, PictureStream)
        shown = [np.asarray(Image.open(io.BytesIO(stream.picture(frame))))[0, 0, 0] for frame in range(4)]
        assert shown == [30 * episode + 5 * frame for frame in range(4)]
