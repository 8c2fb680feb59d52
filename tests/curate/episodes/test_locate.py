import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from blm.curate.episodes.build import build_splits
from blm.curate.episodes.config import DatasetSource, SplitsConfig
from blm.curate.episodes.index import index_dataset
from blm.curate.episodes.inspection import inspect_datasets
from blm.curate.episodes.locate import locate_datasets
from blm.schemas.errors import ConfigError, DatasetError
from blm.schemas.progress import silent
from blm.schemas.yaml_model import validate
from blm.train.shard_reader import ShardBuild
from tests.curate.episodes.older_version import as_v21


def config(output: Path, *datasets, **changes) -> SplitsConfig:
    return validate(SplitsConfig, {"datasets": datasets, "output": output, **changes}, "test")


def located(output: Path, *datasets) -> list[tuple[str | None, str]]:
    found = locate_datasets(config(output, *datasets), silent)
    for error in found.broken.values():
        raise error
    return [(one.name, str(one.path)) for one in found.config.datasets]


def everything(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_folder_of_datasets_is_gone_through(recorded, tmp_path):
    for place in ("b/two", "a/one", ".hidden/three"):
        shutil.copytree(recorded / "meta", tmp_path / "all" / place / "meta")
    shutil.copytree(recorded / "meta", tmp_path / "all" / "a/one/inner/meta")
    (tmp_path / "all/empty").mkdir()
    roots = [str(tmp_path / "all" / place) for place in ("a/one", "b/two")]
    assert located(tmp_path / "out", tmp_path / "all") == [(None, root) for root in roots]
    assert located(tmp_path / "out", roots[0], {"path": roots[1], "name": "n"}) == [
        (None, roots[0]),
        ("n", roots[1]),
    ]
    assert located(tmp_path / "out", tmp_path / "all", {"path": f"{roots[0]}/../one", "name": "n"}) == [
        (None, roots[1]),
        ("n", f"{roots[0]}/../one"),
    ]
    with pytest.raises(ConfigError, match="2 datasets, which cannot all be called 'n'"):
        located(tmp_path / "out", {"path": tmp_path / "all", "name": "n"})
    with pytest.raises(ConfigError, match="empty holds no LeRobot dataset"):
        located(tmp_path / "out", tmp_path / "all/empty")
    with pytest.raises(DatasetError, match="does not exist"):
        located(tmp_path / "out", tmp_path / "nowhere")


def test_an_older_dataset_is_converted_beside_the_output_and_not_again(recorded, tmp_path):
    old = as_v21(recorded, tmp_path / "old/pushes")
    before = everything(old)
    ((name, path),) = located(tmp_path / "new/out", old)
    assert everything(old) == before
    assert (name, Path(path).parents[1]) == ("pushes", tmp_path / "new/.out.inputs")
    expected, found = (
        index_dataset(DatasetSource(path=Path(root)), "pushes", 0.02) for root in (recorded, path)
    )
    assert found.embodiment.name == "so100"
    assert [camera.name for camera in found.cameras] == ["top", "wrist"]
    for column in ("episode", "identity", "rows", "video_frames", "instruction", "task"):
        assert found.episodes[column].to_pylist() == expected.episodes[column].to_pylist()
    assert found.episodes["missing_videos"].to_pylist() == [[]] * 8
    written = Path(path).stat().st_mtime_ns
    assert located(tmp_path / "new/out", old) == [("pushes", path)]
    assert Path(path).stat().st_mtime_ns == written
    (shown,) = inspect_datasets(config(tmp_path / "new/out", old))
    assert (shown.path, yaml.safe_load(shown.override)["datasets"][0]["path"]) == (old, str(old))


@pytest.mark.slow
def test_a_converted_dataset_builds_the_same_samples(recorded, tmp_path):
    old = as_v21(recorded, tmp_path / "old/pushes")
    settings = {"fractions": {"train": 0.5, "val": 0.25, "test": 0.25}, "trim_idle": False}
    build_splits(config(tmp_path / "new/out", recorded, **settings))
    build_splits(config(tmp_path / "converted/out", old, **settings))
    with ShardBuild(tmp_path / "new/out") as one, ShardBuild(tmp_path / "converted/out") as other:
        expected, found = one.segments(), other.segments()
        assert [segment.key for segment in found] == [segment.key for segment in expected]
        for segment, again in zip(expected, found, strict=True):
            assert again.meta.split == segment.meta.split
            np.testing.assert_array_equal(other.state(again), one.state(segment))
            np.testing.assert_array_equal(other.action(again), one.action(segment))
            frames = [0, segment.meta.frames - 1]
            difference = other.images(again, "top", frames).astype(int) - one.images(segment, "top", frames)
            assert np.abs(difference).max() <= 2


def test_what_cannot_be_converted_is_said_and_left_nowhere(recorded, tmp_path):
    old = as_v21(recorded, tmp_path / "old")
    (old / "meta/episodes.jsonl").write_text("{")
    with pytest.raises(DatasetError, match=r"old is a v2\.1 dataset that LeRobot's converter cannot convert"):
        located(tmp_path / "out", old)
    assert not [
        path for path in (tmp_path / ".out.inputs/v2.1").iterdir() if not path.name.endswith(".unfinished")
    ]


def test_a_name_on_the_hub_is_fetched_as_plain_files(recorded, tmp_path, monkeypatch):
    asked = []

    def download(repository, *, repo_type, revision, local_dir):
        from huggingface_hub.errors import RevisionNotFoundError

        asked.append((repository, repo_type, revision))
        if revision == "v3.0":
            raise RevisionNotFoundError.__new__(RevisionNotFoundError)
        shutil.copytree(recorded, local_dir)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    ((name, path),) = located(tmp_path / "out", "some-lab/pushes")
    assert asked == [("some-lab/pushes", "dataset", "v3.0"), ("some-lab/pushes", "dataset", "v2.1")]
    assert (name, Path(path).is_relative_to(tmp_path / ".out.inputs")) == ("some-lab-pushes", True)

    def offline(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    assert located(tmp_path / "out", "some-lab/pushes") == [(name, path)]
    with pytest.raises(DatasetError, match=r"'some-lab/stacks'.*cannot be fetched.*no route to host"):
        located(tmp_path / "out", "some-lab/stacks")
