"""The Ray engine on a cluster that is started here; benchmarks/ray_scaling.py does the same with two nodes."""

import pytest

from blm.curate.engine import open_engine
from blm.curate.episodes.build import build_splits
from blm.schemas.errors import DatasetError
from tests.curate.episodes.test_build import config, contents
from tests.factories import make_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray():
    pytest.importorskip("ray")
    with open_engine("ray") as engine:
        yield engine


def test_both_engines_give_the_same_bytes(ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        make_dataset(tmp_path / f"set{number}", episodes=6, frames=16, seed=10 * number)
    datasets = ("set0", "set1")  # not absolute: workers stand in another folder
    build_splits(config(tmp_path / "local", *datasets, shard_bytes=60_000))  # type: ignore[arg-type]
    told = []
    summary = build_splits(
        config(tmp_path / "ray", *datasets, shard_bytes=60_000, engine="ray"),  # type: ignore[arg-type]
        lambda label, done, total, note="": told.append((label, done, total)),
    )
    assert summary.shards > 4
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")
    assert told[-1] == ("encoding frames", 2 * 6 * 16, 2 * 6 * 16)


def test_an_error_on_a_worker_arrives_as_itself(ray, tmp_path):
    root = make_dataset(tmp_path / "set", episodes=2, frames=16)
    for path in root.glob("meta/episodes/*/*.parquet"):
        path.unlink()
    with pytest.raises(DatasetError, match="holds no Parquet file"):
        build_splits(config(tmp_path / "out", root, engine="ray"))
    assert not (tmp_path / "out").exists()
