from __future__ import annotations

import http.server
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from blm.schemas.errors import ConfigError, DatasetError
from blm.train.shard_reader import ShardBuild, ShardReader
from blm.train.shard_storage import ByteRange, open_storage
from tests.loopback import LoopbackServer, serving
from tests.train.stage2_builds import make_build

# Other libraries' threads are idle when the reader forks, and what it forks uses none of them.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

SHARD = "train-so100-00000.tar"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(tmp_path_factory.mktemp("storage") / "splits", cameras=("top", "wrist"))


@pytest.fixture
def in_memory(folder: Path) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/splits/{path.name}", path.read_bytes())
    yield "memory://splits"
    memory.rm("/splits", recursive=True)


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Answers `Range: bytes=a-b`, which Python's own handler does not, and counts what it sends."""

    sent = 0
    ranges = True

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path))
        if not content.is_file():
            self.send_error(404)
            return
        body, status = content.read_bytes(), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and self.ranges:
            body, status = body[int(asked[1]) : int(asked[2]) + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        type(self).sent += len(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def served(folder: Path) -> Iterator[str]:
    RangeHandler.sent, RangeHandler.ranges = 0, True
    handler = partial(RangeHandler, directory=str(folder))
    with serving(LoopbackServer(handler)) as server:
        yield server.endpoint


def same_stream(location: str, folder: Path, workers: int = 0, **options: Any) -> None:
    here, there = (
        ShardReader(folder, batch_size=5, seed=1),
        ShardReader(location, batch_size=5, seed=1, **options),
    )
    with there.loader(workers, tensors=False) as loader:
        for _ in range(4):
            expected, found = next(here), next(loader)
            for name in ("images", "state", "action", "window"):
                assert np.array_equal(expected[name], found[name])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_build_in_memory_reads_the_same(in_memory: str, folder: Path, workers: int) -> None:
    same_stream(in_memory, folder, workers)


def test_a_file_url_is_the_folder(folder: Path) -> None:
    same_stream(f"file://{folder}", folder)


def test_chained_urls_are_understood(in_memory: str, folder: Path) -> None:
    same_stream(f"simplecache::{in_memory}", folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_server_sends_only_the_ranges_looked_at(served: str, folder: Path, workers: int) -> None:
    same_stream(served, folder, workers)
    shards = sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert workers or RangeHandler.sent < shards


def test_a_cache_holds_whole_shards_and_is_used_again(served: str, folder: Path, tmp_path: Path) -> None:
    RangeHandler.ranges = False
    same_stream(served, folder, cache=tmp_path / "cache")
    assert (tmp_path / "cache" / SHARD).read_bytes() == (folder / SHARD).read_bytes()
    before = RangeHandler.sent
    same_stream(served, folder, workers=2, cache=tmp_path / "cache")
    assert RangeHandler.sent - before < (folder / SHARD).stat().st_size
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_a_damaged_copy_in_the_cache_is_fetched_again(in_memory: str, folder: Path, tmp_path: Path) -> None:
    same_stream(in_memory, folder, cache=tmp_path)
    (tmp_path / SHARD).write_bytes(b"cut short")
    same_stream(in_memory, folder, cache=tmp_path)
    assert (tmp_path / SHARD).read_bytes() == (folder / SHARD).read_bytes()


def test_a_server_without_ranges_is_an_error_that_says_what_to_do(served: str) -> None:
    RangeHandler.ranges = False
    with pytest.raises(DatasetError, match=r"cache=FOLDER"):
        ShardReader(served)


def test_what_is_missing_or_cut_short_is_named(in_memory: str, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    whole = memory.cat_file(f"/splits/{SHARD}")
    memory.pipe_file(f"/splits/{SHARD}", whole[:3000])
    with pytest.raises(DatasetError, match=rf"memory://splits/{SHARD} ends before"):
        ShardReader(in_memory)
    memory.rm_file(f"/splits/{SHARD}")
    with pytest.raises(DatasetError, match=rf"Cannot open memory://splits/{SHARD}"):
        ShardReader(in_memory)
    with pytest.raises(DatasetError, match=rf"Cannot open memory://splits/{SHARD}"):
        ShardReader(in_memory, cache=tmp_path)
    with pytest.raises(DatasetError, match="memory://elsewhere holds no manifest"):
        ShardReader("memory://elsewhere")


def test_a_shard_of_another_length_is_noticed_before_reading(tmp_path: Path) -> None:
    make_build(tmp_path)
    with (tmp_path / SHARD).open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(DatasetError, match=rf"{SHARD} has \d+ bytes; \d+ were written"):
        ShardReader(tmp_path)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        open_storage("nosuch://bucket/splits")


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    make_build(tmp_path)
    segment = ShardBuild(tmp_path).segments("train")[0]
    member = segment.members["top.mjpeg"]
    with (tmp_path / member.shard).open("r+b") as stream:
        stream.seek(member.offset)
        stream.write(bytes(40))
    with pytest.raises(DatasetError, match=rf"{segment.key} camera top frame 0 is not a readable image"):
        ShardBuild(tmp_path).images(segment, "top", [0])


def test_ranges_of_one_file_and_several(folder: Path) -> None:
    storage = open_storage(folder)
    content = (folder / SHARD).read_bytes()
    wanted = [ByteRange(SHARD, 5, 10), ByteRange("manifest.json", 0, 3), ByteRange(SHARD, 0, 4)]
    assert storage.ranges(wanted) == [content[5:15], (folder / "manifest.json").read_bytes()[:3], content[:4]]
    storage.close()
    assert storage.ranges(wanted[:1]) == [content[5:15]]
