import json

import pytest
import yaml
from typer.testing import CliRunner

from blm.cli import app
from blm.curate.episodes.config import SplitsConfig, read_splits_config
from blm.curate.episodes.inspection import inspect_datasets
from blm.schemas.yaml_model import validate
from tests.curate.episodes.editing import as_stock, edit_info
from tests.large_dataset import write_dataset


@pytest.mark.parametrize("stock", [False, True])
def test_the_lines_shown_say_the_same(recorded, copy, tmp_path, stock):
    root = as_stock(copy()) if stock else recorded
    if stock:
        edit_info(root, lambda info: info["features"]["action"].update(names=["a", "b", "c", "d", "e", "f"]))
        edit_info(root, lambda info: info["features"]["observation.state"].update(names=None))
    (first,) = inspect_datasets(
        validate(SplitsConfig, {"datasets": [root], "output": tmp_path / "out"}, "test")
    )
    assert (first.name, first.episodes, first.frames) == ("pushes", 8, 192)
    assert sum(first.tasks.values()) == 8
    config = tmp_path / "splits.yaml"
    config.write_text(first.override + f"output: {tmp_path / 'out'}\n")
    (again,) = inspect_datasets(read_splits_config(config))
    assert again.override == first.override
    assert [(one.what, one.value) for one in again.found] == [(one.what, one.value) for one in first.found]


def test_what_a_configuration_says_of_a_dataset_is_shown_again(recorded, tmp_path):
    told = {"path": str(recorded), "name": "n", "task": "push-cube", "frame_stride": 2}
    asked = validate(SplitsConfig, {"datasets": [told], "output": tmp_path / "out"}, "test")
    (found,) = inspect_datasets(asked)
    (entry,) = yaml.safe_load(found.override)["datasets"]
    assert entry.items() >= told.items()


def test_the_next_command_is_told_the_configuration_too(recorded, tmp_path):
    config = tmp_path / "splits.yaml"
    config.write_text(yaml.safe_dump({"datasets": [{"path": str(recorded), "frame_stride": 2}]}))
    shown = CliRunner().invoke(app, ["curate", "inspect", "--config", str(config)])
    assert f"next: blm curate build-splits --config {config}" in shown.output.replace("\n", "")
    named = CliRunner().invoke(app, ["curate", "inspect", str(recorded)])
    assert f"next: blm curate build-splits {recorded} --output splits" in named.output.replace("\n", "")


def test_the_command_shows_every_dataset_below_a_folder(tmp_path):
    for name in ("one", "two"):
        write_dataset(tmp_path / "all" / name, 600, 3, file_per_episode=True)
    runner = CliRunner()
    shown = runner.invoke(app, ["curate", "inspect", str(tmp_path / "all")])
    assert shown.exit_code == 1  # they have no camera, and are shown all the same
    assert "two has no camera" in shown.output
    assert "one: 2 episodes, 600 frames" in shown.output
    assert "to override, in splits.yaml" in shown.output
    as_json = runner.invoke(app, ["curate", "inspect", str(tmp_path / "all"), "--json"])
    datasets = json.loads(as_json.stdout)["datasets"]
    assert [one["name"] for one in datasets] == ["one", "two"]
    assert datasets[0]["found"][0]["value"] == "bench"
