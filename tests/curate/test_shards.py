import hashlib
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.curate.shards import (
    OpenShard,
    Sample,
    ShardWriter,
    read_finished,
    read_index,
    read_shard_table,
    safe_key,
    write_shard_tables,
)
from blm.schemas.errors import DatasetError


def sample(number: int, size: int = 700) -> Sample:
    content = hashlib.sha256(str(number).encode()).digest() * (size // 32 + 1)
    return Sample(
        f"set-{number:06d}", {"json": b"{}", "state.npy": content[:size]}, frames=3, label="so100/push"
    )


def write(
    folder: Path, samples: list[Sample], target_bytes: int = 4096, fingerprint: str = "f"
) -> ShardWriter:
    with ShardWriter(folder, "train", "train", fingerprint, target_bytes) as writer:
        for one in samples:
            if not writer.done(one.key):
                writer.write(one)
    return writer


def tar_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


contents = st.dictionaries(
    st.sampled_from(["json", "state.npy", "top.mjpeg", "0.jpg"]), st.binary(max_size=1500), min_size=1
)


@settings(max_examples=25, deadline=None)
@given(members=st.lists(contents, min_size=1, max_size=6), target=st.integers(1024, 8192))
def test_every_member_is_where_the_index_says(tmp_path_factory, members, target):
    folder = tmp_path_factory.mktemp("shards")
    samples = [Sample(f"k{number}", one) for number, one in enumerate(members)]
    writer = write(folder, samples, target)
    write_shard_tables(folder, writer.finished)

    rows = pq.read_table(folder / "index.parquet").to_pylist()
    stored = tar_bytes(folder)
    found = {(r["key"], r["suffix"]): stored[r["shard"]][r["offset"] : r["offset"] + r["size"]] for r in rows}
    assert found == {(one.key, suffix): body for one in samples for suffix, body in one.members.items()}

    unpacked = {}
    for name in stored:
        with tarfile.open(folder / name) as tar:
            unpacked |= {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    assert unpacked == {f"{key}.{suffix}": body for (key, suffix), body in found.items()}


def test_a_reader_that_knows_only_tar_groups_members_into_samples(tmp_path):
    """webdataset's rule: the key is all before the first dot, and a sample's members lie together."""
    samples = [sample(i) for i in range(5)]
    write(tmp_path, samples)
    seen: list[str] = []
    for name in tar_bytes(tmp_path):
        with tarfile.open(tmp_path / name) as tar:
            for info in tar:
                key, suffix = info.name.split(".", 1)
                assert (info.mtime, info.uid, info.gid, info.uname, info.isfile()) == (0, 0, 0, "", True)
                assert suffix in ("json", "state.npy")
                seen += [key] if key not in seen[-1:] else []
    assert seen == [one.key for one in samples]


def test_shards_stay_below_the_target_and_rows_describe_them(tmp_path):
    writer = write(tmp_path, [sample(i) for i in range(20)], target_bytes=20480)
    write_shard_tables(tmp_path, writer.finished)

    rows = read_shard_table(tmp_path)
    assert len(rows) > 1
    assert sum(row.samples for row in rows) == 20
    assert sum(row.frames for row in rows) == 60
    for row in rows:
        content = (tmp_path / row.name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row.sha256
        assert len(content) == row.bytes <= 20480
        assert row.counts == {"so100/push": row.samples}


def test_a_sample_larger_than_the_target_gets_its_own_shard(tmp_path):
    writer = write(tmp_path, [sample(0), sample(1, size=9000), sample(2)], target_bytes=4096)
    assert [shard.row.samples for shard in writer.finished] == [1, 1, 1]


def test_same_samples_give_the_same_bytes(tmp_path):
    samples = [sample(i) for i in range(9)]
    write(tmp_path / "a", samples)
    write(tmp_path / "b", samples)
    assert tar_bytes(tmp_path / "a") == tar_bytes(tmp_path / "b")


def test_interrupted_writing_continues_to_the_same_bytes_without_rewriting(tmp_path):
    samples = [sample(i) for i in range(12)]
    write(tmp_path / "whole", samples)

    def interrupted():
        with ShardWriter(tmp_path / "cut", "train", "train", "f", 4096) as writer:
            for one in samples[:7]:
                writer.write(one)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    survivors = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.tar")}
    assert survivors
    assert not list((tmp_path / "cut").glob("*.tmp"))

    write(tmp_path / "cut", samples)
    assert tar_bytes(tmp_path / "cut") == tar_bytes(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in survivors} == survivors


@pytest.mark.parametrize("change", ["fingerprint", "damage"])
def test_a_shard_of_other_inputs_or_a_damaged_one_is_written_again(tmp_path, change):
    samples = [sample(i) for i in range(12)]
    write(tmp_path, samples)
    before = tar_bytes(tmp_path)
    first = tmp_path / "train-00000.tar"
    if change == "damage":
        first.write_bytes(first.read_bytes()[:-1] + b"x")
    writer = ShardWriter(tmp_path, "train", "train", "f" if change == "damage" else "g", 4096)
    assert not writer.finished
    write(tmp_path, samples)
    assert tar_bytes(tmp_path) == before


def test_a_shard_by_itself_is_found_again_with_what_was_left_out(tmp_path):
    shard = OpenShard(tmp_path, "train-00000.tar", "train", "made from this")
    shard.add(sample(1))
    finished = shard.finish({"set-000002": "unreadable"})
    assert read_finished(tmp_path, "train-00000.tar", "made from this") == finished
    assert finished.row.skipped == {"set-000002": "unreadable"}
    assert read_finished(tmp_path, "train-00000.tar", "made from that") is None
    write_shard_tables(tmp_path, [finished])
    assert read_shard_table(tmp_path) == (finished.row,)
    assert read_index(tmp_path) == {"train-00000.tar": finished.index}


def test_an_abandoned_shard_leaves_nothing(tmp_path):
    shard = OpenShard(tmp_path, "train-00000.tar", "train", "s")
    shard.add(sample(1))
    shard.abandon()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["a/b", "..", "a.b", "", "ä"])
def test_unusable_keys_are_refused_by_name_and_safe_key_mends_them(tmp_path, key):
    with ShardWriter(tmp_path, "train", "train", "f") as writer:
        with pytest.raises(DatasetError, match="not usable"):
            writer.write(Sample(key, {"json": b""}))
        writer.write(Sample(safe_key(key), {"json": b""}))


def test_repeated_key_and_long_name_are_refused_by_name(tmp_path):
    with ShardWriter(tmp_path, "train", "train", "f") as writer:
        writer.write(sample(1))
        with pytest.raises(DatasetError, match="'set-000001' appears twice"):
            writer.write(sample(1))
        with pytest.raises(DatasetError, match="longer than 100"):
            writer.write(Sample("k" * 99, {"json": b""}))


@pytest.mark.slow
def test_plain_webdataset_and_datasets_read_the_shards(tmp_path):
    import datasets
    from webdataset import WebDataset  # pyright: ignore[reportAttributeAccessIssue]

    samples = [sample(i) for i in range(5)]
    samples = [
        Sample(s.key, {**s.members, "json": b'{"n": %d}' % i, "state.npy": npy(i)})
        for i, s in enumerate(samples)
    ]
    write(tmp_path, samples, target_bytes=6000)
    paths = [str(path) for path in sorted(tmp_path.glob("*.tar"))]

    read = list(WebDataset(paths, shardshuffle=False))
    assert [(one["__key__"], one["json"]) for one in read] == [(s.key, s.members["json"]) for s in samples]

    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": paths}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [row["json"]["n"] for row in loaded] == [0, 1, 2, 3, 4]  # type: ignore[index]
    assert [row["state.npy"] for row in loaded] == [[float(i)] for i in range(5)]  # type: ignore[index]


def npy(value: int) -> bytes:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.array([value], dtype=np.float32))
    return buffer.getvalue()
