"""Uploading builds to the Hub: the build's files and no others, and what goes wrong is explained."""

import shutil

import pytest
from typer.testing import CliRunner

from blm.cli import app
from blm.curate.corpus.build import build_corpus
from blm.curate.corpus.config import CorpusConfig
from blm.curate.hub import push_build
from blm.schemas.errors import DatasetError, UsageError
from tests.collect.fake_hub import fake_hub
from tests.factories import make_dataset

hub_library = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")


_HfApi = hub_library.HfApi


def write_rows(path, count):
    lines = [f'{{"question": "How many are {n}?", "answer": "{n} of them."}}\n' for n in range(count)]
    path.write_text("".join(lines))
    return path


def build(rows, output, **changes):
    build_corpus(CorpusConfig(sources=(f"parquet:{rows}",), output=output, **changes))  # type: ignore[arg-type]
    return output


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pushed")
    return build(write_rows(folder / "rows.jsonl", 30), folder / "corpus", parquet=True, shard_bytes=10_240)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    with fake_hub() as running:
        api = api_of(running)
        monkeypatch.setattr(hub_library, "HfApi", lambda: api)
        yield running


def api_of(hub):
    return _HfApi(endpoint=hub.endpoint, token="hf_made_up")


def contents(root):
    found = {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
    return {name: content for name, content in found.items() if not name.startswith(".")}


def test_the_build_arrives_private_and_whole_and_nothing_else(hub, corpus, tmp_path):
    copy = tmp_path / "corpus"
    shutil.copytree(corpus, copy)
    (copy / "notes.txt").write_text("mine")
    (copy / ".secret").write_text("mine")
    address = push_build(copy, "my-lab/questions", api=api_of(hub))
    assert address == f"{hub.endpoint}/datasets/my-lab/questions"
    assert hub.created["visibility"] == "private"
    assert hub.files == contents(corpus)
    assert {"README.md", "manifest.json", "stages.parquet"} <= hub.files.keys()
    assert any(name.startswith("parquet/train-") for name in hub.files)
    assert hub.commits == 1


def test_pushed_again_the_repository_is_the_new_build(hub, corpus, tmp_path):
    push_build(corpus, "my-lab/questions", api=api_of(hub), private=False)
    hub.files["notes.md"] = b"somebody's own"
    smaller = build(write_rows(tmp_path / "rows.jsonl", 12), tmp_path / "corpus")
    push_build(smaller, "my-lab/questions", api=api_of(hub))
    assert hub.files == contents(smaller) | {"notes.md": b"somebody's own"}


def test_what_is_no_whole_build_is_not_uploaded(hub, corpus, tmp_path):
    with pytest.raises(DatasetError, match=r"holds no manifest\.json"):
        push_build(tmp_path, "my-lab/questions", api=api_of(hub))
    damaged = tmp_path / "damaged"
    shutil.copytree(corpus, damaged)
    next(damaged.glob("*.tar")).unlink()
    with pytest.raises(DatasetError, match="is missing") as told:
        push_build(damaged, "my-lab/questions", api=api_of(hub))
    assert f"blm doctor {damaged}" in told.value.remedy
    begun = tmp_path / "begun"
    shutil.copytree(corpus, begun)
    (begun / ".unfinished").mkdir()
    with pytest.raises(DatasetError, match="another build was begun here"):
        push_build(begun, "my-lab/questions", api=api_of(hub))
    linked = tmp_path / "linked"
    shutil.copytree(corpus, linked)
    (tmp_path / "secret").write_text("secret")
    (linked / "README.md").unlink()
    (linked / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(DatasetError, match="is a link"):
        push_build(linked, "my-lab/questions", api=api_of(hub))
    assert hub.files == {}


def test_a_name_a_token_and_a_hub_are_needed(hub, corpus, monkeypatch):
    with pytest.raises(UsageError, match="not a name on the Hub"):
        push_build(corpus, "questions", api=api_of(hub))
    hub.refuses = True
    with pytest.raises(DatasetError, match="could not be uploaded") as told:
        push_build(corpus, "my-lab/questions", api=api_of(hub))
    assert f"blm push {corpus} my-lab/questions" in told.value.remedy
    monkeypatch.setattr(hub_library, "get_token", lambda: None)
    with pytest.raises(DatasetError, match="nobody is logged in"):
        push_build(corpus, "my-lab/questions", api=api_of(hub))


def test_commands_upload_what_they_built(hub, tmp_path):
    rows, output = write_rows(tmp_path / "rows.jsonl", 8), tmp_path / "corpus"
    typed = ["curate", "build-corpus", "--source", f"parquet:{rows}", "--output", str(output)]
    result = CliRunner().invoke(app, [*typed, "--push-to-hub", "my-lab/questions"])
    assert result.exit_code == 0, result.output
    assert f"uploaded: {hub.endpoint}/datasets/my-lab/questions" in result.output
    assert hub.files == contents(output)
    hub.files.clear()
    dataset = make_dataset(tmp_path / "data", episodes=4, frames=30, image_size=32)
    typed = ["curate", "build-splits", str(dataset), "--output", str(tmp_path / "splits")]
    result = CliRunner().invoke(app, [*typed, "--push-to-hub", "my-lab/splits"])
    assert result.exit_code == 0, result.output
    assert hub.files == contents(tmp_path / "splits")
    hub.files.clear()
    result = CliRunner().invoke(app, ["push", str(output), "my-lab/questions"])
    assert result.exit_code == 0, result.output
    assert hub.files == contents(output)


@pytest.mark.parametrize(
    "command", [["build-corpus", "--source", "llava:rows.json"], ["build-splits", "recordings"]]
)
def test_without_a_token_nothing_is_built(command, monkeypatch, hub, tmp_path):
    monkeypatch.setattr(hub_library, "get_token", lambda: None)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["curate", *command, "--push-to-hub", "my-lab/x"])
    assert result.exit_code == 1
    assert "nobody is logged in" in result.output
    assert list(tmp_path.iterdir()) == []
