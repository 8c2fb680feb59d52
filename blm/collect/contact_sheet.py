"""Contact sheets of recorded datasets: a robot's first success at each task, at its start, middle and end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from blm.collect import dataset_files as files
from blm.collect.attempts_table import Attempt, read_attempts
from blm.collect.video import read_frames
from blm.schemas.embodiment import Embodiment
from blm.schemas.episode import ATTEMPTS_FILE, RECORDING_FILE, image_key
from blm.schemas.yaml_model import validate

MOMENTS = ("start", "middle", "end")

_CELL, _GAP, _CAMERA_GAP, _LABEL, _HEAD = 192, 4, 14, 132, 58
_INK, _FAINT, _PAPER = (35, 38, 45), (112, 116, 124), (250, 249, 246)
_GREEN = (34, 130, 70)


def robot_sheet(dataset: Path, tasks: Sequence[str]) -> bytes | None:
    """A PNG with a row per task and, for each camera, a column per moment; None if nothing succeeded yet."""
    recording = json.loads((dataset / RECORDING_FILE).read_text(encoding="utf-8"))
    robot = validate(Embodiment, recording["embodiment"], str(dataset / RECORDING_FILE))
    table = dataset / ATTEMPTS_FILE
    firsts = _first_successes(read_attempts(table) if table.is_file() else [])
    rows = [(task, firsts[task]) for task in tasks if task in firsts]
    if not rows:
        return None
    sheet = _Sheet(robot, len(rows))
    for place, (task, attempt) in enumerate(rows):
        sheet.label(place, task, attempt, robot.control_rate_hz)
        moments = (0, attempt.steps // 2, attempt.steps - 1)
        for number, camera in enumerate(robot.cameras):
            video = files.video_file(dataset, image_key(camera.name), attempt.episode_index)
            for moment, frame in enumerate(read_frames(video, moments)):
                sheet.picture(place, number, moment, frame)
    return sheet.png()


def _first_successes(attempts: Sequence[Attempt]) -> dict[str, Attempt]:
    firsts: dict[str, Attempt] = {}
    for attempt in attempts:
        if attempt.success and attempt.kept:
            firsts.setdefault(attempt.task, attempt)
    return firsts


class _Sheet:
    """The picture being composed."""

    def __init__(self, robot: Embodiment, rows: int) -> None:
        width = _LABEL + len(robot.cameras) * (self._camera_width() + _CAMERA_GAP) - _CAMERA_GAP + _GAP
        self._image = Image.new("RGB", (width, _HEAD + rows * (_CELL + _GAP)), _PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._draw.text((12, 9), robot.title, fill=_INK, font=ImageFont.load_default(20))
        for camera, named in enumerate(robot.cameras):
            for moment, word in enumerate(MOMENTS):
                left = self._left(camera, moment)
                self._draw.text(
                    (left + 2, _HEAD - 20),
                    f"{named.name}, {word}",
                    fill=_FAINT,
                    font=ImageFont.load_default(13),
                )

    def label(self, row: int, task: str, attempt: Attempt, rate_hz: float) -> None:
        top = _HEAD + row * (_CELL + _GAP)
        middle = top + _CELL // 2
        self._draw.rectangle((0, top, 4, top + _CELL - 1), fill=_GREEN)
        self._draw.text((12, middle - 24), task, fill=_INK, font=ImageFont.load_default(15))
        facts = f"seed {attempt.seed}\n{attempt.steps / rate_hz:.1f} s"
        self._draw.text((12, middle - 2), facts, fill=_FAINT, font=ImageFont.load_default(13))

    def picture(self, row: int, camera: int, moment: int, frame: np.ndarray) -> None:
        """Paste a (height, width, 3) image, scaled to fit its cell."""
        picture = Image.fromarray(frame)
        scale = _CELL / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        where = (self._left(camera, moment), _HEAD + row * (_CELL + _GAP) + (_CELL - size[1]) // 2)
        self._image.paste(picture.resize(size, Image.Resampling.LANCZOS), where)

    def png(self) -> bytes:
        buffer = BytesIO()
        self._image.save(buffer, format="PNG")
        return buffer.getvalue()

    def _left(self, camera: int, moment: int) -> int:
        return _LABEL + camera * (self._camera_width() + _CAMERA_GAP) + moment * (_CELL + _GAP)

    @staticmethod
    def _camera_width() -> int:
        return len(MOMENTS) * (_CELL + _GAP) - _GAP
