"""The page in a folder holds the episodes asked for, each with exactly its own stretch of video."""

import json

import av
import pytest

from blm.pages.viewer.dataset import ViewedDataset
from blm.pages.viewer.static_page import write_static_page
from blm.schemas.errors import OutputExistsError, UsageError
from tests.factories import make_dataset
from tests.pages.viewer import shared_video


def script(path, function):
    text = path.read_text()
    assert text.startswith(f"window.blm.{function}(")
    return json.loads(text.removeprefix(f"window.blm.{function}(").removesuffix(");\n"))


def frames_within(path, begin, end):
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if begin - 1e-3 <= frame.time < end - 1e-3:
                found.append(frame.to_ndarray(format="rgb24"))
    return found


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("episode", [0, 1, 2])
def test_an_episode_is_cut_out_of_a_shared_video(tmp_path, episode, codec):
    dataset = ViewedDataset(shared_video.write_dataset(tmp_path / "wheels", codec))
    write_static_page(dataset, tmp_path / "page", [episode])
    (video,) = script(tmp_path / f"page/episodes/{episode}.js", "showEpisode")["streams"]
    cut = tmp_path / "page" / video["src"]
    shown = [shared_video.number_of(one) for one in frames_within(cut, video["from"], video["to"])]
    first = sum(shared_video.FRAMES[:episode])
    assert shown == list(range(first, first + shared_video.FRAMES[episode]))
    with av.open(str(cut)) as container:
        assert sum(1 for _ in container.decode(video=0)) < sum(shared_video.FRAMES), "the rest stays out"


def test_videos_of_one_episode_are_copied(tmp_path):
    dataset = ViewedDataset(make_dataset(tmp_path / "data", episodes=2, frames=8, image_size=32))
    index = write_static_page(dataset, tmp_path / "page")
    assert index == tmp_path / "page/index.html"
    for number, camera in enumerate(dataset.cameras):
        for episode in (0, 1):
            copied = tmp_path / f"page/videos/{number}/{episode}.mp4"
            assert copied.read_bytes() == dataset.video_file(episode, camera).read_bytes()
    assert script(tmp_path / "page/dataset.js", "showDataset")["episodes"]["index"] == [0, 1]


def test_only_the_episodes_asked_for_are_there(tmp_path):
    dataset = ViewedDataset(make_dataset(tmp_path / "data", episodes=3, frames=8, image_size=32))
    write_static_page(dataset, tmp_path / "page", [2])
    assert script(tmp_path / "page/dataset.js", "showDataset")["episodes"]["index"] == [2]
    assert [path.name for path in (tmp_path / "page/episodes").iterdir()] == ["2.js"]


def test_an_output_with_something_in_it_is_left_alone(tmp_path):
    dataset = ViewedDataset(make_dataset(tmp_path / "data", episodes=1, frames=8, image_size=32))
    (tmp_path / "page").mkdir()
    (tmp_path / "page/mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        write_static_page(dataset, tmp_path / "page")
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["mine.txt"]
    with pytest.raises(UsageError, match="episode 4 not found"):
        write_static_page(dataset, tmp_path / "other", [4])
    assert not (tmp_path / "other").exists()
