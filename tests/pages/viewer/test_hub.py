"""Datasets on the Hub: metadata first, the rest as it is looked at; without a network, what the cache holds."""

import shutil
from functools import partial

import huggingface_hub as hub
import pytest
from huggingface_hub import constants

from blm.commands.view_source import open_view
from blm.pages.viewer.dataset import ViewedDataset
from blm.pages.viewer.hub import hub_dataset, hub_metadata
from blm.pages.viewer.static_page import write_static_page
from blm.schemas.errors import DatasetError, UsageError
from blm.schemas.manifest import Counts, Manifest
from tests.pages.viewer import shared_video
from tests.pages.viewer.hub_stand_in import COMMIT, NAME, hub_stand_in
from tests.train.stage2_builds import make_build

DATA, VIDEO = "data/chunk-000/file-000.parquet", f"videos/{shared_video.KEY}/chunk-000/file-000.mp4"


@pytest.fixture
def connected(tmp_path, monkeypatch):
    """Point the library at a stand-in and a cache of this test; undone by `monkeypatch`."""

    def connect(server, online=True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not online)
        for name in ("snapshot_download", "hf_hub_download"):
            real = getattr(hub, name)
            real = real.func if isinstance(real, partial) else real
            monkeypatch.setattr(
                hub, name, partial(real, endpoint=server.endpoint, cache_dir=tmp_path / "cache", token=False)
            )

    return connect


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    return shared_video.write_dataset(tmp_path_factory.mktemp("hub") / "wheels")


@pytest.mark.parametrize("revisions", [("main", "v3.0"), ("main",)])
def test_only_what_is_looked_at_is_fetched(wheels, tmp_path, connected, revisions):
    with hub_stand_in(wheels, revisions) as server:
        connected(server)
        dataset = open_view(NAME)
        assert isinstance(dataset, ViewedDataset)
        assert dataset.name == NAME
        assert dataset.overview()["episodes"]["index"] == [0, 1, 2]
        assert all(name.startswith("meta/") for name in server.fetched)
        assert dataset.content(1)["axes"] == ViewedDataset(wheels).content(1)["axes"]
        assert DATA in server.fetched
        assert VIDEO not in server.fetched
        write_static_page(dataset, tmp_path / "page", [1])
        assert server.fetched.count(VIDEO) == 1
        dataset.content(2)
        assert server.fetched.count(DATA) == 1, "what is there is not fetched again"


def test_without_a_network_the_cache_is_shown_and_what_it_lacks_is_said(wheels, connected):
    with hub_stand_in(wheels) as server:
        connected(server)
        hub_dataset(NAME, hub_metadata(NAME)).content(0)
        connected(server, online=False)
        root = hub_metadata(NAME)
        assert root.name == COMMIT
        dataset = hub_dataset(NAME, root)
        assert dataset.content(1)["frames"] == shared_video.FRAMES[1]
        with pytest.raises(DatasetError, match="the Hub is switched off"):
            dataset.video_file(0, dataset.cameras[0])


def test_a_name_that_is_nowhere(wheels, connected):
    with hub_stand_in(wheels) as server:
        connected(server)
        with pytest.raises(DatasetError, match=r"'lab/nothing' is no folder here.*hf auth login"):
            open_view("lab/nothing")
        connected(server, online=False)
        with pytest.raises(DatasetError, match=r"'lab/nothing' is neither a folder nor in the Hub's cache"):
            open_view("lab/nothing")


def test_a_file_that_the_repository_lacks_is_named(wheels, tmp_path, connected):
    root = tmp_path / "partial"
    shutil.copytree(wheels, root)
    (root / VIDEO).unlink()
    with hub_stand_in(root) as server:
        connected(server)
        dataset = open_view(NAME)
        assert isinstance(dataset, ViewedDataset)
        with pytest.raises(DatasetError, match=r"file-000\.mp4 of 'lab/wheels'"):
            dataset.video_file(0, dataset.cameras[0])


def test_a_folder_of_splits_is_shown_and_a_corpus_is_sent_elsewhere(tmp_path):
    source = open_view(str(make_build(tmp_path / "splits", episodes=2)))
    assert source.overview()["noun"] == "sample"
    (tmp_path / "corpus").mkdir()
    Manifest(
        kind="stage1-corpus",
        software="test",
        config={},
        inputs=(),
        counts=Counts(inputs=0, kept=0),
        splits={},
        breakdown={},
        fingerprint="none",
    ).write(tmp_path / "corpus")
    with pytest.raises(UsageError, match=r"blm curate inspect .*corpus"):
        open_view(str(tmp_path / "corpus"))


def test_an_address_is_read_as_a_build(tmp_path):
    make_build(tmp_path / "splits", episodes=2)
    assert open_view(f"file://{tmp_path / 'splits'}").overview()["noun"] == "sample"
