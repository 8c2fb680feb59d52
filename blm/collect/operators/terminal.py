"""The terminal as a console and as a source of controls: one line that says where things stand, single keys."""

from __future__ import annotations

import os
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from blm.collect.controls import Control, KeyMap, Phase
from blm.collect.live_session import SessionStatus
from blm.schemas.rollout import EpisodeStart, Observation

_POLL_S = 0.1
_ESCAPE_S = 0.05
"""What follows an escape within this time belongs to it: an arrow key sends three characters."""

_SEQUENCES = {
    b"\x1b[C": "right",
    b"\x1b[D": "left",
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOC": "right",
    b"\x1bOD": "left",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b": "escape",
    b" ": "space",
    b"\r": "enter",
    b"\n": "enter",
    b"\t": "tab",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x1bOP": "f1",
    b"\x1bOQ": "f2",
    b"\x1bOR": "f3",
    b"\x1bOS": "f4",
    b"\x1b[15~": "f5",
    b"\x1b[17~": "f6",
    b"\x1b[18~": "f7",
    b"\x1b[19~": "f8",
    b"\x1b[20~": "f9",
    b"\x1b[21~": "f10",
    b"\x1b[23~": "f11",
    b"\x1b[24~": "f12",
    b"\x1b[25~": "f13",
    b"\x1b[26~": "f14",
    b"\x1b[28~": "f15",
    b"\x1b[29~": "f16",
    b"\x1b[31~": "f17",
    b"\x1b[32~": "f18",
    b"\x1b[33~": "f19",
    b"\x1b[34~": "f20",
    b"\x1b[1;2P": "f13",
    b"\x1b[1;2Q": "f14",
    b"\x1b[1;2R": "f15",
    b"\x1b[1;2S": "f16",
    b"\x1b[2~": "insert",
    b"\x1b[3~": "delete",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1bOH": "home",
    b"\x1bOF": "end",
}
_SEQUENCE = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO[@-~]")
"""Whatever a terminal sends for one key; those that are not known above must not be taken for an escape."""


def key_names(received: bytes) -> Iterator[str]:
    """The names of the keys in what a terminal sent; what no key is known for is left out."""
    rest = received
    while rest:
        sequence = _SEQUENCE.match(rest)
        if sequence is not None and sequence[0] not in _SEQUENCES:
            rest = rest[sequence.end() :]
            continue
        found = max((code for code in _SEQUENCES if rest.startswith(code)), key=len, default=b"")
        if found:
            yield _SEQUENCES[found]
            rest = rest[len(found) :]
            continue
        if rest[0] < 128 and chr(rest[0]).isprintable():
            yield chr(rest[0]).lower()
        rest = rest[1:]


class TerminalKeys:
    """Reads single keys from a terminal in a thread of its own and presses what they mean."""

    def __init__(self, keys: KeyMap, press: Callable[[Control], None], descriptor: int | None = None) -> None:
        """`descriptor` is of a terminal (by default standard input); one that is no terminal is left alone."""
        self._keys = keys
        self._press = press
        self._descriptor = _standard_input() if descriptor is None else descriptor
        self._ended = threading.Event()

    @contextmanager
    def listening(self) -> Iterator[bool]:
        """Listen meanwhile; yields whether there is a terminal to listen to. Its settings come back afterwards."""
        if self._descriptor is None or not os.isatty(self._descriptor):
            yield False
            return
        import termios
        import tty

        before = termios.tcgetattr(self._descriptor)
        thread = threading.Thread(
            target=self._listen, args=(self._descriptor,), name="terminal keys", daemon=True
        )
        try:
            tty.setcbreak(self._descriptor)
            thread.start()
            yield True
        finally:
            self._ended.set()
            thread.join(timeout=1.0)
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)

    def _listen(self, descriptor: int) -> None:
        while not self._ended.is_set():
            if not _readable(descriptor, _POLL_S):
                continue
            received = os.read(descriptor, 64)
            if not received:
                return
            while received.endswith(b"\x1b") and _readable(descriptor, _ESCAPE_S):
                received += os.read(descriptor, 64)
            for name in key_names(received):
                control = self._keys.keys.get(name)
                if control is not None:
                    self._press(control)


def confirmed(question: str) -> bool:
    """Ask a person at the terminal; false where there is none, or where they say anything but yes."""
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _standard_input() -> int | None:
    """None where there is none, as in a test or a service."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def _readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


class TerminalConsole:
    """One line about the session, rewritten in place on a terminal; only changes elsewhere."""

    def __init__(self, keys: KeyMap, stream: IO[str] | None = None) -> None:
        self._keys = keys
        self._stream: Any = stream or sys.stderr
        self._in_place = self._stream.isatty()
        self._last = ""
        self._last_phase: Phase | None = None

    def ready(self, start: EpisodeStart, observation: Observation) -> None: ...

    def show(self, status: SessionStatus) -> None:
        if not self._in_place and status.phase == self._last_phase:
            return
        self._last_phase = status.phase
        line = self._line(status)
        if line == self._last:
            return
        self._last = line
        self._stream.write(f"\r\x1b[K{line}" if self._in_place else f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        if self._in_place:
            self._stream.write("\n")

    def _line(self, status: SessionStatus) -> str:
        parts = [f"{status.kept}/{status.wanted}", status.phase.value, f"'{status.instruction}'"]
        if status.phase in (Phase.RECORDING, Phase.PAUSED, Phase.REVIEW):
            late = f", {status.late_ticks} late" if status.late_ticks else ""
            parts.append(f"{status.elapsed_s:.0f} s{late}")
        if status.intervening:
            parts.append("your hand")
        parts.append(status.note or self._hint(status.phase))
        return "  ".join(filter(None, parts))

    def _hint(self, phase: Phase) -> str:
        shown = {
            Phase.RECORDING: ((Control.ADVANCE, "ends"), (Control.RERECORD, "again")),
            Phase.PAUSED: ((Control.PAUSE, "goes on"),),
        }
        return ", ".join(f"{self._keys.of(control)} {word}" for control, word in shown.get(phase, ()))
