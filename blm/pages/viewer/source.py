"""What the viewer can show: numbered episodes that have curves, and cameras as video or as single pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from blm.pages.viewer.signals import EpisodeSignals
from blm.schemas.errors import DatasetError

PICTURE_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
"""Kinds of single pictures by file ending; all others are refused, for some can carry scripts."""


@dataclass(frozen=True)
class VideoStream:
    """A camera's stretch of a video file.

    `locate` gives the file when it is needed (it may have to be fetched first, and raises DatasetError if it is not
    there); the episode plays in it from `begin` to `end`, seconds, and `shared` says whether others do too.
    """

    camera: str
    begin: float
    end: float
    shared: bool
    locate: Callable[[], Path]


@dataclass(frozen=True)
class PictureStream:
    """A camera's single pictures, one per frame.

    `picture` gives the encoded bytes of a frame and raises DatasetError; `ending` is one of `PICTURE_TYPES`.
    """

    camera: str
    frames: int
    ending: str
    picture: Callable[[int], bytes]


@dataclass(frozen=True)
class BrokenStream:
    """A camera that cannot be shown, and why."""

    camera: str
    problem: str


Stream = VideoStream | PictureStream | BrokenStream


class ViewSource(Protocol):
    """A recorded dataset, or a build made of some."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def numbers(self) -> Sequence[int]:
        """The episodes, in the order of the list."""
        ...

    def check(self, episode: int) -> None:
        """Raises UsageError, naming the episodes there are, if there is no such one."""
        ...

    def overview(self) -> dict[str, Any]:
        """What the heading and the list of episodes are made of: `name`, `about`, and `episodes`, a list per column."""
        ...

    def content(self, episode: int) -> dict[str, Any]:
        """An episode's curves, bands, marks and facts, JSON-ready; raises UsageError or DatasetError."""
        ...

    def signals(self, episode: int) -> EpisodeSignals:
        """An episode's numbers in full; raises UsageError or DatasetError."""
        ...

    def streams(self, episode: int) -> Sequence[Stream]:
        """An episode's cameras; nothing of theirs is read yet. Raises UsageError."""
        ...


def picture_ending(content: bytes, where: str) -> str:
    """Which of `PICTURE_TYPES` the bytes are, by what they begin with.

    Raises:
        DatasetError: none of them; the message names `where`.
    """
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    raise DatasetError(
        f"{where} is not a picture that browsers show (JPEG, PNG or WebP).", "Convert it, or record video."
    )
