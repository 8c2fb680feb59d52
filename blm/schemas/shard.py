"""What a WebDataset sample holds: file endings inside the tar, shapes and units.

Stage II: one sample is one trimmed episode. Its key is `<dataset>-<episode:06d>`; frames are stored once and the
reader draws windows (frame + action chunk) from them.

    <key>.json              SegmentMeta as JSON
    <key>.state.npy         (T, A) float32, axis units, axis order of the embodiment
    <key>.action.npy        (T, A) float32, axis units, as sent
    <key>.subtask.npy       (T,) int32 index into SegmentMeta.subtasks
    <key>.<camera>.mjpeg    T JPEG images, one after the other; in a lossless build .mwebp, T WebP images
    <key>.<camera>.npy      (T + 1,) int64 byte offsets of the images in the .mjpeg or .mwebp

Stage I: one sample is one conversation. Its key is the record's id.

    <key>.json              the corpus record (see blm.schemas.corpus)
    <key>.<i>.<ext>         bytes of media i, in the record's order
"""

from __future__ import annotations

from typing import Any, Literal

from blm.schemas.yaml_model import FrozenModel

META_SUFFIX = "json"
STATE_SUFFIX = "state.npy"
ACTION_SUFFIX = "action.npy"
SUBTASK_SUFFIX = "subtask.npy"


ImageFormat = Literal["jpeg", "webp"]


def images_suffix(camera: str, image_format: ImageFormat = "jpeg") -> str:
    return f"{camera}.m{image_format}"


def offsets_suffix(camera: str) -> str:
    return f"{camera}.npy"


class SegmentMeta(FrozenModel):
    """What is known about one Stage II sample.

    `start` and `stop` are frame indices in the source episode (after trimming, stop exclusive); every `stride`-th of
    them is kept, and `rate_hz` is the rate of the kept ones. `axis_names` is the order of the columns of state and
    action. `image_size` is (width, height) in pixels. `dataset` maps to the dataset's fingerprint in the manifest.
    `instruction` is normalised, `recorded_instruction` as it was; `picture_findings` is JSON: [reason, value, camera]
    of each warning about the pictures.
    """

    dataset: str
    episode: int
    start: int
    stop: int
    embodiment: str
    task: str
    instruction: str
    success: bool
    seed: int
    split: str
    rate_hz: float
    axis_names: tuple[str, ...]
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    subtasks: tuple[str, ...]
    stride: int = 1
    image_format: ImageFormat = "jpeg"
    recorded_instruction: str = ""
    picture_findings: str = ""

    @property
    def frames(self) -> int:
        """How many frames the sample holds (T)."""
        return len(range(self.start, self.stop, self.stride))


class ShardRow(FrozenModel):
    """One row of `manifest.parquet`: a shard and what is in it.

    `source` is a digest of all that the shard was made from; an equal one means equal bytes. `skipped` names samples
    that belong here and are left out because they could not be read, with what was wrong.
    """

    name: str
    sha256: str
    samples: int
    frames: int
    bytes: int
    split: str
    counts: dict[str, int]
    source: str = ""
    skipped: dict[str, str] = {}


SHARD_ROW_MAPPINGS = ("counts", "skipped")
"""Fields of `ShardRow` that are JSON in Parquet."""


class IndexRow(FrozenModel):
    """One row of `index.parquet`: where one member of one sample lies, so that a reader can seek to it."""

    shard: str
    key: str
    suffix: str
    offset: int
    size: int


def shard_row_columns(row: ShardRow) -> dict[str, Any]:
    """A flat row for Parquet; the mappings become JSON strings."""
    import json

    mappings = {name: json.dumps(getattr(row, name), sort_keys=True) for name in SHARD_ROW_MAPPINGS}
    return row.model_dump() | mappings
