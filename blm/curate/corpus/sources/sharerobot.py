"""`sharerobot:PATH`: planning, affordance and trajectory rows in the form of ShareRobot.

    {"id": "…", "task": "Future_Prediction_Task", "conversations": [{"from": "human", …}, …], "image": ["…"]}
    {"id": "a.jpg", "meta_data": {"original_width": 640, "original_height": 480}, "instruction": …,
     "affordance": {"x": …, "y": …, "width": …, "height": …}}
    {"id": "b.jpg", "meta_data": {…}, "instruction": …, "points": [[x, y], …]}

| field | becomes |
|---|---|
| `conversations`, `image` | the conversation; marks such as `<image 0-25>` and `<…>` around an action are taken off |
| `task` | the task family: planning, affordance, success → judgement, past and future → temporal |
| `instruction`, `affordance` | where to act, as a box `(left, top, right, bottom)` |
| `instruction`, `points` | how the gripper moves, as points `(x, y)` |
| `meta_data` | pixels become thousandths of the image's width and height, as everywhere in our corpora |
| `image`, else `id` | the image |

Reasons: bad_row, bad_text, bad_box, and those of `llava`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from blm.curate.corpus.config import SourceConfig
from blm.curate.corpus.conversation import Conversation, Drop
from blm.curate.corpus.projection import POINT_SCALE
from blm.curate.corpus.sources.columns import mapping, numbers, references, text
from blm.curate.corpus.sources.llava import chat_turns
from blm.curate.corpus.sources.rows import RowError, row_files
from blm.curate.corpus.sources.turns import (
    Reference,
    Turns,
    family_in,
    question_and_answer,
    read_conversations,
    referenced_files,
)

_IMAGE_MARK = re.compile(r"<image [^<>]{1,40}>")
_ACTION_MARK = re.compile(r"<(?!image>|video>)([^<>|]{1,300})>")
_SCALE = (
    f"in thousandths of the image's width and height, (0, 0) at the upper left corner, "
    f"({POINT_SCALE}, {POINT_SCALE}) at the lower right"
)


def read_sharerobot(path: Path, config: SourceConfig) -> Iterator[Conversation | Drop]:
    """Conversations of a file or a folder's files, in order.

    Raises:
        DatasetError: a file is missing, or as a whole unreadable.
    """
    yield from read_conversations(row_files(path), path, sharerobot_turns, config)


def sharerobot_files(path: Path, config: SourceConfig) -> Iterator[Path]:
    """The files of rows and the images they use, each once."""
    return referenced_files(row_files(path), sharerobot_turns, config)


def sharerobot_turns(row: Any) -> Iterable[Turns]:
    """The conversation of a row.

    Raises:
        RowError: with the reason and the field.
    """
    row = mapping(row)
    if "conversations" in row:
        return [_chat(row)]
    if "affordance" in row:
        return [_affordance(row)]
    if "points" in row:
        return [_trajectory(row)]
    raise RowError("bad_row", "", "neither conversations, nor affordance, nor points")


def _chat(row: dict[str, Any]) -> Turns:
    listed = row["conversations"]
    if isinstance(listed, list):
        listed = [
            entry | {"value": _without_marks(entry["value"])}
            if isinstance(entry, dict) and isinstance(entry.get("value"), str)
            else entry
            for entry in listed
        ]
    (turns,) = chat_turns(row | {"conversations": listed})
    family = family_in(str(row.get("task", "")).lower())
    return replace(turns, family=family, origin={**turns.origin, "task": row.get("task")})


def _without_marks(value: str) -> str:
    return _ACTION_MARK.sub(r"\1", _IMAGE_MARK.sub("", value)).strip()


def _affordance(row: dict[str, Any]) -> Turns:
    box = mapping(row["affordance"], "affordance")
    x, y, width, height = numbers([box.get(name) for name in ("x", "y", "width", "height")], 4, "affordance")
    corners = [
        *_thousandths(row, (x, y), "affordance"),
        *_thousandths(row, (x + width, y + height), "affordance"),
    ]
    if width <= 0 or height <= 0:
        raise RowError("bad_box", "affordance", f"{width:g} × {height:g} pixels")
    question = (
        f"The robot should: {text(row, 'instruction').strip()}. Where should it act? "
        f"Answer with a box (left, top, right, bottom) {_SCALE}."
    )
    return question_and_answer(
        question, f"({', '.join(map(str, corners))})", _image(row), family="affordance"
    )


def _trajectory(row: dict[str, Any]) -> Turns:
    points = row["points"]
    if not isinstance(points, list) or not 2 <= len(points) <= 100:
        raise RowError("bad_row", "points", "not a list of 2 to 100 points")
    places = [
        _thousandths(row, numbers(point, 2, f"points[{number}]"), f"points[{number}]")
        for number, point in enumerate(points)
    ]
    question = (
        f"The robot should: {text(row, 'instruction').strip()}. Along which points does its gripper move? "
        f"Answer with points (x, y) {_SCALE}."
    )
    answer = ", ".join(f"({x}, {y})" for x, y in places)
    return question_and_answer(question, answer, _image(row), family="affordance")


def _thousandths(row: dict[str, Any], point: tuple[float, ...], field: str) -> tuple[int, int]:
    known = mapping(row.get("meta_data"), "meta_data")
    sides = [known.get("original_width"), known.get("original_height")]
    width, height = numbers(sides, 2, "meta_data")
    if min(width, height) <= 0:
        raise RowError("bad_row", "meta_data", f"an image of {width:g} × {height:g} pixels")
    x, y = round(POINT_SCALE * point[0] / width), round(POINT_SCALE * point[1] / height)
    if not (0 <= x <= POINT_SCALE and 0 <= y <= POINT_SCALE):
        raise RowError("bad_box", field, f"({point[0]:g}, {point[1]:g}) lies outside of the image")
    return x, y


def _image(row: dict[str, Any]) -> list[Reference]:
    field = next((name for name in ("image", "images", "image_path") if row.get(name)), "id")
    value = row.get(field)
    found = references(str(value) if isinstance(value, int) else value, field)
    if len(found) != 1:
        raise RowError("media_mismatch", field, f"{len(found)} images, not one")
    return found
