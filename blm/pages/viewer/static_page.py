"""Writes the viewer's page into a folder that opens without a server: mail it, or put it on any web space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blm.pages.viewer.content import PAGE_FILES, dataset_script, episode_script, page_file, stream_entry
from blm.pages.viewer.source import PictureStream, Stream, VideoStream, ViewSource
from blm.pages.viewer.video_stretch import write_stretch
from blm.schemas.errors import OutputExistsError
from blm.schemas.manifest import write_atomically
from blm.schemas.progress import Progress, silent

INDEX = "index.html"


def write_static_page(
    source: ViewSource, output: Path, episodes: Sequence[int] = (), progress: Progress = silent
) -> Path:
    """Write the page with some episodes (default: all) and their cameras; returns `index.html`, written last.

    Single pictures and videos of one episode are copied; from files that several share, the episode is cut out
    without encoding again.

    Raises:
        UsageError: no such episode.
        OutputExistsError: there is something in `output`.
        DatasetError: an episode cannot be read.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputExistsError(f"{output} exists already.", "Choose another --output.")
    chosen = list(dict.fromkeys(episodes)) or list(source.numbers())
    for episode in chosen:
        source.check(episode)
    for number, episode in enumerate(chosen):
        progress("writing episodes", number, len(chosen))
        entries = [
            _written(stream, stream_entry(episode, camera, stream), output)
            for camera, stream in enumerate(source.streams(episode))
        ]
        write_atomically(output / "episodes" / f"{episode}.js", episode_script(source, episode, entries))
    progress("writing episodes", len(chosen), len(chosen))
    write_atomically(output / "dataset.js", dataset_script(source, chosen))
    for name in sorted(PAGE_FILES, key=lambda name: name == INDEX):
        write_atomically(output / name, page_file(name))
    return output / INDEX


def _written(stream: Stream, entry: dict[str, Any], output: Path) -> dict[str, Any]:
    """Write a camera's pictures or video to where its entry says; returns the entry as it is then."""
    if isinstance(stream, PictureStream):
        folder = output / entry["folder"]
        folder.mkdir(parents=True, exist_ok=True)
        for frame in range(stream.frames):
            (folder / f"{frame}.{stream.ending}").write_bytes(stream.picture(frame))
    elif isinstance(stream, VideoStream):
        begin, end = write_stretch(stream, output / entry["src"])
        return entry | {"from": begin, "to": end}
    return entry
