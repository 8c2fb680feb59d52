"""The viewer's page as named files, the same whether they are served or written into a folder.

    index.html  viewer.css  streams.js  player.js  plots.js  episode_list.js  viewer.js     the page
    dataset.js                                         the list of episodes
    episodes/<episode>.js                              one episode's curves and facts
    videos/<camera>/<episode>.mp4                      a camera's video
    pictures/<camera>/<episode>/<frame>.<ending>       a camera's single pictures

Data are scripts that call a function of the page: a page opened from a folder may load scripts, but not JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from blm.pages.viewer.source import BrokenStream, PictureStream, Stream, ViewSource

PAGE_FILES = {
    "index.html": "text/html; charset=utf-8",
    "viewer.css": "text/css; charset=utf-8",
    "streams.js": "text/javascript; charset=utf-8",
    "player.js": "text/javascript; charset=utf-8",
    "plots.js": "text/javascript; charset=utf-8",
    "episode_list.js": "text/javascript; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
}
"""The fixed files of the page and their types."""


def page_file(name: str) -> bytes:
    """One of `PAGE_FILES`."""
    return (files("blm.pages.viewer") / "page" / name).read_bytes()


def dataset_script(source: ViewSource, only: Sequence[int] = ()) -> bytes:
    """`dataset.js`: the overview, of all episodes or of `only` some; the first of those is shown first."""
    overview = source.overview()
    if only:
        kept = [place for place, index in enumerate(overview["episodes"]["index"]) if index in only]
        overview["episodes"] = {
            key: [values[place] for place in kept] for key, values in overview["episodes"].items()
        }
    return _call("showDataset", overview)


def episode_script(source: ViewSource, episode: int, streams: Sequence[dict[str, Any]]) -> bytes:
    """`episodes/<episode>.js`; each of `streams` is a camera as `stream_entry` has it.

    Raises:
        UsageError, DatasetError: the episode is not there, or cannot be read.
    """
    return _call("showEpisode", source.content(episode) | {"streams": list(streams)})


def stream_entry(episode: int, number: int, stream: Stream) -> dict[str, Any]:
    """What the page is told about the `number`-th camera of an episode.

    A video has `src`, `from` and `to` in seconds; single pictures `folder`, `ending` and `count`; else there is a
    `problem`.
    """
    if isinstance(stream, BrokenStream):
        return {"camera": stream.camera, "problem": stream.problem}
    if isinstance(stream, PictureStream):
        folder = f"pictures/{number}/{episode}/"
        return {
            "camera": stream.camera,
            "folder": folder,
            "ending": stream.ending,
            "count": stream.frames,
        }
    source = f"videos/{number}/{episode}.mp4"
    return {"camera": stream.camera, "src": source, "from": stream.begin, "to": stream.end}


def problem_script(episode: int, problem: str) -> bytes:
    """What the page is given instead of an episode that cannot be read."""
    return _call("showProblem", {"index": episode, "problem": problem})


def _call(function: str, content: Any) -> bytes:
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"window.blm.{function}({text});\n".encode()
