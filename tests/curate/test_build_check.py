"""A finished build, damaged in one way after the other: each is told, with what to do, and fails the doctor."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blm.curate.doctor import diagnose
from blm.curate.episodes.build import build_splits
from blm.curate.episodes.config import SplitsConfig
from blm.curate.output_folder import UNFINISHED_FOLDER
from tests.factories import make_dataset


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Two shards, of which the first holds two samples; one episode is dropped."""
    folder = tmp_path_factory.mktemp("whole")
    root = make_dataset(folder / "pushes", episodes=4, frames=[16, 16, 16, 4], image_size=32)
    settings = {
        "datasets": [root],
        "output": folder / "splits",
        "shard_bytes": 60_000,
        "fractions": {"train": 1, "val": 0, "test": 0},
    }
    summary = build_splits(SplitsConfig.model_validate(settings))
    assert (summary.counts.kept, summary.shards > 1) == (3, True)
    return summary.output


@pytest.fixture
def build(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "splits"))


def shards(build: Path) -> list[Path]:
    return sorted(build.glob("*.tar"))


def edit_manifest(build: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((build / "manifest.json").read_text())
    change(content)
    (build / "manifest.json").write_text(json.dumps(content))


def edit_table(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), path)


def _flip(build: Path) -> None:
    content = bytearray(shards(build)[0].read_bytes())
    content[len(content) // 2] ^= 1
    shards(build)[0].write_bytes(content)


def _lose(build: Path) -> None:
    shards(build)[-1].unlink()


def _cut(build: Path) -> None:
    shards(build)[0].write_bytes(shards(build)[0].read_bytes()[:-512])


def _count_one_more(build: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["counts"]["kept"] += 1
        content["counts"]["inputs"] += 1

    edit_manifest(build, change)


def _move_to_another_split(build: Path) -> None:
    edit_manifest(build, lambda content: content["splits"].update(train=2, val=1))


def _forget_a_drop(build: Path) -> None:
    edit_table(build / "dropped.parquet", lambda rows: rows[:0])


def _point_beside(build: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | {"offset": row["offset"] + 512 * (place == 2)} for place, row in enumerate(rows)]

    edit_table(build / "index.parquet", change)


def _name_another_member(build: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row | {"size": row["size"] + (place == 0)} for place, row in enumerate(rows)]

    edit_table(build / "index.parquet", change)


def _forget_a_sample(build: Path) -> None:
    edit_table(build / "index.parquet", lambda rows: [row for row in rows if row["key"] != "pushes-000000"])


def _index_a_stranger(build: Path) -> None:
    edit_table(build / "index.parquet", lambda rows: [*rows, rows[-1] | {"shard": "train-other-0.tar"}])


def _add_a_stray(build: Path) -> None:
    shutil.copy(shards(build)[0], build / "train-old-000000.tar")


def _link_a_shard(build: Path) -> None:
    shard = shards(build)[0]
    shard.symlink_to(shard.rename(build.parent / "elsewhere.tar"))


def _put_a_pipe(build: Path) -> None:
    """Who opens one to read waits until somebody writes."""
    (build / "dropped.parquet").unlink()
    os.mkfifo(build / "dropped.parquet")


def _begin_another(build: Path) -> None:
    (build / UNFINISHED_FOLDER).mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped byte": (_flip, r"\.tar is not what was written: its SHA-256 differs\. Build it again"),
    "lost shard": (_lose, r"\.tar is missing\. Build it again"),
    "cut shard": (_cut, r"\.tar has \d+ bytes instead of \d+\."),
    "manifest counts more": (_count_one_more, "the manifest counts 4 samples, the shards hold 3"),
    "manifest counts splits otherwise": (
        _move_to_another_split,
        "the manifest counts 2 samples of split 'train', the shards hold 3",
    ),
    "drops forgotten": (_forget_a_drop, "the manifest counts 1 dropped, dropped.parquet holds 0"),
    "index points beside": (_point_beside, r"\.tar: the index is wrong about pushes-00000\d\."),
    "index has another size": (_name_another_member, r"\.tar: the index is wrong about pushes-000000\."),
    "sample not in the index": (_forget_a_sample, r"\.tar holds \d samples, the index names \d\."),
    "index of a stranger": (
        _index_a_stranger,
        "the index names shards that no table lists: train-other-0.tar",
    ),
    "stray shard": (_add_a_stray, "shards that no table lists: train-old-000000.tar. Remove them"),
    "shard that is a link": (_link_a_shard, "is not the name of a file of this build"),
    "table that is a pipe": (_put_a_pipe, "neither files nor folders: dropped.parquet. Build it again"),
    "another build begun": (_begin_another, ".unfinished is still there: another build was begun here"),
}


def test_a_whole_build_is_clean(whole):
    found = diagnose(whole)
    assert (found.kind, found.examined, found.problems, found.exit_code()) == ("stage2-splits", 3, (), 0)


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_told(damage, build):
    spoil, message = DAMAGES[damage]
    spoil(build)
    found = diagnose(build)
    assert found.exit_code() == 1
    assert [one for one in found.problems if re.search(message, one)], found.problems


@pytest.mark.parametrize("name", ["manifest.json", "manifest.parquet", "index.parquet", "dropped.parquet"])
def test_a_file_that_cannot_be_read_is_named(name, build):
    (build / name).write_bytes(b"{ nothing")
    (problem,) = diagnose(build).problems
    assert name in problem


@pytest.mark.parametrize("name", ["manifest.parquet", "index.parquet", "dropped.parquet"])
def test_a_file_that_is_lost_is_named(name, build):
    (build / name).unlink()
    (problem,) = diagnose(build).problems
    assert name in problem


def test_the_fast_way_leaves_bytes_unread_and_still_looks_at_sizes(build):
    _flip(build)
    assert diagnose(build, fast=True).problems == ()
    _cut(build)
    assert diagnose(build, fast=True).exit_code() == 1


def test_names_of_shards_that_are_no_texts_are_told(build):
    path = build / "index.parquet"
    table = pq.read_table(path)
    yes = pa.array([True] * len(table))
    pq.write_table(table.set_column(table.column_names.index("shard"), "shard", yes), path)
    assert any("the index names shards that no table lists: True" in one for one in diagnose(build).problems)
