"""The command line as a person types it: what goes wrong is said calmly, with a remedy and the right exit code."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from blm import __version__
from blm.cli import app
from tests.charts import charts_by_their_numbers
from tests.factories import make_dataset

runner = CliRunner()


def run(*arguments: object):
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_version():
    assert run("--version").output == f"blm {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("collect", "--robot", "so10"), 2, "there are: panda, so100"),
        (("collect", "--task", "pick-cup"), 2, "there are: lift-peg-upright, pick-cube"),
        (("collect", "--operator", "ghost"), 2, "operator 'ghost' is not available"),
        (
            ("collect", "--operator", "policy:x", "--take-over", "me"),
            2,
            "'me' not found; there are: browser, gamepad",
        ),
        (("collect", "--operator", "policy:nowhere"), 1, "nowhere is not a folder."),
        (
            ("collect", "--robot", "lerobot:so101_follower"),
            2,
            "is not available on a real arm; there are: leader",
        ),
        (("collect", "--no-review"), 2, "--review has no effect here: the planner works alone"),
        (
            ("collect", "--operator", "browser", "--noise", "1"),
            2,
            "--noise has no effect here: only the planner",
        ),
        (("collect", "--operator", "gamepad", "--workers", "2"), 2, "recorded one after the other"),
        (("collect", "--operator", "gamepad", "--web-port", "8000"), 2, "no page is served"),
        (
            ("collect", "--operator", "browser", "--leader-port", "x"),
            2,
            "the browser drives, not a leader arm",
        ),
        (("collect", "--operator", "leader", "--take-over", "gamepad"), 2, "takes over from a policy only"),
        (("collect", "--operator", "leader", "--port", "x", "--variety", "all"), 2, "varied by hand"),
        (
            ("collect", "--operator", "leader", "--port", "x", "--image-size", "64"),
            2,
            "--camera top=0@640x480",
        ),
        (("collect", "--episodes", "0"), 2, "Invalid value for '--episodes'"),
        (("collect", "suite", "--robots", "so10"), 2, "there are: panda, so100"),
        (("collect", "suite", "--tasks", "pick-cube,pick-cup"), 2, "'pick-cup' not found"),
        (("collect", "suite", "--robots", ","), 2, "'robots'"),
        (("collect", "--robot", "panda", "suite"), 2, "--robot stands before 'suite'"),
        (("curate", "build-splits", "nowhere", "--output", "out"), 1, "nowhere"),
        (("curate", "build-splits", __file__, "--output", "out"), 1, "test_cli.py is a file."),
        (("curate", "build-splits", "--output", "out"), 2, "no datasets were named. Name their folders"),
        (("curate", "build-corpus", "--output", "out"), 2, "no sources were named. Name them with --source"),
        (("curate", "build-corpus", "--source", "nowhere", "--output", "out"), 2, "KIND:PATH"),
        (("curate", "build-corpus", "--source", "lama:x", "--output", "out"), 2, "lerobot, llava"),
        (("train", "stage1", "--corpus", "nowhere", "--output", "out"), 1, "nowhere"),
        (("train", "stage2", "--splits", "nowhere", "--output", "out"), 1, "nowhere"),
        (("train", "stage2", "--splits", "x", "--recipe", "huge"), 2, "there are: base, tiny"),
        (("train", "stage2", "--splits", "x", "--set", "policy.with=3"), 2, "unknown key 'policy.with'"),
        (("train", "stage2", "--splits", "x", "--set", "steps"), 2, "is not KEY=VALUE"),
        (("evaluate", "physical", "nowhere", "--output", "out"), 1, "nowhere"),
        (("demo", "--output", __file__), 2, "test_cli.py is a file."),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_wrong_input_says_what_is_wrong_and_writes_nothing(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert (result.exit_code, result.exception is None or isinstance(result.exception, SystemExit)) == (
        code,
        True,
    )
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_no_page_is_opened_for_a_recording_that_cannot_begin(tmp_path):
    (tmp_path / "thesis.txt").touch()
    for output, message in (
        (tmp_path, "exists already. Choose another --output"),
        (tmp_path / "thesis.txt", "is a file. Choose another --output"),
    ):
        refused = run("collect", "--operator", "browser", "--output", output)
        assert refused.exit_code == 2
        assert message in " ".join(refused.output.split())
        assert "open http" not in refused.output


def test_splits_from_a_dataset_as_text_and_as_json(tmp_path):
    dataset = make_dataset(tmp_path / "dataset", episodes=4, frames=20)
    arguments = ("curate", "build-splits", dataset, "--output", tmp_path / "splits")
    text = run(*arguments)
    assert text.exit_code == 0, text.output
    assert "4 episodes in, 4 kept, dropped: none" in text.output
    assert "next: blm train stage2" in text.output
    summary = json.loads(run(*arguments, "--json").stdout)
    assert summary["counts"] == {"inputs": 4, "kept": 4, "dropped": {}}


@charts_by_their_numbers()
def test_another_build_is_not_overwritten_unasked(tmp_path):
    first = make_dataset(tmp_path / "first", episodes=3, frames=20)
    second = make_dataset(tmp_path / "second", episodes=3, frames=20, seed=9)
    assert run("curate", "build-splits", first, "--output", tmp_path / "splits").exit_code == 0
    refused = run("curate", "build-splits", second, "--output", tmp_path / "splits")
    assert refused.exit_code == 2
    assert "--overwrite" in refused.output
    assert (
        run("curate", "build-splits", second, "--output", tmp_path / "splits", "--overwrite").exit_code == 0
    )


@charts_by_their_numbers()
def test_the_configuration_file_holds_unless_an_option_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path / "dataset", episodes=3, frames=20)
    (tmp_path / "splits.yaml").write_text("datasets: [dataset]\noutput: mine\nseed: 7\nimage_size: 32\n")
    assert run("curate", "build-splits", "--config", "splits.yaml").exit_code == 0
    config = json.loads((tmp_path / "mine" / "manifest.json").read_text())["config"]
    assert (config["seed"], config["image_size"]) == (7, [32, 32])
    arguments = ("--config", "splits.yaml", "--seed", "0", "--output", "other")
    assert run("curate", "build-splits", *arguments).exit_code == 0
    assert json.loads((tmp_path / "other" / "manifest.json").read_text())["config"]["seed"] == 0
    assert not (tmp_path / "splits").exists()


def test_corpus_from_a_dataset(tmp_path):
    dataset = make_dataset(tmp_path / "dataset", episodes=3, frames=20)
    result = run("curate", "build-corpus", "--source", f"lerobot:{dataset}", "--output", tmp_path / "corpus")
    assert result.exit_code == 0, result.output
    assert "next: blm train stage1" in result.output


def test_the_demo_replaces_only_demos(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not delete")
    result = run("demo", "--output", tmp_path, "--overwrite")
    assert result.exit_code == 2
    assert "something else than a demo" in result.output
    assert (tmp_path / "thesis.txt").read_text() == "do not delete"


def test_a_suite_without_recording_counts_successes(tmp_path):
    arguments = ("collect", "suite", "--robots", "so100", "--tasks", "push-cube", "--episodes", "1")
    suite = tmp_path / "suite"
    result = run(*arguments, "--no-record", "--workers", "1", "--output", suite)
    assert result.exit_code == 0, result.output
    assert re.search(r"push-cube +1/1 +100 %", result.output)
    again = run(*arguments, "--no-record", "--output", suite)
    assert (again.exit_code, "Add --resume" in again.output) == (2, True)
    as_json = run(*arguments, "--no-record", "--output", suite, "--resume", "--json")
    summary = json.loads(as_json.stdout)
    assert (summary["attempts"], summary["succeeded"], summary["complete"]) == (1, 1, True)
