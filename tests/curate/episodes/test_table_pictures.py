"""Cameras whose pictures lie in the data files, as LeRobot stores them where video is not wanted."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from blm.curate.doctor import diagnose
from blm.curate.episodes.build import build_splits
from blm.curate.episodes.config import SplitsConfig
from blm.schemas.manifest import DROPPED_FILE
from blm.train.shard_reader import ShardBuild
from tests.curate.episodes.editing import data_file, edit_info, edit_rows

FEATURE = "observation.images.top"
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(episode: int, frame: int, side: int = 64) -> np.ndarray:
    """A stripe that moves on, in a shade of the episode's."""
    values = np.full((side, side, 3), (40 + 20 * episode, 90, 160), np.uint8)
    values[:, 2 * frame : 2 * frame + 8] = (230, 200, 30)
    return values


def encoded(values: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def with_pictures(root: Path, content: Callable[[int, int], bytes | None] | None = None) -> Path:
    """Put the top camera's pictures into the data files, where there were videos."""
    given = content or (lambda episode, frame: encoded(picture(episode, frame)))

    def change(table: pa.Table) -> pa.Table:
        rows = zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
        values = [
            {"bytes": given(int(episode), int(frame)), "path": "/etc/hostname"} for episode, frame in rows
        ]
        return table.append_column(FEATURE, pa.array(values, PICTURE))

    for path in root.glob("data/*/*.parquet"):
        edit_rows(path, change)
    edit_info(root, lambda info: info["features"][FEATURE].update(dtype="image"))
    return root


def config(root: Path, output: Path, **changes) -> SplitsConfig:
    return SplitsConfig.model_validate({"datasets": [root], "output": output, **changes})


def test_they_are_stored_as_they_are_beside_a_video(copy, tmp_path):
    root = with_pictures(copy())
    build_splits(config(root, tmp_path / "out", lossless=True))
    with ShardBuild(tmp_path / "out") as build:
        assert len(build.segments()) == 8
        for segment in build.segments():
            meta, frames = segment.meta, np.arange(segment.meta.frames)
            expected = [picture(meta.episode, meta.start + int(frame)) for frame in frames]
            np.testing.assert_array_equal(build.images(segment, "top", frames), expected)
            assert build.images(segment, "wrist", [0]).shape == (1, 64, 64, 3)
    build_splits(config(root, tmp_path / "jpeg", frame_stride=2))
    with ShardBuild(tmp_path / "jpeg") as build:
        segment = build.segments()[0]
        frame = segment.meta.start + 2 * 3
        shown = build.images(segment, "top", [3])[0].astype(int)
        assert np.abs(shown - picture(segment.meta.episode, frame)).mean() < 3


def sixteen_bits(values: np.ndarray) -> bytes:
    return encoded(values[..., 0].astype(np.uint16) * 256)


FAULTS: tuple[tuple[Callable[[np.ndarray], bytes | None], str], ...] = (
    (lambda values: None, "of frame 5 of episode 0 is not in the table"),
    (lambda values: b"no picture", "cannot be decoded"),
    (lambda values: encoded(values)[:120], "cannot be decoded"),
    (lambda values: encoded(values, "GIF"), "cannot be decoded"),
    (sixteen_bits, "not as a picture of 8 bits"),
    (lambda values: encoded(values[:32]), "changes its size"),
    (lambda values: encoded(values) + bytes(8 * 10**6), "bytes of 'observation.images.top'"),
)
"""What one picture is like, in the episode of that number; the last episode is whole."""


def spoilt(episode: int, frame: int) -> bytes | None:
    values = picture(episode, frame)
    return FAULTS[episode][0](values) if frame == 5 and episode < len(FAULTS) else encoded(values)


def test_a_picture_that_cannot_be_used_costs_its_episode(copy, tmp_path):
    root = with_pictures(copy(), spoilt)
    assert build_splits(config(root, tmp_path / "out")).counts.kept == 1
    dropped = pq.read_table(tmp_path / "out" / DROPPED_FILE).to_pylist()
    assert [(one["episode"], one["reason"]) for one in dropped] == [
        (episode, "unreadable_video") for episode in range(len(FAULTS))
    ]
    for one, (_, said) in zip(dropped, FAULTS, strict=True):
        assert said in one["note"]
    found = diagnose(root).findings.to_pylist()
    assert [one["episode"] for one in found if one["severity"] == "drop"] == list(range(len(FAULTS)))


def test_a_column_that_is_not_there_costs_the_episodes_of_its_file(copy, tmp_path):
    root = with_pictures(copy())
    edit_rows(data_file(root, 3), lambda table: table.drop_columns(FEATURE))
    build_splits(config(root, tmp_path / "out"))
    dropped = pq.read_table(tmp_path / "out" / DROPPED_FILE).to_pylist()
    assert [(one["episode"], one["reason"]) for one in dropped] == [(3, "unreadable_video")]
