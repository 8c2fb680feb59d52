"""Turn one kept episode into a Stage II sample: the arrays, the images, and what is known about it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from blm.curate.episodes.config import SplitsConfig
from blm.curate.episodes.frames import Frames, FramesError, read_frames
from blm.curate.episodes.index import DatasetIndex
from blm.curate.episodes.lerobot_files import CameraStream
from blm.curate.episodes.pictures import (
    PictureFinding,
    PicturesError,
    PictureWatch,
    moving_frames,
    picture_note,
)
from blm.curate.episodes.reasons import RULES, Reason, Rule
from blm.curate.episodes.table_pictures import TableClip
from blm.curate.episodes.thresholds import resolve_rules
from blm.curate.episodes.video import Clip, Pictures, Stills, VideoError, encode_clip, watch_clip
from blm.curate.shards import Sample
from blm.schemas.shard import (
    ACTION_SUFFIX,
    META_SUFFIX,
    STATE_SUFFIX,
    SUBTASK_SUFFIX,
    ImageFormat,
    SegmentMeta,
    images_suffix,
    offsets_suffix,
)


@dataclass(frozen=True)
class Segment:
    """A kept episode and how it is to be packed: one row of the checked table, with its dataset.

    `image_size` is (width, height) in pixels; `row` holds the columns of `DatasetIndex.episodes`, `start`, `stop` and
    `split`.
    """

    dataset: DatasetIndex
    row: dict[str, Any]
    image_size: tuple[int, int]
    quality: int | None
    """JPEG's; None: lossless WebP."""
    rules: Mapping[Reason, Rule] = field(default_factory=lambda: RULES)

    @property
    def stride(self) -> int:
        return self.dataset.frame_stride

    @property
    def key(self) -> str:
        return f"{self.dataset.name}-{self.row['episode']:06d}"

    @property
    def label(self) -> str:
        return f"{self.row['embodiment']}/{self.row['task']}"

    @property
    def image_format(self) -> ImageFormat:
        return "webp" if self.quality is None else "jpeg"

    @property
    def frames(self) -> int:
        return len(range(self.row["start"], self.row["stop"], self.stride))


def make_segment(dataset: DatasetIndex, row: dict[str, Any], config: SplitsConfig) -> Segment:
    size = config.image_size or (dataset.cameras[0].width, dataset.cameras[0].height)
    quality = None if config.lossless else config.jpeg_quality
    rules = resolve_rules(config.thresholds, config.checks)
    return Segment(dataset, row, size, quality, rules)


def frames_of_segment(segment: Segment) -> tuple[np.ndarray, np.ndarray]:
    """Which frames of the episode give the states (T,) and which the actions (T,).

    With a stride, a kept frame's action is the last one sent before the next kept frame: the target that the arm was
    to reach by then.
    """
    kept = np.arange(segment.row["start"], segment.row["stop"], segment.stride)
    return kept, np.minimum(kept + segment.stride, segment.row["stop"]) - 1


def segment_arrays(segment: Segment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States (T, A) and actions (T, A), float32, axis units, and subtask indices (T,) into the dataset's table.

    Raises:
        PicturesError: the data file does not hold the episode.
    """
    file, episode = Path(segment.row["data_file"]), segment.row["episode"]
    try:
        frames: Frames = read_frames(file, segment.dataset.columns)
    except FramesError as error:  # the index was read by another library
        raise PicturesError([PictureFinding("unreadable_data", 1.0, str(error))]) from error
    span = frames.span(episode)
    if span.stop - span.start != segment.row["rows"]:
        note = f"{file} holds {span.stop - span.start} frames of it, the dataset {segment.row['rows']}"
        raise PicturesError([PictureFinding("unreadable_data", 1.0, note)])
    begin = span.start
    kept, sent = frames_of_segment(segment)
    return frames.state[begin + kept], frames.action[begin + sent], frames.subtask[begin + kept]


def pack_segment(segment: Segment) -> Sample:
    """Decode and encode the episode's images and lay out the sample as `blm.schemas.shard` says.

    Raises:
        VideoError: a camera's video cannot be read or does not hold the frames.
        PicturesError: what the cameras show breaks a rule of severity `drop`.
    """
    state, action, subtask_index = segment_arrays(segment)
    subtasks, subtask = _compact(subtask_index, segment.dataset.subtasks)
    members = {
        META_SUFFIX: b"",
        STATE_SUFFIX: _npy(state.astype("<f4")),
        ACTION_SUFFIX: _npy(action.astype("<f4")),
        SUBTASK_SUFFIX: _npy(subtask.astype("<i4")),
    }
    findings: list[PictureFinding] = []
    for camera in segment.dataset.cameras:
        clip = _clip(segment, camera, segment.row["start"], segment.row["stop"])
        watch = picture_watch(segment, state)
        images = encode_clip(clip, segment.image_size, segment.quality, watch.see)
        findings += watch.findings(camera.name, segment.rules)
        offsets = np.cumsum([0, *map(len, images)], dtype="<i8")
        members[images_suffix(camera.name, segment.image_format)] = b"".join(images)
        members[offsets_suffix(camera.name)] = _npy(offsets)
    if any(segment.rules[one.reason].severity == "drop" for one in findings):
        raise PicturesError(findings)
    members[META_SUFFIX] = _meta(segment, subtasks, findings)
    return Sample(segment.key, members, frames=len(state), label=segment.label)


def picture_findings(segment: Segment) -> list[PictureFinding]:
    """What packing would say of the episode's pictures, without packing them.

    Raises:
        VideoError: a camera's video cannot be read or does not hold the frames.
    """
    state = segment_arrays(segment)[0]
    findings: list[PictureFinding] = []
    for camera in segment.dataset.cameras:
        watch = picture_watch(segment, state)
        watch_clip(_clip(segment, camera, segment.row["start"], segment.row["stop"]), watch.see)
        findings += watch.findings(camera.name, segment.rules)
    return findings


def picture_watch(segment: Segment, state: np.ndarray) -> PictureWatch:
    """For one camera of an episode with these states (T, A)."""
    embodiment = segment.dataset.embodiment
    spans = embodiment.column("upper") - embodiment.column("lower")
    rate_hz = segment.dataset.packed_rate_hz
    return PictureWatch(moving_frames(state, spans, rate_hz), rate_hz)


def example_frame(dataset: DatasetIndex, episode: int) -> bytes | None:
    """The first readable picture of an episode, as JPEG in the size recorded; None where no camera shows one."""
    (row, *_) = [*dataset.episodes.filter(pc.field("episode") == episode).to_pylist(), None]
    if row is None:
        return None
    for camera in dataset.cameras:
        video = row[f"video/{camera.name}"]
        for frame in range(0, max(1, row["length"] or 1), max(1, (row["length"] or 1) // 4)):
            if video is None:
                continue
            clip = recorded_pictures(dataset, row, camera, [frame])
            try:
                return encode_clip(clip, (camera.width, camera.height), 85)[0]
            except VideoError:
                continue
    return None


def estimated_frame_bytes(segment: Segment) -> float:
    """Bytes that a frame takes in a shard, judged by the middle frame of this episode.

    A quarter of a byte per pixel is assumed where that frame cannot be read, and in any case no less than 1/64.
    """
    vectors = 8 * len(segment.dataset.embodiment.axes) + 4
    pixels = segment.image_size[0] * segment.image_size[1] * len(segment.dataset.cameras)
    middle = (segment.row["start"] + segment.row["stop"]) // 2
    try:
        images = sum(
            len(
                encode_clip(_clip(segment, camera, middle, middle + 1), segment.image_size, segment.quality)[
                    0
                ]
            )
            for camera in segment.dataset.cameras
        )
    except VideoError:
        images = pixels / 4
    return vectors + max(images, pixels / 64)


def _clip(segment: Segment, camera: CameraStream, start: int, stop: int) -> Pictures:
    return recorded_pictures(segment.dataset, segment.row, camera, range(start, stop, segment.stride))


def recorded_pictures(
    dataset: DatasetIndex, row: Mapping[str, Any], camera: CameraStream, frames: Sequence[int]
) -> Pictures:
    """Frames, in ascending order, of the episode in a row of `DatasetIndex.episodes`."""
    place = row[f"video/{camera.name}"]
    path = Path(place["file"])
    if camera.in_table:
        return TableClip(path, camera.feature, row["episode"], frames, camera.width * camera.height)
    if isinstance(frames, range):
        return Clip(path, place["from_s"], dataset.rate_hz, frames.start, frames.stop, frames.step)
    return Stills(path, place["from_s"], dataset.rate_hz, tuple(frames))


def _meta(segment: Segment, subtasks: tuple[str, ...], findings: Sequence[PictureFinding]) -> bytes:
    row, dataset = segment.row, segment.dataset
    meta = SegmentMeta(
        dataset=dataset.name,
        episode=row["episode"],
        start=row["start"],
        stop=row["stop"],
        embodiment=row["embodiment"],
        task=row["task"],
        instruction=row["instruction"],
        recorded_instruction=row["recorded_instruction"],
        picture_findings=picture_note(findings) if findings else "",
        success=row["success"] != "no",
        seed=row["seed"],
        split=row["split"],
        rate_hz=dataset.packed_rate_hz,
        axis_names=dataset.embodiment.axis_names,
        cameras=tuple(camera.name for camera in dataset.cameras),
        image_size=segment.image_size,
        subtasks=subtasks,
        stride=segment.stride,
        image_format=segment.image_format,
    )
    return json.dumps(meta.model_dump(mode="json"), sort_keys=True).encode()


def _compact(indices: np.ndarray, names: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """The names that occur, in order of first appearance, and the indices (T,) into them."""
    values, first, inverse = np.unique(indices, return_index=True, return_inverse=True)
    order = np.argsort(first)
    used = tuple(names[value] if 0 <= value < len(names) else "" for value in values[order])
    return used, np.argsort(order)[inverse]


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()
