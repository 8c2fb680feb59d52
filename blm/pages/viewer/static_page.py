"""Writes the viewer's page into a folder that opens without a server: mail it, or put it on any web space."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

from blm.pages.viewer.content import PAGE_FILES, dataset_script, episode_script, page_file
from blm.pages.viewer.dataset import Camera, ViewedDataset
from blm.schemas.errors import DatasetError, OutputExistsError
from blm.schemas.manifest import write_atomically
from blm.schemas.progress import Progress, silent

INDEX = "index.html"


def write_static_page(
    dataset: ViewedDataset, output: Path, episodes: Sequence[int] = (), progress: Progress = silent
) -> Path:
    """Write the page with some episodes (default: all) and their videos; returns `index.html`, written last.

    Videos of one episode are copied; from files that several share, the episode is cut out without encoding again.

    Raises:
        UsageError: no such episode.
        OutputExistsError: there is something in `output`.
        DatasetError: an episode cannot be read.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputExistsError(f"{output} exists already.", "Choose another --output.")
    chosen = list(dict.fromkeys(episodes)) or [int(row["episode_index"]) for row in dataset.rows]
    for episode in chosen:
        dataset.row(episode)
    shared = _episodes_per_video(dataset)
    for number, episode in enumerate(chosen):
        progress("writing episodes", number, len(chosen))
        videos = [_video(dataset, camera, episode, output, shared) for camera in dataset.cameras]
        write_atomically(output / "episodes" / f"{episode}.js", episode_script(dataset, episode, videos))
    progress("writing episodes", len(chosen), len(chosen))
    write_atomically(output / "dataset.js", dataset_script(dataset, chosen))
    for name in sorted(PAGE_FILES, key=lambda name: name == INDEX):
        write_atomically(output / name, page_file(name))
    return output / INDEX


def _episodes_per_video(dataset: ViewedDataset) -> Counter[tuple[str, Any, Any]]:
    counts: Counter[tuple[str, Any, Any]] = Counter()
    for row in dataset.rows:
        counts.update(_video_place(row, camera) for camera in dataset.cameras)
    return counts


def _video_place(row: dict[str, Any], camera: Camera) -> tuple[str, Any, Any]:
    return camera.key, row.get(f"videos/{camera.key}/chunk_index"), row.get(f"videos/{camera.key}/file_index")


def _video(
    dataset: ViewedDataset,
    camera: Camera,
    episode: int,
    output: Path,
    shared: Counter[tuple[str, Any, Any]],
) -> dict[str, Any]:
    if not camera.is_video:
        return {"camera": camera.name, "problem": "stored as single images; not shown"}
    number = dataset.cameras.index(camera)
    name = f"videos/{number}/{episode}.mp4"
    target = output / name
    target.parent.mkdir(parents=True, exist_ok=True)
    source = dataset.video_file(episode, camera)
    begin, end = dataset.video_span(episode, camera)
    if shared[_video_place(dataset.row(episode), camera)] == 1:
        shutil.copyfile(source, target)
    else:
        begin, end = _cut(source, target, begin, end)
    return {"camera": camera.name, "src": name, "from": begin, "to": end}


def _cut(source: Path, target: Path, begin: float, end: float) -> tuple[float, float]:
    """Copy the packets from the last key frame before `begin` until `end`; returns the span within the copy.

    Raises:
        DatasetError: the video cannot be read.
    """
    import av

    try:
        return _copy_packets(source, target, begin, end)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DatasetError(
            f"{source} is not a readable video: {error}.", "Restore it from a copy."
        ) from error


def _copy_packets(source: Path, target: Path, begin: float, end: float) -> tuple[float, float]:
    import av

    first: int | None = None
    with closing(av.open(str(source))) as read:
        stream = read.streams.video[0]
        base = stream.time_base or Fraction(1, 90_000)
        half_frame = 1 / (2 * (stream.average_rate or 30))
        read.seek(int(begin / base), stream=stream)
        with closing(av.open(str(target), "w", options={"movflags": "faststart"})) as write:
            copy = write.add_stream_from_template(
                stream, opaque=True
            )  # also codecs that cannot be encoded here
            for packet in read.demux(stream):
                if packet.pts is None or packet.dts is None:
                    continue
                first = packet.dts if first is None else first
                if packet.dts * base + half_frame >= end:
                    break
                packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, copy
                write.mux(packet)
    shift = float((first or 0) * base)
    return max(0.0, begin - shift), max(0.0, end - shift)
