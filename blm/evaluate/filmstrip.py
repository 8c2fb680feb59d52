"""Pictures of rollouts: a contact sheet of many, and a moving GIF of a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from blm.schemas.rollout import FIRST_EVALUATION_SEED, EpisodeEnd, EpisodeStart, Step

_INK, _PAPER = (35, 38, 45), (250, 249, 246)
_GOOD, _BAD = (34, 130, 70), (180, 50, 45)


@dataclass(frozen=True)
class Film:
    """The frames of one rollout's camera, (T, height, width, 3) uint8, and how it ended."""

    title: str
    success: bool
    frames: np.ndarray


class FilmCamera:
    """Subscriber that keeps every `stride`-th frame of one camera of the current rollout."""

    def __init__(self, camera: str, stride: int = 2) -> None:
        self._camera, self._stride = camera, stride
        self._frames: list[np.ndarray] = []
        self._title = ""
        self.films: list[Film] = []

    def on_start(self, start: EpisodeStart) -> None:
        self._frames, self._title = [], f"scene {start.seed % FIRST_EVALUATION_SEED}"

    def on_step(self, step: Step) -> None:
        image = step.observation.images.get(self._camera)
        if image is not None and step.index % self._stride == 0:
            self._frames.append(np.array(image))

    def on_end(self, end: EpisodeEnd) -> None:
        if self._frames:
            self.films.append(Film(self._title, end.success, np.stack(self._frames)))


def contact_sheet(films: Sequence[Film], path: Path, moments: int = 6, max_rows: int = 12) -> Path:
    """Draw one row per film with `moments` frames from start to end, labelled and edged by outcome, as a PNG."""
    chosen = films[:max_rows]
    height, width = chosen[0].frames.shape[1:3]
    label, gap = 84, 3
    sheet = Image.new("RGB", (label + moments * (width + gap), len(chosen) * (height + gap)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, film in enumerate(chosen):
        top = row * (height + gap)
        colour = _GOOD if film.success else _BAD
        draw.rectangle((0, top, 4, top + height - 1), fill=colour)
        draw.text((10, top + height // 2 - 16), film.title, fill=_INK, font=ImageFont.load_default(13))
        verdict = "success" if film.success else "failure"
        draw.text((10, top + height // 2 + 2), verdict, fill=colour, font=ImageFont.load_default(13))
        for column, index in enumerate(np.linspace(0, len(film.frames) - 1, moments).round().astype(int)):
            sheet.paste(Image.fromarray(film.frames[index]), (label + column * (width + gap), top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def moving_picture(
    films: Sequence[Film], path: Path, columns: int = 4, rows: int = 2, rate_hz: float = 10.0
) -> Path:
    """Play up to columns × rows films side by side as a looping GIF; a film that is over holds its last frame."""
    chosen = films[: columns * rows]
    columns = min(columns, len(chosen))
    height, width = chosen[0].frames.shape[1:3]
    edge = 3
    cell_height, cell_width = height + 2 * edge, width + 2 * edge
    lines = -(-len(chosen) // columns)
    pictures = []
    for tick in range(max(len(film.frames) for film in chosen)):
        canvas = np.full((lines * cell_height, columns * cell_width, 3), _PAPER, dtype=np.uint8)
        for index, film in enumerate(chosen):
            over = tick >= len(film.frames) - 1
            top, left = (index // columns) * cell_height, (index % columns) * cell_width
            if over:
                canvas[top : top + cell_height, left : left + cell_width] = _GOOD if film.success else _BAD
            frame = film.frames[min(tick, len(film.frames) - 1)]
            canvas[top + edge : top + edge + height, left + edge : left + edge + width] = frame
        pictures.append(Image.fromarray(canvas).quantize(128))
    path.parent.mkdir(parents=True, exist_ok=True)
    duration_ms = int(1000 / rate_hz)
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:] + [pictures[-1]] * 8, duration=duration_ms, loop=0
    )
    return path
