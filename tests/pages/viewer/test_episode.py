"""Curves, bands and marks of one episode are those in its rows."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from blm.pages.viewer.dataset import ViewedDataset
from blm.pages.viewer.episode import episode_content
from tests.factories import SUBTASKS, make_dataset
from tests.pages.viewer import shared_video


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    root = tmp_path_factory.mktemp("ours") / "data"
    return ViewedDataset(make_dataset(root, episodes=2, frames=[20, 24], image_size=32))


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return ViewedDataset(shared_video.write_dataset(tmp_path_factory.mktemp("stock") / "wheels"))


def test_axes_hold_state_and_action_of_every_frame(ours):
    content = episode_content(ours, 1)
    rows = pq.read_table(ours.data_file(1))
    assert content["frames"] == 24
    assert [axis["name"] for axis in content["axes"]] == ours.features["action"]["names"]
    for kind, key in (("state", "observation.state"), ("action", "action")):
        shown = np.array([axis[kind] for axis in content["axes"]]).T
        np.testing.assert_allclose(shown, np.array(rows[key].to_pylist()), rtol=1e-4)


def test_bands_cover_the_episode_in_order(ours):
    content = episode_content(ours, 0)
    assert [band["label"] for band in content["bands"]] == list(SUBTASKS)
    assert content["bands"][0]["from"] == 0
    assert content["bands"][-1]["to"] == 20
    for band, following in zip(content["bands"], content["bands"][1:], strict=False):
        assert band["to"] == following["from"]


def test_success_objects_and_facts(ours):
    content = episode_content(ours, 0)
    assert content["success_from"] == 15
    (cube, *_) = content["objects"]
    assert cube["name"] == "cube"
    states = np.array(pq.read_table(ours.data_file(0))["observation.environment_state"].to_pylist())
    np.testing.assert_allclose(cube["last"], states[-1, :3], atol=1e-4)
    facts = dict(content["facts"])
    assert facts["length"] == "20 frames, 1.00 s"
    assert facts["mean rate, measured"] == "20.00 Hz"
    assert facts["late ticks"] == "0"
    (period,) = [group for group in content["groups"] if group["title"] == "control period"]
    assert period["series"][0]["values"][:3] == [None, 50.0, 50.0]


def test_only_the_rows_of_the_episode_are_taken_from_a_shared_file(stock):
    content = episode_content(stock, 1)
    first, length = shared_video.FRAMES[0], shared_video.FRAMES[1]
    left = content["axes"][0]
    assert left["name"] == "left"
    assert left["state"] == [float(value) for value in range(first, first + length)]
    assert left["action"] == [float(value) for value in range(first + 1, first + length + 1)]
    assert content["axes"][1]["action"] == [None] * length, "not a number has no place in a curve"
    assert content["success_from"] == 7
    assert content["bands"] == content["objects"] == []


def test_interventions_are_ranges_of_frames(stock):
    assert episode_content(stock, 2)["interventions"] == [[3, 5], [13, 14]]
    assert episode_content(stock, 0)["interventions"] == []


def test_ages_of_pictures_share_a_plot_under_the_cameras_names(stock):
    (ages,) = [group for group in episode_content(stock, 1)["groups"] if group["unit"] == "ms"]
    assert ages["series"] == [{"name": "front", "values": [3.0 + frame for frame in range(9)]}]


def test_content_is_json(ours, stock):
    for dataset in (ours, stock):
        json.dumps(episode_content(dataset, 0), allow_nan=False)
