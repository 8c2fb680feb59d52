"""A build in the viewer: what is shown of each sample is what its shard holds."""

from dataclasses import replace

import numpy as np
import pytest

from blm.curate.episodes.build import build_splits
from blm.curate.episodes.config import SplitsConfig
from blm.pages.viewer.source import PictureStream
from blm.pages.viewer.static_page import write_static_page
from blm.schemas.errors import DatasetError, UsageError
from blm.train.shard_build import ShardBuild
from blm.train.viewed_build import ViewedBuild
from tests.charts import charts_by_their_numbers
from tests.factories import SUBTASKS, make_dataset
from tests.train.stage2_builds import make_build


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two robots, two cameras, made without the curation."""
    folder = tmp_path_factory.mktemp("written") / "splits"
    return make_build(folder, embodiments=("so100", "panda"), episodes=2, cameras=("top", "wrist"))


@pytest.fixture(scope="module")
def viewed(written):
    return ViewedBuild(ShardBuild(written))


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    """A lossless build by the curation itself."""
    folder = tmp_path_factory.mktemp("curated")
    recorded = make_dataset(folder / "pushes", episodes=2, frames=24, image_size=48)
    config = SplitsConfig(
        datasets=[{"path": recorded}],  # pyright: ignore[reportArgumentType]
        output=folder / "splits",
        lossless=True,
    )
    with charts_by_their_numbers():
        build_splits(config)
    return ViewedBuild(ShardBuild(folder / "splits"))


def test_the_list_has_a_row_per_sample_with_its_lineage(viewed):
    overview = viewed.overview()
    assert overview["name"] == "splits"
    assert overview["about"] == "build of 6 episodes: 4 train, 2 val; 74 frames"
    rows = overview["episodes"]
    assert len({len(column) for column in rows.values()}) == 1
    assert rows["split"] == ["train"] * 4 + ["val"] * 2
    assert rows["robot"] == ["so100", "so100", "panda", "panda", "so100", "panda"]
    assert rows["source"][1] == "so100_train, episode 1"
    assert rows["seconds"][1] == pytest.approx(13 / 20)


def test_curves_and_pictures_are_those_of_the_shard(viewed):
    for number, sample in enumerate(viewed.samples):
        content = viewed.content(number)
        assert content["frames"] == sample.meta.frames
        for kind, values in (("state", viewed.build.state(sample)), ("action", viewed.build.action(sample))):
            shown = np.array([axis[kind] for axis in content["axes"]]).T
            np.testing.assert_allclose(shown, values, rtol=1e-4)
        for stream in viewed.streams(number):
            assert isinstance(stream, PictureStream)
            assert stream.frames == sample.meta.frames
            assert stream.picture(3) == viewed.build.encoded_image(sample, stream.camera, 3)
            assert stream.picture(3).startswith(b"\xff\xd8\xff")
            assert stream.picture(3) != stream.picture(4)


def test_units_are_the_robots(viewed):
    assert viewed.content(0)["axes"][0]["unit"] == "degree"
    assert viewed.content(2)["axes"][0]["unit"] == "radian"


def test_a_sample_that_is_not_there(viewed):
    with pytest.raises(UsageError, match="sample 6 not found; splits has: 0 to 5"):
        viewed.check(6)


def test_a_sample_that_contradicts_itself_is_told_and_not_drawn(written):
    viewed = ViewedBuild(ShardBuild(written))
    first, *others = viewed.samples
    longer = replace(first, meta=first.meta.model_copy(update={"stop": first.meta.stop + 5}))
    fewer = {suffix: member for suffix, member in first.members.items() if suffix != "action.npy"}
    for broken, problem in ((longer, "has the shape"), (replace(first, members=fewer), "has no member")):
        viewed.samples = (broken, *others)
        with pytest.raises(DatasetError, match=problem):
            viewed.content(0)
    viewed.samples = (longer, *others)
    (top, _) = viewed.streams(0)
    assert isinstance(top, PictureStream)
    assert top.picture(longer.meta.frames - 6)
    with pytest.raises(DatasetError, match="does not say where frame"):
        top.picture(longer.meta.frames - 1)


def test_a_build_by_the_curation(curated):
    content = curated.content(0)
    assert [band["label"] for band in content["bands"]] == list(SUBTASKS)
    facts = dict(content["facts"])
    assert facts["dataset"] == "pushes"
    assert facts["pictures"] == "48 × 48, lossless WebP"
    assert facts["frames of it"] == f"{curated.samples[0].meta.start} to {curated.samples[0].meta.stop - 1}"
    top, wrist = curated.streams(0)
    assert (top.camera, wrist.camera) == ("top", "wrist")
    assert isinstance(top, PictureStream)
    assert top.picture(0)[8:12] == b"WEBP"


def test_a_page_of_a_build_in_a_folder(curated, tmp_path):
    write_static_page(curated, tmp_path / "page", [1])
    frames = curated.samples[1].meta.frames
    assert len(list((tmp_path / "page/pictures/0/1").iterdir())) == frames
    assert b'"split":["' in (tmp_path / "page/dataset.js").read_bytes()
