"""Uploading to the Hub: every file arrives as it is, with LeRobot's tag, and what goes wrong is explained."""

import pytest
from typer.testing import CliRunner

from blm.cli import app
from blm.collect.dataset_lock import lock_folder
from blm.collect.hub import push_dataset
from blm.hub import check_can_push
from blm.schemas.errors import BlmError, DatasetError, UsageError
from tests.collect.fake_hub import fake_hub
from tests.factories import make_dataset

hub_library = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("push") / "data", episodes=2, frames=8, image_size=32)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    with fake_hub() as running:
        yield running


def api_of(hub):
    return hub_library.HfApi(endpoint=hub.endpoint, token="hf_made_up")


def contents(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_every_file_arrives_in_a_private_tagged_repository(hub, recording):
    before = contents(recording)
    (recording / "meta/left.json.tmp").write_text("half")
    address = push_dataset(recording, "my-lab/cubes", api=api_of(hub))
    (recording / "meta/left.json.tmp").unlink()
    assert address == f"{hub.endpoint}/datasets/my-lab/cubes"
    assert hub.created["visibility"] == "private"
    assert hub.files == before
    assert hub.commits == 1
    assert hub.tags == ["v3.0"]
    assert hub.tokens == {"Bearer hf_made_up"}
    assert contents(recording) == before, "nothing is left in the dataset"


def test_pushed_again_the_repository_is_the_dataset(hub, recording):
    push_dataset(recording, "my-lab/cubes", api=api_of(hub), private=False)
    hub.files["videos/old/chunk-000/file-000.mp4"] = b"of a camera that is no more"
    hub.files["notes.md"] = b"somebody's own"
    push_dataset(recording, "my-lab/cubes", api=api_of(hub))
    assert hub.files == contents(recording) | {"notes.md": b"somebody's own"}
    assert hub.tags == ["v3.0"]


def test_a_hub_that_refuses_or_is_not_there(hub, recording):
    hub.refuses = True
    with pytest.raises(DatasetError, match="could not be uploaded") as told:
        push_dataset(recording, "my-lab/cubes", api=api_of(hub))
    assert f"blm push {recording} my-lab/cubes" in told.value.remedy
    nowhere = hub_library.HfApi(endpoint="http://127.0.0.1:9", token="hf_made_up")
    with pytest.raises(DatasetError, match="could not be uploaded"):
        push_dataset(recording, "my-lab/cubes", api=nowhere)


@pytest.mark.parametrize("name", ["cubes", "a/b/c", "../b", "a/", "/a", "a b/c", "a/..", "https://x/y"])
def test_names_that_the_hub_cannot_have(name):
    with pytest.raises(UsageError, match="not a name on the Hub"):
        check_can_push(name)


def test_without_a_token_or_network_nothing_is_begun(monkeypatch, hub):
    monkeypatch.setattr(hub_library, "get_token", lambda: None)
    with pytest.raises(DatasetError, match="nobody is logged in"):
        check_can_push("my-lab/cubes")
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    with pytest.raises(DatasetError, match="HF_HUB_OFFLINE"):
        check_can_push("my-lab/cubes")


def test_what_is_no_whole_dataset_is_not_uploaded(hub, recording, tmp_path):
    with pytest.raises(DatasetError, match="holds no LeRobot dataset"):
        push_dataset(tmp_path, "my-lab/cubes", api=api_of(hub))
    with lock_folder(recording), pytest.raises(BlmError, match="being written"):
        push_dataset(recording, "my-lab/cubes", api=api_of(hub))
    root = make_dataset(tmp_path / "linked", episodes=1, frames=8, image_size=32)
    (tmp_path / "secret").write_text("secret")
    (root / "notes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(DatasetError, match="is a link to"):
        push_dataset(root, "my-lab/cubes", api=api_of(hub))
    assert hub.files == {}


def test_a_recording_is_uploaded_when_it_ends(hub, monkeypatch, tmp_path):
    api = api_of(hub)
    monkeypatch.setattr(hub_library, "HfApi", lambda: api)
    output = tmp_path / "pushes"
    typed = [
        "collect",
        "--task",
        "push-cube",
        "--episodes",
        "1",
        "--image-size",
        "32",
        "--output",
        str(output),
    ]
    result = CliRunner().invoke(app, [*typed, "--push-to-hub", "my-lab/pushes"])
    assert result.exit_code == 0, result.output
    assert f"uploaded: {hub.endpoint}/datasets/my-lab/pushes" in result.output
    assert hub.files == contents(output)
    assert hub.tags == ["v3.0"]
