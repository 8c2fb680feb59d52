"""Named attacks on builds and on `blm doctor`: each is refused with a reason, or keeps one episode out."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blm.cli import app
from blm.curate.doctor import diagnose
from blm.curate.episodes.boundaries import MAX_JSON_BYTES, check_places, check_template, read_json
from blm.curate.episodes.config import DatasetSource
from blm.curate.episodes.index import index_dataset
from blm.curate.episodes.thresholds import CheckSetting, Thresholds, resolve_rules
from blm.curate.episodes.video import Clip, VideoError, encode_clip
from blm.schemas.errors import ConfigError, DatasetError
from blm.schemas.printable import plain_text, printable
from tests.curate.episodes.editing import data_file, edit_info, edit_rows, video_file
from tests.curate.episodes.hostile_files import TEXTS, encoded, sound, strange_videos
from tests.factories import make_dataset


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("clean") / "pushes", episodes=3, frames=12, image_size=32)


@pytest.fixture
def root(clean, tmp_path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "inputs/pushes"))


def index(root: Path, **more):
    return index_dataset(DatasetSource(path=root), "pushes", 0.02, **more)


def set_column(root: Path, name: str, values: list, kind: pa.DataType | None = None) -> None:
    for path in root.glob("meta/episodes/*/*.parquet"):
        edit_rows(path, lambda t: t.set_column(t.column_names.index(name), name, pa.array(values, kind)))


def replace(root: Path, **changes) -> None:
    edit_info(root, lambda info: info.update(changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"fps": -30}, "fps is -30"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": 1e9}, "fps is 1000000000.0"),
        ({"fps": "20"}, "fps is '20'"),
        ({"fps": True}, "fps is True"),
        ({"total_episodes": 4}, "announces total_episodes 4, meta/episodes holds 3"),
        ({"total_frames": 10**40}, "announces total_frames 1000"),
        ({"total_frames": "36"}, "announces total_frames '36'"),
        ({"features": []}, "'features' is no list"),
        ({"data_path": "../../etc/passwd"}, "'data_path' leads out of the dataset"),
        ({"video_path": "/etc/{video_key}"}, "'video_path' leads out of the dataset"),
        ({"data_path": "{chunk_index:999999999d}"}, "'data_path' asks for"),
        ({"data_path": "{chunk_index.__class__}"}, "'data_path' asks for"),
        ({"data_path": "a\x00b"}, "'data_path' leads out"),
        ({"data_path": None}, "does not say in which file"),
    ],
)
def test_what_info_claims_is_held_against_limits(root, changes, message):
    replace(root, **changes)
    if changes == {"data_path": None}:
        assert all(message in row["unreadable"] for row in index(root).episodes.to_pylist())
        return
    with pytest.raises(DatasetError, match=message) as caught:
        index(root)
    assert caught.value.remedy
    assert diagnose(root).problems == (str(caught.value),)


@pytest.mark.parametrize("name", ["a/b", "..", "", "a\nb", "\x1b[31m", 'a"b', "x" * 300])
def test_a_camera_cannot_be_called_anything(root, name):
    def rename(info):
        info["features"][name] = info["features"].pop("observation.images.top")

    edit_info(root, rename)
    with pytest.raises(DatasetError, match="a feature cannot be called") as caught:
        index(root)
    assert printable(str(caught.value)) == str(caught.value)


@pytest.mark.parametrize("shape", [[10**9], [2**40], [-1], [0], [2.5], [True], "six"])
def test_declared_shapes_are_within_reason(root, shape):
    edit_info(root, lambda info: info["features"]["action"].update(shape=shape, names=None))
    with pytest.raises(DatasetError, match="'action'"):
        index(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"fps": 1, "fps": 2}', "key 'fps' comes twice"),
        (b"[" * 200_000, "not readable"),
        (b"[]", "holds no JSON object"),
        (b"", "not readable"),
        (b"\xff\xfe\x00", "not readable"),
        ("{}".encode("utf-16"), "not readable"),
        (b"{}", "lacks 'codebase_version'"),
    ],
)
def test_json_that_is_none(root, content, message):
    (root / "meta/info.json").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        index(root)


def test_a_huge_json_is_not_read(tmp_path):
    with (tmp_path / "info.json").open("wb") as stream:
        stream.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(DatasetError, match="more than 32 MB"):
        read_json(tmp_path / "info.json")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "else"])
@pytest.mark.parametrize("which", ["data", "meta/episodes", "meta/subtasks.parquet", "meta/tasks.parquet"])
def test_broken_parquet_keeps_one_episode_out_or_is_refused(root, damage, which):
    path = (
        data_file(root, 1)
        if which == "data"
        else next(iter([*(root / which).rglob("*.parquet"), root / which]))
    )
    content = path.read_bytes()
    forms = {
        "cut": content[: len(content) // 2],
        "flipped": content[:-40] + bytes(one ^ 255 for one in content[-40:]),
        "empty": b"",
        "else": b"not a table" * 50,
    }
    path.write_bytes(forms[damage])
    if which == "data":
        rows = index(root).episodes.to_pylist()
        assert [bool(row["unreadable"]) for row in rows] == [False, True, False]
    elif which == "meta/tasks.parquet":
        assert len(index(root).episodes) == 3  # nothing is taken from it
    else:
        with pytest.raises(DatasetError, match=r"is not readable"):
            index(root)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("length", [12, None, 12], "wrong_length"),
        ("length", [12, -(2**63), 12], "wrong_length"),
        ("length", [12.0, float("nan"), 12.0], "wrong_length"),
        ("data/chunk_index", [0, -5, 0], "unreadable_data"),
        ("data/file_index", [0, 2**62, 2], "unreadable_data"),
        ("data/file_index", [0, None, 2], "unreadable_data"),
        ("videos/observation.images.top/file_index", [0, -(2**62), 2], "missing_video"),
        ("videos/observation.images.top/from_timestamp", [0.0, float("nan"), 0.0], "missing_video"),
        ("videos/observation.images.top/from_timestamp", [0.0, -1.0, 0.0], "missing_video"),
        ("videos/observation.images.top/to_timestamp", [0.6, float("inf"), 0.6], "missing_video"),
        ("tasks", [["push"], None, ["push"]], "empty_instruction"),
        ("tasks", [["push"], ["\x00\x1b\x07"], ["push"]], "empty_instruction"),
        ("tasks", [["push"], ["push " * 2_000_000], ["push"]], "overlong_instruction"),
    ],
)
def test_what_metadata_say_of_one_episode_costs_that_one_only(root, name, values, reason):
    replace(root, total_frames=None)
    set_column(root, name, values)
    found = diagnose(root, fast=True).findings.to_pylist()
    dropped = {(row["episode"], row["reason"]) for row in found if row["severity"] == "drop"}
    assert (1, reason) in dropped
    assert {episode for episode, _ in dropped} == {1}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([0, 1, 1], "episode 1 comes twice"),
        ([0, None, 2], "without a number"),
        ([0, -1, 2], "without a number"),
    ],
)
def test_episodes_are_told_apart_by_number(root, numbers, message):
    set_column(root, "episode_index", numbers, pa.int64())
    with pytest.raises(DatasetError, match=message):
        index(root)


def _texts(table):
    return table.set_column(
        table.column_names.index("action"),
        "action",
        pa.array([["a"] * 6] * len(table), pa.list_(pa.string())),
    )


def _ragged(table):
    values = [[0.0] * (5 + row % 3) for row in range(len(table))]
    return table.set_column(table.column_names.index("action"), "action", pa.array(values))


def _absent(table):
    return table.drop_columns("action")


def _twice(table):
    return table.append_column("frame_index", table["frame_index"])


def _fractions(table):
    values = pa.array(np.arange(len(table)) + 0.5)
    return table.set_column(table.column_names.index("frame_index"), "frame_index", values)


def _many_rows(table):
    return table.take(pa.array(np.zeros(200_000, np.int64)))


def _long_lists(table):
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(100_000 * len(table), np.float32)), 100_000)
    return table.set_column(table.column_names.index("action"), "action", values)


@pytest.mark.parametrize("change", [_twice, _texts, _ragged, _absent, _fractions, _many_rows, _long_lists])
def test_a_data_file_of_the_wrong_form_costs_its_episode(root, change):
    edit_rows(data_file(root, 1), change)
    dropped = [
        row
        for row in diagnose(root, fast=change is not _twice).findings.to_pylist()
        if row["severity"] == "drop"
    ]
    expected = "wrong_length" if change is _fractions else "unreadable_data"
    assert [(row["episode"], row["reason"]) for row in dropped] == [(1, expected)]


def test_far_more_episodes_than_announced_are_not_read(root):
    (file,) = root.glob("meta/episodes/*/*.parquet")
    edit_rows(file, lambda table: table.take(pa.array(np.zeros(20_000, np.int64))))
    with pytest.raises(DatasetError, match=r"claims 20000 rows; what is announced allows 10030 at most"):
        index(root)


def test_values_of_all_kinds_are_survived(root):
    for episode, value in enumerate((np.nan, np.inf, 1e300)):

        def change(table, value=value):
            values = pa.array([[value] * 6] * len(table), pa.list_(pa.float64()))
            return table.set_column(table.column_names.index("action"), "action", values)

        edit_rows(data_file(root, episode), change)
    found = diagnose(root, fast=True).findings.to_pylist()
    assert {row["episode"] for row in found if row["reason"] == "not_finite"} == {0, 1, 2}


def test_an_episode_in_another_file_than_its_metadata_say_is_left_out(root):
    set_column(root, "data/file_index", [1, 0, 2])
    found = diagnose(root).findings.to_pylist()
    dropped = [(row["episode"], row["reason"]) for row in found if row["severity"] == "drop"]
    assert dropped == [(0, "unreadable_data"), (1, "unreadable_data")]


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("/tmp/blm-was-here",)


def test_nothing_is_unpickled(root):
    path = data_file(root, 0)
    table = pq.read_table(path)
    field = table.schema.field("action").with_metadata(
        {
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": pickle.dumps(_Bomb()),
        }
    )
    schema = table.schema.set(table.schema.get_field_index("action"), field)
    pq.write_table(table.cast(schema).replace_schema_metadata({b"pandas": b"{}"}), path)
    assert len(index(root).episodes) == 3
    assert not Path("/tmp/blm-was-here").exists()


@pytest.mark.parametrize("kind", ["file", "folder", "loop", "device", "pipe"])
def test_links_and_special_files_are_refused(root, tmp_path, kind):
    path = data_file(root, 1)
    outside = tmp_path / "outside"
    if kind == "folder":
        shutil.move(path.parent, outside)
        path.parent.symlink_to(outside)
    else:
        shutil.move(path, outside)
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to({"file": outside, "loop": path, "device": Path("/dev/zero")}[kind])
    with pytest.raises(DatasetError, match=r"link|neither a file nor a folder|leads nowhere"):
        index(root)
    if kind in ("file", "folder"):
        assert len(index(root, follow_links=True).episodes) == 3
    else:
        with pytest.raises(DatasetError):
            check_places(root, follow_links=True)


def test_a_hub_cache_may_link_to_its_blobs_and_no_further(clean, tmp_path):
    cache = tmp_path / "hub/datasets--lab--pushes"
    root = cache / "snapshots/0123abc"
    (cache / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in clean.rglob("*") if path.is_file())):
        place = root / path.relative_to(clean)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, cache / "blobs" / str(number))
        place.symlink_to(os.path.relpath(cache / "blobs" / str(number), place.parent))
    assert len(index(root).episodes) == 3
    (tmp_path / "secret").write_text("x")
    (root / "data/secret").symlink_to(tmp_path / "secret")
    with pytest.raises(DatasetError, match="leads out of the dataset"):
        index(root)


@pytest.mark.parametrize("kind", ["playlist", "concat", "subtitles", "gif", "sound", "picture", "one frame"])
def test_a_file_that_is_no_video_is_not_opened_as_something_else(tmp_path, kind):
    path = tmp_path / "file-000.mp4"
    path.write_bytes(strange_videos()[kind])
    with pytest.raises(VideoError):
        encode_clip(Clip(path, 0.0, 20.0, 0, 12), (32, 32), 90)


@pytest.mark.parametrize("kind", ["mpeg4 in avi", "vp9 in webm", "mjpeg", "grey", "10 bit", "tiny", "wide"])
def test_videos_of_other_codecs_are_read(tmp_path, kind):
    path = tmp_path / "file-000.mp4"
    path.write_bytes(strange_videos()[kind])
    assert len(encode_clip(Clip(path, 0.0, 20.0, 0, 12), (32, 32), 90)) == 12


def test_a_video_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("blm.curate.episodes.video.MAX_PIXELS", 32 * 32 - 1)
    path = tmp_path / "file-000.mp4"
    path.write_bytes(encoded("mp4", "libx264"))
    with pytest.raises(VideoError, match="claims 32 × 32 pixels"):
        encode_clip(Clip(path, 0.0, 20.0, 0, 12), (32, 32), 90)


@pytest.mark.parametrize("damage", [b"", b"junk", sound()])
def test_a_broken_video_costs_its_episode(root, damage):
    video_file(root, 1).write_bytes(damage)
    found = diagnose(root).findings.to_pylist()
    assert [(row["episode"], row["reason"]) for row in found if row["severity"] == "drop"] == [
        (1, "unreadable_video")
    ]


@pytest.mark.parametrize("template", [*TEXTS, ".", "./", "data"])
def test_strange_texts_are_no_templates_or_stay_inside(template):
    for one in (template, f"data/{template}"):
        if check_template(one, "data", ("chunk_index",)) is None:
            assert Path(one).parts[0] == "data"
            assert ".." not in Path(one).parts


@pytest.mark.parametrize("key", ["data_path", "video_path"])
def test_data_is_where_links_and_changes_are_looked_for(root, key):
    edit_info(root, lambda info: info.update({key: info[key].replace("/", "s/", 1)}))
    with pytest.raises(DatasetError, match=f"'{key}' does not lead into '(data|videos)'"):
        index(root)


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_shown_without_what_steers_a_terminal(text):
    for shown in (printable(text), plain_text(text)):
        assert not {one for one in shown if ord(one) < 32 and one not in "\n\t"}
        assert not {"\x1b", "\x7f", "\x9b", "\u202e"} & set(shown)
    assert len(printable(text)) < 4_100


def test_escape_sequences_do_not_reach_the_terminal(root):
    from typer.testing import CliRunner

    set_column(root, "tasks", [["push it"], ["push it"], ["\x1b\x07PUSH it"]])
    result = CliRunner().invoke(app, ["doctor", str(root), "--fast"])
    assert "instruction_variant" in result.output
    assert "\x1b\x07" not in result.output
    assert "\\x1b\\x07PUSH" in result.output


def test_what_cannot_be_read_cannot_be_kept():
    with pytest.raises(ConfigError, match="unreadable_data cannot be 'warn'"):
        resolve_rules(Thresholds(), {"unreadable_data": CheckSetting(severity="warn")})


def test_an_empty_dataset_is_refused(root):
    for path in root.glob("meta/episodes/*/*.parquet"):
        edit_rows(path, lambda t: t.slice(0, 0))
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_episodes": 0, "total_frames": 0}))
    assert diagnose(root, fast=True).examined == 0
