"""What a watch says of pictures that went through a real encoder: standing still, moving a little, dark, blurred."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from PIL import Image, ImageFilter

from blm.curate.episodes.pictures import PictureWatch
from blm.curate.episodes.reasons import RULES

FRAMES, RATE_HZ = 30, 20.0


def scene(side: int = 128) -> np.ndarray:
    """(side, side, 3) a table with grain and hard edges, as cameras see it."""
    dice = np.random.default_rng(3)
    picture = np.clip(150 + dice.normal(0, 6, (side, side, 3)), 0, 255)
    for _ in range(12):
        row, column = dice.integers(0, side - 20, 2)
        picture[row : row + 14, column : column + 14] = dice.integers(20, 240, 3)
    return picture.astype(np.uint8)


def encoded(pictures: list[np.ndarray], crf: int, group: int, preset: str) -> list[VideoFrame]:
    buffer = io.BytesIO()
    options = {"crf": str(crf), "g": str(group), "preset": preset, "bf": "0"}
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=20, options=options)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        for index, picture in enumerate(pictures):
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    buffer.seek(0)
    frames: list[VideoFrame] = []
    with av.open(buffer, "r") as reading:
        frames += reading.decode(video=0)
    return frames


def told(frames: list[VideoFrame], moving: bool = True) -> list[str]:
    watch = PictureWatch(np.full(FRAMES, moving), RATE_HZ)
    for frame in frames:
        watch.see(frame)
    return [one.reason for one in watch.findings("top", RULES)]


def with_arm(picture: np.ndarray, place: int, contrast: int) -> np.ndarray:
    """The scene with something 12 points wide and high at a place along a line."""
    changed = picture.astype(int)
    changed[60:72, place : place + 12] += contrast
    return np.clip(changed, 0, 255).astype(np.uint8)


ENCODERS = pytest.mark.parametrize(
    ("crf", "group", "preset"),
    [(18, 2, "medium"), (23, 10, "veryfast"), (23, 2, "ultrafast"), (30, 10, "medium"), (34, 30, "veryfast")],
)


@ENCODERS
def test_a_picture_that_stands_still_is_told_whatever_the_encoder_makes_of_it(crf, group, preset):
    frames = encoded([scene()] * FRAMES, crf, group, preset)
    assert told(frames) == ["frozen_frames"]
    assert told(frames, moving=False) == []


@ENCODERS
@pytest.mark.parametrize("contrast", [-40, 60])
def test_something_small_that_moves_is_enough(crf, group, preset, contrast):
    pictures = [with_arm(scene(), 10 + 3 * number, contrast) for number in range(FRAMES)]
    assert told(encoded(pictures, crf, group, preset)) == []


@pytest.mark.parametrize("side", [2, 6, 16])
def test_tiny_pictures_are_looked_at_too(side):
    still = [np.full((side, side, 3), 128, np.uint8)] * FRAMES
    assert "frozen_frames" in told(encoded(still, 23, 10, "veryfast"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda picture: picture // 20, ["black_frames"]),
        (lambda picture: np.full_like(picture, picture.mean()), ["frozen_frames", "blurred_frames"]),
    ],
    ids=["dark", "without edges"],
)
def test_a_dark_picture_is_dark_only(change: Callable[[np.ndarray], np.ndarray], expected: list[str]):
    frames = encoded([change(scene())] * FRAMES, 23, 10, "veryfast")
    assert told(frames) == expected


def test_what_moves_out_of_focus_is_blurred_and_not_standing_still():
    pictures = [with_arm(np.full((128, 128, 3), 140, np.uint8), 10 + 3 * n, 60) for n in range(FRAMES)]
    blurred = [
        np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(9))) for picture in pictures
    ]
    assert told(encoded(blurred, 23, 10, "veryfast")) == ["blurred_frames"]
