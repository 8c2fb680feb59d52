"""How long work reports where it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work advances: a progress bar, a log, or nothing.

    `label` names the piece of work ("recording", "encoding shards", "training"), `done` of `total` is in the
    work's own units, and `note` is a short live figure ("92 % success", "loss 0.31").
    """

    def __call__(self, label: str, done: int, total: int, note: str = "") -> None: ...


def silent(label: str, done: int, total: int, note: str = "") -> None:
    """The progress of someone who does not care."""
