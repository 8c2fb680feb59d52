"""A guard around LeRobot's Feetech bus: no stale answers, retries that are counted, and faults that are seen.

The stock bus has four weaknesses on a line that is not perfect. An answer that comes late stays in the input buffer,
and every later read is one answer old. Handshake, calibration and configuration are not retried, so that one lost
packet in a hundred fails `connect`. The status byte of a sync read (overload, overheating) is thrown away, while the
same bit in the answer to a write raises halfway through switching torque off. And torque comes on with whatever goal
the servo had before, towards which it then leaps.

`ServoLine` mends these on the one bus object it is given, without a subclass: LeRobot's devices stay as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

_QUIET_S = 0.003
_LONGEST_DRAIN_S = 0.03
_ERROR_BYTE = 4
_BROADCAST_ID, _READ = 0xFE, 2
_ID_BYTE, _INSTRUCTION_BYTE, _LENGTH_ASKED_BYTE = 2, 4, 6
_EMPTY_ANSWER = 6
"""Bytes of an answer without data."""

VOLTAGE, ANGLE, OVERHEAT, OVERCURRENT, OVERLOAD = 1, 2, 4, 8, 32
"""Bits of a servo's status byte."""

STATUS_WORDS = {
    VOLTAGE: "supply voltage out of range",
    ANGLE: "position sensor fault",
    OVERHEAT: "overheated",
    OVERCURRENT: "over-current",
    OVERLOAD: "overloaded",
}


@dataclass
class LineCounts:
    """What went wrong on the line so far. `stale_bytes`: left from answers that came too late, and thrown away."""

    timeouts: int = 0
    corrupted: int = 0
    stale_bytes: int = 0

    @property
    def retries(self) -> int:
        return self.timeouts + self.corrupted


class ServoLine:
    """The guard of one `FeetechMotorsBus`.

    Attributes:
        counts: failures that were met, most of them mended by a retry.
        status: servo name → status bits of its last answer.
    """

    def __init__(self, bus: Any, retries: int = 2) -> None:
        """Guard `bus`, which need not be connected yet; every exchange is tried 1 + `retries` times."""
        import scservo_sdk

        self.bus = bus
        self.counts = LineCounts()
        self.status: dict[str, int] = dict.fromkeys(bus.motors, 0)
        self._retries = retries
        self._names = {motor.id: name for name, motor in bus.motors.items()}
        self._success = scservo_sdk.COMM_SUCCESS
        self._corrupt = scservo_sdk.COMM_RX_CORRUPT
        self._guard_input()
        self._guard_exchanges()
        self._guard_sync_reads()
        self._guard_torque()

    @property
    def port(self) -> str:
        return str(self.bus.port)

    def silent(self) -> list[str]:
        """Names of the servos that do not answer a ping."""
        return [name for name, motor in self.bus.motors.items() if self.bus.ping(motor.id) is None]

    def temperatures_c(self) -> dict[str, int]:
        """Degrees Celsius by servo name."""
        return {name: int(value) for name, value in self.bus.sync_read("Present_Temperature").items()}

    def holds_itself(self) -> bool:
        """Whether torque is on anywhere; asked before a driver connects, over a connection of its own."""
        self.bus.connect(handshake=False)
        try:
            torque = self.bus.sync_read("Torque_Enable", normalize=False)
        finally:
            self.bus.disconnect(disable_torque=False)
        return any(torque.values())

    def keep_torque_while_configuring(self) -> None:
        """Let `configure` write without dropping an arm that holds itself up."""
        self.bus.torque_disabled = nullcontext

    def _guard_input(self) -> None:
        """Before every instruction, throw away what is left of earlier answers (the stock call flushes output only)."""
        handler = self.bus.port_handler
        flush: Callable[[], None] = handler.clearPort

        def clear_port() -> None:
            try:
                flush()
            except OSError:
                raise
            except Exception as error:  # termios.error of an unplugged port is no OSError
                raise OSError(f"port {self.port} is gone: {error}") from error
            self.counts.stale_bytes += self._discard()

        handler.clearPort = clear_port

    def _guard_exchanges(self) -> None:
        """Retry ping, read and write; note the error bits and hide them from callers who would raise."""
        handler = self.bus.packet_handler
        exchange: Callable[..., tuple[Any, int, int]] = handler.txRxPacket

        def checked(port: Any, packet: list[int]) -> tuple[Any, int, int]:
            """A late answer to a ping looks like one to a read, but carries no data."""
            answer, result, error = exchange(port, packet)
            if result == self._success and answer and packet[_INSTRUCTION_BYTE] == _READ:
                whole = len(answer) == _EMPTY_ANSWER + packet[_LENGTH_ASKED_BYTE]
                result = result if whole else self._corrupt
            return answer, result, error

        def retried(port: Any, packet: list[int]) -> tuple[Any, int, int]:
            answer, result, error = checked(port, packet)
            for _ in range(self._retries if packet[_ID_BYTE] != _BROADCAST_ID else 0):
                if result == self._success:
                    break
                self._failed(result)
                answer, result, error = checked(port, packet)
                self.counts.stale_bytes += self._drain()
            if result == self._success and answer:
                self._note(packet[_ID_BYTE], error)
                answer[_ERROR_BYTE] = 0
            return answer, result, 0

        handler.txRxPacket = retried

    def _guard_sync_reads(self) -> None:
        """Retry sync reads. A success after a failure may be the late answer to an earlier question: ask again."""
        reader, handler = self.bus.sync_reader, self.bus.packet_handler
        exchange: Callable[[], int] = reader.txRxPacket
        receive: Callable[..., tuple[Any, int, int]] = handler.readRx

        def noted(port: Any, number: int, length: int) -> tuple[Any, int, int]:
            data, result, error = receive(port, number, length)
            if result == self._success:
                self._note(number, error)
                result = result if len(data) == length else self._corrupt
            return data, result, error

        def retried() -> int:
            result = exchange()
            for _ in range(self._retries):
                if result == self._success:
                    break
                self._failed(result)
                result = exchange()
                if result == self._success and (late := self._drain()):
                    self.counts.stale_bytes += late
                    result = exchange()
            return result

        handler.readRx, reader.txRxPacket = noted, retried

    def _guard_torque(self) -> None:
        """Before torque comes on, the goal becomes where the servo stands."""
        enable: Callable[..., None] = self.bus.enable_torque

        def enable_where_it_stands(motors: Any = None, num_retry: int = 0) -> None:
            names = self.bus._get_motors_list(motors)
            standing = self.bus.sync_read("Present_Position", names, normalize=False)
            for name, ticks in standing.items():
                self.bus.write("Goal_Position", name, ticks, normalize=False)
            enable(motors, num_retry)

        self.bus.enable_torque = enable_where_it_stands

    def _failed(self, result: int) -> None:
        if result == self._corrupt:
            self.counts.corrupted += 1
        else:
            self.counts.timeouts += 1
        self.counts.stale_bytes += self._drain()

    def _note(self, number: int, error: int) -> None:
        if number in self._names:
            self.status[self._names[number]] = error

    def _discard(self) -> int:
        serial = self.bus.port_handler.ser
        waiting = serial.in_waiting
        if waiting:
            serial.reset_input_buffer()
        return waiting

    def _drain(self) -> int:
        """Throw away what arrives until the line is quiet; returns how many bytes that were."""
        thrown = 0
        ends = time.monotonic() + _LONGEST_DRAIN_S
        while time.monotonic() < ends:
            time.sleep(_QUIET_S)
            if not (more := self._discard()):
                break
            thrown += more
        return thrown


def describe_status(bits: int) -> str:
    """The status byte in words, '' where nothing is wrong."""
    return ", ".join(words for bit, words in STATUS_WORDS.items() if bits & bit)
