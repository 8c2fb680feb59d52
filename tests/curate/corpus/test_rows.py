import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blm.curate.corpus.config import Limits
from blm.curate.corpus.sources import rows
from blm.curate.corpus.sources.rows import RowError, read_rows
from blm.curate.corpus.sources.video_frames import video_frames
from blm.schemas.errors import DatasetError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(values, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_list_read_in_pieces_of_any_size_is_the_list(tmp_path_factory, content, chunk, indent, ascii_only):
    path = tmp_path_factory.mktemp("json") / "rows.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_CHUNK_BYTES", chunk)
        assert list(read_rows(path, Limits())) == content


@pytest.mark.parametrize("text", ["", "[", "[1", "[1,", "[1,]", "[1 2]", "[1;", '["a', "{}", "[\x00]", "[-]"])
def test_a_broken_list_is_an_error_that_names_the_file(tmp_path, text):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"rows\.json"):
        list(read_rows(path, Limits()))


def test_a_line_beyond_the_limit_costs_that_line_only(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"1\n" + b"9" * 50 + b"\n2\n" + b"3" * 11)
    first, long, second, last = read_rows(path, Limits(max_row_bytes=10))
    assert (first, second) == (1, 2)
    assert [isinstance(one, RowError) and one.reason for one in (long, last)] == ["row_too_long"] * 2
    with pytest.raises(DatasetError, match="within 10 characters"):
        list(read_rows(_list(tmp_path, 50), Limits(max_row_bytes=10)))


def _list(folder, length):
    path = folder / "rows.json"
    path.write_text('["' + "x" * length)
    return path


def test_a_playlist_that_poses_as_a_video_is_not_followed(tmp_path):
    (tmp_path / "secret.ts").write_bytes(b"secret")
    path = tmp_path / "a.mp4"
    path.write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(RowError) as caught:
        video_frames(path, 3, 90, Limits(), "video")
    assert caught.value.reason == "bad_media"


def test_a_parquet_file_is_not_in_memory_whole(tmp_path):
    path = tmp_path / "images.parquet"
    images = [random.Random(number).randbytes(20_000) for number in range(1000)]
    pq.write_table(pa.table({"image": images}), path, row_group_size=50)
    before, most = pa.total_allocated_bytes(), 0
    for row, image in zip(read_rows(path, Limits()), images, strict=True):
        assert row["image"] == image
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 5e6, f"{most / 1e6:.0f} MB of 20"
