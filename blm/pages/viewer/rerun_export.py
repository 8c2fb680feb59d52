"""Writes episodes as Rerun recordings (.rrd), to look at in Rerun's viewer or to query with its tools.

    <column>/<dimension>   every numeric column as scalars, under the dataset's own names
    camera/<name>          the video as it is encoded, with a reference for each frame; single pictures as they are
    subtask                a line of text, and a state, where a sub-task begins

All of it lies on the timelines `frame` and `time` (nominal seconds), and on `measured_time` where the robot's clock
was kept.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blm.pages.viewer.signals import EpisodeSignals
from blm.pages.viewer.source import PICTURE_TYPES, BrokenStream, PictureStream, VideoStream, ViewSource
from blm.pages.viewer.video_stretch import write_stretch
from blm.schemas.errors import MissingExtraError, OutputExistsError, UsageError
from blm.schemas.progress import Progress, silent

if TYPE_CHECKING:
    import rerun as rr
    import rerun.blueprint as rrb

RECORDING = ".rrd"
SUBTASK = "subtask"
CAMERA = "camera"
_PICTURES_AT_ONCE = 64
_COLOURS = {"state": (43, 93, 138), "action": (194, 101, 58)}
_BAND_COLOURS = (
    0x4878A8FF,
    0xC7744AFF,
    0x4F9A72FF,
    0x9573B3FF,
    0xB39A35FF,
    0x717B87FF,
    0xBB6480FF,
    0x5DA3B0FF,
)
"""As on the page: red, green, blue, and opaque."""


def export_rerun(
    source: ViewSource, target: Path, episodes: Sequence[int] = (), progress: Progress = silent
) -> list[Path]:
    """Write a recording per episode (default: all); returns their files.

    `target` is a file ending in .rrd for one episode, else a folder that gets `episode_<number>.rrd` for each.

    Raises:
        MissingExtraError: Rerun's SDK is not installed.
        UsageError: no such episode, or several for one file.
        OutputExistsError: a file is there already.
        DatasetError: an episode cannot be read.
    """
    try:
        import rerun  # noqa: F401  # told before anything is written
    except ImportError as error:
        raise MissingExtraError("rerun-sdk", "rerun") from error
    chosen = list(dict.fromkeys(episodes)) or list(source.numbers())
    for episode in chosen:
        source.check(episode)
    files = _files(target, chosen)
    for number, (episode, path) in enumerate(zip(chosen, files, strict=True)):
        progress("writing recordings", number, len(chosen))
        _write(source, episode, path)
    progress("writing recordings", len(chosen), len(chosen))
    return files


def _files(target: Path, episodes: Sequence[int]) -> list[Path]:
    one_file = target.suffix == RECORDING
    if one_file and len(episodes) != 1:
        raise UsageError(
            f"{target} is one recording, but there are {len(episodes)} episodes.",
            "Choose one with --episode N, or name a folder: each episode gets a file there.",
        )
    files = [target] if one_file else [target / f"episode_{number:06d}{RECORDING}" for number in episodes]
    for path in files:
        if path.exists():
            raise OutputExistsError(f"{path} exists already.", "Name another place, or remove it.")
    return files


def _write(source: ViewSource, episode: int, path: Path) -> None:
    """Write beside and rename, so that a recording that is there is whole."""
    import rerun as rr

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp")
    signals = source.signals(episode)
    application = re.sub(r"[^A-Za-z0-9_-]+", "-", source.name).strip("-") or "blm"
    recording = rr.RecordingStream(
        application, recording_id=f"{application}-{episode}", send_properties=False
    )
    try:
        with _errors_are_raised():
            streams = [one for one in source.streams(episode) if not isinstance(one, BrokenStream)]
            cameras = [stream.camera for stream in streams]
            recording.save(beside, default_blueprint=_layout(signals, cameras))
            recording.send_recording_name(f"{source.name} {episode}")
            recording.send_property("episode", rr.AnyValues(drop_untyped_nones=True, **signals.facts))
            _send_scalars(recording, signals)
            _send_subtasks(recording, signals)
            for stream in streams:
                entity = _entity(CAMERA, stream.camera)
                if isinstance(stream, VideoStream):
                    _send_video(recording, entity, stream, signals)
                else:
                    _send_pictures(recording, entity, stream, signals)
            recording.flush()
            recording.disconnect()
        beside.replace(path)
    finally:
        recording.disconnect()
        beside.unlink(missing_ok=True)


@contextmanager
def _errors_are_raised() -> Iterator[None]:
    """Rerun logs wrong arguments and goes on unless told to be strict."""
    import rerun as rr

    before = rr.strict_mode()
    rr.set_strict_mode(True)
    try:
        yield
    finally:
        rr.set_strict_mode(before)


def _timelines(signals: EpisodeSignals, frames: np.ndarray) -> list[rr.TimeColumn]:
    import rerun as rr

    timelines = [
        rr.TimeColumn("frame", sequence=frames),
        rr.TimeColumn("time", duration=frames / signals.fps),
    ]
    if signals.measured_s is not None:
        timelines.append(rr.TimeColumn("measured_time", duration=signals.measured_s[frames]))
    return timelines


def _send_scalars(recording: rr.RecordingStream, signals: EpisodeSignals) -> None:
    import rerun as rr

    timelines = _timelines(signals, np.arange(signals.frames))
    kinds = {path: kind for paths in signals.axes.values() for kind, path in paths.items()}
    for signal in signals.signals:
        entity = _entity(*signal.path)
        kind = kinds.get(signal.path)
        name = (kind or signal.path[-1]) + (f" ({signal.unit})" if signal.unit else "")
        colours = [_COLOURS[kind]] if kind else None
        recording.log(entity, rr.SeriesLines(names=[name], colors=colours), static=True)
        recording.send_columns(entity, timelines, rr.Scalars.columns(scalars=signal.values))


def _send_subtasks(recording: rr.RecordingStream, signals: EpisodeSignals) -> None:
    import rerun as rr

    if not signals.bands:
        return
    timelines = _timelines(signals, np.array([band["from"] for band in signals.bands]))
    labels = [str(band["label"]) for band in signals.bands]
    kinds = {str(band["label"]): _BAND_COLOURS[band["number"] % len(_BAND_COLOURS)] for band in signals.bands}
    colours = rr.StateConfiguration(values=list(kinds), colors=np.array(list(kinds.values()), np.uint32))
    recording.log(SUBTASK, colours, static=True)
    recording.send_columns(SUBTASK, timelines, rr.TextLog.columns(text=labels))
    recording.send_columns(SUBTASK, timelines, rr.StateChange.columns(state=labels))


def _send_video(
    recording: rr.RecordingStream, entity: str, stream: VideoStream, signals: EpisodeSignals
) -> None:
    """The episode's stretch of the video as a file, and which moment of it each frame shows."""
    import rerun as rr

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stretch.mp4"
        begin, _ = write_stretch(stream, file)
        content = file.read_bytes()
    frames = np.arange(signals.frames)
    moments = np.round((begin + frames / signals.fps) * 1e9).astype(np.int64)
    recording.log(entity, rr.AssetVideo(contents=content, media_type="video/mp4"), static=True)
    recording.send_columns(entity, _timelines(signals, frames), rr.VideoFrameReference.columns_nanos(moments))


def _send_pictures(
    recording: rr.RecordingStream, entity: str, stream: PictureStream, signals: EpisodeSignals
) -> None:
    import rerun as rr

    media_type = PICTURE_TYPES["png" if stream.ending == "webp" else stream.ending]
    for first in range(0, stream.frames, _PICTURES_AT_ONCE):
        frames = np.arange(first, min(first + _PICTURES_AT_ONCE, stream.frames))
        pictures = [stream.picture(int(frame)) for frame in frames]
        if stream.ending == "webp":
            pictures = [_as_png(picture) for picture in pictures]
        columns = rr.EncodedImage.columns(blob=pictures, media_type=[media_type] * len(pictures))
        recording.send_columns(entity, _timelines(signals, frames), columns)


def _as_png(webp: bytes) -> bytes:
    """Rerun shows JPEG and PNG only; WebP of a build is lossless, so nothing is lost."""
    from PIL import Image

    png = io.BytesIO()
    with Image.open(io.BytesIO(webp), formats=["webp"]) as picture:
        picture.save(png, format="png")
    return png.getvalue()


def _entity(*parts: str) -> str:
    import rerun as rr

    return rr.new_entity_path(list(parts))


def _layout(signals: EpisodeSignals, cameras: Sequence[str]) -> rrb.Blueprint:
    """Cameras and sub-tasks above a plot per axis; every other column on a second tab."""
    import rerun.blueprint as rrb

    above = [rrb.Spatial2DView(origin=_entity(CAMERA, camera), name=camera) for camera in cameras]
    plots = [
        rrb.TimeSeriesView(origin="/", contents=[_entity(*path) for path in paths.values()], name=axis)
        for axis, paths in signals.axes.items()
    ]
    rows = [rrb.Horizontal(*above)] if above else []
    rows += [rrb.StateTimelineView(origin=f"/{SUBTASK}", name="sub-tasks")] if signals.bands else []
    rows += [rrb.Grid(*plots, grid_columns=3)] if plots else []
    shares = [3.0] * bool(above) + [1.2] * bool(signals.bands) + [4.0] * bool(plots)
    shown = {path for paths in signals.axes.values() for path in paths.values()}
    columns = dict.fromkeys(signal.path[0] for signal in signals.signals if signal.path not in shown)
    others = [rrb.TimeSeriesView(origin=_entity(column), name=column) for column in columns]
    tabs = [rrb.Vertical(*rows, row_shares=shares, name="episode")] if rows else []
    tabs += [rrb.Grid(*others, name="other columns")] if others else []
    return rrb.Blueprint(
        rrb.Tabs(*tabs), rrb.TimePanel(state="collapsed", timeline="time"), collapse_panels=True
    )
