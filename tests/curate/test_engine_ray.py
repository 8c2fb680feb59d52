"""The Ray engine on a real cluster of two nodes, started here."""

from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.ray_scaling import cluster
from blm.curate.corpus.build import build_corpus
from blm.curate.engine import open_engine
from blm.curate.engine_ray import Carried, unpacked
from blm.curate.episodes.build import build_splits
from blm.schemas.errors import ConfigError, DatasetError, EngineError
from blm.schemas.yaml_model import read_yaml
from tests.curate.corpus.test_build import config_for, content_of
from tests.curate.episodes.test_build import config, contents
from tests.factories import make_dataset


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a cluster of two nodes, which the tests join."""
    if find_spec("ray") is None:  # not imported yet: it reads the cluster's token when it is
        pytest.skip("the extra 'scale' is not installed")
    with (
        cluster(2, tmp_path_factory.mktemp("ray")) as (address, environment, _),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in environment.items():
            patch.setenv(name, value)
        yield address


@pytest.fixture
def joined(address):
    with open_engine("ray", address) as engine:
        yield engine


@pytest.mark.slow
def test_both_engines_give_the_same_bytes(joined, tmp_path, monkeypatch):
    import ray

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
    assert sum(node["Alive"] for node in ray.nodes()) == 2
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")
    assert told[-1] == ("encoding frames", 2 * 6 * 16, 2 * 6 * 16)


@pytest.mark.slow
def test_an_error_on_a_worker_arrives_as_itself(joined, tmp_path):
    root = make_dataset(tmp_path / "set", episodes=2, frames=16)
    for path in root.glob("meta/episodes/*/*.parquet"):
        path.unlink()
    with pytest.raises(DatasetError, match="holds no Parquet file"):
        build_splits(config(tmp_path / "out", root, engine="ray"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_stream_keeps_its_order_and_passes_on_errors(joined):
    assert list(joined.stream(abs, range(-40, 0))) == list(range(40, 0, -1))
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        list(joined.stream(read_yaml, [Path("missing.yaml")]))
    with pytest.raises(EngineError, match="Ray gave up"):
        list(joined.stream(abs, ["no number"]))


@pytest.mark.slow
def test_a_corpus_is_the_same_on_both_engines(joined, mixed_rows, tmp_path):
    source = f"llava:{mixed_rows}"
    build_corpus(config_for(source, output=tmp_path / "here", near_duplicates={"images": "any_text"}))
    changes = {"engine": "ray", "near_duplicates": {"images": "any_text"}}
    summary = build_corpus(config_for(source, output=tmp_path / "ray", **changes))
    assert {"bad_media", "outside_root", "refusal"} <= summary.counts.dropped.keys()
    assert content_of(tmp_path / "here") == content_of(tmp_path / "ray")


@pytest.mark.slow
def test_a_cluster_is_started_and_ended_where_there_is_none(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with open_engine("ray") as engine:
        assert list(engine.stream(abs, [-2, -1])) == [2, 1]


def test_results_and_errors_travel_as_bytes():
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    (back,) = unpacked(Carried(lambda rows: rows.slice(1))(table))
    assert back.to_pylist() == [{"a": 2, "b": None}]

    def fail(rows):
        raise DatasetError("no such thing.", "Bring one.")

    with pytest.raises(DatasetError, match=r"no such thing\. Bring one\."):
        list(unpacked(Carried(fail)(table)))
