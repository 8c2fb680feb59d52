"""What the pictures of an episode are worth: too dark, standing still while the arm moves, without edges.

Frames are looked at while they are decoded for packing, on every few lines of the video's own luma plane. That takes
0.1 ms of CPU per frame of 640 × 480, 2.5 to 4 % of what packing it takes, and 12 % where frames have 128 × 128 only.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from av.video.frame import VideoFrame

from blm.curate.episodes.reasons import Reason, Rule
from blm.curate.episodes.video import VideoError

DARK_LUMA = 26
"""Mean luma of a dark picture; video black is 16."""

STILL_LUMA = 12.0
"""Where no run of 8 points along a line differs by more than this from an earlier frame on average, the difference is
the encoder's. Of pictures that stand still, encoded at CRF 18 to 36, single points differ by up to 38, but runs by 8.6
at most in the median frame; of cameras that see an arm move, runs differ by 78 at least."""

STILL_LUMA_WITHOUT_EDGES = 3.0
"""The same for blurred pictures: encoders err about details, and what moves out of focus changes a picture little."""

BLURRED_SHARPNESS = 1.0
"""Variance of the second difference along lines, luma squared: hundreds for a sharp scene, tens for a plain table, 0.3
after a blur of 7 pixels."""

FROZEN_S = 0.5

MOVING_RANGES_S = 0.1
"""An arm axis at this speed, axis ranges per second, moves the picture."""

_LINES = 48
_RUN = 8
_PLANAR = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "nv12")


@dataclass(frozen=True)
class PictureFinding:
    """A reason, the measured value in its rule's unit, and the camera or what a decoder said."""

    reason: Reason
    value: float
    note: str


@dataclass
class PictureWatch:
    """Looks at the frames of one camera, in order.

    `moving` (T,): whether the arm moved on the way to each frame. A picture stands still where it is the same as
    `FROZEN_S` before though the arm moved for most of that time; a camera slower than the recording is no fault.
    """

    moving: np.ndarray
    rate_hz: float
    seen: int = 0
    dark: int = 0
    blurred: int = 0
    compared: int = 0
    still: int = 0
    _before: deque[np.ndarray] = field(default_factory=deque, repr=False)

    def see(self, frame: VideoFrame) -> None:
        """Take the next frame into account."""
        lines = _luma_lines(frame)
        runs = _run_means(lines)
        self.dark += bool(runs.mean() < DARK_LUMA)
        blurred = bool(_sharpness(lines) < BLURRED_SHARPNESS)
        self.blurred += blurred
        self._before.append(runs)
        window = max(1, round(FROZEN_S * self.rate_hz))
        if len(self._before) > window:
            before = self._before.popleft()
            if self.moving[self.seen - window + 1 : self.seen + 1].mean() > 0.5:
                self.compared += 1
                limit = STILL_LUMA_WITHOUT_EDGES if blurred else STILL_LUMA
                self.still += bool(np.abs(runs - before).max() <= limit)
        self.seen += 1

    def findings(self, camera: str, rules: Mapping[Reason, Rule]) -> list[PictureFinding]:
        """What breaks a rule that is not off; a picture without edges because it is dark is dark only."""
        shares: dict[Reason, float] = {
            "black_frames": self.dark / max(1, self.seen),
            "frozen_frames": self.still / max(1, self.compared),
            "blurred_frames": max(0, self.blurred - self.dark) / max(1, self.seen),
        }
        broken: list[Reason] = [one for one, share in shares.items() if share > rules[one].threshold]
        if "black_frames" in broken and "frozen_frames" in broken:
            broken.remove("frozen_frames")
        return [
            PictureFinding(one, round(shares[one], 6), camera)
            for one in broken
            if rules[one].severity != "off"
        ]


class PicturesError(VideoError):
    """Pictures break a rule of severity `drop`; the message is a `picture_note`."""

    def __init__(self, findings: Sequence[PictureFinding]) -> None:
        super().__init__(picture_note(findings))
        self.findings = tuple(findings)


def moving_frames(state: np.ndarray, spans: np.ndarray, rate_hz: float) -> np.ndarray:
    """(T,) bool: whether an axis moved between the frame before and this one.

    Args:
        state: (T, A) axis values of the frames that are looked at.
        spans: (A,) range of each axis, axis units.
        rate_hz: of these frames.
    """
    if not len(state):
        return np.zeros(0, bool)
    speed = np.abs(np.diff(state, axis=0)) / spans * rate_hz
    return np.concatenate([[False], speed.max(axis=1) > MOVING_RANGES_S])


def picture_note(findings: Sequence[PictureFinding]) -> str:
    """Findings as one text, which travels with an episode that is left out."""
    return json.dumps([[one.reason, one.value, one.note] for one in findings])


def read_picture_note(note: str) -> list[PictureFinding]:
    """The findings in a text of `picture_note`; none where it is something else."""
    try:
        return [PictureFinding(reason, value, camera) for reason, value, camera in json.loads(note)]
    except ValueError:
        return []


def _luma_lines(frame: VideoFrame) -> np.ndarray:
    """(L, width) int16: evenly spread whole lines of the luma plane."""
    if frame.format.name in _PLANAR:
        plane = frame.planes[0]
        whole = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
    else:
        whole = frame.to_ndarray(format="gray")
    return whole[:: max(1, len(whole) // _LINES)].astype(np.int16)


def _run_means(lines: np.ndarray) -> np.ndarray:
    """(L, W // 8) float64: means over runs of 8 points along lines; over a whole line where it is shorter."""
    whole = lines.shape[1] // _RUN * _RUN
    if not whole:
        return lines.mean(axis=1, keepdims=True)
    pairs = (
        lines[:, 0:whole:2] + lines[:, 1:whole:2]
    )  # a seventh of the time that a mean over an axis of 8 takes
    fours = pairs[:, ::2] + pairs[:, 1::2]
    return (fours[:, ::2] + fours[:, 1::2]) / _RUN


def _sharpness(lines: np.ndarray) -> float:
    """Variance of the second difference along lines; infinite where they are too short to have one."""
    slope = lines[:, 1:] - lines[:, :-1]
    bend = slope[:, 1:] - slope[:, :-1]
    if not bend.size:
        return math.inf
    return float(np.square(bend, dtype=np.int32).sum()) / bend.size
