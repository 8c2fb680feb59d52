"""`blm view` and `blm push` as typed."""

import sys

import pytest
from typer.testing import CliRunner

from blm.cli import app
from tests.factories import make_dataset


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("view") / "data", episodes=2, frames=8, image_size=32)


def test_a_page_in_a_folder(recording, tmp_path):
    result = run("view", recording, "--episode", 1, "--output", tmp_path / "page")
    assert result.exit_code == 0
    assert f"page: {tmp_path / 'page' / 'index.html'}" in result.output
    assert (tmp_path / "page/episodes/1.js").is_file()
    assert not (tmp_path / "page/episodes/0.js").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--no-serve",), 2, "leaves nothing to do"),
        (("--episode", 9), 2, "episode 9 not found"),
        (("--episode", 9, "--output", "page"), 2, "episode 9 not found"),
        (("--port", 70000), 2, "Invalid value for '--port'"),
    ],
)
def test_what_cannot_be_shown_is_said(recording, options, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("view", recording, *options)
    assert (result.exit_code, list(tmp_path.iterdir())) == (code, [])
    assert message in " ".join(result.output.split())


def test_a_folder_without_a_dataset(tmp_path):
    result = run("view", tmp_path)
    assert result.exit_code == 1
    assert "holds no LeRobot dataset" in result.output


def test_a_push_without_a_login_says_so(recording, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "get_token", lambda: None)
    monkeypatch.setattr(hub.constants, "is_offline_mode", lambda: False)
    for arguments in (("push", recording, "lab/cubes"), ("collect", "--push-to-hub", "lab/cubes")):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "nobody is logged in" in result.output
    assert run("push", recording, "cubes").exit_code == 2


def test_a_recording_for_rerun(recording, tmp_path):
    pytest.importorskip("rerun")
    result = run("view", recording, "--episode", 1, "--rerun", tmp_path / "one.rrd")
    assert result.exit_code == 0
    assert "1 recording: " in result.output
    assert (tmp_path / "one.rrd").is_file()
    several = run("view", recording, "--rerun", tmp_path / "all.rrd")
    assert several.exit_code == 2
    assert "Choose one with --episode N, or name a folder" in " ".join(several.output.split())


def test_rerun_that_is_not_installed_names_the_extra(recording, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    result = run("view", recording, "--rerun", tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install 'blm[rerun]'" in result.output
    assert not (tmp_path / "out").exists()
