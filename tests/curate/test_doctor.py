"""The doctor's exit codes, and that datasets and builds are found as a build finds them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from blm.cli import app
from blm.curate.doctor import diagnose
from tests.curate.episodes.editing import set_motion
from tests.factories import make_dataset
from tests.large_dataset import write_dataset


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("clean") / "pushes", episodes=2, frames=30, image_size=32)


@pytest.fixture
def root(clean, tmp_path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "all/pushes"))


def doctor(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *map(str, arguments)])
    return result.exit_code, result.output


def jump(root: Path) -> None:
    """A command that jumps and comes back: a warning."""
    path = np.linspace(0, 20, 30)[:, None] * np.ones(6)
    path[12] += 60
    set_motion(root, 1, path)


def test_clean_is_0(root):
    assert doctor("--fast", "--strict", root)[0] == 0


def test_warnings_are_0_and_fail_only_if_told_to(root):
    jump(root)
    code, said = doctor("--fast", root)
    assert (code, "warn: action_jump" in said) == (0, True)
    assert doctor("--fast", "--strict", root)[0] == 1


def test_an_episode_that_would_be_dropped_is_1(root):
    set_motion(root, 1, np.zeros((30, 6)))
    code, said = doctor("--fast", root)
    assert (code, "drop: idle_episode" in said) == (1, True)


def test_a_broken_dataset_beside_a_clean_one_is_1(root):
    shutil.copytree(root / "data", root.parent / "half/data")
    code, said = doctor("--fast", "--json", root.parent)
    told = json.loads(said)
    assert (code, told["examined"]) == (1, 2)
    assert ["half/meta/info.json does not exist" in one for one in told["problems"]] == [True]


def test_a_dataset_without_cameras_is_refused_as_a_build_refuses_it(root):
    write_dataset(root.parent / "bench", 600, 3, file_per_episode=True)
    code, said = doctor(root.parent)
    assert (code, "bench has no camera" in said) == (1, True)


def test_what_a_configuration_says_of_a_folder_counts_for_the_datasets_below(root):
    quick = make_dataset(root.parent / "quick/one", episodes=2, frames=30, image_size=32, seed=9, rate_hz=40)
    said = root.parent / "splits.yaml"
    datasets = [{"path": str(quick.parent), "frame_stride": 2}, str(root)]
    said.write_text(json.dumps({"datasets": datasets, "output": "splits"}))
    assert "differ in rate" in " ".join(diagnose(root.parent, fast=True).problems)
    assert diagnose(root.parent, fast=True, config=said).problems == ()


def test_only_what_cannot_be_read_is_1(tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "all/unmounted").symlink_to("/nowhere/pushes")
    assert diagnose(tmp_path / "all").examined == 0
    assert doctor(tmp_path / "all")[0] == 1


def test_linked_datasets_are_examined(root, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links/mine").symlink_to(root)
    found = diagnose(tmp_path / "links", fast=True)
    assert (found.examined, found.problems) == (2, ())


@pytest.mark.parametrize("what", ["nothing", "file", "empty", "config"])
def test_nothing_to_look_at_and_a_wrong_configuration_are_2(what, root, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "splits.yaml").write_text("thresholds: {idle_sped: 3}")
    arguments = [tmp_path / what] if what != "config" else [root, "--config", tmp_path / "splits.yaml"]
    assert doctor(*arguments)[0] == 2
