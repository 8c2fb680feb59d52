"""The viewer's page as named files, the same whether they are served or written into a folder.

    index.html  viewer.css  player.js  plots.js  episode_list.js  viewer.js     the page
    dataset.js                                                                  the list of episodes
    episodes/<episode>.js                                                       one episode's curves and facts

Data are scripts that call a function of the page: a page opened from a folder may load scripts, but not JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from blm.pages.viewer.dataset import ViewedDataset
from blm.pages.viewer.episode import episode_content

PAGE_FILES = {
    "index.html": "text/html; charset=utf-8",
    "viewer.css": "text/css; charset=utf-8",
    "player.js": "text/javascript; charset=utf-8",
    "plots.js": "text/javascript; charset=utf-8",
    "episode_list.js": "text/javascript; charset=utf-8",
    "viewer.js": "text/javascript; charset=utf-8",
}
"""The fixed files of the page and their types."""


def page_file(name: str) -> bytes:
    """One of `PAGE_FILES`."""
    return (files("blm.pages.viewer") / "page" / name).read_bytes()


def dataset_script(dataset: ViewedDataset, only: Sequence[int] = ()) -> bytes:
    """`dataset.js`: the overview, of all episodes or of `only` some; the first of those is shown first."""
    overview = dataset.overview()
    if only:
        kept = [place for place, index in enumerate(overview["episodes"]["index"]) if index in only]
        overview["episodes"] = {
            key: [values[place] for place in kept] for key, values in overview["episodes"].items()
        }
    return _call("showDataset", overview)


def episode_script(dataset: ViewedDataset, episode: int, videos: Sequence[dict[str, Any]]) -> bytes:
    """`episodes/<episode>.js`; each video has `camera`, `src`, `from` and `to` in seconds, or `problem`.

    Raises:
        UsageError, DatasetError: as `episode_content`.
    """
    return _call("showEpisode", episode_content(dataset, episode) | {"videos": list(videos)})


def problem_script(episode: int, problem: str) -> bytes:
    """What the page is given instead of an episode that cannot be read."""
    return _call("showProblem", {"index": episode, "problem": problem})


def _call(function: str, content: Any) -> bytes:
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"window.blm.{function}({text});\n".encode()
