"""Keeping a control rate on the wall clock, by an absolute schedule."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

_LATE_SHARE = 0.5
"""Of a period: a tick that begins later than that counts as late."""


class Pacer:
    """Ticks at `start + k × period`: a tick that comes late does not shift those after it.

    After a stall the ticks that were missed are skipped, never made up for in a burst. `late` counts ticks that began
    late by more than half a period.
    """

    def __init__(
        self,
        rate_hz: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.period_s = 1.0 / rate_hz
        self.late = 0
        self._clock = clock
        self._sleep = sleep
        self._start = 0.0
        self._tick = 0

    def start(self) -> float:
        """Begin a schedule now; returns the time of its tick 0."""
        self._start, self._tick, self.late = self._clock(), 0, 0
        return self._start

    def resume(self) -> None:
        """Begin the schedule anew after a pause that was wanted; `late` goes on counting."""
        self._start, self._tick = self._clock(), 0

    def wait(self) -> float:
        """Wait for the next tick of the schedule; returns the time it really began, clock seconds."""
        self._tick += 1
        due = self._start + self._tick * self.period_s
        left = due - self._clock()
        if left > 0:
            self._sleep(left)
        now = self._clock()
        behind = now - due
        if behind > _LATE_SHARE * self.period_s:
            self.late += 1
            self._tick += int(behind / self.period_s + 1e-6)
        return now


def spare_garbage_collection() -> None:
    """Collect garbage now, and never again look through what lives now.

    With the libraries of a robot loaded, looking through all objects takes a tenth of a second with everything else at
    a halt: three control periods. What is made later is still collected, in well under a millisecond.
    """
    gc.collect()
    gc.freeze()
