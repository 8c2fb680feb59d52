"""An emulated SO-100: six Feetech STS3215 servos (protocol 0) on a pseudo-terminal, with motion and faults.

A real driver opens `EmulatedBus.port` as it would open /dev/ttyACM0. The servos answer ping, read, write, sync read
and sync write; they move towards their goal with a first-order lag and a speed limit while torque is on. Without
torque a hand may move them (`place`, `guide`), which makes a leader. Positions are encoder ticks, 4096 a turn.

    with EmulatedBus() as bus:
        bus.write_calibration(folder / "me.json")
        robot = SO100Follower(SO100FollowerConfig(port=bus.port, id="me", calibration_dir=folder))

Every fault can be switched on and off while a driver talks to the bus.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import threading
import time
import tty
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Self

NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
TURN = 4096
MODEL_STS3215 = 777

VOLTAGE, ANGLE, OVERHEAT, OVERCURRENT, OVERLOAD = 1, 2, 4, 8, 32
"""Bits of the status byte that ends every answer."""

_PING, _READ, _WRITE, _SYNC_READ, _SYNC_WRITE = 1, 2, 3, 0x82, 0x83
_BROADCAST = 0xFE

_MODEL, _ID, _MIN, _MAX, _MAX_TEMPERATURE, _HOMING = 3, 5, 9, 11, 13, 31
_TORQUE, _GOAL, _PRESENT, _VELOCITY, _LOAD = 40, 42, 56, 58, 60
_VOLTAGE, _TEMPERATURE, _STATUS, _MOVING = 62, 63, 65, 66


@dataclass
class Servo:
    """One servo: its register memory and where it stands.

    Attributes:
        actual: position before the homing offset, ticks.
        silent: answers nothing, as with a broken cable.
        status: error bits it reports by itself; a temperature above its limit adds OVERHEAT.
        guide: where a hand holds it at a given time.monotonic(), ticks after the offset; used while torque is off.
    """

    number: int
    name: str
    actual: float
    time_constant_s: float = 0.05
    max_speed: float = 4000.0
    silent: bool = False
    status: int = 0
    blocked: bool = False
    guide: Callable[[float], float] | None = None
    registers: bytearray = field(default_factory=lambda: bytearray(256))
    _updated: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.registers[0:2] = bytes([3, 10])
        self.put(_MODEL, 2, MODEL_STS3215)
        self.registers[_ID] = self.number
        self.registers[_MAX_TEMPERATURE] = 70
        self.registers[_VOLTAGE] = 120
        self.registers[_TEMPERATURE] = 30

    def word(self, address: int) -> int:
        return int.from_bytes(self.registers[address : address + 2], "little")

    def put(self, address: int, length: int, value: int) -> None:
        self.registers[address : address + length] = int(value).to_bytes(length, "little")

    @property
    def torque(self) -> bool:
        return self.registers[_TORQUE] == 1

    @property
    def temperature(self) -> int:
        """Degrees Celsius."""
        return self.registers[_TEMPERATURE]

    @temperature.setter
    def temperature(self, celsius: int) -> None:
        self.registers[_TEMPERATURE] = celsius

    @property
    def homing_offset(self) -> int:
        raw = self.word(_HOMING)
        return -(raw & 0x7FF) if raw & 0x800 else raw & 0x7FF

    @homing_offset.setter
    def homing_offset(self, ticks: int) -> None:
        self.put(_HOMING, 2, abs(ticks) | (0x800 if ticks < 0 else 0))

    @property
    def position(self) -> float:
        """Ticks after the offset, as the register tells it."""
        return self.actual - self.homing_offset

    @position.setter
    def position(self, ticks: float) -> None:
        self.actual = ticks + self.homing_offset

    @property
    def goal(self) -> int:
        return self.word(_GOAL)

    def status_byte(self) -> int:
        hot = OVERHEAT if self.temperature > self.registers[_MAX_TEMPERATURE] else 0
        return self.status | hot

    def advance(self, now: float) -> None:
        """Move on to time `now` and refresh the present-value registers."""
        elapsed, self._updated = now - self._updated, now
        before = self.position
        if self.torque and not self.blocked:
            self.position = self._towards_goal(elapsed)
        elif self.guide is not None:
            self.position = self.guide(now)
        moved = abs(self.position - before)
        speed = int(moved / elapsed) if elapsed > 0 else 0
        self.put(_PRESENT, 2, round(self.position) % (1 << 15))
        self.put(_VELOCITY, 2, min(speed, (1 << 15) - 1))
        self.put(_LOAD, 2, min(int(abs(self.goal - self.position)), 1000) if self.torque else 0)
        self.registers[_MOVING] = int(moved > 0.5)
        self.registers[_STATUS] = self.status_byte()

    def _towards_goal(self, elapsed: float) -> float:
        """A first-order lag whose speed saturates: in a straight line first, then exponentially."""
        low, high = self.word(_MIN), self.word(_MAX)
        goal = min(max(self.goal, low), high) if high > low else self.goal
        error = goal - self.position
        linear = self.max_speed * self.time_constant_s
        if abs(error) > linear:
            straight = min(elapsed, (abs(error) - linear) / self.max_speed)
            error -= math.copysign(straight * self.max_speed, error)
            elapsed -= straight
        return goal - error * math.exp(-elapsed / self.time_constant_s)


class EmulatedBus:
    """Six servos behind a pseudo-terminal; `port` is the device to open.

    Attributes:
        servos: by name.
        reply_delay_s: before every answer.
        loss: share of answers that never arrive; drawn from a seeded generator.
        goals: (time.monotonic(), name → goal ticks) of every sync write of goals, as the driver sent them.
        torque_changes: (time.monotonic(), name, on).
        corrupted, lost, answered: counts of status packets.
    """

    def __init__(self, positions: Mapping[str, float] | None = None, *, seed: int = 0) -> None:
        """`positions`: where the servos stand, ticks after the homing offset; the middle where not given."""
        offsets = (12, -85, 140, -33, 0, 201)
        self.servos: dict[str, Servo] = {}
        for index, name in enumerate(NAMES):
            servo = Servo(index + 1, name, actual=0.0)
            servo.homing_offset = offsets[index]
            low, high = (0, 4095) if name == "wrist_roll" else (747, 3347)
            servo.put(_MIN, 2, low)
            servo.put(_MAX, 2, high)
            servo.position = (positions or {}).get(name, 2047.0)
            servo.put(_GOAL, 2, round(servo.position))
            self.servos[name] = servo
        self.reply_delay_s = 0.0
        self.loss = 0.0
        self.goals: list[tuple[float, dict[str, int]]] = []
        self.torque_changes: list[tuple[float, str, bool]] = []
        self.corrupted = self.lost = self.answered = 0
        self._by_number = {servo.number: servo for servo in self.servos.values()}
        self._random = Random(seed)
        self._corrupt: list[str | None] = []
        self._delays: list[float] = []
        self._lock = threading.RLock()
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._serve, name=f"emulated bus {self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unplug: whoever has the port open gets errors from now on."""
        if not self._thread.is_alive():
            return
        os.write(self._wake_write, b"x")
        self._thread.join()
        for descriptor in (self._master, self._slave, self._wake_read, self._wake_write):
            os.close(descriptor)

    unplug = close

    def corrupt(self, packets: int = 1, servo: str | None = None) -> None:
        """Flip a bit in the next `packets` answers (of `servo`, or of whoever answers)."""
        with self._lock:
            self._corrupt += [servo] * packets

    def delay(self, seconds: float, answers: int = 1) -> None:
        """Let the next `answers` answers come late by `seconds`."""
        with self._lock:
            self._delays += [seconds] * answers

    def silence(self, *names: str) -> None:
        """These servos stop answering and moving."""
        for name in names:
            self.servos[name].silent = True

    def place(self, positions: Mapping[str, float]) -> None:
        """Put servos somewhere at once: ticks after the offset."""
        with self._lock:
            for name, ticks in positions.items():
                self.servos[name].position = ticks

    def guide(self, motions: Mapping[str, Callable[[float], float] | None]) -> None:
        """Let a hand lead servos whose torque is off: time.monotonic() → ticks after the offset."""
        with self._lock:
            for name, motion in motions.items():
                self.servos[name].guide = motion

    def positions(self) -> dict[str, float]:
        """Where the servos stand now, ticks after the offset."""
        with self._lock:
            self._advance(self.servos.values())
            return {name: servo.position for name, servo in self.servos.items()}

    def torque_on(self) -> dict[str, bool]:
        return {name: servo.torque for name, servo in self.servos.items()}

    def calibration(self) -> dict[str, dict[str, int]]:
        """What the servos hold, in the form of LeRobot's calibration files."""
        return {
            name: {
                "id": servo.number,
                "drive_mode": 0,
                "homing_offset": servo.homing_offset,
                "range_min": servo.word(_MIN),
                "range_max": servo.word(_MAX),
            }
            for name, servo in self.servos.items()
        }

    def write_calibration(self, file: Path) -> Path:
        """Write the file that LeRobot reads: `<folder>/<robot id>.json`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.calibration(), indent=4))
        return file

    def ticks(self, values: Mapping[str, float]) -> dict[str, float]:
        """Driver units (degrees from the middle of the range; percent for the gripper) → ticks."""
        found = {}
        for name, value in values.items():
            low, high = self.servos[name].word(_MIN), self.servos[name].word(_MAX)
            if name == "gripper":
                found[name] = low + value / 100 * (high - low)
            else:
                found[name] = (low + high) / 2 + value * (TURN - 1) / 360
        return found

    def _serve(self) -> None:
        buffer = b""
        while True:
            ready, _, _ = select.select([self._master, self._wake_read], [], [])
            if self._wake_read in ready:
                return
            try:
                buffer += os.read(self._master, 4096)
            except OSError:
                return
            buffer = self._consume(buffer)

    def _consume(self, buffer: bytes) -> bytes:
        """Handle every whole instruction packet in `buffer`; return the rest."""
        while True:
            begin = buffer.find(b"\xff\xff")
            if begin < 0:
                return buffer[-1:]
            buffer = buffer[begin:]
            if len(buffer) < 4 or len(buffer) < buffer[3] + 4:
                return buffer
            packet, buffer = buffer[: buffer[3] + 4], buffer[buffer[3] + 4 :]
            if _checksum(packet[2:-1]) == packet[-1]:
                self._handle(packet[2], packet[4], packet[5:-1])

    def _handle(self, number: int, instruction: int, parameters: bytes) -> None:
        with self._lock:
            answers = self._execute(number, instruction, parameters)
            answers = [self._spoilt(servo, answer) for servo, answer in answers if not self._loses()]
            wait = self.reply_delay_s + (self._delays.pop(0) if self._delays and answers else 0.0)
        if not answers:
            return
        if wait > 0:
            time.sleep(wait)
        with contextlib.suppress(OSError):
            os.write(self._master, b"".join(answers))

    def _execute(self, number: int, instruction: int, parameters: bytes) -> list[tuple[Servo, bytes]]:
        if instruction == _SYNC_WRITE:
            self._sync_write(parameters)
            return []
        if instruction == _SYNC_READ:
            address, length, numbers = parameters[0], parameters[1], parameters[2:]
            return [self._answer(s, s.registers[address : address + length]) for s in self._present(numbers)]
        addressed = self._present(self._by_number if number == _BROADCAST else [number])
        if instruction == _READ:
            address, length = parameters
            return [self._answer(servo, servo.registers[address : address + length]) for servo in addressed]
        if instruction == _WRITE:
            for servo in addressed:
                self._write(servo, parameters[0], parameters[1:])
        return [self._answer(servo, b"") for servo in addressed] if instruction in (_PING, _WRITE) else []

    def _present(self, numbers: Iterable[int]) -> list[Servo]:
        """Servos with these numbers that answer, brought up to now."""
        found = [self._by_number[number] for number in numbers if number in self._by_number]
        found = [servo for servo in found if not servo.silent]
        self._advance(found)
        return found

    def _advance(self, servos: Iterable[Servo]) -> None:
        now = time.monotonic()
        for servo in servos:
            if not servo.silent:
                servo.advance(now)

    def _sync_write(self, parameters: bytes) -> None:
        address, length = parameters[:2]
        goals: dict[str, int] = {}
        for start in range(2, len(parameters), length + 1):
            number, data = parameters[start], parameters[start + 1 : start + 1 + length]
            for servo in self._present([number]):
                self._write(servo, address, data)
                goals[servo.name] = servo.goal
        if address == _GOAL and goals:
            self.goals.append((time.monotonic(), goals))

    def _write(self, servo: Servo, address: int, data: bytes) -> None:
        if address <= _TORQUE < address + len(data):
            on = data[_TORQUE - address] == 1
            if on != servo.torque:
                self.torque_changes.append((time.monotonic(), servo.name, on))
        servo.registers[address : address + len(data)] = data
        servo.advance(time.monotonic())

    def _answer(self, servo: Servo, data: bytes | bytearray) -> tuple[Servo, bytes]:
        self.answered += 1
        body = bytes([servo.number, len(data) + 2, servo.status_byte(), *data])
        return servo, b"\xff\xff" + body + bytes([_checksum(body)])

    def _loses(self) -> bool:
        lost = self.loss > 0 and self._random.random() < self.loss
        self.lost += lost
        return lost

    def _spoilt(self, servo: Servo, answer: bytes) -> bytes:
        for index, wanted in enumerate(self._corrupt):
            if wanted in (None, servo.name):
                del self._corrupt[index]
                self.corrupted += 1
                return answer[:-1] + bytes([answer[-1] ^ 0x10])
        return answer


def _checksum(body: bytes) -> int:
    return ~sum(body) & 0xFF
