"""Which datasets lie under a folder, with links, loops, remains of datasets, and places that cannot be read."""

import os
import shutil
from pathlib import Path

import pytest

from blm.curate.doctor import diagnose
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.dataset_folders import dataset_folders
from blm.curate.episodes.index import dataset_names


@pytest.fixture
def place(tmp_path) -> Path:
    """Two datasets on another disk and one in the folder itself, as far as their metadata."""
    for name in ("disk/aloha", "disk/many/koch", "here/so100"):
        info = tmp_path / name / "meta/info.json"
        info.parent.mkdir(parents=True)
        info.write_text("{}")
    return tmp_path


def found(top: Path, **more) -> list[str]:
    folders = dataset_folders(top, **more)
    assert all(one.problem is None for one in folders), folders
    return [one.path.relative_to(top).as_posix() for one in folders]


def problems(top: Path, **more) -> dict[str, str]:
    folders = dataset_folders(top, **more)
    return {one.path.relative_to(top).as_posix(): str(one.problem) for one in folders if one.problem}


def test_links_right_in_the_folder_are_followed_and_give_their_name(place):
    here = place / "here"
    (here / "bimanual").symlink_to(place / "disk/aloha")
    (here / "lab").symlink_to(place / "disk/many")
    assert found(here) == ["bimanual", "lab/koch", "so100"]
    sources = [DatasetSource(path=one.path) for one in dataset_folders(here)]
    assert dataset_names(sources) == ["bimanual", "koch", "so100"]


def test_a_dataset_is_taken_once_and_by_its_own_place(place):
    here = place / "here"
    (here / "a-latest").symlink_to("so100")
    (here / "first").symlink_to(place / "disk/aloha")
    (here / "second").symlink_to(place / "disk/aloha")
    assert found(here) == ["first", "so100"]


def test_loops_end(place):
    here = place / "here"
    (here / "again").symlink_to(here)
    (here / "deep").mkdir()
    (here / "deep/up").symlink_to(here)
    (here / "so100/inside").symlink_to(here)
    assert found(here) == ["so100"]
    assert found(here, follow_links=True) == ["so100"]


def test_a_link_to_nothing_is_told(place):
    here = place / "here"
    (here / "unmounted").symlink_to("/nowhere/so101")
    (here / "loop").symlink_to("loop")
    told = problems(here)
    assert sorted(told) == ["loop", "unmounted"]
    assert "leads nowhere (/nowhere/so101). Is a disk not mounted?" in told["unmounted"]


def test_links_further_down_stay_inside_unless_they_are_trusted(place):
    here = place / "here"
    (here / "downloaded").mkdir()
    (here / "downloaded/mine").symlink_to(here / "so100")
    (here / "downloaded/out").symlink_to(place / "disk/aloha")
    (here / "downloaded/folder").symlink_to(place / "disk/many")
    (here / "downloaded/harmless").symlink_to(place / "here/so100/meta")
    told = problems(here)
    assert sorted(told) == ["downloaded/folder", "downloaded/out"]
    assert "leads out of" in told["downloaded/out"]
    assert "--follow-links" in told["downloaded/out"]
    assert found(here, follow_links=True) == ["downloaded/folder/koch", "downloaded/out", "so100"]


def test_what_is_left_of_a_dataset_is_one(place):
    here = place / "here"
    (here / "lost/meta/episodes/chunk-000").mkdir(parents=True)
    (here / "half/data/chunk-000").mkdir(parents=True)
    (here / "other/data").mkdir(parents=True)
    (here / "other/meta").mkdir()
    assert found(here) == ["half", "lost", "so100"]
    (problem,) = [one for one in diagnose(here).problems if "lost" in one]
    assert "meta/info.json does not exist" in problem


def test_hidden_folders_and_the_output_are_left_out(place):
    here = place / "here"
    shutil.copytree(place / "disk/aloha", here / ".cache/aloha")
    shutil.copytree(place / "disk/aloha", here / "splits/aloha")
    assert found(here, output=here / "splits") == ["so100"]


def test_a_folder_that_may_not_be_read_is_told(place, monkeypatch):
    locked, scandir = place / "here/locked", os.scandir
    locked.mkdir()

    def refusing(path):
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert problems(place / "here") == {
        "locked": f"{locked} cannot be read: Permission denied. Mend its permissions."
    }
